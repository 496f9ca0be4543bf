"""UADFV."""

from __future__ import annotations

import re

from deepregions.data.clips import Clip
from deepregions.data.databases.base import Adapter, DatabaseInfo, Listing, videos
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL


class Uadfv(Adapter):
    """UADFV (Yang et al. 2019); a number is a person, the one source of all fakes nobody."""

    name = "uadfv"
    needs = ("real", "fake")
    scheme = "paper"
    facts = DatabaseInfo(
        title="UADFV",
        url="https://docs.google.com/forms/d/e/1FAIpQLScKPoOv15TIZ9Mn0nGScIVgKRM9tFWOmjh9eHKx57Yp-XcnxA/viewform",
        licence="by its authors (on request, research)",
        layout="real/*.mp4 (0000.mp4) and fake/*.mp4 (0000_fake.mp4)",
        published={ORIGINAL: 49, "fake": 49},
        source="README.md of SCLBD/DeepfakeBench",
    )

    def listing(self) -> Listing:
        """Lists the genuine videos and then the fakes, by number."""
        found = Listing()
        for folder, label, method in (("real", BONA_FIDE, ORIGINAL), ("fake", FAKE, "fake")):
            for path in videos(self.root / folder):
                named = re.fullmatch(r"(\d+)(_fake)?", path.stem)
                name = f"{folder}/{path.stem}"
                if named is None:
                    found.left_out["its name is no number"] += 1
                elif (named[2] is not None) != (label == FAKE):
                    found.disputed.append(f"{name}.mp4 says by its name that it is not {folder}")
                else:
                    found.clips.append(Clip(path, name, label, method, "", (named[1],), ""))
        return found
