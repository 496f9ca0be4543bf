"""``deepregions models``: the bundles that are here, what others offer, and their digests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands import checks
from deepregions.errors import BundleError, UsageError, printable

if TYPE_CHECKING:
    from deepregions.weights.bundle_folder import BundleEntry
    from deepregions.weights.catalogue import Entry


def list_models(*, dir: Path | None = None, json: bool = False) -> int:
    """Lists the bundles that are here, and what others offer.

    The bundle that comes with deepregions, which is used where none is named, is first.

    Args:
        dir: A folder of bundles; by default $DEEPREGIONS_MODELS, or else ./models and ./bundles.
        json: Print JSON instead of tables.
    """
    from deepregions.weights.bundle_folder import (
        default_bundle,
        find_bundle,
        find_bundles,
        models_folders,
    )
    from deepregions.weights.catalogue import entries

    folders = models_folders(dir)
    found = find_bundles(folders)
    if dir is None and (default := default_bundle()):
        found = [find_bundle(str(default), []), *found]
    if json:
        bundles = [_bundle_facts(each) for each in found]
        checks.print_json({"bundles": bundles, "registry": [*map(_entry_facts, entries())]})
        return 0
    if found:
        heads = ("bundle", "networks", "detectors", "regions", "trained on", "fusion", "calibrated")
        rows = [_bundle_row(each) for each in found]
        checks.print_table((*heads, "MB"), rows, right={"networks", "MB"})
    else:
        where = ", ".join(map(str, folders)) or "./models or ./bundles"
        sys.stdout.write(f"There are no bundles in {where} (--dir DIR names another folder).\n")
    for each in found:
        if each.problem:
            sys.stderr.write(f"deepregions: {printable(each.problem)}\n")
    rows = [(each.name, each.kind, each.title, _how_to_fetch(each)) for each in entries()]
    checks.print_table(("offered by others", "kind", "what", "to fetch"), rows)
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
    from deepregions.weights import catalogue
    from deepregions.weights.bundle_folder import find_bundle, models_folders

    offered = {each.name: each for each in catalogue.entries()}
    if name in offered:
        facts = _entry_facts(offered[name])
    else:
        found = find_bundle(_local(name), models_folders(dir))
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
    from deepregions.weights.bundle import check_bundle
    from deepregions.weights.bundle_folder import find_bundle, find_bundles, models_folders

    target = None if target is None else _local(target)
    if target is None:
        found = find_bundles(models_folders(dir))
    elif Path(target).is_dir():
        found = find_bundles([Path(target)])
    else:
        found = [find_bundle(target, models_folders(dir))]
    if not found:
        raise UsageError("there is no bundle to verify", "name one, or a folder that holds some")
    results = []
    for each in checks.progress(found, "verifying"):
        files = {"bundle.json": each.problem} if each.problem else check_bundle(each.path)
        for file, problem in files.items():
            results.append({"file": str(each.path / file), "ok": not problem, "problem": problem})
            if not json:
                line = f"{each.path / file}: {problem or 'ok'}"
                sys.stdout.write(f"{printable(line)}\n")
    if json:
        checks.print_json(results)
    return 0 if all(result["ok"] for result in results) else 1


def fetch_model(
    name: str, *, dir: Path | None = None, sha256: str | None = None, json: bool = False
) -> int:
    """Downloads a bundle hf://OWNER/NAME, or a file that others offer.

    A file's SHA-256 must be the one that is known here. If none is known, the file is kept as it
    came, and its SHA-256 is printed.

    Args:
        name: hf://OWNER/NAME, or a name that `deepregions models list` shows.
        dir: The folder for the file; the cache folder by default.
        sha256: The SHA-256 that the file must have.
        json: Print JSON instead of lines.
    """
    from deepregions import files
    from deepregions.assets import fetch
    from deepregions.weights import catalogue
    from deepregions.weights.hub import hub_name

    if hub_name(name) is not None:
        _print_facts({"path": _local(name)}, json)
        return 0
    entry = catalogue.entry(name)
    asset = catalogue.asset(entry, sha256)
    with _downloading(asset.name) as progress:
        path = fetch(asset, folder=dir, progress=progress)
    facts = {"path": str(path), "sha256": files.sha256(path), "license": entry.license}
    _print_facts(facts | {"citation": entry.citation, "use": entry.use}, json)
    if not asset.sha256:
        sys.stderr.write(f"deepregions: {name} came unchecked: its SHA-256 was not known here\n")
    return 0


def _local(name: str) -> str:
    """Downloads a bundle on the Hub and returns its path; returns other names as they are."""
    from deepregions.weights.hub import download, hub_name

    on_hub = hub_name(name)
    return name if on_hub is None else str(download(on_hub))


@contextmanager
def _downloading(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yields what shows a download on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
    from deepregions.assets import cache_dir

    path = cache_dir() / entry.file
    return asdict(entry) | {"cached": str(path) if path.is_file() else None}


def _how_to_fetch(entry: Entry) -> str:
    if _entry_facts(entry)["cached"]:
        return "is here"
    return "takes a browser" if entry.url is None else "yes"


def _bundle_row(found: BundleEntry) -> Sequence[str]:
    members = found.members
    endings = [f"_{member.get('region')}.{member.get('database')}" for member in members]
    detectors = [
        str(member.get("name", "?")).removesuffix(ending)
        for member, ending in zip(members, endings, strict=True)
    ]
    columns = [detectors]
    columns += [[str(member.get(key, "?")) for member in members] for key in ("region", "database")]
    parts = []
    for entry, key, without in (("fusion", "class", "mean"), ("calibration", "kind", "no")):
        part = found.manifest.get(entry)
        parts.append(str(part.get(key, "?")) if isinstance(part, dict) else without)
    size = sum(file.stat().st_size for file in found.path.glob("*.safetensors")) / 1e6
    return (
        found.name,
        "broken" if found.problem else str(len(members)),
        *(", ".join(dict.fromkeys(column)) for column in columns),
        *parts,
        f"{size:.0f}",
    )


def _print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        checks.print_json(facts)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(facts))


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
