"""Scores in their order, and what follows from the order alone: ROC, AUC, EER, accuracy.

Convention: a score is higher for fakes; a trial is called fake where its score is at or above a
threshold; errors are APCER (a fake called genuine) and BPCER (a genuine one called fake).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

NAN = math.nan

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Numbers or weights of fakes and genuine ones at each of K distinct scores, highest first."""

    values: Floats
    fake: Floats
    genuine: Floats
    part_of: tuple[ScoreCounts, npt.NDArray[np.int64]] | None = field(default=None, init=False)
    """Which counts have these scores and more, and where: what follows from scores is known there.

    With other values, by :func:`dataclasses.replace`, they are part of none.
    """

    @cached_property
    def costs(self) -> tuple[Floats, Floats]:
        """(K,) twice: what each score costs as a log-likelihood ratio of a fake, of a genuine one.

        In nats, at even odds.
        """
        if self.part_of is None:
            return np.logaddexp(0, -self.values), np.logaddexp(0, self.values)
        whole, places = self.part_of
        of_fake, of_genuine = whole.costs
        return of_fake[places], of_genuine[places]

    @cached_property
    def probabilities(self) -> Floats:
        """(K,), each score read as the log-odds of a fake."""
        if self.part_of is None:
            return np.asarray(np.exp(-self.costs[0]), dtype=np.float64)
        whole, places = self.part_of
        return whole.probabilities[places]

    @cached_property
    def true_positives(self) -> Floats:
        """(K,), fakes at or above each score."""
        return np.asarray(self.fake.cumsum(), dtype=np.float64)

    @cached_property
    def false_positives(self) -> Floats:
        """(K,), genuine ones at or above each score."""
        return np.asarray(self.genuine.cumsum(), dtype=np.float64)

    @cached_property
    def positives(self) -> float:
        """How many fakes there are."""
        return float(self.true_positives[-1]) if len(self.values) else 0.0

    @cached_property
    def negatives(self) -> float:
        """How many genuine ones there are."""
        return float(self.false_positives[-1]) if len(self.values) else 0.0

    @property
    def two_classes(self) -> bool:
        """Whether there is something of both classes."""
        return self.positives > 0 and self.negatives > 0

    def called_fake(self, threshold: float) -> tuple[float, float]:
        """Returns how many fakes and how many genuine ones are at or above a threshold."""
        place = int(np.searchsorted(-self.values, -threshold, side="right")) - 1
        if place < 0:
            return 0.0, 0.0
        return float(self.true_positives[place]), float(self.false_positives[place])


class Ranking:
    """Scores (N,), none NaN, put in order once, and counted under as many weights as one likes."""

    def __init__(self, scores: Floats, fake: Bools) -> None:
        self._order = np.argsort(-scores, kind="stable")
        falling = scores[self._order].astype(np.float64)
        fresh = np.ones(len(falling), dtype=np.bool_)
        fresh[1:] = falling[1:] != falling[:-1]
        self._start = np.flatnonzero(fresh)
        self._is_fake = np.asarray(fake[self._order], dtype=np.float64)
        self.values = falling[self._start]
        nothing = np.zeros(len(self.values))
        self._whole = ScoreCounts(self.values, nothing, nothing)

    def tally(self, weights: Floats | None = None) -> ScoreCounts:
        """Counts by weights (N,), 0 or more; None counts each once. What has none is not there."""
        total = np.ones(len(self._order)) if weights is None else weights[self._order]
        fake = total * self._is_fake
        if len(self._start) < len(total):  # some are equal
            total, fake = (np.add.reduceat(x, self._start) for x in (total, fake))
        there = np.flatnonzero(total > 0)
        fake, rest = fake[there], np.maximum(total[there] - fake[there], 0.0)
        counts = ScoreCounts(self.values[there], fake, rest)
        object.__setattr__(counts, "part_of", (self._whole, there))
        return counts


def tally(scores: Floats, fake: Bools, weights: Floats | None = None) -> ScoreCounts:
    """Counts scores; the arguments are those of :class:`Ranking` and its ``tally``."""
    return Ranking(scores, fake).tally(weights)


def area_under_curve(counts: ScoreCounts) -> float:
    """Returns how often a fake scores above a genuine one, ties half; NaN if a class is absent."""
    if not counts.two_classes:
        return NAN
    below = counts.negatives - counts.false_positives
    doubled = float(counts.fake @ (2 * below + counts.genuine))  # exact for up to 10^7 scores
    return doubled / (2 * counts.positives * counts.negatives)


def equal_error_rate(counts: ScoreCounts) -> tuple[float, float]:
    """Returns the rate at which APCER and BPCER are equal, and a threshold for it.

    The ROC curve is taken as the straight lines between its operating points. The threshold is that
    score at which the two errors differ least. Both are NaN where a class is absent.
    """
    if not counts.two_classes:
        return NAN, NAN
    accused = counts.false_positives / counts.negatives
    gap = accused - (1.0 - counts.true_positives / counts.positives)  # rises from above -1 to 1
    after = int((gap >= 0).argmax())
    if after == 0:  # the curve starts at (0, 1), where the threshold is beyond every score
        left_accused, left_gap, nearest = 0.0, -1.0, 0
    else:
        left_accused, left_gap = float(accused[after - 1]), float(gap[after - 1])
        nearest = after if float(gap[after]) <= -left_gap else after - 1
    share = -left_gap / (float(gap[after]) - left_gap)
    rate = left_accused + share * (float(accused[after]) - left_accused)
    return rate, float(counts.values[nearest])


def accuracy(counts: ScoreCounts, threshold: float) -> float:
    """Returns the share of right verdicts; NaN where there is nothing to judge."""
    total = counts.positives + counts.negatives
    if not total or math.isnan(threshold):
        return NAN
    found, accused = counts.called_fake(threshold)
    return (found + counts.negatives - accused) / total


def cllr(counts: ScoreCounts) -> float:
    """Returns the cost of scores as natural-log likelihood ratios, in bits; 1 of what says nothing.

    Brümmer and du Preez 2006. NaN where a class is absent; infinite where a score is wrongly so.
    """
    return empirical_cross_entropy(counts, 0.0) if counts.two_classes else NAN


def empirical_cross_entropy(counts: ScoreCounts, prior: float) -> float:
    """Returns that cost at natural log prior odds (Ramos and Gonzalez-Rodriguez 2013)."""
    if prior == 0:
        costs = counts.costs
    else:
        costs = np.logaddexp(0, -counts.values - prior), np.logaddexp(0, counts.values + prior)
    nats = _total(counts.fake, costs[0]) / counts.positives / (1 + math.exp(-prior))
    nats += _total(counts.genuine, costs[1]) / counts.negatives / (1 + math.exp(prior))
    return nats / math.log(2)


def _total(weights: Floats, costs: Floats) -> float:
    """Returns what all cost together; what is absent costs nothing, even where it would all."""
    if not np.isfinite(costs).all():
        there = weights > 0
        weights, costs = weights[there], costs[there]
    return float(weights @ costs)
