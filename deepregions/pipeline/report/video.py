"""A whole video with the faces that were judged, their tracks and scores drawn into it."""

from __future__ import annotations

import statistics
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image
from torch import Tensor

from deepregions.errors import UsageError
from deepregions.files import atomic_file
from deepregions.media import Frame, MediaReader, Sampling
from deepregions.pipeline.report.drawing import FrameLayout, Mark
from deepregions.pipeline.report.encoding import Encoder
from deepregions.pipeline.report.plots import Sampled
from deepregions.pipeline.report.words import clock, conclusion
from deepregions.pipeline.results import FaceResult, InputResult

MAX_SIDE = 1280  # pixels

# A track bridges so many frames, or seconds, without its face (faces/tracks.py).
_GAP, _SECONDS = 3, 1.0
# A box stays so long before and after a frame that was looked at, where nothing is known beyond.
_HOLD = 0.15
_SAME = 1e-6  # seconds


def annotate_video(
    path: Path,
    result: InputResult,
    out: Path,
    *,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Writes a video again, as MP4, with boxes, track numbers and scores.

    Each frame is shown, at its own time. A full box is near a frame that was looked at, and has
    the score of that frame's face; a dashed one was not judged. In between, where a track goes
    on, corners move from one box to the next. Below the picture stand the time and the whole
    file's score. There is no sound. Memory does not grow with the video's length.

    Args:
        path: The video.
        result: What came of it.
        out: The file to write; it appears whole or not at all.
        progress: Called with the time, in seconds, of each frame that was written.

    Raises:
        UsageError: The input is no video.
        UnreadableError: It cannot be read any more.
        UnsupportedError: Likewise.
        OSError: The file cannot be written.
    """
    if result.kind != "video":
        raise UsageError(f"{path} is no video", "only videos can be annotated")
    walks = _walks(result)
    layout: FrameLayout | None = None
    caption = conclusion(result)
    with atomic_file(out) as partial, Encoder(partial, out, _rate(result)) as encoder:
        for frame in _every_frame(path):
            if layout is None:
                layout = FrameLayout(frame.image.shape[2], frame.image.shape[1], MAX_SIDE)
            marks = [mark for walk in walks if (mark := walk.at(frame.time)) is not None]
            below = f"{clock(frame.time)}   {caption}"
            encoder.add(layout.draw(_picture(frame.image), marks, below), frame.time)
            if progress is not None:
                progress(frame.time)


def _every_frame(path: Path) -> Iterator[Frame]:
    """All frames of a video, in order, decoded where a decoder may hang or die."""
    with MediaReader(ahead=0) as reader:
        for media in reader.open_all([path], Sampling(count=sys.maxsize)):
            for batch in media.batches(1):
                yield from batch


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _rate(result: InputResult) -> float:
    rate = result.media.get("rate")
    return float(rate) if isinstance(rate, int | float) and 1 <= rate <= 240 else 25.0


def _walks(result: InputResult) -> list[_Walk]:
    by_track: dict[int, list[FaceResult]] = {}
    for face in sorted(result.faces, key=lambda face: face.time):
        by_track.setdefault(face.track, []).append(face)
    times = sorted({face.time for face in result.faces})
    steps = [second - first for first, second in pairwise(times)]
    hold = min(_HOLD, statistics.median(steps) / 2) if steps else _HOLD
    sampled = Sampled(result)
    return [_Walk(faces, sampled, hold) for _, faces in sorted(by_track.items())]


@dataclass
class _Walk:
    """One track through the video: its faces by time.

    Attributes:
        faces: The track's.
        sampled: Which frames were looked at.
        hold: For how long a box stands for what was seen, in seconds.
    """

    faces: Sequence[FaceResult]
    sampled: Sampled
    hold: float

    def __post_init__(self) -> None:
        self._times = [face.time for face in self.faces]

    def at(self, time: float) -> Mark | None:
        """What to draw of the track at a time; None where it is not known to be there."""
        place = bisect_right(self._times, time + _SAME)
        before = self.faces[place - 1] if place else None
        after = self.faces[place] if place < len(self.faces) else None
        near = min((f for f in (before, after) if f), key=lambda face: abs(face.time - time))
        seen = abs(near.time - time) <= self.hold + _SAME
        if before is not None and after is not None and self._bridged(before, after):
            share = min(1.0, max(0.0, (time - before.time) / (after.time - before.time)))
            ends = zip(before.box, after.box, strict=True)
            x0, y0, x1, y1 = (first + share * (last - first) for first, last in ends)
            return Mark(near.track, near.log_odds, (x0, y0, x1, y1), seen=seen)
        return Mark(near.track, near.log_odds, near.box, seen=True) if seen else None

    def _bridged(self, before: FaceResult, after: FaceResult) -> bool:
        near = after.time - before.time <= _SECONDS
        return near or self.sampled.between(before, after) <= _GAP
