"""Curves over time as SVG paths, drawn in a box of 100 x 100 that the page stretches to fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deepregions.pipeline.results import FaceResult, InputResult, probability

_MOST_TICKS = 7
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


class Sampled:
    """Which frames of an input were looked at.

    Their numbers are those that its sampling recorded; else all up to their count, if faces are
    numbered by that; else those of which something is known.

    Args:
        result: The input.
        known: Numbers of further frames that were looked at.
    """

    def __init__(self, result: InputResult, known: Iterable[int] = ()) -> None:
        numbers = result.sampling.get("numbers")
        seen = {face.frame for face in result.faces} | set(known)
        if isinstance(numbers, Sequence) and not isinstance(numbers, str):
            seen |= {int(number) for number in numbers}
        elif max(seen, default=0) < result.frames:
            seen = set(range(result.frames))
        self._order = {number: place for place, number in enumerate(sorted(seen))}

    def between(self, first: FaceResult, second: FaceResult) -> int:
        """How many frames were looked at after one face's and before another's."""
        return self._order[second.frame] - self._order[first.frame] - 1


@dataclass(frozen=True)
class Axis:
    """Time from left to right.

    Attributes:
        end: Its right end in seconds; the left is 0.
        ticks: Places in percent, and what to write there.
    """

    end: float
    ticks: tuple[tuple[float, str], ...]

    def place(self, time: float) -> float:
        """Where a time is, in percent from the left."""
        return min(100.0, max(0.0, 100 * time / self.end))


@dataclass(frozen=True)
class ScoreCurve:
    """A score over time; paths in a box of 100 x 100, 1 above and 0 below.

    Attributes:
        line: Through the scores; broken where a frame that was looked at has none.
        dots: Moves and lines of no length: round caps make them dots.
        missing: Where a face has no score, in percent from the left.
        count: How many scores there are.
    """

    line: str
    dots: str
    missing: tuple[float, ...]
    count: int


def time_axis(end: float) -> Axis:
    """Makes an axis with ticks at round times."""
    end = end if math.isfinite(end) and end > 0 else 1.0
    step = next((step for step in _steps(end) if end / step < _MOST_TICKS), end)
    ticks = [number * step for number in range(int(end / step + 1e-9) + 1)]
    return Axis(end, tuple((round(100 * tick / end, 2), _tick(tick, step)) for tick in ticks))


def _steps(end: float) -> Iterator[float]:
    power = 10.0 ** math.floor(math.log10(end) - 2)
    while power < 1:
        yield from (power, 2 * power, 5 * power)
        power *= 10
    yield from _STEPS
    hours = 7200.0
    while True:
        yield hours
        hours *= 2


def _tick(seconds: float, step: float) -> str:
    if seconds and seconds >= 60 and step >= 1:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}:{rest:02d}"
    return f"{seconds:.10g} s" if step >= 1 else f"{seconds:.{_places(step)}f} s"


def _places(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def height(log_odds: float) -> float:
    """How far below the top of the box a score is, in percent."""
    return 100 * (1 - (probability(log_odds) or 0.0))


@dataclass(frozen=True)
class Timeline:
    """What all curves of an input share.

    Attributes:
        axis: Its time.
        sampled: Which frames were looked at.
    """

    axis: Axis
    sampled: Sampled

    def curve(self, faces: Sequence[FaceResult], values: Sequence[float | None]) -> ScoreCurve:
        """Draws the values of one track.

        Args:
            faces: The track's, by time.
            values: For each face log-odds, or None where it has none.
        """
        return _curve(faces, values, self)

    def place(self, face: FaceResult) -> tuple[float, float]:
        """Where a face with a score is in the box: from the left and from above."""
        return round(self.axis.place(face.time), 2), round(height(face.log_odds or 0.0), 2)


def _curve(
    faces: Sequence[FaceResult], values: Sequence[float | None], timeline: Timeline
) -> ScoreCurve:
    line: list[str] = []
    dots: list[str] = []
    missing = []
    last: FaceResult | None = None
    for face, value in zip(faces, values, strict=True):
        x = timeline.axis.place(face.time)
        if value is None:
            missing.append(round(x, 2))
            continue
        point = f"{x:.2f} {height(value):.2f}"
        joined = last is not None and not timeline.sampled.between(last, face)
        line.append(f"{'L' if joined else 'M'}{point}")
        dots.append(f"M{point}h0")
        last = face
    return ScoreCurve("".join(line), "".join(dots), tuple(missing), len(dots))
