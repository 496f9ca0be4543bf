"""The numbers that figures draw: operating points, supported ratios, what a prior costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deepregions.evaluation.measures import best_posterior
from deepregions.roc import Bools, Floats, ScoreCounts, tally

_FEW = 2000  # points of a curve that are all drawn
_FINE = 1000  # steps of a side of the axes: half a pixel of a page


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Scores that are there, and how many are not.

    Attributes:
        scores: (N,) without NaN.
        fake: (N,), whether it is a fake.
        kept: (M,), which of those given have a score.
    """

    scores: Floats
    fake: Bools
    kept: Bools

    @classmethod
    def of(cls, scores: npt.ArrayLike, fake: npt.ArrayLike) -> Verdicts:
        """Drops what has no verdict.

        Args:
            scores: (M,) any scores, higher is more fake; NaN for no verdict.
            fake: (M,), whether it is a fake.

        Raises:
            ValueError: Their shapes differ.
        """
        values = np.asarray(scores, dtype=np.float64).reshape(-1)
        labels = np.asarray(fake, dtype=np.bool_).reshape(-1)
        if values.shape != labels.shape:
            raise ValueError(f"{values.size} scores with {labels.size} labels")
        kept = ~np.isnan(values)
        return cls(values[kept], labels[kept], kept)

    @property
    def missing(self) -> int:
        """How many have no verdict."""
        return int((~self.kept).sum())

    @property
    def counts(self) -> ScoreCounts:
        """How many of each class have each score."""
        return tally(self.scores, self.fake)

    def why_undefined(self, unit: str) -> str:
        """Says which class is absent; empty if both are there.

        Args:
            unit: What was judged, in the plural.
        """
        if not self.kept.size:
            return f"no {unit}"
        if not self.scores.size:
            return f"no {unit} with a verdict"
        if self.fake.all():
            return f"no genuine {unit}"
        return "" if self.fake.any() else f"no fake {unit}"

    def told_missing(self, unit: str) -> str:
        """Says how many have no verdict; empty if all have one."""
        return (
            f"no verdict on {self.missing:,} of {self.kept.size:,} {unit}" if self.missing else ""
        )


def operating_points(counts: ScoreCounts) -> tuple[Floats, Floats]:
    """Returns the error rates at each threshold, the strictest first, which calls none fake.

    Args:
        counts: K distinct scores, of both classes.

    Returns:
        BPCER, the share of genuine ones called fake, rising from 0 to 1; and APCER, the share of
        fakes missed, falling from 1 to 0; (K + 1,).
    """
    accused = np.append(0.0, counts.false_positives) / counts.negatives
    return accused, 1.0 - np.append(0.0, counts.true_positives) / counts.positives


def thinned(x: Floats, y: Floats) -> Bools:
    """Says which points of a monotone curve to draw, so that none left out is seen to be missing.

    Args:
        x: (K,) in units of the axes' width.
        y: (K,) in units of the axes' height.

    Returns:
        (K,), all of a short curve; else at most two for each thousandth of the way, between which
        the curve keeps to less than that.
    """
    if len(x) <= _FEW:
        return np.ones(len(x), dtype=np.bool_)
    way = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    step = np.floor(way * _FINE)
    changes = step[1:] != step[:-1]
    return np.asarray(np.append(True, changes) | np.append(changes, True), dtype=np.bool_)


def supported(counts: ScoreCounts) -> Floats:
    """Returns the natural log-likelihood ratios that these very labels support best (PAV).

    Args:
        counts: K distinct scores, of both classes.

    Returns:
        (K,), falling as the scores do; infinite where all that is beyond is of one class.
    """
    posterior = best_posterior(counts).round(12)  # exactly 0 or 1 where it is that but for rounding
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(posterior) - np.log1p(-posterior), dtype=np.float64)


def cross_entropy(counts: ScoreCounts, prior: Floats) -> Floats:
    """Returns the empirical cross-entropy at prior odds (Ramos and Gonzalez-Rodriguez 2013).

    Args:
        counts: Natural log-likelihood ratios, of both classes, maybe infinite.
        prior: (K,) natural log-odds of a fake before anything is looked at.

    Returns:
        (K,) bits; at even odds this is Cllr.
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


def exceedance(values: Floats, at: Floats) -> Floats:
    """Returns the share of values above each of (K,) places."""
    below = np.searchsorted(np.sort(values), at, side="right")
    return np.asarray(1.0 - below / len(values), dtype=np.float64)


def span(values: Floats, extra: Sequence[float] = ()) -> tuple[float, float]:
    """Returns ends between which nearly all finite values lie, with a little room.

    Args:
        values: (N,), maybe none.
        extra: Places that are to be seen as well, if they are finite.
    """
    finite = values[np.isfinite(values)]
    ends = list(np.quantile(finite, (0.001, 0.999))) if finite.size else []
    ends += [place for place in extra if np.isfinite(place)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)
    room = 0.03 * (high - low) if high > low else 0.5
    return float(low - room), float(high + room)
