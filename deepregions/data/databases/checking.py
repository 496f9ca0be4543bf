"""What is in a database's folder and what is not, before hours of work are spent on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from deepregions.data.clips import Clip
from deepregions.data.databases.base import Adapter
from deepregions.data.store import SPLITS
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE

_SAMPLE = 1 << 16  # bytes, of the head and of the tail of a file
_NAMED = 3  # in a message; all are in the findings


@dataclass(frozen=True)
class GroupCount:
    """How many usable videos of a group there are, such as ``"Deepfakes"`` or ``"train fake"``.

    ``published`` is how many there should be, None if that is not known; ``least`` how many there
    must be for it to be complete; an optional one may be missing altogether.
    """

    group: str
    found: int
    published: int | None
    least: int = 0
    optional: bool = False

    @property
    def short(self) -> bool:
        """Whether some are missing."""
        return self.found < self.least and not (self.optional and not self.found)


@dataclass(frozen=True)
class SplitCount:
    """How many genuine and fake clips a split has."""

    split: str
    genuine: int
    fake: int


@dataclass(frozen=True)
class Findings:
    """What a database's folder holds; some of it is as in a :class:`Listing`.

    Attributes:
        splits: What comes of dividing it by ``scheme``.
        duplicates: Files with the same contents, as far as their sizes, heads and tails tell.
        empty: Files of no bytes, and links to nothing.
    """

    database: str
    root: str
    groups: tuple[GroupCount, ...] = ()
    scheme: str = ""
    splits: tuple[SplitCount, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()
    absent: tuple[str, ...] = ()
    disputed: tuple[str, ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    empty: tuple[str, ...] = ()
    partial: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check(database: Adapter) -> Findings:
    """Compares what is there with what is published; no video is opened."""
    listing = database.listing()
    groups = tuple(_counted(database, listing.clips))
    empty, duplicates = _contents(listing.clips)
    problems = [f"{g.group}: {g.found} of {g.published} videos" for g in groups if g.short]
    for what, files in (
        ("files that its lists name are not there", listing.absent),
        ("files whose label their folder or name contradicts", listing.disputed),
        ("files are empty, or links to nothing", empty),
        ("files have the same contents", [" = ".join(group) for group in duplicates]),
    ):
        if files:
            more = ", ..." if len(files) > _NAMED else ""
            problems.append(f"{what}: {len(files)} ({', '.join(files[:_NAMED])}{more})")
    splits: tuple[SplitCount, ...] = ()
    try:
        count = Counter((clip.split, clip.label) for clip in database.clips())
        splits = tuple(SplitCount(s, count[s, BONA_FIDE], count[s, FAKE]) for s in SPLITS)
    except UsageError as error:
        problems.append(str(error))
    how = database.splitting
    fold = f" {how.fold} of {how.folds}" if how.scheme == "kfold" else ""
    return Findings(
        database=database.name,
        root=str(database.root),
        groups=groups,
        scheme=f"{how.scheme}{fold}",
        splits=splits,
        left_out=tuple(database.left_out.items()),
        absent=tuple(listing.absent),
        disputed=tuple(listing.disputed),
        duplicates=duplicates,
        empty=empty,
        partial=bool(listing.absent) or any(group.short for group in groups),
        problems=tuple(problems),
        notes=tuple(_notes(groups, splits)),
    )


def _counted(database: Adapter, clips: Iterable[Clip]) -> Iterator[GroupCount]:
    found = Counter(database.group_of(clip) for clip in clips)
    expected, facts = database.expected(), database.facts
    optional = facts.optional if set(expected) == set(facts.published) else ()
    for group in dict.fromkeys((*expected, *sorted(found))):
        published = expected.get(group)
        least = ceil((1 - facts.tolerance) * (published or 0))
        yield GroupCount(group, found[group], published, least, group in optional)


def _contents(clips: Iterable[Clip]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Returns the files that are empty, and those that are the same; of images, only the first."""
    sizes: dict[int, list[tuple[str, Path]]] = {}
    for clip in clips:
        path = clip.frames[0] if clip.frames else clip.path
        size = path.stat().st_size if path.exists() else 0  # a link to nothing
        sizes.setdefault(size, []).append((clip.key, path))
    empty = tuple(key for key, _ in sizes.pop(0, []))
    same: dict[str, list[str]] = {}
    for size, files in sizes.items():
        for key, path in files if len(files) > 1 else ():
            digest = hashlib.sha256(str(size).encode())
            with path.open("rb") as stream:
                digest.update(stream.read(_SAMPLE))
                stream.seek(-min(_SAMPLE, size), os.SEEK_END)
                digest.update(stream.read())
            same.setdefault(digest.hexdigest(), []).append(key)
    return empty, tuple(sorted(tuple(keys) for keys in same.values() if len(keys) > 1))


def _notes(groups: Iterable[GroupCount], splits: Iterable[SplitCount]) -> Iterator[str]:
    for group in groups:
        if group.optional and not group.found:
            yield f"{group.group} is not there; it need not be"
        if group.published is not None and group.found > group.published:
            yield f"{group.group}: {group.found} videos, more than the {group.published} published"
    for count in splits:
        for word, number in (("genuine", count.genuine), ("fake", count.fake)):
            if not number:
                yield f"the split {count.split} has no {word} clips"
