"""What is behind an input's score, as pictures: kept small, however long a video is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepregions.pipeline.results import Cell, FaceResult, InputResult
from deepregions.types import Region

THUMBNAIL = 320  # pixels of the longer side: about 15 KB as JPEG
PHOTOGRAPH = 960  # the same of a photograph, which may show a crowd
STRIP = 24  # frames of a strip at most


@dataclass(frozen=True)
class RegionCrop:
    """What some networks saw of a face: the very crop that they scored.

    Attributes:
        region: Which region.
        detectors: Rows of the networks that were given it.
        image: (3, S, S) uint8.
    """

    region: Region
    detectors: tuple[str, ...]
    image: Tensor

    def score_of(self, detector: str, cells: Sequence[Cell]) -> Cell | None:
        """Returns what a detector says of it, among a face's cells; None if it was not given it."""
        pairs = ((cell.detector, cell.region) for cell in cells)
        known = dict(zip(pairs, cells, strict=True))
        return known.get((detector, self.region)) if detector in self.detectors else None


@dataclass(frozen=True)
class Evidence:
    """A person's highest-scoring face.

    Attributes:
        image: (3, H, W) uint8, the face's surroundings, or the region canvas as given.
        landmarks: (68, 2) in pixels of ``image``; None for a region canvas.
        face: The face's result; ``face.track`` says whose it is.
        crops: What the networks saw of it, by region.
    """

    image: Tensor
    landmarks: Tensor | None
    face: FaceResult
    crops: tuple[RegionCrop, ...] = ()


@dataclass(frozen=True)
class Thumbnail:
    """A frame that was looked at, made small.

    Attributes:
        frame: Its number in the video, as in :class:`FaceResult`.
        time: In seconds.
        jpeg: The picture.
        scale: Its pixels per pixel of the frame; boxes of faces are in the frame's.
    """

    frame: int
    time: float
    jpeg: bytes
    scale: float


@dataclass(frozen=True)
class Analysis:
    """An input's result and the pictures behind it.

    Attributes:
        result: What came of it.
        evidence: One for each track that has a score, by number.
        strip: Frames evenly over those that were looked at, in order of time.
    """

    result: InputResult
    evidence: tuple[Evidence, ...] = ()
    strip: tuple[Thumbnail, ...] = ()

    @property
    def top(self) -> Evidence | None:
        """The evidence of the highest track."""
        track = self.result.top_track
        if track is None:
            return None
        return next((each for each in self.evidence if each.face.track == track.track), None)


class Strip:
    """Collects thumbnails as frames come, of an unknown number of frames.

    When there are twice as many as wanted, every other one is dropped, and from then on only
    every other frame is taken: so they stay even, and few.
    """

    def __init__(self, most: int = STRIP) -> None:
        self._most = most
        self._every = 1
        self._seen = 0
        self._kept: list[Thumbnail] = []

    def add(self, frame: int, time: float, image: Tensor, side: int = THUMBNAIL) -> None:
        """Takes a frame (3, H, W) uint8, to be no larger than ``side``, or passes it over."""
        if self._seen % self._every == 0:
            self._kept.append(_thumbnail(frame, time, image, side))
        self._seen += 1
        if len(self._kept) >= 2 * self._most:
            self._kept = self._kept[::2]
            self._every *= 2

    def thumbnails(self) -> tuple[Thumbnail, ...]:
        """Returns at most as many as wanted, in order of time."""
        kept = sorted(self._kept, key=lambda each: each.time)
        if len(kept) <= self._most:
            return tuple(kept)
        places = np.linspace(0, len(kept) - 1, self._most).round().astype(int)
        return tuple(kept[place] for place in places)


def to_bytes(pixels: Tensor) -> Tensor:
    """Returns an image (3, H, W) in [0, 1] as uint8 on the CPU."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _thumbnail(frame: int, time: float, image: Tensor, side: int) -> Thumbnail:
    height, width = image.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).save(
        buffer, "JPEG", quality=80
    )
    return Thumbnail(frame, time, buffer.getvalue(), scale)
