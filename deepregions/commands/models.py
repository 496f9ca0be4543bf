"""``deepregions models``: what is here, what others offer, and whether it is what it should be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands.checks import print_json
from deepregions.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from deepregions.weights.bundle_folder import BundleEntry
    from deepregions.weights.catalogue import Entry

_PATIENCE = 2.0  # seconds without a progress bar


def list_models(*, dir: Path | None = None, json: bool = False) -> int:
    """Lists the bundles that are here, and what others offer.

    Args:
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of tables.
    """
    from deepregions.weights.bundle_folder import find_bundles, models_folders
    from deepregions.weights.catalogue import entries

    folders = models_folders(dir)
    found = find_bundles(folders)
    if json:
        bundles = [_bundle_facts(each) for each in found]
        print_json({"bundles": bundles, "registry": [_entry_facts(each) for each in entries()]})
        return 0
    if found:
        _print_table(_bundle_table(found))
    else:
        where = ", ".join(map(str, folders)) or "./models or ./bundles"
        sys.stdout.write(f"There are no bundles in {where} (--dir DIR names another folder).\n")
    for each in found:
        if each.problem:
            sys.stderr.write(f"deepregions: {printable(each.problem)}\n")
    _print_table(_registry_table(entries()))
    return 0


def show_model(name: str, *, dir: Path | None = None, json: bool = False) -> int:
    """Shows what a bundle was trained on, its input, licence, digests and source.

    For something that others offer, shows what is known about it.

    Args:
        name: A bundle's path, its name, the name of a network in it, hf://OWNER/NAME, or a name
            that `deepregions models list` shows.
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of lines.
    """
    from deepregions.errors import BundleError
    from deepregions.weights import catalogue
    from deepregions.weights.bundle_folder import find_bundle, models_folders
    from deepregions.weights.hub import download, hub_name

    on_hub = hub_name(name)
    offered = {each.name: each for each in catalogue.entries()}
    if name in offered:
        facts = _entry_facts(offered[name])
    else:
        path = name if on_hub is None else str(download(on_hub))
        found = find_bundle(path, models_folders(dir))
        if found.problem:
            raise BundleError(found.problem)
        facts = _bundle_facts(found)
    _print_facts(facts, json)
    return 0


def verify_models(target: str | None = None, *, dir: Path | None = None, json: bool = False) -> int:
    """Checks that every network has its SHA-256 and loads; exits with 1 if one does not.

    Args:
        target: A bundle as for `deepregions models show`, or a folder of bundles; all bundles
            by default.
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of lines.
    """
    from deepregions.commands.checks import progress
    from deepregions.errors import UsageError
    from deepregions.weights.bundle import check_bundle
    from deepregions.weights.bundle_folder import find_bundle, find_bundles, models_folders
    from deepregions.weights.hub import download, hub_name

    if target is not None and (name := hub_name(target)) is not None:
        target = str(download(name))
    if target is None:
        found = find_bundles(models_folders(dir))
    elif Path(target).is_dir():
        found = find_bundles([Path(target)])
    else:
        found = [find_bundle(target, models_folders(dir))]
    if not found:
        raise UsageError("there is no bundle to verify", "name one, or a folder that holds some")
    results = []
    for each in progress(found, "verifying"):
        files = {"bundle.json": each.problem} if each.problem else check_bundle(each.path)
        for file, problem in files.items():
            results.append({"file": str(each.path / file), "ok": not problem, "problem": problem})
            if not json:
                line = f"{each.path / file}: {problem or 'ok'}"
                sys.stdout.write(f"{printable(line)}\n")
    if json:
        print_json(results)
    return 0 if all(result["ok"] for result in results) else 1


def fetch_model(
    name: str, *, dir: Path | None = None, sha256: str | None = None, json: bool = False
) -> int:
    """Downloads a bundle hf://OWNER/NAME, or a file that others offer.

    Args:
        name: hf://OWNER/NAME, or a name that `deepregions models list` shows.
        dir: The folder for the file; the cache folder by default.
        sha256: The digest that the file must have, where it is not known here.
        json: Print JSON instead of lines.
    """
    from deepregions.assets import fetch
    from deepregions.weights import catalogue
    from deepregions.weights.hub import download, hub_name

    on_hub = hub_name(name)
    if on_hub is not None:
        facts: dict[str, Any] = {"path": str(download(on_hub))}
    else:
        entry = catalogue.entry(name)
        asset = catalogue.asset(entry, sha256)
        with _downloading(asset.name) as progress:
            path = fetch(asset, folder=dir, progress=progress)
        facts = {"path": str(path), "sha256": asset.sha256, "license": entry.license}
        facts |= {"citation": entry.citation, "use": entry.use}
    _print_facts(facts, json)
    return 0


def _print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(facts))


@contextmanager
def _downloading(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yields what shows a download on standard error once it has taken two seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    begun = time.monotonic()
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=None)

    def show(done: int, total: int | None) -> None:
        if not bar.live.is_started and time.monotonic() - begun > _PATIENCE:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


def _bundle_facts(found: BundleEntry) -> dict[str, Any]:
    """What a bundle says of itself, as JSON values."""
    return {
        "bundle": found.name,
        "path": str(found.path),
        "problem": found.problem,
        "written_by": f"deepregions {found.manifest.get('deepregions', '')}".strip(),
        "version": found.manifest.get("version"),
        "members": found.members,
        "fusion": found.manifest.get("fusion"),
        "calibration": found.manifest.get("calibration"),
    }


def _entry_facts(entry: Entry) -> dict[str, Any]:
    from dataclasses import asdict

    from deepregions.assets import cache_dir

    path = cache_dir() / entry.file
    return asdict(entry) | {"cached": str(path) if path.is_file() else None}


def _bundle_table(found: Sequence[BundleEntry]) -> Table:
    heads = ("bundle", "networks", "detectors", "regions", "trained on", "fusion", "calibrated")
    table = _table(*heads, "MB")
    for each in found:
        size = sum(file.stat().st_size for file in each.path.glob("*.safetensors")) / 1e6
        detectors = [
            str(member.get("name", "?")).removesuffix(
                f"_{member.get('region')}.{member.get('database')}"
            )
            for member in each.members
        ]
        values = [", ".join(dict.fromkeys(detectors))]
        values += [_distinct(each, key) for key in ("region", "database")]
        count = "broken" if each.problem else str(len(each.members))
        values += [_said(each, "fusion", "class", "mean"), _said(each, "calibration", "kind", "no")]
        table.add_row(*map(_cell, (each.name, count, *values, f"{size:.0f}")))
    return table


def _registry_table(offered: Sequence[Entry]) -> Table:
    table = _table("offered by others", "kind", "what", "to fetch")
    for entry in offered:
        how = "takes a browser" if entry.url is None else "yes"
        if entry.url is not None and entry.sha256 is None:
            how = "with --sha256"
        if _entry_facts(entry)["cached"]:
            how = "is here"
        table.add_row(*map(_cell, (entry.name, entry.kind, entry.title, how)))
    return table


def _distinct(found: BundleEntry, key: str) -> str:
    return ", ".join(dict.fromkeys(str(member.get(key, "?")) for member in found.members))


def _said(found: BundleEntry, entry: str, key: str, without: str) -> str:
    what = found.manifest.get(entry)
    return str(what.get(key, "?")) if isinstance(what, dict) else without


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for head in heads:
        table.add_column(head, justify="right" if head in {"networks", "MB"} else "left")
    return table


def _print_table(table: Table) -> None:
    from deepregions.commands import checks

    checks.output().print(table)


def _cell(value: str) -> str:
    from rich.markup import escape

    return escape(printable(value))


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """Writes nested JSON values as ``a.b: value`` lines; what is empty is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _lines(inner, f"{name}[{number}]")
    elif value not in (None, ""):
        yield printable(f"{name}: {value}")
