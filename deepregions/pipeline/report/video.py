"""A whole video with the faces that were judged, their tracks and scores drawn into it."""

import logging
import statistics
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image, ImageDraw

from deepregions.errors import UsageError
from deepregions.faces.tracks import MAX_GAP, MAX_SECONDS
from deepregions.files import atomic_file
from deepregions.media import Frame, MediaReader, Sampling
from deepregions.media.sound import add_sound
from deepregions.pipeline.report.drawing import font, to_picture, track_colours, wrapped
from deepregions.pipeline.report.timeline import Timeline
from deepregions.pipeline.results import FaceResult, Result
from deepregions.pipeline.words import Answer, clock, score

logger = logging.getLogger(__name__)

MAX_SIDE = 1280  # pixels

# A box stays so long before and after a frame that was looked at, where nothing is known beyond.
_HOLD = 0.15
_SAME = 1e-6  # seconds
_PAPER, _INK = "#000000", "#ffffff"
_LEAST, _SMALLEST = 12, 9  # pixels of text, on and below the picture
_NARROWEST = 240  # pixels: what is said below needs room
_FOOT = MAX_SIDE // 2  # pixels that it may take
_BASE = Fraction(1, 60000)  # seconds; MPEG-4 allows 1/65535, and thirds of NTSC's frames are whole
_BT709 = 1  # colours as H.264, Annex E, numbers them: primaries, transfer and matrix

Box = tuple[float, float, float, float]
Mark = tuple[FaceResult, bool]
"""A face to draw, and whether it is what was looked at, not a place in between."""


def annotate_video(path: Path, result: Result, out: Path) -> None:
    """Writes a video again, as MP4, with boxes, track numbers and scores; whole or not at all.

    A full box is near a frame that was looked at, and has the score of that frame's face; a dashed
    one was not judged. In between, where a track goes on, corners move from one box to the next.
    Below the picture stands what the result says, and the time. Sound is copied where MP4 can hold
    it.

    Raises:
        UsageError: The input is no video.
        UnreadableError, UnsupportedError: It cannot be read any more.
    """
    if result.kind != "video":
        raise UsageError(f"{path} is no video", "only videos can be annotated")
    marks_at = Marks(result)
    layout: FrameLayout | None = None
    rate = result.media.get("rate")
    if not isinstance(rate, int | float) or not 1 <= rate <= 240:
        rate = 25.0
    with atomic_file(out) as partial:
        with _encoder(partial, out, rate) as add:
            for frame in _every_frame(path):
                if layout is None:
                    height, width = frame.image.shape[:2]
                    layout = FrameLayout(width, height, result.answer)
                picture = layout.draw(to_picture(frame.image), marks_at(frame.time), frame.time)
                add(picture, frame.time)
        if partial.is_file() and (why := add_sound(path, partial)):
            logger.warning("%s has no sound: %s", out, why)


def _every_frame(path: Path) -> Iterator[Frame]:
    """All frames of a video, in order, decoded where a decoder may hang or die."""
    with MediaReader(ahead=0) as reader:
        for media in reader.open_all([path], Sampling(count=sys.maxsize)):
            for batch in media.batches(1):
                yield from batch


class Marks:
    """Says what to draw of each track at a time."""

    def __init__(self, result: Result) -> None:
        by_track: dict[int, list[FaceResult]] = {}
        for face in sorted(result.faces, key=lambda face: face.time):
            by_track.setdefault(face.track, []).append(face)
        self._walks = [faces for _, faces in sorted(by_track.items())]
        self._times = [[face.time for face in faces] for faces in self._walks]
        times = sorted({face.time for face in result.faces})
        steps = [second - first for first, second in pairwise(times)]
        self._hold = min(_HOLD, statistics.median(steps) / 2) if steps else _HOLD
        self._timeline = Timeline(result)

    def __call__(self, time: float) -> list[Mark]:
        """Returns the faces that are known to be there at a time, in seconds."""
        walks = zip(self._walks, self._times, strict=True)
        marks = (self._mark(faces, times, time) for faces, times in walks)
        return [mark for mark in marks if mark is not None]

    def _mark(self, faces: list[FaceResult], times: list[float], time: float) -> Mark | None:
        place = bisect_right(times, time + _SAME)
        before = faces[place - 1] if place else None
        after = faces[place] if place < len(faces) else None
        near = min((f for f in (before, after) if f), key=lambda face: abs(face.time - time))
        seen = abs(near.time - time) <= self._hold + _SAME
        if before is not None and after is not None and self._bridged(before, after):
            share = min(1.0, max(0.0, (time - before.time) / (after.time - before.time)))
            ends = zip(before.box, after.box, strict=True)
            x0, y0, x1, y1 = (first + share * (last - first) for first, last in ends)
            return replace(near, box=(x0, y0, x1, y1)), seen
        return (near, True) if seen else None

    def _bridged(self, before: FaceResult, after: FaceResult) -> bool:
        near = after.time - before.time <= MAX_SECONDS
        return near or self._timeline.between(before, after) <= MAX_GAP


class FrameLayout:
    """Where things are on a video's pictures, of which all are as large as the first."""

    def __init__(self, width: int, height: int, answer: Answer) -> None:
        scale = min(1.0, MAX_SIDE / max(width, height))
        self._text = max(_LEAST, round(min(width, height) * scale / 24))
        small = max(_SMALLEST, round(0.7 * self._text))
        wide = max(_NARROWEST, 2 * round(width * scale / 2))
        self._below = [
            (line, size)
            for text, size in (
                (f"{answer.conclusion}.", self._text),
                *((each, small) for each in answer.details),
            )
            for line in wrapped(text, wide - self._text, font(size))
        ]
        while (foot := 2 * round(0.7 * sum(s for _, s in self._below) + self._text)) > _FOOT:
            self._below.pop()
        scale = min(scale, (MAX_SIDE - foot) / height)
        self._width, self._height = (max(2, 2 * round(s * scale / 2)) for s in (width, height))
        self._width = max(_NARROWEST, self._width)
        self.size = self._width, self._height + foot
        self._foot = self._draw_foot(foot)

    def _draw_foot(self, height: int) -> Image.Image:
        """What is said below every picture; its last line is left for the time."""
        picture = Image.new("RGB", (self._width, height), _PAPER)
        pen, y = ImageDraw.Draw(picture), self._text // 2
        for line, size in self._below:
            pen.text((self._text // 2, y), line, _INK, font(size))
            y += round(1.4 * size)
        return picture

    def draw(self, frame: Image.Image, marks: Sequence[Mark], time: float) -> Image.Image:
        """Draws a frame's picture; a frame of another shape than the first's gets bars."""
        scale = min(self._width / frame.width, self._height / frame.height)
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        left, top = (self._width - size[0]) // 2, (self._height - size[1]) // 2
        shown = frame.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        picture = Image.new("RGB", (self._width, self._height), _PAPER)
        picture.paste(shown, (left, top))
        pen = ImageDraw.Draw(picture)
        for face, seen in sorted(marks, key=lambda mark: -mark[0].track):
            x0, y0, x1, y1 = (value * scale for value in face.box)
            self._mark(pen, face, (x0 + left, y0 + top, x1 + left, y1 + top), seen=seen)
        whole = Image.new("RGB", self.size, _PAPER)
        whole.paste(picture)
        whole.paste(self._foot, (0, self._height))
        corner = (self._text // 2, self.size[1] - self._text // 2)
        ImageDraw.Draw(whole).text(corner, clock(time), _INK, font(self._text), anchor="lb")
        return whole

    def _mark(self, pen: ImageDraw.ImageDraw, face: FaceResult, box: Box, *, seen: bool) -> None:
        colour, ink = track_colours(face.track)
        thick = max(3, self._text // 6)
        lines = _lines(box, dash=0.6 * self._text if face.log_odds is None else 0, full=seen)
        for line, paint, width in (
            *((line, _PAPER, thick + 2) for line in lines),
            *((line, colour, thick) for line in lines),
        ):
            pen.line(line, paint, width)
        said = "not judged" if face.log_odds is None else score(face.log_odds)
        text = f"{face.track + 1}   {said}" if seen else f"{face.track + 1}"
        letters = font(self._text)
        wide = pen.textlength(text, letters) + 0.7 * self._text
        high = 1.3 * self._text
        x = min(max(box[0], 0), max(self._width - wide, 0))
        y = min(max(box[1] - high, 0), self._height - high)
        pen.rectangle((x, y, x + wide, y + high), colour)
        pen.text((x + wide / 2, y + high / 2), text, ink, letters, anchor="mm")


def _lines(box: Box, *, dash: float, full: bool) -> list[Box]:
    """A box's sides: whole, dashed, or only what is near its corners."""
    x0, y0, x1, y1 = box
    lines = []
    for ax, ay, bx, by in ((x0, y0, x1, y0), (x1, y0, x1, y1), (x1, y1, x0, y1), (x0, y1, x0, y0)):
        length = max(abs(bx - ax), abs(by - ay))
        if not full:
            parts = [(0.0, 0.2), (0.8, 1.0)]
        elif dash and length > 0:
            count = max(1, round(length / (2 * dash)))
            parts = [((n + 0.25) / count, (n + 0.75) / count) for n in range(count)]
        else:
            parts = [(0.0, 1.0)]
        lines += [
            (ax + s * (bx - ax), ay + s * (by - ay), ax + e * (bx - ax), ay + e * (by - ay))
            for s, e in parts
        ]
    return lines


@contextmanager
def _encoder(path: Path, name: Path, rate: float) -> Iterator[Callable[[Image.Image, float], None]]:
    """Opens an MP4 file: H.264 where PyAV was built with x264, else MPEG-4; no sound."""
    stream: VideoStream | None = None
    last, whole = -1, False

    def add(picture: Image.Image, time: float) -> None:
        nonlocal stream, last
        if stream is None:
            stream = _stream(container, picture.size, rate)
        frame = av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        last = max(last + 1, round(time / _BASE))
        frame.pts, frame.time_base = last, _BASE
        container.mux(stream.encode(frame))

    try:
        options = {"movflags": "+faststart"}
        container = av.open(str(path), "w", format="mp4", options=options)
        try:
            yield add
            if stream is not None:
                container.mux(stream.encode(None))
            whole = True
        finally:
            with nullcontext() if whole else suppress(av.FFmpegError):
                container.close()
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(name)) from error


def _stream(container: OutputContainer, size: tuple[int, int], rate: float) -> VideoStream:
    """Begins a stream: nearly without visible loss, and fast."""
    name, options = "libx264", {"crf": "20", "preset": "veryfast"}
    try:
        av.Codec(name, "w")
    except UnknownCodecError:
        name, options = "mpeg4", {"qscale": "3", "flags": "+qscale"}
    stream = container.add_stream(name, Fraction(rate).limit_denominator(1001), options=options)
    if not isinstance(stream, VideoStream):
        raise TypeError(f"{name} is no video encoder")
    codec = stream.codec_context
    codec.width, codec.height, codec.pix_fmt = *size, "yuv420p"
    codec.time_base = _BASE
    codec.color_range, codec.colorspace = ColorRange.MPEG, Colorspace.ITU709
    codec.color_primaries = codec.color_trc = _BT709
    return stream
