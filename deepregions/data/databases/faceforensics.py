"""FaceForensics++ and DeepFakeDetection, which are published in one tree."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepregions.data.clips import Clip
from deepregions.data.databases.base import DEFAULT, Adapter, DatabaseInfo, Listing, mask_of, videos
from deepregions.data.splits import Splitting
from deepregions.data.store import SPLITS
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL

_ACTORS, _DFD = "actors", "DeepFakeDetection"
_FOUR = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")

# Names as in FaceForensics' download instructions: <actor>__<scene> of genuine videos,
# <target>_<source>__<scene>__<8 characters> of manipulated ones.
_NAMES = {ORIGINAL: (r"(\d+)__.+", BONA_FIDE), _DFD: (r"(\d+)_(\d+)__.+__\w{8}", FAKE)}


class FaceForensics(Adapter):
    """FaceForensics++ (Roessler et al. 2019) as published, with its official splits.

    These are lists of pairs: [a, b] stands for the originals a and b and the fakes a_b (target,
    source) and b_a. DeepFakeDetection's files are a database of their own.
    """

    name = "ffpp"
    carve = False
    facts = DatabaseInfo(
        title="FaceForensics++",
        url="https://github.com/ondyari/FaceForensics",
        licence="FaceForensics Terms of Use (on request, research)",
        layout="original_sequences/youtube/c23/videos/*.mp4, "
        "manipulated_sequences/*/c23/videos/*.mp4 and splits/{train,val,test}.json",
        published=dict.fromkeys((ORIGINAL, *_FOUR, "FaceShifter"), 1000),
        optional=frozenset({"FaceShifter"}),  # added to the four of the paper in 2020
        source="Roessler et al. 2019; dataset/README.md of ondyari/FaceForensics",
        splits="360/70/70 pairs: 720/140/140 originals and as many fakes of each manipulation",
    )

    def __init__(
        self,
        root: Path,
        compression: str = "c23",
        methods: Sequence[str] | None = None,
        splitting: Splitting = DEFAULT,
    ) -> None:
        super().__init__(root, splitting)
        self._compression = compression
        self._methods = methods
        # The folder of the three files: ``splits``, or the root, where DeepfakeBench has them.
        lists = root / "splits"
        if not lists.is_dir() and (root / "train.json").is_file():
            lists = root
        self._split_of: dict[tuple[str, ...], str] = {}
        if self.splitting.scheme == "official" or lists.is_dir():
            self._split_of = _official_splits(lists)
        fakes = _video_folders(root / "manipulated_sequences", compression)
        reals = _video_folders(root / "original_sequences", compression)
        if not fakes and not reals:
            found = sorted({path.name for path in root.glob("*_sequences/*/*") if path.is_dir()})
            raise UsageError(
                f"{root} has no FaceForensics++ videos of compression {compression!r}",
                f"expected original_sequences/youtube/{compression}/videos/*.mp4; there are: "
                f"{', '.join(found) or 'none at all'}",
            )
        self._others = [*filter(None, (reals.pop(_ACTORS, None), fakes.pop(_DFD, None)))]
        for method in methods or ():
            if method not in fakes:
                raise UsageError(
                    f"there is no manipulation {method!r} of compression {compression!r} in {root}",
                    f"there are: {', '.join(fakes) or 'none'}",
                )
        self._fakes = {name: fakes[name] for name in methods or fakes}
        self._reals = reals

    def listing(self) -> Listing:
        """Lists the originals and then each manipulation, by name."""
        folders = [*((ORIGINAL, folder) for folder in self._reals.values()), *self._fakes.items()]
        found = Listing([self._clip(path, name) for name, top in folders for path in videos(top)])
        others = sum(len(videos(folder)) for folder in self._others)
        found.left_out["of DeepFakeDetection (--database dfd)"] += others
        return found

    def expected(self) -> Mapping[str, int]:
        """How many videos there should be of the chosen manipulations."""
        chosen = (ORIGINAL, *self._methods) if self._methods else self.facts.published
        return {name: self.facts.published.get(name, 0) for name in chosen}

    def _clip(self, path: Path, method: str) -> Clip:
        people = tuple(path.stem.split("_"))
        split = self._split_of.get(people, "")
        label = BONA_FIDE if method == ORIGINAL else FAKE
        key = f"{method}/{self._compression}/{path.stem}"
        mask = mask_of(path) if label == FAKE else None
        return Clip(path, key, label, method, self._compression, people, split, mask=mask)


class DeepFakeDetection(Adapter):
    """DeepFakeDetection (Google and Jigsaw 2019), which is published within FaceForensics++."""

    name = "dfd"
    scheme = "paper"
    facts = DatabaseInfo(
        title="DeepFakeDetection",
        url="https://github.com/ondyari/FaceForensics",
        licence="FaceForensics Terms of Use (on request, research)",
        layout="original_sequences/actors/c23/videos/*.mp4 and "
        "manipulated_sequences/DeepFakeDetection/c23/videos/*.mp4",
        published={ORIGINAL: 363, _DFD: 3000},
        source="README.md of SCLBD/DeepfakeBench (28 actors; of the fakes, 3000 or some more)",
    )

    def __init__(
        self, root: Path, compression: str = "c23", splitting: Splitting = DEFAULT
    ) -> None:
        super().__init__(root, splitting)
        self._compression = compression
        self._folders = {
            ORIGINAL: root / "original_sequences" / _ACTORS / compression / "videos",
            _DFD: root / "manipulated_sequences" / _DFD / compression / "videos",
        }
        if not any(folder.is_dir() for folder in self._folders.values()):
            raise self._wrong_root(f"original_sequences/{_ACTORS}/{compression}/videos")

    def listing(self) -> Listing:
        """Lists the genuine videos and then the fakes, by name."""
        found = Listing()
        for method, folder in self._folders.items():
            pattern, label = _NAMES[method]
            for path in videos(folder):
                if named := re.fullmatch(pattern, path.stem):
                    key, people = f"{method}/{self._compression}/{path.stem}", named.groups()
                    mask = mask_of(path) if label == FAKE else None
                    given = (method, self._compression, people, "")
                    found.clips.append(Clip(path, key, label, *given, mask=mask))
                else:
                    found.left_out["its name does not say who is in it"] += 1
        return found


def _video_folders(top: Path, compression: str) -> dict[str, Path]:
    spelt = ("raw", "c0") if compression == "raw" else (compression,)  # c0: in older downloads
    found = sorted(path for one in spelt for path in top.glob(f"*/{one}/videos"))
    return {path.parents[1].name: path for path in found}


def _official_splits(folder: Path) -> dict[tuple[str, ...], str]:
    """Returns the split of each person, alone, and of each pair, in either order."""
    split_of: dict[tuple[str, ...], str] = {}
    for split in SPLITS:
        path = folder / f"{split}.json"
        try:
            for one, two in json.loads(path.read_text()):
                split_of |= dict.fromkeys([(one, two), (two, one)], split)
                for person in (one, two):
                    if split_of.setdefault((person,), split) != split:
                        where = f"{split_of[(person,)]}.json"
                        raise UsageError(f"{path}: {person} is in {where} too")
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
    return split_of
