"""Celeb-DF, versions 1 and 2, and Celeb-DF++."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from deepregions.data.clips import Clip
from deepregions.data.databases.base import Adapter, DatabaseInfo, Listing, videos
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL

_LIST = "List_of_testing_videos.txt"
_REAL, _OTHERS, _FAKE = "Celeb-real", "YouTube-real", "Celeb-synthesis"


def celebdf_people(stem: str) -> tuple[str, ...]:
    """Who is in a video by its name.

    ``id3_0001`` is person 3; ``id3_id16_0001`` is a video of person 3, the target, with the face
    of person 16 (yuezunli/celeb-deepfakeforensics, issue 6). Others say nothing (empty).
    """
    named = re.fullmatch(r"(id\d+)(?:_(id\d+))?_\d+", stem)
    return tuple(filter(None, named.groups())) if named else ()


class CelebDF(Adapter):
    """Celeb-DF version 2 (Li et al. 2020); each video of ``YouTube-real`` shows another person."""

    name = "celebdf"
    needs = (_REAL, _FAKE)
    scheme = "paper"
    facts = DatabaseInfo(
        title="Celeb-DF v2",
        url="https://github.com/yuezunli/celeb-deepfakeforensics",
        licence="Terms to Use Celeb-DF (on request, research)",
        layout=f"{_REAL}/*.mp4, {_OTHERS}/*.mp4, {_FAKE}/*.mp4 and {_LIST}",
        published={_REAL: 590, _OTHERS: 300, _FAKE: 5639},
        source="README.md of yuezunli/celeb-deepfakeforensics",
        splits="a test list of 518 videos (1 is real there); no validation part",
    )

    def listing(self) -> Listing:
        """Lists the videos by folder and name."""
        found = Listing()
        listed = self._test_list(found)
        there = set()
        for folder, method in self._folders().items():
            label = BONA_FIDE if method == ORIGINAL else FAKE
            for path in videos(self.root / folder):
                name = f"{folder}/{path.stem}"
                there.add(name)
                people = (name,) if folder == _OTHERS else self._people(path.stem)
                if listed.get(name, label) != label:
                    word = "real" if label == FAKE else "fake"
                    found.disputed.append(f"{name}.mp4 is {word} in {_LIST}")
                elif len(people) not in self._known[label]:
                    found.left_out["its name does not say who is in it"] += 1
                else:
                    split = "test" if name in listed else "train" if listed else ""
                    found.clips.append(Clip(path, name, label, method, "", people, split))
        found.absent += [f"{name}.mp4" for name in listed if name not in there]
        return found

    _people = staticmethod(celebdf_people)
    _known: ClassVar[Mapping[int, tuple[int, ...]]] = {BONA_FIDE: (1,), FAKE: (2,)}  # people named

    def _folders(self) -> dict[str, str]:
        """What is in each folder: the manipulation's name."""
        return {_REAL: ORIGINAL, _OTHERS: ORIGINAL, _FAKE: _FAKE}

    def group_of(self, clip: Clip) -> str:
        """The folder that a clip is in."""
        return clip.key.split("/", maxsplit=1)[0]

    def _test_list(self, found: Listing) -> dict[str, int]:
        """Reads the label (1 is fake, here) of each video of the official test list."""
        path = self.root / _LIST
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            found.absent.append(_LIST)
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}", "download it again") from error
        labels = {}
        for number, line in enumerate(map(str.strip, lines), 1):
            named = re.fullmatch(r"([01])\s+(.+?/[^/]+)\.mp4", line)
            if named:
                labels[named[2]] = BONA_FIDE if named[1] == "1" else FAKE
            elif line:
                raise UsageError(
                    f"{path}, line {number}: {line!r}",
                    f"expected lines such as '1 {_REAL}/id0_0001.mp4'",
                )
        return labels


class CelebDFv1(CelebDF):
    """Celeb-DF version 1: laid out as version 2, with 13 people and 250 others."""

    name = "celebdf-v1"
    facts = replace(
        CelebDF.facts,
        title="Celeb-DF v1",
        url="https://github.com/yuezunli/celeb-deepfakeforensics/tree/master/Celeb-DF-v1",
        published={_REAL: 158, _OTHERS: 250, _FAKE: 795},
        source="README.md of yuezunli/celeb-deepfakeforensics, its first versions",
        splits="a test list (1 is real there); no validation part",
    )


class CelebDFPlusPlus(CelebDF):
    """Celeb-DF++ (Li et al. 2025): the genuine videos of version 2, and 22 manipulations."""

    name = "celebdf-pp"
    facts = replace(
        CelebDF.facts,
        title="Celeb-DF++",
        url="https://github.com/OUC-VAS/Celeb-DF-PP",
        licence="Terms to Use Celeb-DF++ (on request, research)",
        layout=f"{_REAL}/*.mp4, {_OTHERS}/*.mp4, {_FAKE}/*/<method>/*.mp4 and {_LIST}",
        published={_REAL: 590, _OTHERS: 300},
        source="README.md of OUC-VAS/Celeb-DF-PP; genuine videos are those of version 2",
        splits="a test list: 178 genuine videos, 200 or 300 fakes of each method; no validation",
    )
    _known: ClassVar[Mapping[int, tuple[int, ...]]] = {BONA_FIDE: (1,), FAKE: (1, 2)}

    def _folders(self) -> dict[str, str]:
        found = sorted((self.root / _FAKE).glob("[!.]*/[!.]*"))
        methods = {f"{_FAKE}/{one.parent.name}/{one.name}": one.name for one in found}
        return {_REAL: ORIGINAL, _OTHERS: ORIGINAL} | methods

    @staticmethod
    def _people(stem: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(re.findall(r"(?<![a-z])id\d+", stem)))[:2]

    def group_of(self, clip: Clip) -> str:
        """The folder of a genuine video, the method of a fake."""
        return clip.method if clip.label == FAKE else super().group_of(clip)
