"""Protocol: which system is measured on which database, at thresholds that never saw the answers.

A threshold is that of equal errors on the development part of the database that a system was
trained on; it is applied to the evaluation parts of all databases as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy.typing as npt

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.bootstrap import ROUNDS, Bootstrap, Estimate, bootstrap
from deepregions.evaluation.measures import EER, LLR_MEASURES, Measure, measures_of
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import ScoredSystem, ScoreTable
from deepregions.fusion.trials import Groups, Trials, development_threshold, groups_of, trials_of
from deepregions.roc import NAN, Bools, Floats
from deepregions.types import Level

EVALUATION = "test"
DEVELOPMENT = "val"


@dataclass(frozen=True)
class Settings:
    """How systems are measured: faces ("frame") or whole photos and videos ("video")."""

    level: Level = "video"
    rule: Pooling = field(default_factory=Pooling)
    rounds: int = ROUNDS
    seed: int = 0
    confidence: float = 0.95

    def measure(
        self,
        trials: Sequence[Trials],
        measures: Sequence[Measure],
        thresholds: Sequence[float] | None = None,
    ) -> Bootstrap:
        """Measures systems on their trials, see :func:`~deepregions.evaluation.bootstrap`."""
        return bootstrap(
            trials,
            measures,
            thresholds,
            rounds=self.rounds,
            seed=self.seed,
            confidence=self.confidence,
        )


@dataclass(frozen=True, eq=False)
class Scored:
    """A database with what systems say of its faces; every network in ``table`` is a system.

    ``fused`` has the (N,) log-odds of each fusion, NaN where it has none.
    """

    table: ScoreTable
    fused: Mapping[ScoredSystem, Floats] = field(default_factory=dict)

    @property
    def database(self) -> str:
        """The store's name for it."""
        return self.table.origin.database

    @cached_property
    def systems(self) -> dict[ScoredSystem, Floats]:
        """The (N,) log-odds of each system: networks by row and region, then fusions."""
        cells = self.table.systems.items()
        return {system: self.table.log_odds[:, d, r] for system, (d, r) in cells} | {**self.fused}

    @cached_property
    def groups(self) -> Groups:
        """Which faces belong together."""
        return groups_of(self.table)

    def select(self, rows: npt.NDArray[Any]) -> Scored:
        """Returns some faces: ``rows`` are numbers or a mask."""
        values = {system: odds[rows] for system, odds in self.systems.items()}
        return Scored(self.table.select(rows), values)  # all are named: some may have no score here

    def part(self, split: str) -> Scored:
        """Returns the faces of one split, maybe none."""
        return self.select(self.table.split == split)

    def trials(self, system: ScoredSystem, settings: Settings) -> Trials:
        """Returns the trials of a system over all faces."""
        logits = self.systems[system]
        trials = trials_of(self.table, logits, settings.level, settings.rule, self.groups)
        return replace(trials, name=system.name)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A database's evaluation part with its figures.

    Attributes:
        thresholds: Each system's operating threshold, or why it has none.
        ratios: Figures of calibrated systems' natural log-likelihood ratios.
        uncalibrated: Why the other systems are not calibrated.
    """

    database: str
    settings: Settings
    thresholds: Mapping[ScoredSystem, float | str]
    result: Bootstrap
    ratios: Bootstrap | None = None
    uncalibrated: Mapping[ScoredSystem, str] = field(default_factory=dict)

    @property
    def systems(self) -> list[ScoredSystem]:
        """Those that were measured."""
        return list(self.thresholds)

    @property
    def methods(self) -> tuple[str, ...]:
        """How its fakes were made."""
        return self.result.trials[0].methods

    def trials(self, system: ScoredSystem) -> Trials:
        """Returns the trials of a system; all systems have the same ones."""
        return next(each for each in self.result.trials if each.name == system.name)

    def estimate(self, system: ScoredSystem, measure: Measure) -> Estimate:
        """Returns a figure of a system, or why there is none."""
        found, threshold = self.result.estimate(system.name, measure), self.thresholds[system]
        unset = measure.at_threshold and found.value is None and found.n
        return replace(found, reason=threshold) if unset and isinstance(threshold, str) else found

    def ratio(self, system: ScoredSystem, measure: Measure) -> Estimate:
        """Returns a figure of a system's likelihood ratios, or why there is none."""
        if self.ratios is None or system in self.uncalibrated:
            return Estimate.none(self.uncalibrated.get(system, "no calibration"))
        return self.ratios.estimate(system.name, measure)

    def difference(self, first: ScoredSystem, second: ScoredSystem, measure: Measure) -> Estimate:
        """Returns the first system's figure less the second's, with a paired interval."""
        return self.result.difference(first.name, second.name, measure)

    def best_single(self) -> ScoredSystem | None:
        """Returns the network with the lowest EER, whatever it was trained on; None without any.

        It is chosen on the evaluation part itself: the hardest rival for a fusion.
        """
        rates = {
            system: rate
            for system in self.systems
            if not system.fused and (rate := self.estimate(system, EER).value) is not None
        }
        return min(rates, key=lambda system: rates[system], default=None)

    def calibrated(self, calibrations: Mapping[ScoredSystem, Calibration | str]) -> Evaluated:
        """Returns the same with likelihood ratios measured; a text says why there are none."""
        trials, reasons = [], {}
        for system in self.systems:
            calibration = calibrations[system]
            if isinstance(calibration, str):
                reasons[system] = calibration
            else:
                own = self.trials(system)
                trials.append(replace(own, log_odds=calibration.llr(own.log_odds)))
        ratios = self.settings.measure(trials, LLR_MEASURES) if trials else None
        return replace(self, ratios=ratios, uncalibrated=reasons)


def evaluate(
    scored: Sequence[Scored], settings: Settings, measures: Sequence[Measure] | None = None
) -> list[Evaluated]:
    """Measures all systems of some databases on their evaluation parts.

    A database that systems were trained on may lack an evaluation part if it has a development
    part, from which thresholds for others come. By default all of ``MEASURES`` are taken, and each
    manipulation by itself.

    Raises:
        UndefinedMetricError: A class is absent in an evaluation part, or nothing has a verdict.
    """
    development = {each.database: each.part(DEVELOPMENT) for each in scored}
    if len(development) < len(scored):
        names = [each.database for each in scored]
        raise UsageError(
            f"two sets of scores are of {max(names, key=names.count)}",
            "evaluate each database once",
        )
    trained_on = {system.trained_on for each in scored for system in each.systems}
    found = []
    for each in scored:
        part, name = each.part(EVALUATION), each.database
        if len(part.table):
            found.append(_evaluated(part, development, settings, measures))
        elif not len(development[name].table) or name not in trained_on or len(scored) == 1:
            raise UsageError(
                f"{name} has no evaluation part: no face of it has the split {EVALUATION!r}",
                "prepare it again with --split paper",
            )
    if not found:
        raise UsageError("no database has an evaluation part", f"a split named {EVALUATION!r}")
    return found


def _evaluated(
    part: Scored,
    development: Mapping[str, Scored],
    settings: Settings,
    measures: Sequence[Measure] | None,
) -> Evaluated:
    if not part.systems:
        raise UndefinedMetricError(f"{part.database} has no scores of any network")
    trials = [part.trials(system, settings) for system in part.systems]
    require_classes(part.database, trials[0].fake, settings.level)
    reasons = {trial.absent() for trial in trials}
    if "" not in reasons:
        raise UndefinedMetricError(
            f"no system can be measured on {part.database}: {', '.join(sorted(reasons))}",
            "see the column status of the scores",
        )
    thresholds = {system: _threshold(system, development, settings) for system in part.systems}
    result = settings.measure(
        trials,
        measures_of(trials[0].methods) if measures is None else measures,
        [NAN if isinstance(each, str) else each for each in thresholds.values()],
    )
    return Evaluated(part.database, settings, thresholds, result)


def require_classes(database: str, fake: Bools, level: Level) -> None:
    """Refuses an evaluation part of one class; ``fake`` is of each face or trial."""
    if fake.all() or not fake.any():
        absent = "genuine" if fake.all() else "fake"
        unit = "face" if level == "frame" else "photo or video"
        raise UndefinedMetricError(
            f"the evaluation part of {database} has no {absent} {unit}",
            "AUC, EER and the like need both classes",
        )


def _threshold(
    system: ScoredSystem, development: Mapping[str, Scored], settings: Settings
) -> float | str:
    database = system.trained_on
    if not database:
        return "not trained on one known database"
    part = development.get(database)
    if part is None or system not in part.systems:
        return f"no scores of {database}, on which it was trained"
    if not len(part.table):
        return f"{database} has no development part"
    trials = part.trials(system, settings)
    try:
        return development_threshold(trials)
    except UndefinedMetricError:
        return f"development part of {database}: {trials.absent()}"
