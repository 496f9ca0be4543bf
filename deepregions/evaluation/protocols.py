"""Which system is measured on which database, at thresholds that never saw the answers.

A threshold is that of equal errors on the development part of the database that a system was
trained on; it is applied to the evaluation parts of all databases as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.bootstrap import ROUNDS, Bootstrap, Estimate, bootstrap
from deepregions.evaluation.measures import AUC, EER, MEASURES, Measure, against, apcer_of
from deepregions.fusion.pooling import Level, Pooling
from deepregions.fusion.score_table import ScoredSystem, ScoreTable
from deepregions.fusion.trials import (
    Groups,
    Trials,
    development_threshold,
    groups_of,
    trials_of,
)
from deepregions.roc import NAN, Floats

EVALUATION = "test"
DEVELOPMENT = "val"


@dataclass(frozen=True, eq=False)
class Scored:
    """A database with what systems say of its faces.

    Attributes:
        database: The store's name for it.
        table: Its faces; every network in it is a system.
        fused: (N,) log-odds of each fusion, NaN where it has none.

    Raises:
        UsageError: A fusion is of another number of faces.
    """

    database: str
    table: ScoreTable
    fused: Mapping[ScoredSystem, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for system, values in self.fused.items():
            if values.shape != (len(self.table),):
                raise UsageError(
                    f"{system.name} has {values.shape} scores of the {len(self.table)} faces"
                    f" of {self.database}"
                )

    @cached_property
    def systems(self) -> dict[ScoredSystem, Floats]:
        """The (N,) log-odds of each system: networks by row and region, then fusions."""
        odds = self.table.log_odds
        return {system: odds[:, d, r] for system, (d, r) in self.table.systems.items()} | dict(
            self.fused
        )

    def select(self, rows: npt.NDArray[Any]) -> Scored:
        """Returns some faces: ``rows`` are numbers or a mask."""
        fused = {system: values[rows] for system, values in self.fused.items()}
        return Scored(self.database, self.table.select(rows), fused)

    def part(self, split: str) -> Scored:
        """Returns the faces of one split, maybe none."""
        return self.select(np.flatnonzero(self.table.split == split))


@dataclass(frozen=True)
class Settings:
    """How systems are measured.

    Attributes:
        level: Whether a trial is a face (``"frame"``) or a photo or video (``"video"``).
        rule: How the scores of a video's faces become one.
        rounds: Bootstrap samples.
        seed: Seed of the bootstrap.
        confidence: Confidence level of the intervals.
    """

    level: Level = "video"
    rule: Pooling = field(default_factory=Pooling)
    rounds: int = ROUNDS
    seed: int = 0
    confidence: float = 0.95


@dataclass(frozen=True)
class Threshold:
    """An operating threshold, or why there is none.

    Attributes:
        value: Log-odds; NaN if there is none.
        reason: Why there is none.
    """

    value: float
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A database's evaluation part with its figures.

    Attributes:
        database: Its name.
        settings: How it was measured.
        systems: S systems.
        trials: The trials of each system, all the same ones.
        thresholds: The threshold of each.
        result: What was measured, for systems by number.
    """

    database: str
    settings: Settings
    systems: tuple[ScoredSystem, ...]
    trials: tuple[Trials, ...]
    thresholds: tuple[Threshold, ...]
    result: Bootstrap

    @property
    def methods(self) -> tuple[str, ...]:
        """How its fakes were made."""
        return self.trials[0].methods

    def estimate(self, system: ScoredSystem, measure: Measure) -> Estimate:
        """Returns a figure of a system, or why there is none."""
        number = self.systems.index(system)
        found = self.result.estimate(number, measure)
        reason = self.thresholds[number].reason
        unset = measure.at_threshold and found.value is None and found.n and reason
        return replace(found, reason=reason) if unset else found

    def difference(self, first: ScoredSystem, second: ScoredSystem, measure: Measure) -> Estimate:
        """Returns the first system's figure less the second's, with a paired interval."""
        one, other = self.systems.index(first), self.systems.index(second)
        return self.result.difference(one, other, measure)

    def best_single(self, measure: Measure = EER) -> ScoredSystem | None:
        """Returns the network with the best figure, whatever it was trained on; None without any.

        It is chosen on the evaluation part itself: the hardest rival for a fusion.
        """
        figures = {
            system: value
            for system in self.systems
            if not system.fused and (value := self.estimate(system, measure).value) is not None
        }
        if not figures:
            return None
        return (max if measure.best == "higher" else min)(figures, key=lambda s: figures[s])


def evaluate(
    scored: Sequence[Scored],
    settings: Settings | None = None,
    measures: Sequence[Measure] | None = None,
) -> list[Evaluated]:
    """Measures all systems of some databases on their evaluation parts.

    Args:
        scored: The databases. One that systems were trained on may lack an evaluation part if
            it has a development part, from which thresholds for others come.
        settings: How.
        measures: What is measured; all of :data:`MEASURES` and each manipulation by itself, if
            left out.

    Raises:
        UsageError: No database, two of one name, or one without an evaluation part.
        UndefinedMetricError: A class is absent in an evaluation part, or nothing has a verdict.
    """
    settings = settings or Settings()
    names = [each.database for each in scored]
    if not names or len(set(names)) < len(names):
        doubled = next((name for name in names if names.count(name) > 1), None)
        message = f"two sets of scores are of {doubled}" if doubled else "there are no scores"
        raise UsageError(message, "evaluate each database once")
    parts = {each.database: _Parts(each, settings) for each in scored}
    trained_on = {system.trained_on for each in scored for system in each.systems}
    found = []
    for name, part in parts.items():
        if part.has(EVALUATION):
            found.append(_evaluated(part, parts, measures))
        elif not part.has(DEVELOPMENT) or name not in trained_on or len(parts) == 1:
            raise UsageError(
                f"{name} has no evaluation part: no face of it has the split {EVALUATION!r}",
                "prepare it again with --split paper",
            )
    if not found:
        raise UsageError("no database has an evaluation part", f"a split named {EVALUATION!r}")
    return found


class _Parts:
    """The trials of one database, made when they are needed."""

    def __init__(self, scored: Scored, settings: Settings) -> None:
        self.scored = scored
        self.settings = settings
        self._groups: dict[str, tuple[ScoreTable, Groups]] = {}

    def has(self, split: str) -> bool:
        """Whether there are faces of a split."""
        return bool(np.any(self.scored.table.split == split))

    def trials(self, system: ScoredSystem, split: str) -> Trials:
        rows = self.scored.table.split == split
        if split not in self._groups:
            table = self.scored.table.select(rows)
            self._groups[split] = (table, groups_of(table))
        table, groups = self._groups[split]
        logits = self.scored.systems[system][rows]
        level, rule = self.settings.level, self.settings.rule
        return replace(trials_of(table, logits, level, rule, groups), name=system.name)


def _evaluated(
    part: _Parts, parts: Mapping[str, _Parts], measures: Sequence[Measure] | None
) -> Evaluated:
    systems, settings = tuple(part.scored.systems), part.settings
    if not systems:
        raise UndefinedMetricError(f"{part.scored.database} has no scores of any network")
    trials = tuple(part.trials(system, EVALUATION) for system in systems)
    _check(part.scored.database, trials, settings.level)
    thresholds = tuple(_threshold(system, parts) for system in systems)
    result = bootstrap(
        trials,
        measures_of(trials[0].methods) if measures is None else measures,
        [threshold.value for threshold in thresholds],
        rounds=settings.rounds,
        seed=settings.seed,
        confidence=settings.confidence,
    )
    return Evaluated(part.scored.database, settings, systems, trials, thresholds, result)


def measures_of(methods: Sequence[str]) -> tuple[Measure, ...]:
    """Returns all measures, and those of each method apart."""
    apart = [
        measure
        for number, name in enumerate(methods)
        for measure in (apcer_of(number, name), *(against(m, number, name) for m in APART))
    ]
    return (*MEASURES, *apart)


APART = (AUC, EER)
"""What is measured of what is genuine with each method by itself."""


def _check(database: str, trials: Sequence[Trials], level: Level) -> None:
    """Refuses a part in which nothing can be measured."""
    fake = trials[0].fake
    unit = "face" if level == "frame" else "photo or video"
    if bool(fake.all()) or not bool(fake.any()):
        absent = "genuine" if bool(fake.all()) else "fake"
        raise UndefinedMetricError(
            f"the evaluation part of {database} has no {absent} {unit}",
            "AUC, EER and the like need both classes",
        )
    reasons = {trial.absent() for trial in trials}
    if "" not in reasons:
        raise UndefinedMetricError(
            f"no system can be measured on {database}: {', '.join(sorted(reasons))}",
            "see the column status of the scores",
        )


def _threshold(system: ScoredSystem, parts: Mapping[str, _Parts]) -> Threshold:
    database = system.trained_on
    if not database:
        return Threshold(NAN, "not trained on one known database")
    part = parts.get(database)
    if part is None or system not in part.scored.systems:
        return Threshold(NAN, f"no scores of {database}, on which it was trained")
    if not part.has(DEVELOPMENT):
        return Threshold(NAN, f"{database} has no development part")
    trials = part.trials(system, DEVELOPMENT)
    try:
        value = development_threshold(trials)
    except UndefinedMetricError:
        return Threshold(NAN, f"development part of {database}: {trials.absent()}")
    return Threshold(value)
