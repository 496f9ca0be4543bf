"""A strip of thumbnails over an input, kept small however long a video is."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepregions.pipeline.results import Thumbnail

THUMBNAIL = 320  # pixels of the longer side: about 15 KB as JPEG
PHOTOGRAPH = 960  # the same of a photograph, which may show a crowd
STRIP = 24  # frames of a strip at most


class Strip:
    """Collects thumbnails of an unknown number of frames: of twice too many, half are dropped."""

    def __init__(self) -> None:
        self._every = 1
        self._seen = 0
        self._kept: list[Thumbnail] = []
        self._wanted: dict[int, Thumbnail] = {}

    def add(self, frame: int, time: float, image: NDArray[np.uint8], side: int = THUMBNAIL) -> None:
        """Takes a frame (H, W, 3) uint8, to be no larger than ``side``, or passes it over."""
        if self._seen % self._every == 0:
            self._kept.append(_thumbnail(frame, time, image, side))
        self._seen += 1
        if len(self._kept) >= 2 * STRIP:
            self._kept = self._kept[::2]
            self._every *= 2

    def keep(self, frame: int, time: float, image: NDArray[np.uint8]) -> None:
        """Takes a frame that must not be dropped."""
        known = (each for each in self._kept if each.frame == frame)
        self._wanted[frame] = next(known, None) or _thumbnail(frame, time, image, THUMBNAIL)

    def thumbnails(self) -> tuple[Thumbnail, ...]:
        """Returns at most as many as wanted, and those that must be there, in order of time."""
        kept = sorted(self._kept, key=lambda each: each.time)
        places = np.linspace(0, len(kept) - 1, min(STRIP, len(kept))).round().astype(int)
        shown = {kept[place].frame: kept[place] for place in places} | self._wanted
        return tuple(sorted(shown.values(), key=lambda each: each.time))


def _thumbnail(frame: int, time: float, image: NDArray[np.uint8], side: int) -> Thumbnail:
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).save(
        buffer, "JPEG", quality=80
    )
    return Thumbnail(frame, time, buffer.getvalue(), size, scale)
