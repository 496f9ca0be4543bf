"""What likelihood ratios are worth: Cllr against the least that any calibration could reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deepregions.evaluation.bootstrap import Bootstrap, Estimate, bootstrap
from deepregions.evaluation.measures import (
    CLLR,
    ECE,
    MIN_CLLR,
    Measure,
    Sample,
    minimum_cllr,
)
from deepregions.evaluation.protocols import Evaluated, ScoredSystem
from deepregions.evaluation.report.tables import Table
from deepregions.evaluation.trials import Trials
from deepregions.fusion.calibration import Calibration
from deepregions.roc import NAN, cllr

_LEAST = 1e-3  # bits; below, a ratio says nothing


def _excess(sample: Sample) -> float:
    least = minimum_cllr(sample.tally)
    return cllr(sample.tally) / least - 1 if least > _LEAST else NAN


EXCESS = Measure("cllr_excess", "Cllr above minimum", _excess)
COLUMNS = (CLLR, MIN_CLLR, EXCESS, ECE)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A database's evaluation part in likelihood ratios.

    Attributes:
        database: Its name.
        systems: Those that are calibrated.
        trials: Of each its trials, with natural LLRs instead of log-odds.
        result: Figures, for systems by number.
        reasons: Why others are not calibrated.
    """

    database: str
    systems: tuple[ScoredSystem, ...]
    trials: tuple[Trials, ...]
    result: Bootstrap | None
    reasons: Mapping[ScoredSystem, str]


def calibrate_trials(
    each: Evaluated, calibrations: Mapping[ScoredSystem, Calibration | str]
) -> Calibrated:
    """Turns what systems say into likelihood ratios, and measures these.

    Args:
        each: A database, measured.
        calibrations: Of each system its calibration, or why it has none.
    """
    systems, trials, reasons = [], [], {}
    for system, own in zip(each.systems, each.trials, strict=True):
        calibration = calibrations.get(system, "no calibration")
        if isinstance(calibration, str):
            reasons[system] = calibration
            continue
        systems.append(system)
        trials.append(replace(own, log_odds=calibration.llr(own.log_odds)))
    settings = each.settings
    result = None
    if trials:
        result = bootstrap(
            trials,
            COLUMNS,
            rounds=settings.rounds,
            seed=settings.seed,
            confidence=settings.confidence,
        )
    return Calibrated(each.database, tuple(systems), tuple(trials), result, reasons)


def calibration_table(each: Calibrated, evaluated: Evaluated) -> Table:
    """Returns Cllr, its minimum, how far it is above, and the calibration error."""
    rows = []
    for system in evaluated.systems:
        if system in each.systems and each.result is not None:
            number = each.systems.index(system)
            rows.append(tuple(each.result.estimate(number, measure) for measure in COLUMNS))
        else:
            reason = each.reasons.get(system, "no calibration")
            rows.append(tuple(Estimate.none(reason) for _ in COLUMNS))
    return Table(
        f"Likelihood ratios on {each.database}",
        tuple(system.name for system in evaluated.systems),
        tuple(measure.title for measure in COLUMNS),
        tuple(rows),
        tuple(measure.best for measure in COLUMNS),
        "Calibrated on the development part of what a system was trained on. The minimum is that of"
        " a calibration on these very labels (PAV); 'above minimum' is the share by which Cllr"
        " exceeds it.",
        "System",
    )


def calibration_tables(
    calibrated: Sequence[Calibrated], evaluated: Sequence[Evaluated]
) -> list[Table]:
    """Returns the tables of some databases."""
    return [calibration_table(a, b) for a, b in zip(calibrated, evaluated, strict=True)]
