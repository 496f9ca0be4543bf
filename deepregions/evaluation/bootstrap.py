"""Intervals by bootstrap over people: groups are drawn, with all trials in which they appear.

Where fakes tie so many people together that few groups are left (as in Celeb-DF), people are drawn
instead, and what shows several of them counts as often as the product of their draws: the vertex
bootstrap of Snijders and Borgatti 1999. All systems of a database are measured on the same draws,
so their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepregions.errors import UsageError
from deepregions.evaluation.measures import MEASURES, Measure, Sample
from deepregions.fusion.trials import Trials
from deepregions.people import FEW, Numbers, too_few
from deepregions.roc import NAN, Floats

ROUNDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval and what it rests on.

    Attributes:
        value: None where it is undefined, and ``reason`` says why.
        dropped: Bootstrap samples in which it was undefined.
        withheld: Why there is no interval, where there are too few people for one.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    coverage: float
    reason: str = ""
    dropped: int = 0
    withheld: str = ""

    @classmethod
    def none(cls, reason: str, n: int = 0, coverage: float = NAN) -> Estimate:
        """Returns an estimate without a value."""
        return cls(None, None, None, n, coverage, reason)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """S systems measured on the same trials by M measures, and again in R rounds.

    ``values`` (S, M) are on all trials, NaN where undefined; ``draws`` (S, M, R) on each draw of
    groups, or of people, as ``unit`` says.
    """

    trials: tuple[Trials, ...]
    measures: tuple[Measure, ...]
    values: Floats
    draws: Floats
    groups: int
    unit: str
    confidence: float

    def estimate(self, system: str, measure: Measure) -> Estimate:
        """Returns a figure of a system, given by name, with its interval."""
        s, m = self._places(system, measure)
        return self._estimate(s, measure, float(self.values[s, m]), self.draws[s, m])

    def difference(self, first: str, second: str, measure: Measure) -> Estimate:
        """Returns the first system's figure less the second's; its interval is of paired draws.

        ``n`` and ``coverage`` are those of the system with fewer verdicts.
        """
        (a, m), (b, _) = self._places(first, measure), self._places(second, measure)
        least = min(a, b, key=lambda s: int(self.trials[s].judged.sum()))
        value = float(self.values[a, m] - self.values[b, m])
        return self._estimate(least, measure, value, self.draws[a, m] - self.draws[b, m])

    def mean(self, system: str, measures: Sequence[Measure]) -> Estimate:
        """Returns the mean of some measures of two classes; undefined where one is."""
        s = self._places(system, measures[0])[0]
        places = [self._places(system, measure)[1] for measure in measures]
        value = float(self.values[s, places].mean())
        return self._estimate(s, MEASURES[0], value, self.draws[s, places].mean(0))

    def _places(self, system: str, measure: Measure) -> tuple[int, int]:
        names = [trials.name for trials in self.trials]
        return names.index(system), [m.name for m in self.measures].index(measure.name)

    def _estimate(self, system: int, measure: Measure, value: float, draws: Floats) -> Estimate:
        trials = measure.over(self.trials[system])
        n, coverage = int(trials.judged.sum()), trials.coverage
        if math.isnan(value):
            return Estimate.none(_reason(trials, measure), n, coverage)
        kept = draws[~np.isnan(draws)]
        low = high = None
        withheld = too_few(self.groups, self.unit) if len(draws) else ""
        if len(kept) and not withheld:
            tail = (1 - self.confidence) / 2
            low, high = (float(x) for x in np.quantile(kept, [tail, 1 - tail]))
        return Estimate(value, low, high, n, coverage, "", len(draws) - len(kept), withheld)


def bootstrap(
    trials: Sequence[Trials],
    measures: Sequence[Measure] = MEASURES,
    thresholds: Sequence[float] | None = None,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
    confidence: float = 0.95,
) -> Bootstrap:
    """Measures systems on their trials, and on draws of groups with replacement.

    All are on the same trials: only ``log_odds`` and ``name`` differ. ``thresholds`` has each
    system's operating threshold, NaN where there is none; with 0 rounds there are no intervals.

    Raises:
        UsageError: No system, or systems on other trials, or a count or share that makes no sense.
    """
    if not trials:
        raise UsageError("there is no system to measure")
    first = trials[0]
    columns = ("fake", "group", "method", "people")
    if not all(
        np.array_equal(getattr(first, name), getattr(other, name))
        for name in columns
        for other in trials[1:]
    ):
        raise UsageError("systems that are compared must be on the same trials")
    if rounds < 0 or not 0 < confidence < 1:
        raise UsageError(f"{rounds} rounds at a confidence of {confidence}", "1000 and 0.95")
    thresholds = [NAN] * len(trials) if thresholds is None else thresholds
    samples = [Sample.of(t, x) for t, x in zip(trials, thresholds, strict=True)]
    rows = [np.flatnonzero(t.judged) for t in trials]
    values = np.array([[m.of(sample) for m in measures] for sample in samples])
    groups, unit = _units(first)
    draws = np.full((len(trials), len(measures), rounds), NAN)
    for number, weights in enumerate(draws_of(first, rounds, seed)):
        for s, (sample, own) in enumerate(zip(samples, rows, strict=True)):
            drawn = replace(sample, weights=weights[own])
            draws[s, :, number] = [measure.of(drawn) for measure in measures]
    values = values.reshape(len(trials), len(measures))
    return Bootstrap(tuple(trials), tuple(measures), values, draws, groups, unit, confidence)


def draws_of(trials: Trials, rounds: int, seed: int) -> Iterator[Floats]:
    """Yields the weights (N,) of each round, by groups or by people."""
    people = trials.people
    if people is None or _units(trials)[1] == _GROUPS:
        yield from draw(trials.group, rounds, seed)
        return
    for times in draw(np.arange(people.max() + 1), rounds, seed):
        yield np.where(people >= 0, times[people], 1.0).prod(1)


_GROUPS = "groups of people"


def _units(trials: Trials) -> tuple[int, str]:
    """How many are drawn, and what they are."""
    groups = len(np.unique(trials.group))
    people = 0 if trials.people is None else int(trials.people.max(initial=-1)) + 1
    return (people, "people") if groups < FEW and people > groups else (groups, _GROUPS)


def draw(group: Numbers, rounds: int, seed: int) -> Iterator[Floats]:
    """Yields the weights (N,) of each round: how often each trial's group was drawn.

    Groups are put in the order in which they come first, so that their numbers do not matter.
    """
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    count, place = len(first), np.argsort(np.argsort(first))[place]
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        drawn = rng.integers(0, max(1, count), count)
        yield np.bincount(drawn, minlength=count).astype(np.float64)[place]


def _reason(trials: Trials, measure: Measure) -> str:
    """Says why a measure of some trials is undefined."""
    if not trials.judged.any():
        return "no verdict" if len(trials) else "nothing to judge"
    return trials.absent() if measure.classes == "both" else "undefined here"
