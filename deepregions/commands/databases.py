"""``deepregions databases``: which there are, whether one is complete, and what is in a store."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from deepregions.commands.sources import Source

if TYPE_CHECKING:
    from rich.table import Table

    from deepregions.data.databases.checking import Findings

_NUMBERS = {"found", "published", "genuine", "fake"}


def databases(
    action: Literal["list", "check", "describe"],
    target: str | None = None,
    *,
    root: Path | None = None,
    out: Path | None = None,
    split: Literal["official", "paper", "kfold"] | None = None,
    folds: int = 5,
    fold: int = 0,
    compression: Literal["raw", "c23", "c40"] = "c23",
    methods: list[str] | None = None,
    images: Path | None = None,
    identity: str | None = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Lists databases, checks one before it is prepared, describes a store.

    list: which databases prepare takes, where to get them, their terms and published sizes. check
    NAME --root DIR: what is there and what is missing, labels that disagree with folders, files
    that are the same; exits with 1 if anything is wrong. describe STORE: a page (HTML, one file)
    with counts, sizes, a contact sheet, and differences between genuine and fake faces that a
    network could take for the manipulation.

    Args:
        action: list, check or describe.
        target: For check, a database's name; for describe, a store's folder.
        root: For check, where the database is.
        out: For describe, the page; without, STORE.html beside the store.
        split: For check, as for prepare, like all options below.
        folds: kfold: K.
        fold: kfold: which of the K is for evaluation, from 0.
        compression: ffpp, dfd and deepfakebench: which videos.
        methods: ffpp: which manipulations.
        images: deepfakebench: the folder that its frames' paths are relative to.
        identity: folder: regular expression for who is in a file.
        seed: Another seed makes other splits.
        json: For list and check, print JSON instead of tables.
    """
    from deepregions.commands import checks
    from deepregions.errors import UsageError

    if action == "list":
        return _list(json)
    if action == "describe":
        if target is None:
            raise UsageError("databases describe needs a store", "the folder that prepare wrote")
        return _describe(Path(target), out)
    if target not in get_args(Source):
        raise UsageError(
            "databases check needs a database" + (f", not {target!r}" if target else ""),
            f"one of {', '.join(get_args(Source))}",
        )
    findings = _checked(
        cast(Source, target),
        root,
        (split, folds, fold, seed),
        compression=compression,
        methods=methods,
        images=images,
        identity=identity,
    )
    if json:
        checks.print_json(asdict(findings) | {"ok": not findings.problems})
    else:
        _print(findings)
    return 1 if findings.problems else 0


def _list(as_json: bool) -> int:
    from deepregions.commands import checks
    from deepregions.data.databases import OWN, PUBLISHED

    adapters = [*((adapter.name, adapter) for adapter in PUBLISHED), *OWN]
    if as_json:
        facts = [
            {"name": name} | asdict(each.facts) | {"optional": sorted(each.facts.optional)}
            for name, each in adapters
        ]
        checks.print_json({"databases": facts})
        return 0
    table = _table("--database", "what", "videos as published", "official split", "terms")
    for name, each in adapters:
        sizes = ", ".join(f"{group} {number}" for group, number in each.facts.published.items())
        row = (name, each.facts.title, sizes or "-", each.facts.splits, each.facts.licence)
        table.add_row(*row)
    console = checks.output()
    console.print(table)
    for name, each in adapters:
        where = f" From {each.facts.url}." if each.facts.url else ""
        source = f" Sizes as published in: {each.facts.source}." if each.facts.source else ""
        line = f"{name}: {each.facts.layout}.{where}{source}"
        console.print(line, highlight=False, markup=False)
    return 0


def _checked(source: Source, root: Path | None, splitting: Any, **options: Any) -> Findings:
    """A root that is something else is a finding too, not an error of this command."""
    from deepregions.commands.sources import existing, open_database
    from deepregions.data.databases.checking import Findings, check
    from deepregions.data.splits import Splitting
    from deepregions.errors import UsageError

    where, how = existing(source, root), Splitting(*splitting)
    try:
        return check(open_database(source, where, how, **options))
    except UsageError as error:
        return Findings(source, str(where), partial=True, problems=(str(error),))


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


def _describe(store: Path, out: Path | None) -> int:
    from deepregions.data.describe import describe
    from deepregions.data.describe_page import write_page
    from deepregions.data.store import FaceStore

    page = out or store.with_name(f"{store.name}.html")
    faces = FaceStore(store)
    description = describe(faces)
    write_page(faces, description, page)
    for warning in description.warnings:
        sys.stderr.write(f"deepregions: {warning}\n")
    sys.stdout.write(f"page: {page}\n")
    return 0


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for head in heads:
        table.add_column(head, justify="right" if head in _NUMBERS else "left")
    return table
