"""Where data comes from: options of commands that choose a database, and that source, opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands.options import OptionGroup
from deepregions.errors import UsageError

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
    "celebdf-pp",
    "dfdc",
    "dfdc-preview",
    "df40",
    "folder",
    "csv",
    "deepfakebench",
]
_FILES = ("csv", "deepfakebench")  # of which the root may be a file


@dataclass(frozen=True)
class DatabaseOptions(OptionGroup):
    """Which part of a database, and how it is split.

    Attributes:
        root: The folder (or file) of the database.
        split: official: as published; paper: by people, 80 to 20 %; kfold: by people, one of K
            parts for evaluation. By default official, or paper if there is no usable one.
        folds: The number K of parts, for kfold.
        fold: The part for evaluation, from 0, for kfold.
        compression: Which videos, for ffpp, dfd, deepfakebench and df40.
        methods: Which manipulations, for ffpp; by default all that are there.
        images: The folder that the paths of frames are relative to, for deepfakebench and df40.
        identity: A regular expression for who is in a file, for folder; it is searched in the path
            below real/ or fake/, and its groups are people. By default, the first part of the
            file's name.
        seed: Random seed of the splits.
    """

    root: Path | None = None
    split: Literal["official", "paper", "kfold"] | None = None
    folds: int = 5
    fold: int = 0
    compression: Literal["raw", "c23", "c40"] = "c23"
    methods: list[str] | None = None
    images: Path | None = None
    identity: str | None = None
    seed: int = 0

    def splitting(self) -> Splitting:
        """Returns how it is split."""
        from deepregions.data.splits import Splitting

        return Splitting(self.split, self.folds, self.fold, self.seed)

    def open(self, source: Source, name: str | None = None) -> Adapter:
        """Opens a database, or raises that it is not there, or does not have an option.

        Raises:
            UsageError: No root, or it is not that database; an option it does not have.
        """
        from deepregions.data import databases

        where, how = existing(source, self.root), self.splitting()
        name = name or source
        if source == "ffpp":
            return databases.FaceForensics(where, self.compression, self.methods, how)
        if source == "dfd":
            return databases.DeepFakeDetection(where, self.compression, how)
        if source == "folder":
            return databases.Folder(where, name, self.identity, how)
        if source == "csv":
            return databases.Manifest(where, name, how)
        if source in ("deepfakebench", "df40"):
            kind = databases.DF40 if source == "df40" else databases.DeepfakeBench
            return kind(where, self.compression, self.images, name, how)
        return databases.ADAPTERS["celebdf" if source == "celebdf-v2" else source](where, how)


def existing(source: str, root: Path | None) -> Path:
    """Returns where a database is, or raises that it is not said, or there is nothing.

    Raises:
        UsageError: It is not said, or there is nothing.
    """
    if root is None:
        raise UsageError(f"{source} needs --root", "the folder that holds it")
    if root.is_dir() or (source in _FILES and root.is_file()):
        return root
    kind = "there" if source in _FILES else "a folder"
    raise UsageError(f"{root} is not {kind}", f"--root is where {source} is")
