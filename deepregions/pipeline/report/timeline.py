"""Curves over time as SVG paths, drawn in a box of 100 x 100 that the page stretches to fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepregions.fusion.pooling import probability

if TYPE_CHECKING:
    from deepregions.pipeline.results import FaceResult, Result

_MOST_TICKS = 7
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


@dataclass(frozen=True)
class ScoreCurve:
    """A score over time, in a box of 100 x 100; ``missing`` is where there is none, in percent."""

    line: str
    dots: str
    missing: tuple[float, ...]
    count: int


class Timeline:
    """The time of an input from left to right, and which of its frames were looked at.

    ``ticks`` are round times: places in percent from the left, and what to write there.
    """

    def __init__(self, result: Result) -> None:
        duration = result.media.get("duration")
        known = float(duration) if isinstance(duration, int | float) else 0.0
        end = max([known, *(face.time for face in result.faces)])
        self._end = end if math.isfinite(end) and end > 0 else 1.0
        step = next((s for s in _steps(self._end) if self._end / s < _MOST_TICKS), self._end)
        times = [number * step for number in range(int(self._end / step + 1e-9) + 1)]
        self.ticks = [(round(100 * time / self._end, 2), _tick(time, step)) for time in times]

        numbers = result.sampling.get("numbers")
        seen = {face.frame for face in result.faces} | {each.frame for each in result.strip}
        if isinstance(numbers, Sequence) and not isinstance(numbers, str):
            seen |= {int(number) for number in numbers}
        elif max(seen, default=0) < result.frames:
            seen = set(range(result.frames))
        self._order = {number: place for place, number in enumerate(sorted(seen))}

    def between(self, first: FaceResult, second: FaceResult) -> int:
        """Returns how many frames were looked at after one face's and before another's."""
        return self._order[second.frame] - self._order[first.frame] - 1

    def place(self, face: FaceResult, log_odds: float | None) -> tuple[float, float]:
        """Returns where a score of a face is: in percent from the left and from above."""
        across = min(100.0, max(0.0, 100 * face.time / self._end))
        return across, 100 * (1 - (probability(log_odds) or 0.0))

    def curve(self, faces: Sequence[FaceResult], values: Sequence[float | None]) -> ScoreCurve:
        """Draws scores of one track."""
        line, dots, missing = [], [], []
        last: FaceResult | None = None
        for face, value in zip(faces, values, strict=True):
            x, y = self.place(face, value)
            if value is None:
                missing.append(round(x, 2))
                continue
            joined = last is not None and not self.between(last, face)
            line.append(f"{'L' if joined else 'M'}{x:.2f} {y:.2f}")
            dots.append(f"M{x:.2f} {y:.2f}h0")
            last = face
        return ScoreCurve("".join(line), "".join(dots), tuple(missing), len(dots))


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
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{seconds:.10g} s" if step >= 1 else f"{seconds:.{places}f} s"
