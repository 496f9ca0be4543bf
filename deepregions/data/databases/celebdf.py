"""Celeb-DF, versions 1 and 2."""

from __future__ import annotations

import re
from dataclasses import replace

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
    """Celeb-DF version 2 (Li et al. 2020).

    Expects the folders ``Celeb-real``, ``YouTube-real`` and ``Celeb-synthesis`` and
    ``List_of_testing_videos.txt``, whose lines are ``<1 if real> <folder>/<name>.mp4``. In
    ``YouTube-real`` each video shows another person (README of its first version), not named.

    By default it is divided by people, as in the paper: its official test list has videos of 56 of
    its 59 people, so the official split leaves next to nothing to train on that shares nobody with
    it. That split is for evaluating networks trained on something else.
    """

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
        for folder in (_REAL, _OTHERS, _FAKE):
            label, method = (FAKE, _FAKE) if folder == _FAKE else (BONA_FIDE, ORIGINAL)
            for path in videos(self.root / folder):
                name = f"{folder}/{path.stem}"
                there.add(name)
                people = (name,) if folder == _OTHERS else celebdf_people(path.stem)
                if listed.get(name, label) != label:
                    word = "real" if label == FAKE else "fake"
                    found.disputed.append(f"{name}.mp4 is {word} in {_LIST}")
                elif len(people) != (2 if folder == _FAKE else 1):
                    found.left_out["its name does not say who is in it"] += 1
                else:
                    split = "test" if name in listed else "train" if listed else ""
                    found.clips.append(Clip(path, name, label, method, "", people, split))
        found.absent += [f"{name}.mp4" for name in listed if name not in there]
        return found

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
