"""Comparisons, as in the paper: within a database, across, by method, by region, fused."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.delong import delong, holm
from deepregions.evaluation.measures import (
    APART,
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
from deepregions.evaluation.protocols import Evaluated, Scored, Settings, evaluate
from deepregions.evaluation.report.tables import Cell, Said, Table, percent, to_latex_column
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import ScoredSystem
from deepregions.people import too_few
from deepregions.types import REGIONS

RULES = (Pooling("mean"), Pooling("median"), Pooling("top"))
_MISSING = "not trained or not scored"
_THRESHOLDS = (
    "Thresholds: equal errors on the development part of the database that was learned from."
)


def overview_table(
    evaluated: Sequence[Evaluated], measures: Sequence[Measure], said: Said
) -> Table:
    """Returns some measures of every system on every database; n and coverage stand below, once."""
    columns = [(each, measure) for each in evaluated for measure in measures]
    table = Table.of_systems(
        f"Every system on every database, {_level(evaluated[0])}",
        list(dict.fromkeys(s for each in evaluated for s in each.systems)),
        [(f"{measure.title} on {e.database}", (e, measure)) for e, measure in columns],
        lambda system, of: _estimate(of[0], system, of[1]),
        best=[measure.best for _, measure in columns],
        said=said,
    )
    return replace(table, note=_note_of(evaluated, said))


def column_table(evaluated: Sequence[Evaluated], measures: Sequence[Measure], said: Said) -> str:
    """Returns the overview as LaTeX that fits a column: databases one below the other."""
    columns, best = [(m.title, m) for m in measures], [m.best for m in measures]
    parts = [
        Table.of_systems(e.database, e.systems, columns, e.estimate, best=best, said=said)
        for e in evaluated
    ]
    sources = {system.trained_on for each in evaluated for system in each.systems}
    learned = ""
    if len(sources) == 1 and "" not in sources:  # said once, not in each row
        learned = f" of systems trained on {min(sources)}"
        parts = [
            replace(part, rows=[system.label for system in each.systems])
            for part, each in zip(parts, evaluated, strict=True)
        ]
    titles = [measure.title for measure in measures]
    what = " and ".join(filter(None, (", ".join(titles[:-1]), titles[-1])))
    notes = dict.fromkeys(note.lstrip("()0123456789 ") for part in parts for note in part.notes())
    said_once = [_note_of(evaluated, said), *notes]
    title = f"{what}{learned}, {_level(evaluated[0])}."
    return to_latex_column(parts, " ".join([title, *said_once]))


def _note_of(evaluated: Sequence[Evaluated], said: Said) -> str:
    """What stands once for all cells: what brackets are, and of each database n and coverage."""
    settings, notes = evaluated[0].settings, []
    if said == "interval" and any(_has_intervals(each) for each in evaluated):
        share = f"{100 * settings.confidence:g} %"
        notes.append(f"Brackets: {share} bootstrap intervals ({settings.rounds:,} resamples).")
    for each in evaluated:
        result = each.result
        shares = [float(trials.judged.mean()) for trials in result.trials]
        verdicts = " to ".join(dict.fromkeys((percent(min(shares)), percent(max(shares)))))
        n = f"n = {len(result.trials[0].fake)} ({result.groups} {result.unit})"
        notes.append(f"{each.database}: {n}, verdicts on {verdicts} %.")
    return " ".join(notes)


def within_tables(each: Evaluated) -> list[Table]:
    """Returns all measures of all systems on a database: of those trained on it, then of others."""
    own = [s for s in each.systems if s.trained_on in ("", each.database)]
    others = [s for s in each.systems if s not in own]
    parts = {f"Within {each.database}": own, f"On {each.database}, trained elsewhere": others}
    return [
        _measured(each, systems, f"{title}, {_level(each)}")
        for title, systems in parts.items()
        if systems
    ]


def _measured(each: Evaluated, systems: Sequence[ScoredSystem], title: str) -> Table:
    columns = [(measure.title, measure) for measure in MEASURES]
    best = [measure.best for measure in MEASURES]
    note = f"{_note(each)} {_THRESHOLDS}"
    return Table.of_systems(title, systems, columns, each.estimate, best=best, note=note)


def coverage_table(each: Evaluated) -> Table:
    """Returns how many trials each system has a verdict on, of each class."""
    fake = each.result.trials[0].fake
    classes = {"All": fake | True, "Fake": fake, "Genuine": ~fake}

    def cell(system: ScoredSystem, name: str) -> str:
        judged = each.trials(system).judged[classes[name]]
        share = f" ({100 * judged.mean():.1f} %)" if len(judged) else ""
        return f"{judged.sum()} of {len(judged)}{share}"

    title = f"Verdicts on {each.database}, {_level(each)}"
    columns = [(name, name) for name in classes]
    note = "What has no verdict is in no other figure."
    return Table.of_systems(title, each.systems, columns, cell, note=note)


def region_tables(each: Evaluated, measure: Measure) -> Iterator[Table]:
    """Yields a measure by detector and region, and turned, for each database learned from."""
    networks = [s for s in each.systems if not s.fused]
    for trained in dict.fromkeys(s.trained_on for s in networks):
        own = [s for s in networks if s.trained_on == trained]
        detectors = list(dict.fromkeys(s.detector for s in own))
        regions = [r for r in REGIONS if any(s.region == r for s in own)]
        names = [str(region) for region in regions]
        cells = [
            [_estimate(each, ScoredSystem(d, r, trained), measure) for r in regions]
            for d in detectors
        ]
        source = f", trained on {trained}" if trained else ""
        title, best = f"{measure.title} on {each.database}{source}, {_level(each)}", measure.best
        yield Table(f"Detectors: {title}", detectors, names, cells, best, _note(each), "Detector")
        turned = list(zip(*cells, strict=True))
        yield Table(f"Regions: {title}", names, detectors, turned, best, _note(each), "Region")


def method_tables(each: Evaluated) -> Iterator[Table]:
    """Yields AUC and EER by manipulation with their mean, and the APCER of each with the worst."""
    methods = list(enumerate(each.methods))

    def table(measure: Measure, parts: Sequence[Measure], last: str, note: str) -> Table:
        def cell(system: ScoredSystem, part: Measure | None) -> Estimate:
            if part is not None:
                return each.estimate(system, part)
            worst = last == "Worst"
            return each.estimate(system, measure) if worst else each.result.mean(system.name, parts)

        title = "APCER" if measure is WORST_APCER else measure.title
        return Table.of_systems(
            f"{title} on {each.database} by manipulation, {_level(each)}",
            each.systems,
            [*((part.method, part) for part in parts), (last, None)],
            cell,
            best=measure.best,
            note=f"{_note(each)} {note}",
        )

    for measure in APART:
        parts = [against(measure, number, name) for number, name in methods]
        note = "Each manipulation is taken with all that is genuine."
        yield table(measure, parts, "Mean", note)
    yield table(WORST_APCER, [apcer_of(*method) for method in methods], "Worst", _THRESHOLDS)


def fusion_tables(each: Evaluated) -> list[Table]:
    """Returns fusions beside the best network, and how much they gain on it; none without both."""
    fusions = [s for s in each.systems if s.fused]
    single = each.best_single()
    if not fusions or single is None:
        return []
    name = f"{each.database}, {_level(each)}"
    beside = _measured(each, [single, *fusions], f"Fusions and the best network on {name}")
    measures = (AUC, EER, CLLR, MIN_CLLR)
    chance = [delong(each.trials(fusion), each.trials(single)).p for fusion in fusions]
    cells: list[list[Cell]] = [
        [*(each.difference(fusion, single, m) for m in measures), _p(p), _p(corrected)]
        for fusion, p, corrected in zip(fusions, chance, holm(chance), strict=True)
    ]
    gains = Table(
        f"Fusions less {single.name} on {name}",
        [system.name for system in fusions],
        [*(m.title for m in measures), "p of AUC (DeLong)", "p, corrected (Holm)"],
        cells,
        [*(m.best for m in measures), "none", "none"],
        f"{_note(each)} Differences are paired. The network is the one with the lowest EER on"
        " the evaluation part itself. DeLong's test takes trials as independent.",
        "Fusion",
    )
    return [beside, gains]


def calibration_table(each: Evaluated) -> Table:
    """Returns Cllr, its minimum, how far it is above, and the calibration error."""
    return Table.of_systems(
        f"Likelihood ratios on {each.database}",
        each.systems,
        [(measure.title, measure) for measure in LLR_MEASURES],
        each.ratio,
        best=[measure.best for measure in LLR_MEASURES],
        note="Calibrated on the development part of what a system was trained on. The minimum is "
        "that of a calibration on these very labels (PAV); 'above minimum' is the share by which "
        "Cllr exceeds it.",
    )


def pairs_table(each: Evaluated) -> Table:
    """Returns DeLong's test of every pair of systems, corrected for their number."""
    trials = each.result.trials
    pairs = [(a, b) for b in range(len(trials)) for a in range(b)]
    tests = {(a, b): delong(trials[a], trials[b]) for a, b in pairs}
    corrected = dict(zip(pairs, holm([test.p for test in tests.values()]), strict=True))

    def cell(system: ScoredSystem, column: int) -> str:
        row = each.systems.index(system)
        if row == column:
            return ""
        pair = min(row, column), max(row, column)
        value = tests[pair].difference * (1 if row < column else -1)
        return _MISSING if math.isnan(value) else f"{value:+.3f}, {_p(corrected[pair])}"

    return Table.of_systems(
        f"AUC of row less that of column on {each.database}, {_level(each)}",
        each.systems,
        [(system.name, number) for number, system in enumerate(each.systems)],
        cell,
        note="With p of DeLong's test after Holm's correction; trials are taken as independent.",
    )


def across_tables(evaluated: Sequence[Evaluated], measure: Measure) -> dict[str, Table]:
    """Returns by a system's label: rows are what it was trained on, columns where it is tested.

    None where there is one database only.
    """
    tables = {}
    systems = dict.fromkeys(s for each in evaluated for s in each.systems)
    databases = [each.database for each in evaluated]
    for label in dict.fromkeys(s.label for s in systems):
        own = {s.trained_on: s for s in systems if s.label == label and s.trained_on}
        if not own or len({*own, *databases}) < 2:
            continue
        cells = [[_estimate(each, s, measure) for each in evaluated] for s in own.values()]
        title = f"Across databases: {measure.title} of {label}, {_level(evaluated[0])}"
        note = _note(evaluated[0])
        rows = list(own)
        tables[label] = Table(title, rows, databases, cells, measure.best, note, "Trained on")
    return tables


def aggregation_tables(scored: Sequence[Scored], settings: Settings) -> Iterator[Table]:
    """Yields, for each database, what systems are worth by several rules over a video's faces."""
    rules = [replace(rule, tracks=settings.rule.tracks) for rule in RULES]
    runs = [
        evaluate(scored, replace(settings, level="video", rule=rule), (AUC, EER)) for rule in rules
    ]
    for evaluated in zip(*runs, strict=True):
        first = evaluated[0]
        for measure in (AUC, EER):
            cells = [[each.estimate(s, measure) for each in evaluated] for s in first.systems]
            yield Table(
                f"{measure.title} on {first.database} by the rule over a track's faces",
                [system.name for system in first.systems],
                [rule.frame_rule for rule in rules],
                cells,
                measure.best,
                f"{_note(first)} Tracks become a video by: {rules[0].track_rule}.",
                "System",
            )


def _estimate(each: Evaluated, system: ScoredSystem, measure: Measure) -> Estimate:
    if system not in each.thresholds:
        return Estimate.none(_MISSING)
    return each.estimate(system, measure)


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _level(each: Evaluated) -> str:
    return "by face" if each.settings.level == "frame" else "by video"


def _note(each: Evaluated) -> str:
    """What must be known to read the figures."""
    settings, result = each.settings, each.result
    rule = "" if settings.level == "frame" else f" Faces become one by: {settings.rule.frame_rule}."
    drawn = (
        f"Brackets: {100 * settings.confidence:g} % bootstrap intervals ({settings.rounds:,} "
        f"resamples of {result.groups} {result.unit}). "
        if _has_intervals(each)
        else ""
    )
    return f"{drawn}n: trials with a verdict, and their share.{rule}"


def _has_intervals(each: Evaluated) -> bool:
    return each.settings.rounds > 0 and not too_few(each.result.groups)
