"""What is measured of a system on trials: each measure, from a count of its scores.

Convention: 1 is fake; log-odds at or above a threshold are called fake. APCER is the share of
fakes called genuine, BPCER that of genuine ones called fake (ISO/IEC 30107-3, where a fake is
the attack). A measure is NaN, never an error, where what it divides by is absent: so rounds of a
bootstrap go on. ``docs/metrics.md`` has every formula and source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from deepregions.fusion.fitting import isotonic_pools
from deepregions.fusion.trials import Trials
from deepregions.roc import (
    NAN,
    Bools,
    Floats,
    Ranking,
    ScoreCounts,
    accuracy,
    area_under_curve,
    cllr,
    equal_error_rate,
)

Best = Literal["higher", "lower", "none"]
Classes = Literal["both", "fake", "genuine", "any"]

BINS = 15  # of the calibration error, as in Guo et al. 2017
_LEAST = 1e-3  # bits; below, a likelihood ratio says nothing
_ROUNDING = 1e-9  # of shares: 1 of 100 is at most 1 %, whatever 0.01 is in binary


def average_precision(counts: ScoreCounts) -> float:
    """Returns the sum of precision over steps of recall, as scikit-learn; NaN without a class."""
    if not counts.two_classes:
        return NAN
    precision = counts.true_positives / (counts.true_positives + counts.false_positives)
    return float(counts.fake @ precision) / counts.positives


def apcer(counts: ScoreCounts, threshold: float) -> float:
    """Returns the share of fakes called genuine; NaN without fakes or threshold."""
    if not counts.positives or math.isnan(threshold):
        return NAN
    return 1.0 - counts.called_fake(threshold)[0] / counts.positives


def bpcer(counts: ScoreCounts, threshold: float) -> float:
    """Returns the share of genuine ones called fake; NaN without genuine ones or threshold."""
    if not counts.negatives or math.isnan(threshold):
        return NAN
    return counts.called_fake(threshold)[1] / counts.negatives


def balanced_accuracy(counts: ScoreCounts, threshold: float) -> float:
    """Returns the mean share of right verdicts of the two classes; NaN without a class."""
    return 1.0 - (apcer(counts, threshold) + bpcer(counts, threshold)) / 2


def bpcer_at_apcer(counts: ScoreCounts, limit: float) -> float:
    """Returns the lowest BPCER at a threshold with an APCER of at most ``limit``.

    Only thresholds at scores that occur count: nothing is interpolated.
    """
    if not counts.two_classes:
        return NAN
    missed = counts.positives - counts.true_positives
    place = int((missed <= (limit + _ROUNDING) * counts.positives).argmax())
    return float(counts.false_positives[place]) / counts.negatives


def minimum_cllr(counts: ScoreCounts) -> float:
    """Returns the least Cllr of any rising function of the scores, found by PAV.

    It is what is left when calibration is perfect. NaN where a class is absent.
    """
    if not counts.two_classes:
        return NAN
    return cllr(isotonic_pools(counts)[0])


def calibration_error(counts: ScoreCounts, bins: int = BINS) -> float:
    """Returns the expected calibration error of scores read as probabilities.

    Bins are of about equal mass. Equal scores share a bin, that in which the middle of their mass
    lies. NaN where there is nothing.
    """
    total = counts.positives + counts.negatives
    if not total:
        return NAN
    mass = counts.fake + counts.genuine
    middle = (mass.cumsum() - mass / 2) / total
    place = np.minimum((bins * middle + _ROUNDING).astype(np.int64), bins - 1)
    surplus = np.bincount(place, counts.fake - mass * counts.probabilities, bins)
    return float(np.abs(surplus).sum()) / total


@dataclass(frozen=True, eq=False)
class Sample:
    """Trials of one system with their weights: what a :class:`Measure` is computed from.

    Attributes:
        log_odds: (N,), none NaN.
        method: (N,) which of M ``methods`` made each fake; of genuine ones it says nothing.
        threshold: The operating threshold, from development data; NaN if there is none.
        ranking: The scores in order, shared by all weightings.
        parts: Of each method that was asked for, the places of its fakes and of what is genuine,
            and these counted once; shared likewise.
    """

    log_odds: Floats
    fake: Bools
    method: npt.NDArray[np.int64]
    methods: int
    threshold: float
    weights: Floats
    ranking: Ranking
    parts: dict[int, tuple[npt.NDArray[np.int64], Sample]] = field(default_factory=dict)

    @classmethod
    def of(cls, trials: Trials, threshold: float = NAN) -> Self:
        """Returns the trials with a score, each counted once."""
        own = trials.select(trials.judged)
        number = {method: n for n, method in enumerate(trials.methods)}
        method = np.array([number.get(name, 0) for name in own.method.tolist()], dtype=np.int64)
        ranking, ones = Ranking(own.log_odds, own.fake), np.ones(len(own))
        return cls(own.log_odds, own.fake, method, len(number), threshold, ones, ranking)

    @cached_property
    def tally(self) -> ScoreCounts:
        """The scores counted."""
        return self.ranking.tally(self.weights)

    @cached_property
    def _apart(self) -> dict[int, Sample]:
        return {}

    def only(self, method: int) -> Sample:
        """Returns what is genuine and the fakes of one method."""
        if method not in self._apart:
            if method not in self.parts:
                self.parts[method] = self._part(method)
            places, part = self.parts[method]
            self._apart[method] = replace(part, weights=self.weights[places])
        return self._apart[method]

    def _part(self, method: int) -> tuple[npt.NDArray[np.int64], Sample]:
        places = np.flatnonzero(~self.fake | (self.method == method))
        odds, fake = self.log_odds[places], self.fake[places]
        return places, replace(
            self,
            log_odds=odds,
            fake=fake,
            method=self.method[places],
            ranking=Ranking(odds, fake),
            parts={},
        )

    @cached_property
    def apcers(self) -> Floats:
        """(M,), APCER of each method; NaN where it has no fakes or there is no threshold."""
        numbers = range(self.methods)
        return np.array([apcer(self.only(number).tally, self.threshold) for number in numbers])


def worst_apcer(sample: Sample) -> float:
    """Returns the APCER of the method that is missed most (ISO/IEC 30107-3); NaN without fakes."""
    known = sample.apcers[~np.isnan(sample.apcers)]
    return float(known.max()) if len(known) else NAN


@dataclass(frozen=True)
class Measure:
    """A column of a table, over the trials of ``classes``; of ``"both"`` there must be some each.

    With a method it is over its fakes alone.
    """

    name: str
    title: str
    of: Callable[[Sample], float]
    best: Best = "lower"
    at_threshold: bool = False
    classes: Classes = "both"
    method: str = ""

    def over(self, trials: Trials) -> Trials:
        """Returns the trials that it is over, with a score or not."""
        fakes = trials.fake & (trials.method == self.method) if self.method else trials.fake
        if self.classes == "fake":
            return trials.select(fakes)
        return trials.select(~trials.fake if self.classes == "genuine" else ~trials.fake | fakes)


def _at_threshold(
    name: str,
    title: str,
    of: Callable[[ScoreCounts, float], float],
    best: Best = "lower",
    classes: Classes = "both",
) -> Measure:
    return Measure(name, title, lambda x: of(x.tally, x.threshold), best, True, classes)


AUC = Measure("auc", "AUC", lambda sample: area_under_curve(sample.tally), "higher")
EER = Measure("eer", "EER", lambda sample: equal_error_rate(sample.tally)[0])
AP = Measure("ap", "AP", lambda sample: average_precision(sample.tally), "higher")
WORST_APCER = Measure("worst_apcer", "Worst APCER", worst_apcer, at_threshold=True, classes="fake")
ACCURACY = _at_threshold("accuracy", "Accuracy", accuracy, "higher", "any")
BALANCED = _at_threshold("balanced_accuracy", "Balanced accuracy", balanced_accuracy, "higher")
BPCER = _at_threshold("bpcer", "BPCER", bpcer, classes="genuine")
BPCER_1 = Measure(
    "bpcer_apcer1", "BPCER at APCER 1 %", lambda sample: bpcer_at_apcer(sample.tally, 0.01)
)
BPCER_5 = Measure(
    "bpcer_apcer5", "BPCER at APCER 5 %", lambda sample: bpcer_at_apcer(sample.tally, 0.05)
)
CLLR = Measure("cllr", "Cllr", lambda sample: cllr(sample.tally))
MIN_CLLR = Measure("min_cllr", "Minimum Cllr", lambda sample: minimum_cllr(sample.tally))
ECE = Measure("ece", "ECE", lambda sample: calibration_error(sample.tally), classes="any")


def _excess(sample: Sample) -> float:
    least = minimum_cllr(sample.tally)
    return cllr(sample.tally) / least - 1 if least > _LEAST else NAN


LLR_MEASURES = (CLLR, MIN_CLLR, Measure("cllr_excess", "Cllr above minimum", _excess), ECE)
"""What is measured of likelihood ratios."""

MEASURES = (
    *(AUC, EER, AP, ACCURACY, BALANCED, WORST_APCER),
    *(BPCER, BPCER_1, BPCER_5, CLLR, MIN_CLLR, ECE),
)
APART = (AUC, EER)
"""What is measured of what is genuine with each method by itself."""


def apcer_of(method: int, name: str) -> Measure:
    """Returns the APCER of one method as a measure."""
    return replace(
        WORST_APCER,
        name=f"apcer/{name}",
        title=f"APCER {name}",
        of=lambda sample: float(sample.apcers[method]),
        method=name,
    )


def against(measure: Measure, method: int, name: str) -> Measure:
    """Returns a measure of what is genuine and the fakes of one method alone."""
    return replace(
        measure,
        name=f"{measure.name}/{name}",
        title=f"{measure.title} {name}",
        of=lambda sample: measure.of(sample.only(method)),
        method=name,
    )


def measures_of(methods: Sequence[str]) -> tuple[Measure, ...]:
    """Returns all measures, and those of each method apart."""
    apart = [
        measure
        for number, name in enumerate(methods)
        for measure in (apcer_of(number, name), *(against(m, number, name) for m in APART))
    ]
    return (*MEASURES, *apart)
