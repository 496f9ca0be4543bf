"""The tables of the paper's kind: within a database, across, method by method, by region, fused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from deepregions.evaluation.bootstrap import FEW, Estimate
from deepregions.evaluation.delong import delong, holm
from deepregions.evaluation.measures import (
    AUC,
    CLLR,
    EER,
    LLR_MEASURES,
    MEASURES,
    MIN_CLLR,
    WORST_APCER,
    Measure,
    against,
    apcer_of,
)
from deepregions.evaluation.protocols import (
    APART,
    Evaluated,
    Scored,
    Settings,
    evaluate,
)
from deepregions.evaluation.report.tables import Cell, Table
from deepregions.evaluation.systems import Calibrated
from deepregions.fusion.pooling import Level, Pooling
from deepregions.fusion.score_table import ScoredSystem
from deepregions.types import REGIONS

T = TypeVar("T")

RULES = (Pooling("mean"), Pooling("median"), Pooling("top"))
_MISSING = "not trained or not scored"
_THRESHOLDS = (
    "Thresholds: equal errors on the development part of the database that was learned from."
)


def overview_table(evaluated: Sequence[Evaluated]) -> Table:
    """Returns AUC and EER of every system on every database."""
    systems = _unique(s for each in evaluated for s in each.systems)
    columns = [(each, measure) for each in evaluated for measure in (AUC, EER)]
    return Table(
        f"Every system on every database, {_level(evaluated[0])}",
        tuple(system.name for system in systems),
        tuple(f"{measure.title} on {each.database}" for each, measure in columns),
        tuple(tuple(_estimate(e, s, measure) for e, measure in columns) for s in systems),
        tuple(measure.best for _, measure in columns),
        _note(evaluated[0]),
        "System",
    )


def within_tables(each: Evaluated) -> list[Table]:
    """Returns all measures of all systems on a database: of those trained on it, then of others."""
    own = [s for s in each.systems if s.trained_on in ("", each.database)]
    others = [s for s in each.systems if s not in own]
    tables = []
    for systems, title in (
        (own, f"Within {each.database}"),
        (others, f"On {each.database}, trained elsewhere"),
    ):
        if systems:
            tables.append(_measured(each, systems, f"{title}, {_level(each)}"))
    return tables


def coverage_table(each: Evaluated) -> Table:
    """Returns how many trials each system has a verdict on, of each class."""
    rows = []
    for trials in each.trials:
        masks = (trials.fake | True, trials.fake, ~trials.fake)
        rows.append(tuple(_share(int((trials.judged & m).sum()), int(m.sum())) for m in masks))
    return Table(
        f"Verdicts on {each.database}, {_level(each)}",
        tuple(system.name for system in each.systems),
        ("All", "Fake", "Genuine"),
        tuple(rows),
        note="What has no verdict is in no other figure.",
        corner="System",
    )


def region_tables(each: Evaluated, measure: Measure) -> list[Table]:
    """Returns a measure by detector and region, for each database that networks learned from.

    Twice: the best detector of each region is marked, then the best region of each detector.
    """
    tables = []
    networks = [s for s in each.systems if not s.fused]
    for trained in _unique(s.trained_on for s in networks):
        own = [s for s in networks if s.trained_on == trained]
        detectors = _unique(s.detector for s in own)
        regions = [r for r in REGIONS if any(s.region == r for s in own)]
        cells = tuple(
            tuple(_estimate(each, ScoredSystem(d, r, trained), measure) for r in regions)
            for d in detectors
        )
        source = f", trained on {trained}" if trained else ""
        title = f"{measure.title} on {each.database}{source}, {_level(each)}"
        table = Table(
            f"Detectors: {title}",
            tuple(detectors),
            tuple(str(r) for r in regions),
            cells,
            measure.best,
            _note(each),
            "Detector",
        )
        tables += [table, table.transposed(measure.best, f"Regions: {title}", "Region")]
    return tables


def method_tables(each: Evaluated) -> list[Table]:
    """Returns figures of each manipulation by itself.

    AUC and EER of what is genuine with the fakes of one method, and their mean over methods; and
    APCER of each at the development threshold, with the worst.
    """
    tables = []
    for measure in APART:
        parts = [against(measure, number, name) for number, name in enumerate(each.methods)]
        means = [each.result.mean(number, parts) for number in range(len(each.systems))]
        table = _by_method(each, measure, parts, (*each.methods, "Mean"), means)
        note = f"{table.note} Each manipulation is taken with all that is genuine."
        tables.append(replace(table, note=note))
    parts = [apcer_of(number, name) for number, name in enumerate(each.methods)]
    worst = [each.estimate(system, WORST_APCER) for system in each.systems]
    apcer = replace(WORST_APCER, title="APCER")
    table = _by_method(each, apcer, parts, (*each.methods, "Worst"), worst)
    return [*tables, replace(table, note=f"{table.note} {_THRESHOLDS}")]


def _by_method(
    each: Evaluated,
    measure: Measure,
    parts: Sequence[Measure],
    columns: tuple[str, ...],
    last: Sequence[Estimate],
) -> Table:
    cells = tuple(
        (*(each.estimate(system, part) for part in parts), final)
        for system, final in zip(each.systems, last, strict=True)
    )
    return Table(
        f"{measure.title} on {each.database} by manipulation, {_level(each)}",
        tuple(system.name for system in each.systems),
        columns,
        cells,
        measure.best,
        _note(each),
        "System",
    )


def fusion_tables(each: Evaluated) -> list[Table]:
    """Returns fusions beside the best network, and how much they gain on it; none without both."""
    fusions = [s for s in each.systems if s.fused]
    single = each.best_single()
    if not fusions or single is None:
        return []
    name = f"{each.database}, {_level(each)}"
    beside = _measured(each, [single, *fusions], f"Fusions and the best network on {name}")
    measures = (AUC, EER, CLLR, MIN_CLLR)
    place = {system: number for number, system in enumerate(each.systems)}
    tests = [delong(each.trials[place[f]], each.trials[place[single]]) for f in fusions]
    corrected = holm([test.p for test in tests])
    cells: list[tuple[Cell, ...]] = []
    for fusion, test, p in zip(fusions, tests, corrected, strict=True):
        gained = [each.difference(fusion, single, m) for m in measures]
        cells.append((*gained, _p(test.p), _p(p)))
    gains = Table(
        f"Fusions less {single.name} on {name}",
        tuple(system.name for system in fusions),
        (*(m.title for m in measures), "p of AUC (DeLong)", "p, corrected (Holm)"),
        tuple(cells),
        (*(m.best for m in measures), "none", "none"),
        f"{_note(each)} Differences are paired. The network is the one with the lowest EER on"
        " the evaluation part itself. DeLong's test takes trials as independent.",
        "Fusion",
    )
    return [beside, gains]


def calibration_table(each: Calibrated, evaluated: Evaluated) -> Table:
    """Returns Cllr, its minimum, how far it is above, and the calibration error."""
    rows = []
    for system in evaluated.systems:
        if system in each.systems and each.result is not None:
            number = each.systems.index(system)
            rows.append(tuple(each.result.estimate(number, measure) for measure in LLR_MEASURES))
        else:
            reason = each.reasons.get(system, "no calibration")
            rows.append(tuple(Estimate.none(reason) for _ in LLR_MEASURES))
    return Table(
        f"Likelihood ratios on {each.database}",
        tuple(system.name for system in evaluated.systems),
        tuple(measure.title for measure in LLR_MEASURES),
        tuple(rows),
        tuple(measure.best for measure in LLR_MEASURES),
        "Calibrated on the development part of what a system was trained on. The minimum is that of"
        " a calibration on these very labels (PAV); 'above minimum' is the share by which Cllr"
        " exceeds it.",
        "System",
    )


def pairs_table(each: Evaluated) -> Table:
    """Returns DeLong's test of every pair of systems, corrected for their number."""
    count = len(each.systems)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    tests = [delong(each.trials[a], each.trials[b]) for a, b in pairs]
    corrected = dict(zip(pairs, holm([test.p for test in tests]), strict=True))
    differences = {pair: test.difference for pair, test in zip(pairs, tests, strict=True)}

    def cell(row: int, column: int) -> str:
        if row == column:
            return ""
        pair = (min(row, column), max(row, column))
        value = differences[pair] * (1 if row < column else -1)
        return _MISSING if math.isnan(value) else f"{value:+.3f}, {_p(corrected[pair])}"

    names = tuple(system.name for system in each.systems)
    return Table(
        f"AUC of row less that of column on {each.database}, {_level(each)}",
        names,
        names,
        tuple(tuple(cell(r, c) for c in range(count)) for r in range(count)),
        note="With p of DeLong's test after Holm's correction; trials are taken as independent.",
        corner="System",
    )


def across_tables(evaluated: Sequence[Evaluated], measure: Measure) -> list[Table]:
    """Returns a table for each system: rows are what it was trained on, columns where it is tested.

    None where there is one database only.
    """
    tables = []
    for label in _unique(s.label for each in evaluated for s in each.systems):
        own = _unique(s for each in evaluated for s in each.systems if s.label == label)
        trained = _unique(s.trained_on for s in own if s.trained_on)
        if not trained or len({*trained, *(each.database for each in evaluated)}) < 2:
            continue
        cells = tuple(
            tuple(
                _estimate(each, next(s for s in own if s.trained_on == row), measure)
                for each in evaluated
            )
            for row in trained
        )
        tables.append(
            Table(
                f"Across databases: {measure.title} of {label}, {_level(evaluated[0])}",
                tuple(trained),
                tuple(each.database for each in evaluated),
                cells,
                measure.best,
                _note(evaluated[0]),
                "Trained on",
            )
        )
    return tables


def aggregation_tables(
    scored: Sequence[Scored],
    settings: Settings,
    rules: Sequence[Pooling] = RULES,
    measures: Sequence[Measure] = (AUC, EER),
) -> list[Table]:
    """Returns, for each database, what systems are worth under several rules over a video's faces.

    Args:
        scored: The databases.
        settings: The level and rule of these have no say, but the rule over tracks.
        rules: Those compared.
        measures: A table for each.
    """
    over = [replace(rule, tracks=settings.rule.tracks) for rule in rules]
    runs = [
        evaluate(scored, replace(settings, level="video", rule=rule), measures) for rule in over
    ]
    tables = []
    for place, first in enumerate(runs[0]):
        for measure in measures:
            cells = tuple(
                tuple(_estimate(run[place], system, measure) for run in runs)
                for system in first.systems
            )
            tables.append(
                Table(
                    f"{measure.title} on {first.database} by the rule over a track's faces",
                    tuple(system.name for system in first.systems),
                    tuple(rule.frame_rule for rule in over),
                    cells,
                    measure.best,
                    f"{_note(first)} Tracks become a video by: {over[0].track_rule}.",
                    "System",
                )
            )
    return tables


def _measured(each: Evaluated, systems: Sequence[ScoredSystem], title: str) -> Table:
    return Table(
        title,
        tuple(system.name for system in systems),
        tuple(measure.title for measure in MEASURES),
        tuple(tuple(each.estimate(s, m) for m in MEASURES) for s in systems),
        tuple(measure.best for measure in MEASURES),
        f"{_note(each)} {_THRESHOLDS}",
        "System",
    )


def _estimate(each: Evaluated, system: ScoredSystem, measure: Measure) -> Cell:
    if system not in each.systems:
        return Estimate.none(_MISSING)
    return each.estimate(system, measure)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.1f} %)" if whole else "")


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _level(each: Evaluated) -> str:
    level: Level = each.settings.level
    return "by face" if level == "frame" else "by video"


def _note(each: Evaluated) -> str:
    """What must be known to read the figures."""
    settings, result = each.settings, each.result
    rule = "" if settings.level == "frame" else f" Faces become one by: {settings.rule.frame_rule}."
    drawn = (
        f"Brackets: {100 * settings.confidence:g} % bootstrap intervals ({settings.rounds:,} "
        f"resamples of {result.groups} {result.unit}). "
        if settings.rounds and result.groups >= FEW
        else ""
    )
    return f"{drawn}n: trials with a verdict, and their share.{rule}"


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
