"""Databases by the names and options that commands have for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deepregions.data.databases import Adapter
    from deepregions.data.splits import Splitting

Source = Literal[
    "uadfv",
    "ffpp",
    "dfd",
    "celebdf",
    "celebdf-v1",
    "celebdf-v2",
    "dfdc",
    "dfdc-preview",
    "folder",
    "csv",
    "deepfakebench",
]
_FILES = ("csv", "deepfakebench")  # of which the root may be a file


def open_database(
    source: Source,
    root: Path | None,
    splitting: Splitting,
    *,
    compression: str = "c23",
    methods: list[str] | None = None,
    identity: str | None = None,
    images: Path | None = None,
    name: str | None = None,
) -> Adapter:
    """Opens a database.

    Raises:
        UsageError: No root, or it is not that database; an option that this database has not.
    """
    from deepregions.data import databases

    where = existing(source, root)
    name = name or source
    if source == "ffpp":
        return databases.FaceForensics(where, compression, methods, splitting)
    if source == "dfd":
        return databases.DeepFakeDetection(where, compression, splitting)
    if source == "folder":
        return databases.Folder(where, name, identity, splitting=splitting)
    if source == "csv":
        return databases.Manifest(where, name, splitting)
    if source == "deepfakebench":
        return databases.DeepfakeBench(where, compression, images, name, splitting)
    others = {adapter.name: adapter for adapter in databases.PUBLISHED}
    return others["celebdf" if source == "celebdf-v2" else source](where, splitting)


def existing(source: str, root: Path | None) -> Path:
    """Returns where a database is.

    Raises:
        UsageError: It is not said, or there is nothing.
    """
    from deepregions.errors import UsageError

    if root is None:
        raise UsageError(f"{source} needs --root", "the folder that holds it")
    if root.is_dir() or (source in _FILES and root.is_file()):
        return root
    kind = "there" if source in _FILES else "a folder"
    raise UsageError(f"{root} is not {kind}", f"--root is where {source} is")
