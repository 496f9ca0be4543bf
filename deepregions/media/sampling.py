"""Which frames of a video are looked at: from the times at which they are shown, to numbers.

A frame's number is its place in display order, from 0. Times are in any unit, all in the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepregions.errors import UsageError

_WAYS = ("count", "rate", "adaptive")

Times = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How frames are chosen.

    ``count``: evenly in time. ``rate``: one every so often, so that nothing short is missed.
    ``adaptive``: half of the count evenly, the others where the scores of neighbours disagree.
    """

    how: Literal["count", "rate", "adaptive"] = "count"
    count: int = 32  # of a video; as DeepfakeBench's frame_num, so scores compare
    rate: float = 2.0  # frames per second
    most: int = 1024  # of a video, by rate; a longer one gets this many, evenly

    def __post_init__(self) -> None:
        if self.how not in _WAYS:
            raise UsageError(f"no sampling {self.how!r}", f"there are {', '.join(_WAYS)}")
        for name, value in (("frames", self.count), ("frames at most", self.most)):
            if value < 1:
                raise UsageError(f"{value} {name} of a video", "ask for at least 1")
        if not 0 < self.rate < math.inf:
            raise UsageError(f"{self.rate:g} frames a second", "ask for more than 0")


@dataclass(frozen=True)
class FrameChoice:
    """The frames chosen of so many; ``limited`` to fewer than the rate asks for."""

    numbers: tuple[int, ...]
    frames: int
    limited: bool = False

    def record(self, sampling: Sampling) -> dict[str, Any]:
        """Returns all that was chosen, and how, as JSON values."""
        rate = {"rate": sampling.rate, "most": sampling.most}
        return {
            "how": sampling.how,
            **(rate if sampling.how == "rate" else {"count": sampling.count}),
            "limited": self.limited,
            "frames": self.frames,
            "numbers": list(self.numbers),
        }


def choose(times: Times, end: float, second: float, sampling: Sampling) -> FrameChoice:
    """Chooses the frames to look at; the first round of them where sampling is adaptive.

    ``times`` is when each frame is shown, ascending, each once; the last one's ends at ``end``; a
    ``second`` is so long in their unit.
    """
    if sampling.how == "rate":
        numbers = by_rate(times, end, second / sampling.rate)
        if len(numbers) > sampling.most:
            return FrameChoice(by_count(times, end, sampling.most), len(times), limited=True)
        return FrameChoice(numbers, len(times))
    count = sampling.count if sampling.how == "count" else (sampling.count + 1) // 2
    return FrameChoice(by_count(times, end, count), len(times))


def by_count(times: Times, end: float, count: int) -> tuple[int, ...]:
    """Returns the frames on show in the middle of ``count`` equal intervals, each once, or all."""
    if len(times) <= count:
        return tuple(range(len(times)))
    moments = float(times[0]) + (np.arange(count) + 0.5) * (end - float(times[0])) / count
    return tuple(np.unique(np.searchsorted(times, moments, side="right") - 1).tolist())


def by_rate(times: Times, end: float, step: float) -> tuple[int, ...]:
    """Returns the frames on show at the start and after every ``step``, each once."""
    if not len(times):
        return ()
    begins = (times - float(times[0])) / step
    ends = np.append(begins[1:], (end - float(times[0])) / step)
    rounding = ends[-1] * 1e-12  # a third of a second has no exact value
    next_moments = np.maximum(np.ceil(begins - rounding), 1)
    shown = next_moments + rounding < ends
    shown[0] = True  # at the start, to which no rounding applies
    return tuple(np.flatnonzero(shown).tolist())


def refine(
    numbers: Sequence[int], log_odds: Sequence[float | None], budget: int
) -> tuple[int, ...]:
    """Chooses more frames, at most ``budget``, between neighbours whose scores disagree most.

    A frame is put midway between two; each half then counts with half of their difference. Equal
    differences go by length; where a score is missing, nothing is known to differ. The result is
    ascending, as ``numbers`` are.
    """
    gaps: list[tuple[float, int, int, int]] = []  # most disagreement first, then longest

    def add(first: int, last: int, difference: float) -> None:
        if last - first > 1:
            heappush(gaps, (-difference, first - last, first, last))

    for (first, last), (one, other) in zip(pairwise(numbers), pairwise(log_odds), strict=True):
        difference = math.nan if one is None or other is None else abs(one - other)
        add(first, last, difference if math.isfinite(difference) else 0.0)
    chosen: list[int] = []
    while gaps and len(chosen) < budget:
        negative, _, first, last = heappop(gaps)
        middle = (first + last) // 2
        chosen.append(middle)
        add(first, middle, -negative / 2)
        add(middle, last, -negative / 2)
    return tuple(sorted(chosen))
