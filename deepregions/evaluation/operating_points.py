"""Thresholds for a wanted rate of false alarms, found on a development part."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import beta

from deepregions.fusion.trials import Trials
from deepregions.people import too_few
from deepregions.types import Level
from deepregions.weights.manifest import OperatingPoint, false_alarms

RATES = (0.001, 0.01, 0.05)
"""The false-alarm rates that thresholds are found for: shares of genuine faces or videos."""


def find_operating_points(
    trials: Trials, level: Level, found_on: str, rates: Sequence[float] = RATES
) -> tuple[OperatingPoint, ...]:
    """Finds the lowest thresholds on a development part that keep false alarms within each rate.

    Rates are shares of genuine trials with a score; without any, there is no point. ``found_on``
    is the data in words.
    """
    own = trials.select(trials.judged)
    genuine = np.sort(own.log_odds[~own.fake])[::-1]
    fakes = own.log_odds[own.fake]
    if not len(genuine):
        return ()
    people = len(np.unique(own.group[~own.fake]))
    points = []
    for rate in rates:
        allowed = min(math.floor(rate * len(genuine) + 1e-9), len(genuine) - 1)
        threshold = float(np.nextafter(genuine[allowed], np.inf))
        found = float((genuine >= threshold).mean())
        points.append(
            OperatingPoint(
                name=false_alarms(rate),
                threshold=threshold,
                level=level,
                found_on=found_on,
                false_positive_rate=found,
                false_positive_interval=rate_interval(found, people),
                true_positive_rate=float((fakes >= threshold).mean()) if len(fakes) else None,
                people=people,
            )
        )
    return tuple(points)


def rate_interval(rate: float, people: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of Clopper and Pearson (Biometrika 26, 1934) for a rate in [0, 1].

    It rests on independent people, not faces: those of one person are alike. None for fewer than
    20 people.
    """
    if too_few(people):
        return None
    hits, tail = rate * people, 0.025
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, people - hits + 1))
    high = 1.0 if hits == people else float(beta.ppf(1 - tail, hits + 1, people - hits))
    return low, high
