"""What all databases have in common: facts, a list of clips as published, and a division."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from deepregions.data.clips import Clip
from deepregions.data.splits import Scheme, Splitting, divide
from deepregions.errors import UsageError

DEFAULT = Splitting()
SPLIT_NAMES = {
    "train": "train",
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
"""What people call the official splits of their own databases."""


@dataclass(frozen=True)
class DatabaseInfo:
    """What is published about a database.

    Attributes:
        layout: What its root must hold.
        published: How many videos, by group (:meth:`Adapter.group_of`).
        optional: The groups of ``published`` that may be missing altogether.
        tolerance: The share of a group by which counts of others and ours may differ.
    """

    title: str
    url: str
    licence: str
    layout: str
    published: Mapping[str, int] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    tolerance: float = 0.0
    source: str = ""
    splits: str = "none"


@dataclass
class Listing:
    """What is in a database's folder, before it is divided.

    Attributes:
        clips: What can be used; their split is the official one, or empty.
        left_out: How many files are there but are of no use, by reason.
        absent: Files that the database's own lists name and that are not there.
        disputed: A line for each file whose label contradicts its folder; these are not used.
    """

    clips: list[Clip] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    absent: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)


class Adapter(ABC):
    """A database in a folder, as published; the root may be the file that lists its files.

    By default it is divided as the class's ``scheme`` says. ``left_out`` has how many files are
    there but not used, by reason, once :meth:`clips` was asked.

    Raises:
        UsageError: ``root`` is not that database; the message says what was expected.
    """

    name: str
    facts: ClassVar[DatabaseInfo]
    needs: ClassVar[tuple[str, ...]] = ()  # what must be in the root
    scheme: Scheme = "official"  # where none is asked for
    carve: ClassVar[bool] = True  # whether an official split without a development part gets one

    def __init__(self, root: Path, splitting: Splitting = DEFAULT) -> None:
        self.root = root
        self.left_out: dict[str, int] = {}
        self._asked = splitting
        for name in self.needs:
            if not (root / name).exists():
                raise self._wrong_root(name)

    @property
    def splitting(self) -> Splitting:
        """How it is divided: as asked for, or the database's own default."""
        return replace(self._asked, scheme=self._asked.scheme or self.scheme)

    @abstractmethod
    def listing(self) -> Listing:
        """Lists what is there, in an order that never changes, without opening a video.

        Raises:
            UsageError: The database's own lists cannot be read.
        """

    def clips(self) -> list[Clip]:
        """Returns the clips that have a split, in an order that does not change from run to run."""
        listing = self.listing()
        clips, dropped = divide(listing.clips, self.splitting, carve=self.carve)
        self.left_out = dict(sorted((listing.left_out + Counter(dropped)).items()))
        return clips

    def expected(self) -> Mapping[str, int]:
        """How many videos there should be, by group."""
        return self.facts.published

    def group_of(self, clip: Clip) -> str:
        """The group of :meth:`expected` that a clip counts for."""
        return clip.method

    def _wrong_root(self, missing: str) -> UsageError:
        return UsageError(
            f"{self.root} is not {self.facts.title}: {missing} is not there",
            f"expected {self.facts.layout}",
        )


def video_folder(folder: Path) -> Path:
    """Returns where a folder's videos are: in ``videos``, where others keep frames beside."""
    inner = folder / "videos"
    return inner if inner.is_dir() else folder


def videos(folder: Path) -> list[Path]:
    """Lists the MP4 (and ``.MP4``) files of a folder (see :func:`video_folder`)."""
    found = video_folder(folder).glob("[!.]*")
    return sorted(path for path in found if path.suffix.lower() == ".mp4")


def mask_of(video: Path) -> Path | None:
    """Returns the mask of a manipulated video of FaceForensics' tree, if it was downloaded too.

    Of ``METHOD/c23/videos/NAME.mp4`` it is ``METHOD/masks/videos/NAME.mp4``, whatever the
    compression.
    """
    mask = video.parents[2] / "masks" / "videos" / video.name
    return mask if mask.is_file() else None


def is_there(path: Path) -> bool:
    """Whether a file that a list names is there; a name that no file can have is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_json(path: Path) -> Any:
    """Reads a database's JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON file: {error}", "download it again") from error
