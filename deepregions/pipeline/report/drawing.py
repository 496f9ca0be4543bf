"""Boxes, numbers and scores on the pictures of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from deepregions.pipeline.report.colours import track_colours
from deepregions.pipeline.report.words import score

_PAPER, _INK = "#000000", "#ffffff"
_LEAST, _SMALLEST = 12, 9  # pixels of text, on and below the picture

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """A track on a picture.

    Attributes:
        track: Its number.
        log_odds: Its score here; None where it was not judged.
        box: x0, y0, x1, y1 in pixels of the frame.
        seen: Whether this is what was looked at, not a place in between.
    """

    track: int
    log_odds: float | None
    box: _Box
    seen: bool


class FrameLayout:
    """Where things are on a video's pictures, whose size stays that of the first.

    Args:
        width: Of the first frame, in pixels.
        height: The same.
        longest: The pictures' longer side at most, with what is below them.
    """

    def __init__(self, width: int, height: int, longest: int) -> None:
        scale = min(1.0, longest / max(width, height))
        self._text = max(_LEAST, round(min(width, height) * scale / 24))
        self._foot = 2 * round(0.9 * self._text)
        scale = min(scale, (longest - self._foot) / height)
        self._width, self._height = _even(width * scale), _even(height * scale)
        self._font: Font = ImageFont.load_default(self._text)
        self._fonts: dict[int, Font] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, both even."""
        return self._width, self._height + self._foot

    def draw(self, frame: Image.Image, marks: Sequence[Mark], below: str) -> Image.Image:
        """Draws a frame's picture.

        Args:
            frame: In any size; of another shape than the first's, it gets bars.
            marks: What is on it.
            below: What is written below it.
        """
        scale = min(self._width / frame.width, self._height / frame.height)
        size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
        left, top = (self._width - size[0]) // 2, (self._height - size[1]) // 2
        shown = frame.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        picture = Image.new("RGB", (self._width, self._height), _PAPER)
        picture.paste(shown, (left, top))
        pen = ImageDraw.Draw(picture)
        for mark in sorted(marks, key=lambda mark: -mark.track):
            x0, y0, x1, y1 = (value * scale for value in mark.box)
            self._mark(pen, mark, (x0 + left, y0 + top, x1 + left, y1 + top))
        whole = Image.new("RGB", self.size, _PAPER)
        whole.paste(picture)
        left_middle = (self._text // 2, self._height + self._foot / 2)
        font = self._fitting(below)
        pen = ImageDraw.Draw(whole)
        pen.text(left_middle, below, _INK, font, anchor=self._anchor("lm"))
        return whole

    def _fitting(self, line: str) -> Font:
        """The font in which a line fits below the picture; the same for lines of one length."""
        if len(line) not in self._fonts:
            needed = 1.03 * self._font.getlength(line) + self._text  # other digits may be wider
            size = max(_SMALLEST, int(self._text * min(1.0, self._width / needed)))
            self._fonts[len(line)] = ImageFont.load_default(size)
        return self._fonts[len(line)]

    def _mark(self, pen: ImageDraw.ImageDraw, mark: Mark, box: _Box) -> None:
        colour, ink = track_colours(mark.track)
        thick = max(3, self._text // 6)
        lines = _lines(box, dash=0.6 * self._text if mark.log_odds is None else 0, full=mark.seen)
        for line in lines:
            pen.line(line, _PAPER, thick + 2)
        for line in lines:
            pen.line(line, colour, thick)
        said = "not judged" if mark.log_odds is None else score(mark.log_odds)
        number = mark.track + 1
        text = f"{number}   {said}" if mark.seen else f"{number}"
        wide = pen.textlength(text, self._font) + 0.7 * self._text
        high = 1.3 * self._text
        x = min(max(box[0], 0), max(self._width - wide, 0))
        y = min(max(box[1] - high, 0), self._height - high)
        pen.rectangle((x, y, x + wide, y + high), colour)
        pen.text((x + wide / 2, y + high / 2), text, ink, self._font, anchor=self._anchor("mm"))

    def _anchor(self, anchor: str) -> str | None:
        return anchor if isinstance(self._font, ImageFont.FreeTypeFont) else None


def _even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def _lines(box: _Box, *, dash: float, full: bool) -> list[_Box]:
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
