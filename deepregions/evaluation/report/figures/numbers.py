"""The numbers that figures draw: operating points, supported ratios, what a prior costs."""

from __future__ import annotations

import numpy as np

from deepregions.evaluation.measures import best_posterior
from deepregions.roc import Bools, Floats, ScoreCounts

_FEW = 2000  # points of a curve that are all drawn
_FINE = 1000  # steps of a side of the axes: half a pixel of a page


def operating_points(counts: ScoreCounts) -> tuple[Floats, Floats]:
    """Returns BPCER, rising from 0 to 1, and APCER, falling from 1 to 0, by threshold: (K + 1,).

    The strictest comes first, which calls none fake.
    """
    accused = np.append(0.0, counts.false_positives) / counts.negatives
    return accused, 1.0 - np.append(0.0, counts.true_positives) / counts.positives


def thinned(x: Floats, y: Floats) -> Bools:
    """Says which points (K,) of a monotone curve to draw: none left out is seen to be missing.

    All of a short curve; else at most two for each thousandth of the axes, between which the curve
    keeps to less than that.
    """
    if len(x) <= _FEW:
        return np.ones(len(x), dtype=np.bool_)
    way = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    step = np.floor(way * _FINE)
    changes = step[1:] != step[:-1]
    return np.asarray(np.append(True, changes) | np.append(changes, True), dtype=np.bool_)


def supported(counts: ScoreCounts) -> Floats:
    """Returns the natural log-likelihood ratios that these very labels support best (PAV).

    (K,), falling as the scores do; infinite where all that is beyond is of one class.
    """
    posterior = best_posterior(counts).round(12)  # exactly 0 or 1 where it is that but for rounding
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(posterior) - np.log1p(-posterior), dtype=np.float64)


def cross_entropy(counts: ScoreCounts, prior: Floats) -> Floats:
    """Returns bits of empirical cross-entropy at natural log prior odds of a fake; at 0, Cllr.

    Ramos and Gonzalez-Rodriguez 2013. The natural log-likelihood ratios may be infinite.
    """
    fake, genuine = counts.fake > 0, counts.genuine > 0  # elsewhere a cost may be infinite
    of_fakes, of_genuine = counts.fake[fake], counts.genuine[genuine]
    fakes, genuines = counts.values[fake], counts.values[genuine]
    bits = [
        of_fakes @ np.logaddexp(0.0, -fakes - odds) / counts.positives / (1.0 + np.exp(-odds))
        + of_genuine @ np.logaddexp(0.0, genuines + odds) / counts.negatives / (1.0 + np.exp(odds))
        for odds in prior
    ]
    return np.asarray(np.array(bits) / np.log(2.0), dtype=np.float64)


def span(values: Floats, *extra: float) -> tuple[float, float]:
    """Returns ends between which nearly all finite values lie, with a little room."""
    finite = values[np.isfinite(values)]
    ends = [*(np.quantile(finite, (0.001, 0.999)) if finite.size else ()), *extra]
    low, high = min(ends), max(ends)
    room = 0.03 * (high - low) if high > low else 0.5
    return float(low - room), float(high + room)
