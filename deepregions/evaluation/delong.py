"""DeLong's test: whether two systems differ in AUC on the same trials.

The variance of AUC without assumptions on the scores (DeLong et al. 1988), in the fast form by
midranks (Sun and Xu 2014). It takes trials as independent: for faces of one video, or videos of
one person, the interval of a bootstrap over groups is the honest one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from deepregions.errors import UsageError
from deepregions.fusion.trials import Trials
from deepregions.roc import NAN, Bools, Floats


@dataclass(frozen=True)
class DeLong:
    """Two systems compared: the first one's AUC less the second's, and its standard error.

    ``p`` is two-sided: 1 where no score orders any pair otherwise, NaN where nothing can be said.
    """

    difference: float
    error: float
    p: float


def auc_covariance(scores: Floats, fake: Bools) -> tuple[Floats, Floats]:
    """Returns the AUCs (S,) of scores (S, N), none NaN, and their covariance (S, S).

    All are NaN where a class is absent, and the covariance is where a class has one trial only.
    """
    high, low = scores[:, fake], scores[:, ~fake]
    systems, m, n = len(scores), high.shape[1], low.shape[1]
    if not m or not n:
        return np.full(systems, NAN), np.full((systems, systems), NAN)
    ranks = rankdata(np.concatenate([high, low], 1), axis=1)
    beaten = (ranks[:, :m] - rankdata(high, axis=1)) / n  # share of genuine ones below each fake
    beating = 1.0 - (ranks[:, m:] - rankdata(low, axis=1)) / m
    areas = np.asarray(beaten.mean(1), dtype=np.float64)
    if m < 2 or n < 2:
        return areas, np.full((systems, systems), NAN)
    return areas, np.atleast_2d(np.cov(beaten)) / m + np.atleast_2d(np.cov(beating)) / n


def delong(first: Trials, second: Trials) -> DeLong:
    """Compares two systems over the trials that both have a verdict on.

    Raises:
        UsageError: They are not on the same trials.
    """
    if len(first) != len(second) or bool((first.fake != second.fake).any()):
        raise UsageError(f"{first.name} and {second.name} are not on the same trials")
    both = first.judged & second.judged
    scores = np.stack([first.log_odds[both], second.log_odds[both]])
    areas, covariance = auc_covariance(scores, first.fake[both])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = float(areas[0] - areas[1])
    error = math.sqrt(max(0.0, variance)) if not math.isnan(variance) else NAN
    if error > 1e-12:
        return DeLong(difference, error, float(2 * norm.sf(abs(difference / error))))
    # The same order, or too little to say anything.
    same = error <= 1e-12 and abs(difference) < 1e-12
    return DeLong(difference, error, 1.0 if same else NAN)


def holm(p: Sequence[float]) -> list[float]:
    """Returns p-values corrected for how many there are (Holm 1979); NaN is not counted."""
    values = np.array(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")  # NaN last
    count = int((~np.isnan(values)).sum())
    result = np.full(len(values), NAN)
    known = order[:count]
    result[known] = np.minimum(
        1.0, np.maximum.accumulate(values[known] * (count - np.arange(count)))
    )
    return [float(value) for value in result]
