"""The bundles that lie about in folders: found, told apart by name, and looked at unloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import deepregions
from deepregions.errors import BundleError, UsageError

_DEFAULT = ("models", "bundles")
_DEPTH = 3  # folders below the one that is named


class BundleEntry(NamedTuple):
    """A bundle on disk.

    Attributes:
        name: Its path from the folder that was searched.
        manifest: What its ``bundle.json`` says; empty if that cannot be read.
        problem: Why it cannot be read, or empty.
    """

    name: str
    path: Path
    manifest: dict[str, Any]
    problem: str

    @property
    def members(self) -> list[dict[str, Any]]:
        """Its networks, as the manifest has them."""
        members = self.manifest.get("members", [])
        return [each for each in members if isinstance(each, dict)]


def default_bundle() -> Path | None:
    """Returns the bundle that comes with deepregions and is used where none is named, if any."""
    package = Path(deepregions.__file__).parent  # in a wheel; in a checkout it is beside it
    found = [(each / "checkpoints" / "default").resolve() for each in (package, package.parent)]
    return next((path for path in found if (path / "bundle.json").is_file()), None)


def implied_bundle() -> Path | None:
    """Returns the bundle that is used where none is named, or None where folders are searched."""
    return None if "DEEPREGIONS_MODELS" in os.environ else default_bundle()


def exported_file(bundles: Sequence[Path]) -> Path | None:
    """Returns the exported file that is to score, or None where it is bundles.

    Raises:
        UsageError: A file is named beside others.
    """
    files = [path for path in bundles if path.suffix.lower() == ".onnx"]
    if files and len(bundles) > 1:
        raise UsageError(f"{files[0]} is used by itself", "name one file, or bundles' folders")
    return files[0] if files else None


def models_folders(folder: Path | None = None) -> list[Path]:
    """Returns the folders to look for bundles in: the one named, or ``$DEEPREGIONS_MODELS``.

    Without either, those of ``models`` and ``bundles`` that are there.

    Raises:
        UsageError: The folder that was named is not there.
    """
    named = folder or os.environ.get("DEEPREGIONS_MODELS")
    if not named:
        return [path for path in map(Path, _DEFAULT) if path.is_dir()]
    path = Path(named).expanduser()
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder", "--dir or DEEPREGIONS_MODELS names it")
    return [path]


def find_bundles(folders: Sequence[Path]) -> list[BundleEntry]:
    """Returns all bundles in folders and up to three folders below, by name."""
    return [
        _look(path, folder) for folder in folders for path in sorted(_bundles_below(folder, _DEPTH))
    ]


def find_bundle(name: str, folders: Sequence[Path]) -> BundleEntry:
    """Returns the bundle of a path, of a name in one of the folders, or of a network in it.

    Raises:
        UsageError: There is none, or more than one; the hint names those that are there.
    """
    path = Path(name)
    if (path / "bundle.json").is_file():
        return _look(path, path.parent)
    bundles = find_bundles(folders)
    fitting = [each for each in bundles if name in (each.name, each.path.name)]
    fitting = fitting or [
        each for each in bundles if name in [member.get("name") for member in each.members]
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        named = ", ".join(str(each.path) for each in fitting)
        raise UsageError(f"there are {len(fitting)} bundles {name}", f"give one's path: {named}")
    known = ", ".join(each.name for each in bundles) or "none in " + (
        ", ".join(map(str, folders)) or "models or bundles"
    )
    raise UsageError(f"there is no bundle {name}", f"bundles: {known}")


def _bundles_below(folder: Path, depth: int) -> list[Path]:
    if (folder / "bundle.json").is_file():
        return [folder]  # a bundle holds no other
    if not depth:
        return []
    found = []
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            try:
                found += _bundles_below(path, depth - 1)
            except PermissionError:
                continue
    return found


def _look(path: Path, folder: Path) -> BundleEntry:
    from deepregions.weights.manifest import read_manifest  # noqa: PLC0415 - seconds

    name = path.name if path == folder else str(path.relative_to(folder))
    try:
        return BundleEntry(name, path, read_manifest(path), "")
    except BundleError as error:
        return BundleEntry(name, path, {}, str(error))
