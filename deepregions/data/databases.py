"""The databases as published: which file is real or fake, who is in it, and in which split."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from deepregions.data.splits import identity_splits
from deepregions.data.store import SPLITS
from deepregions.errors import UsageError
from deepregions.media import find_media
from deepregions.types import BONA_FIDE, FAKE

ORIGINAL = "original"


@dataclass(frozen=True)
class Clip:
    """One photo or video of a database.

    Attributes:
        path: The file.
        key: Its name, unique within the database.
        label: 1 is fake, 0 is genuine.
        method: How it was made, such as ``"Deepfakes"``; ``"original"`` if genuine.
        compression: The database's word for it, such as ``"c23"``; may be empty.
        identities: Who is in it, at least one: of a fake, the target and then the source.
        split: ``"train"``, ``"val"`` or ``"test"``.
    """

    path: Path
    key: str
    label: int
    method: str
    compression: str
    identities: tuple[str, ...]
    split: str


class Database(Protocol):
    """What :func:`deepregions.data.prepare.prepare` needs of a database.

    Attributes:
        name: What it is called in stores and bundles.
        left_out: How many files are there but not used, by reason.
    """

    name: str
    left_out: dict[str, int]

    def clips(self) -> list[Clip]:
        """Returns what is there, in an order that does not change from run to run."""


def assert_identity_disjoint(clips: Iterable[Clip]) -> None:
    """Checks that nobody is in two splits.

    Raises:
        UsageError: Somebody is; the message names who, and a file of each split.
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


class FaceForensics:
    """FaceForensics++ (Roessler et al. 2019) as published, with its official splits.

    Expects ``original_sequences/youtube/<compression>/videos/NNN.mp4``,
    ``manipulated_sequences/<method>/<compression>/videos/TTT_SSS.mp4`` (target, source) and
    ``splits/{train,val,test}.json``, which are lists of pairs: [a, b] stands for the originals a
    and b and the fakes a_b and b_a. Only the files that are there are used; those of
    DeepFakeDetection (other people, no official split) are left out.

    Args:
        root: The folder of the three.
        compression: ``"raw"``, ``"c23"`` or ``"c40"``.
        methods: Which manipulations; all that are there by default.

    Raises:
        UsageError: ``root`` is not that tree, or has no such compression or method.
    """

    name = "ffpp"

    def __init__(
        self, root: Path, compression: str = "c23", methods: Sequence[str] | None = None
    ) -> None:
        self.left_out: dict[str, int] = {}
        self._compression = compression
        self._split_of, self._pairs = _official_splits(root / "splits")
        fakes = _video_folders(root / "manipulated_sequences", compression)
        reals = _video_folders(root / "original_sequences", compression)
        if not fakes and not reals:
            found = sorted({path.name for path in root.glob("*_sequences/*/*") if path.is_dir()})
            raise UsageError(
                f"{root} has no FaceForensics++ videos of compression {compression!r}",
                f"expected original_sequences/youtube/{compression}/videos/*.mp4; there are: "
                f"{', '.join(found) or 'none at all'}",
            )
        for method in methods or ():
            if method not in fakes:
                raise UsageError(
                    f"there is no manipulation {method!r} of compression {compression!r} in {root}",
                    f"there are: {', '.join(fakes) or 'none'}",
                )
        self._fakes = {name: fakes[name] for name in methods or fakes}
        self._reals = reals

    def clips(self) -> list[Clip]:
        """Returns the originals and then each manipulation, by name."""
        left_out: Counter[str] = Counter()
        clips = []
        for folder in self._reals.values():
            for path in sorted(folder.glob("*.mp4")):
                clips += self._clip(path, ORIGINAL, (path.stem,), left_out)
        for method, folder in self._fakes.items():
            for path in sorted(folder.glob("*.mp4")):
                clips += self._clip(path, method, tuple(path.stem.split("_")), left_out)
        self.left_out = dict(sorted(left_out.items()))
        return clips

    def _clip(
        self, path: Path, method: str, people: tuple[str, ...], left_out: Counter[str]
    ) -> list[Clip]:
        splits = {self._split_of.get(person) for person in people}
        if len(splits) > 1 and None not in splits:
            left_out["its two people are in different splits"] += 1
            return []
        if None in splits or (method != ORIGINAL and people not in self._pairs):
            left_out["not in the official splits"] += 1
            return []
        label = BONA_FIDE if method == ORIGINAL else FAKE
        key = f"{method}/{self._compression}/{path.stem}"
        split = self._split_of[people[0]]
        return [Clip(path, key, label, method, self._compression, people, split)]


class Folder:
    """Photos and videos in ``real/`` and ``fake/``, at any depth.

    Where ``train/``, ``val/`` and ``test/`` lie above them, these are the splits, and nobody may be
    in two. Otherwise people are split at about 70, 10 and 20 %.

    People are told apart by their files' names. By default the first part of a name, up to an
    underscore, hyphen, space or dot, is a person: ``001_neutral.jpg`` and ``001_smiling.jpg`` are
    one. In the name of a fake the second part is its second person, if both parts are numbers of
    equal length: ``004_982.mp4`` shares ``004`` and ``982`` with others. Where names say something
    else, as in ``img_0001.jpg``, give ``identity``. The first folder below ``fake/``, if any, is
    the manipulation's name.

    Args:
        root: The folder of ``real/`` and ``fake/``, or of the splits.
        name: What the database is called in stores and bundles.
        identity: A regular expression, searched in the path below ``real/`` or ``fake/`` without
            the suffix: its groups are the people, or the whole match if it has none.
        seed: Another seed splits people otherwise.

    Raises:
        UsageError: ``root`` has no such folders, one is empty, or ``identity`` does not fit.
    """

    def __init__(
        self, root: Path, name: str = "folder", identity: str | None = None, seed: int = 0
    ) -> None:
        self.name = name
        self.left_out: dict[str, int] = {}
        self._root = root
        self._seed = seed
        try:
            self._identity = re.compile(identity) if identity is not None else None
        except re.error as error:
            raise UsageError(f"identity {identity!r} is no regular expression: {error}") from error
        self._parts = [split for split in SPLITS if (root / split).is_dir()]
        for folder in self._classes():
            if not folder.is_dir():
                raise UsageError(
                    f"{folder} is not there",
                    f"expected {root}/real and {root}/fake, or {root}/train/real, "
                    f"{root}/train/fake, {root}/val/real and so on",
                )

    def clips(self) -> list[Clip]:
        """Returns the files by path: real before fake, train before val before test.

        Raises:
            UsageError: A folder is empty, a name does not fit ``identity``, or somebody is in two
                of the given splits.
        """
        clips = [self._clip(path, top) for top in self._classes() for path in find_media([top])]
        if not self._parts:
            people = [(clip.identities, clip.label) for clip in clips]
            splits = identity_splits(people, seed=self._seed)
            clips = [replace(c, split=split) for c, split in zip(clips, splits, strict=True)]
        assert_identity_disjoint(clips)
        return clips

    def _classes(self) -> list[Path]:
        tops = [self._root / part for part in self._parts] or [self._root]
        return [top / name for top in tops for name in ("real", "fake")]

    def _clip(self, path: Path, top: Path) -> Clip:
        below = path.relative_to(top)
        fake = top.name == "fake"
        method = ORIGINAL if not fake else below.parts[0] if len(below.parts) > 1 else "fake"
        key = path.relative_to(self._root).as_posix()
        people = self._people(below, fake)
        split = top.parent.name if self._parts else ""
        return Clip(path, key, FAKE if fake else BONA_FIDE, method, "", people, split)

    def _people(self, below: Path, fake: bool) -> tuple[str, ...]:
        if self._identity is None:
            return _leading(below.stem, fake)
        found = self._identity.search(below.with_suffix("").as_posix())
        people = tuple(filter(None, (found.groups() or (found[0],)) if found else ()))
        if not people:
            raise UsageError(
                f"{below} names nobody by the identity {self._identity.pattern!r}",
                "it must match every path below real/ and fake/, without the suffix",
            )
        return people


def _leading(stem: str, fake: bool) -> tuple[str, ...]:
    first, second = ([*re.split(r"[_\-. ]+", stem), ""])[:2]
    numbers = first.isdecimal() and second.isdecimal() and len(first) == len(second)
    return (first or stem, second) if fake and numbers else (first or stem,)


def _video_folders(top: Path, compression: str) -> dict[str, Path]:
    found = sorted(top.glob(f"*/{compression}/videos"))
    return {path.parents[1].name: path for path in found}


def _official_splits(folder: Path) -> tuple[dict[str, str], set[tuple[str, ...]]]:
    split_of: dict[str, str] = {}
    pairs: set[tuple[str, ...]] = set()
    for split in SPLITS:
        path = folder / f"{split}.json"
        try:
            for one, two in json.loads(path.read_text()):
                pairs |= {(one, two), (two, one)}
                for person in (one, two):
                    if split_of.setdefault(person, split) != split:
                        raise UsageError(f"{path}: {person} is in {split_of[person]}.json too")
        except FileNotFoundError as error:
            raise UsageError(
                f"{path} is not there",
                "expected FaceForensics++ as published: splits/{train,val,test}.json beside "
                "original_sequences/ and manipulated_sequences/",
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"{path} is not a list of pairs of names: {error}",
                "get it again from https://github.com/ondyari/FaceForensics",
            ) from error
    return split_of, pairs
