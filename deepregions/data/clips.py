"""A clip: one photo or video of a database, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from deepregions.errors import UsageError


@dataclass(frozen=True)
class Clip:
    """One photo or video of a database.

    Attributes:
        path: The file; of a clip that is kept as images, their folder.
        method: How it was made, such as ``"Deepfakes"``; ``"original"`` if genuine.
        compression: The database's word for it, such as ``"c23"``; may be empty.
        identities: Who is in it, at least one: of a fake, the target and then the source.
        split: ``"train"``, ``"val"`` or ``"test"``; empty where there is no official one yet.
        group: What else it must not be parted from; empty for nothing.
        frames: Its frames in order, where it is kept as images.
        mask: A video that is light where this one, frame by frame, was manipulated.
    """

    path: Path
    key: str
    label: int
    method: str
    compression: str
    identities: tuple[str, ...]
    split: str
    group: str = ""
    frames: tuple[Path, ...] = ()
    mask: Path | None = None

    def __post_init__(self) -> None:
        # What is no text in a file's name (old archives) is spelt out: stores hold UTF-8 only.
        for name in ("key", "method", "compression", "split", "group"):
            object.__setattr__(self, name, _as_text(getattr(self, name)))
        object.__setattr__(self, "identities", tuple(map(_as_text, self.identities)))


def _as_text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def assert_identity_disjoint(clips: Iterable[Clip]) -> None:
    """Checks that nobody is in two splits.

    Raises:
        UsageError: Somebody is; it names who, and a file of each split.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        for name in clip.identities:
            other = seen.setdefault(name, clip)
            if other.split != clip.split:
                raise UsageError(
                    f"{other.split} and {clip.split} share the identity {name!r}: "
                    f"{other.path} and {clip.path}",
                    "keep all files of a person in one split; if this is not one person, say how "
                    "file names name people with --identity REGEX ('.+': each file is a person)",
                )
