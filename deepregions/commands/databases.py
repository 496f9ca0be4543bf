"""``deepregions databases``: which there are, whether one is complete, and what is in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.commands import checks
from deepregions.commands.options import check_stores
from deepregions.commands.sources import DatabaseOptions, Source, existing
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from deepregions.data.databases.checking import Findings


def list_databases(*, json: bool = False) -> None:
    """Lists the databases that `deepregions prepare` takes, with their sources, terms and sizes.

    Args:
        json: Print JSON instead of a table.
    """
    from deepregions.data.databases import ADAPTERS

    if json:
        facts = [
            {"name": name} | asdict(each.facts) | {"optional": sorted(each.facts.optional)}
            for name, each in ADAPTERS.items()
        ]
        checks.print_json({"databases": facts})
        return
    heads = ("--database", "what", "videos as published", "official split", "terms")
    rows = []
    for name, each in ADAPTERS.items():
        sizes = ", ".join(f"{group} {number}" for group, number in each.facts.published.items())
        about = each.facts
        rows.append((name, about.title, sizes or "-", about.splits, about.licence))
    checks.print_table(heads, rows)
    for name, each in ADAPTERS.items():
        where = f" From {each.facts.url}." if each.facts.url else ""
        source = f" Sizes as published in: {each.facts.source}." if each.facts.source else ""
        checks.print_lines(f"{name}: {each.facts.layout}.{where}{source}")


def check_database(database: Source, *, options: DatabaseOptions, json: bool = False) -> int:
    """Checks a database before it is prepared; exits with 1 if anything is wrong.

    Shows what is there and what is missing, labels that disagree with folders, and files that are
    the same.

    Args:
        database: Its name, as `deepregions databases list` shows it.
        options: Which part of it.
        json: Print JSON instead of tables.
    """
    where = existing(database, options.root)

    from deepregions.data.databases.checking import Findings, check

    options.splitting()
    try:
        findings = check(options.open(database))
    except UsageError as error:  # a root that is something else is a finding too
        findings = Findings(database, str(where), partial=True, problems=(str(error),))
    if json:
        checks.print_json(asdict(findings) | {"ok": not findings.problems})
    else:
        _print(findings)
    return 1 if findings.problems else 0


def _print(findings: Findings) -> None:
    if findings.groups:
        groups = [
            (each.group, str(each.found), "-" if each.published is None else str(each.published))
            for each in findings.groups
        ]
        splits = [(each.split, str(each.genuine), str(each.fake)) for each in findings.splits]
        numbers = ("found", "published", "genuine", "fake")
        checks.print_table(("there", "found", "published"), groups, right=numbers)
        heads = (f"split ({findings.scheme})", "genuine", "fake")
        checks.print_table(heads, splits, right=numbers)
    checks.print_lines(
        *(f"left out: {number} {reason}" for reason, number in findings.left_out),
        *(f"note: {note}" for note in findings.notes),
        *(f"problem: {problem}" for problem in findings.problems),
    )
    if not findings.problems:
        checks.print_lines(f"{findings.database}: nothing is wrong")


def describe_store(store: Path, *, out: Path | None = None) -> None:
    """Describes a face store on one HTML page.

    Shows counts, sizes, a contact sheet, and differences between genuine and fake faces that a
    network could mistake for the manipulation.

    Args:
        store: The folder that `deepregions prepare` wrote.
        out: The page to write; by default STORE.html beside the store.
    """
    check_stores(store)

    from deepregions.data.describe import describe, write_page
    from deepregions.data.store import FaceStore

    page = out or store.with_name(f"{store.name}.html")
    faces = FaceStore(store)
    description = describe(faces)
    write_page(faces, description, page)
    for warning in description.warnings:
        checks.warn(warning)
    checks.print_lines(f"page: {page}")
