"""``deepregions databases``: which there are, whether one is complete, and what is in a store."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.commands.sources import DatabaseOptions, Source
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from deepregions.data.databases.checking import Findings

_OPTIONS = DatabaseOptions()
_NUMBERS = {"found", "published", "genuine", "fake"}


def list_databases(*, json: bool = False) -> int:
    """Lists the databases that `deepregions prepare` takes, with their sources, terms and sizes.

    Args:
        json: Print JSON instead of a table.
    """
    from deepregions.commands import checks
    from deepregions.data.databases import ADAPTERS

    if json:
        facts = [
            {"name": name} | asdict(each.facts) | {"optional": sorted(each.facts.optional)}
            for name, each in ADAPTERS.items()
        ]
        checks.print_json({"databases": facts})
        return 0
    table = _table("--database", "what", "videos as published", "official split", "terms")
    for name, each in ADAPTERS.items():
        sizes = ", ".join(f"{group} {number}" for group, number in each.facts.published.items())
        row = (name, each.facts.title, sizes or "-", each.facts.splits, each.facts.licence)
        table.add_row(*row)
    console = checks.output()
    console.print(table)
    for name, each in ADAPTERS.items():
        where = f" From {each.facts.url}." if each.facts.url else ""
        source = f" Sizes as published in: {each.facts.source}." if each.facts.source else ""
        line = f"{name}: {each.facts.layout}.{where}{source}"
        console.print(line, highlight=False, markup=False)
    return 0


def check_database(
    database: Source, *, options: DatabaseOptions = _OPTIONS, json: bool = False
) -> int:
    """Checks a database before it is prepared; exits with 1 if anything is wrong.

    Shows what is there and what is missing, labels that disagree with folders, and files that are
    the same.

    Args:
        database: Its name, as `deepregions databases list` shows it.
        options: Which part of it.
        json: Print JSON instead of tables.
    """
    from deepregions.commands import checks
    from deepregions.commands.sources import existing
    from deepregions.data.databases.checking import Findings, check

    where = existing(database, options.root)
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
    from deepregions.commands import checks
    from deepregions.errors import printable

    console = checks.output()
    if findings.groups:
        table = _table("there", "found", "published")
        for group in findings.groups:
            published = "-" if group.published is None else str(group.published)
            table.add_row(printable(group.group), str(group.found), published)
        console.print(table)
        table = _table(f"split ({findings.scheme})", "genuine", "fake")
        for count in findings.splits:
            table.add_row(count.split, str(count.genuine), str(count.fake))
        console.print(table)
    lines = [f"left out: {number} {reason}" for reason, number in findings.left_out]
    lines += [f"note: {note}" for note in findings.notes]
    lines += [f"problem: {problem}" for problem in findings.problems]
    lines += [] if findings.problems else [f"{findings.database}: nothing is wrong"]
    for line in lines:
        sys.stdout.write(f"{printable(line)}\n")


def describe_store(store: Path, *, out: Path | None = None) -> int:
    """Describes a face store on one HTML page.

    Counts, sizes, a contact sheet, and differences between genuine and fake faces that a network
    could mistake for the manipulation.

    Args:
        store: The folder that `deepregions prepare` wrote.
        out: The page to write; by default STORE.html beside the store.
    """
    from deepregions.data.describe import describe, write_page
    from deepregions.data.store import FaceStore
    from deepregions.errors import printable

    page = out or store.with_name(f"{store.name}.html")
    faces = FaceStore(store)
    description = describe(faces)
    write_page(faces, description, page)
    for warning in description.warnings:
        sys.stderr.write(f"deepregions: {printable(warning)}\n")
    sys.stdout.write(f"page: {printable(str(page))}\n")
    return 0


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for head in heads:
        table.add_column(head, justify="right" if head in _NUMBERS else "left")
    return table
