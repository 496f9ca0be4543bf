"""Everything that an evaluation found, before it is written: tables, figures, and a summary."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import AUC, CLLR, EER, LLR_MEASURES, MIN_CLLR, Measure
from deepregions.evaluation.protocols import Evaluated, Scored, Settings
from deepregions.evaluation.report.comparisons import (
    across_tables,
    aggregation_tables,
    calibration_table,
    column_table,
    coverage_table,
    fusion_tables,
    method_tables,
    overview_table,
    pairs_table,
    region_tables,
    within_tables,
)
from deepregions.evaluation.report.figures import comparisons, curves
from deepregions.evaluation.report.tables import Said, Table
from deepregions.evaluation.robustness import AXES, Curve
from deepregions.fusion.score_table import ScoredSystem
from deepregions.types import REGIONS, Region

_MOST = 8  # curves of a figure that can be told apart
_PAIRS = 12  # systems of which every pair is tested: more make no readable table


@dataclass(frozen=True)
class Drawing:
    """A figure, the stem of its files, its title, and a caption that says how to read it."""

    stem: str
    title: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Chapter:
    """A part of the report; drawings stand after tables."""

    heading: str
    text: str
    tables: Sequence[Table]
    drawings: Sequence[Drawing]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an evaluation found.

    ``frames`` are the evaluation parts face by face, where videos have several; ``slices``, by
    attribute, by database, by value, those people measured. The overview has ``columns``, with
    intervals or without.
    """

    scored: Sequence[Scored]
    settings: Settings
    evaluated: Sequence[Evaluated]
    curves: Sequence[Curve] = ()
    frames: Sequence[Evaluated] = ()
    grids: Mapping[str, Figure] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Evaluated]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    columns: Sequence[Measure] = (AUC, EER)
    cells: Said = "interval"

    def column_table(self) -> str:
        """Returns the overview as LaTeX that fits a column."""
        return column_table(self.evaluated, self.columns, self.cells)

    def chapters(self) -> Iterator[Chapter]:
        """Yields the parts of the report."""
        text = "In brackets after a system: the database that it was trained on."
        overview = overview_table(self.evaluated, self.columns, self.cells)
        yield Chapter("Overview", text, [overview], ())
        for each in self.evaluated:
            yield self._database(each)
        trained_on = {system.trained_on for each in self.evaluated for system in each.systems}
        if len(trained_on) > 1 or len(self.evaluated) > 1:
            yield self._across()
        if self.frames:
            text = "Each face of a video is a trial of its own."
            tables = [table for each in self.frames for table in within_tables(each)]
            yield Chapter("Face by face", text, tables, ())
            text = "How the faces of a video become one score makes a difference; here, how much."
            tables = list(aggregation_tables(self.scored, self.settings))
            yield Chapter("Rules over the faces of a video", text, tables, ())
        if self.curves:
            text = "The evaluation part again, altered by real codecs, or with fewer frames."
            tables = [curve.table for curve in self.curves]
            yield Chapter("Robustness", text, tables, [self._robustness(x) for x in self.curves])
        for attribute, databases in self.slices.items():
            yield self._slices(attribute, databases)

    def headline(self, each: Evaluated) -> ScoredSystem:
        """Returns the system of a database to look at first: the widest fusion learned on it."""
        own = _own(each)
        fused = [s for s in own if s.fused]
        for wanted in ("learned head", "logistic regression", "mean"):
            found = [s for s in fused if s.label.endswith(wanted)]
            if found:
                return found[-1]  # of all networks: these come last
        faces = [s for s in own if s.region is Region.ENTIRE]
        return (fused or faces or own)[0]

    def _database(self, each: Evaluated) -> Chapter:
        tables = [
            *within_tables(each),
            coverage_table(each),
            *region_tables(each, AUC),
            *region_tables(each, EER),
            *method_tables(each),
            *fusion_tables(each),
            calibration_table(each),
        ]
        if 1 < len(each.systems) <= _PAIRS:
            tables.append(pairs_table(each))
        fake = each.result.trials[0].fake
        text = (
            f"{(~fake).sum()} genuine and {fake.sum()} fake {_unit(each)} of the evaluation part. "
            "Thresholds come from the development part of what a system was trained on."
        )
        return Chapter(each.database, text, tables, list(self._drawings(each)))

    def _drawings(self, each: Evaluated) -> Iterator[Drawing]:
        name, unit, first = each.database, _unit(each), self.headline(each)
        shown = [each.trials(system) for system in _shown(each)]
        for stem, (draw_all, caption) in _OF_SYSTEMS.items():
            title = f"{stem.upper()} on {name}"
            figure = draw_all(shown, title=title, unit=unit)
            yield Drawing(f"{name}-{stem}", title, figure, caption)
        threshold, title = each.thresholds[first], f"{first.name} on {name}"
        known = None if isinstance(threshold, str) else threshold
        yield Drawing(
            f"{name}-histogram",
            f"Scores of {title}",
            curves.histogram(each.trials(first), known, title=title, unit=unit),
            "Log-odds of genuine ones and of each manipulation, with the operating threshold.",
        )
        title = f"AUC by region on {name}"
        yield Drawing(
            f"{name}-regions",
            title,
            comparisons.bars(_region_table(each), title=title),
            "Each detector on each region; lines are intervals. Bars begin at chance.",
        )
        if each.ratios is not None and first not in each.uncalibrated:
            llr = next(trials for trials in each.ratios.trials if trials.name == first.name)
            title = f"{first.name} on {name}"
            for stem, (draw, caption) in _OF_RATIOS.items():
                figure = draw(llr, title=title, unit=unit)
                yield Drawing(f"{name}-{stem}", f"{stem.capitalize()}: {title}", figure, caption)
        if name in self.grids:
            yield Drawing(
                f"{name}-decisions",
                f"Decisions on {name}",
                self.grids[name],
                "The most confident right and wrong decisions on the whole face, of each detector "
                "on real and fake faces, with where it looked (Grad-CAM).",
            )

    def _across(self) -> Chapter:
        across = {m: across_tables(self.evaluated, m) for m in (AUC, EER, CLLR, MIN_CLLR)}
        labels = [self.headline(each).label for each in self.evaluated]
        for each in self.evaluated:
            labels += [s.label for s in each.systems if s.region is Region.ENTIRE]
        drawings = []
        for label in dict.fromkeys(labels) if len(self.evaluated) > 1 else ():
            if label in across[EER]:
                title = f"EER of {label}"
                figure = comparisons.cross_matrix(across[EER][label], title=title)
                stem = "across-" + "".join(x if x.isalnum() else "-" for x in label)
                caption = "Framed: tested on what it was trained on."
                drawings.append(Drawing(stem, title, figure, caption))
        text = (
            "Rows are what a system was trained on, columns where it is tested. Off the diagonal "
            "it meets people, cameras and manipulations that it never saw."
        )
        tables = [table for found in across.values() for table in found.values()]
        return Chapter("Across databases", text, tables, drawings)

    def _robustness(self, curve: Curve) -> Drawing:
        each = next(each for each in self.evaluated if each.database == curve.database)
        shown, table = [system.name for system in _shown(each)], curve.table
        cells = [table.cells[table.rows.index(name)] for name in shown]
        title = f"{AXES[curve.kind]}, {curve.database}"
        figure = comparisons.robustness(
            replace(table, rows=shown, cells=cells), title=title, axis_label=AXES[curve.kind]
        )
        stem = f"{curve.database}-robustness-{curve.kind}"
        return Drawing(stem, title, figure, "Bands are intervals.")

    def _slices(self, attribute: str, databases: Mapping[str, Mapping[str, Evaluated]]) -> Chapter:
        tables, drawings = [], []
        for each in self.evaluated:
            if each.database not in databases:
                continue
            title = f"AUC on {each.database} by {attribute}"
            groups = list(databases[each.database].items())
            table = Table.of_systems(
                title, _shown(each), groups, lambda system, group: group.estimate(system, AUC)
            )
            tables.append(table)
            figure = comparisons.bars(table, title=f"AUC by {attribute}")
            drawings.append(Drawing(f"{each.database}-by-{attribute}", title, figure, ""))
        return Chapter(f"By {attribute}", "Differences between groups of people.", tables, drawings)

    def facts(self) -> dict[str, Any]:
        """Returns every figure as JSON values: by database and system, all measures."""
        found: dict[str, Any] = {}
        for each in self.evaluated:
            found[each.database] = systems = {}
            for system, threshold in each.thresholds.items():
                measures: dict[str, Any] = {
                    m.name: _plain(each.estimate(system, m)) for m in each.result.measures
                }
                if each.ratios is not None and system not in each.uncalibrated:
                    measures["llr"] = {m.name: _plain(each.ratio(system, m)) for m in LLR_MEASURES}
                systems[system.name] = {
                    "detector": system.detector,
                    "region": None if system.region is None else str(system.region),
                    "trained_on": system.trained_on,
                    "threshold": None if isinstance(threshold, str) else threshold,
                    "measures": measures,
                }
        return found

    def robustness_facts(self) -> dict[str, Any]:
        """Returns AUCs as JSON values: by database, alteration, level and system."""
        found: dict[str, Any] = {}
        for curve in self.curves:
            names, cells = curve.table.rows, zip(*curve.table.cells, strict=True)
            found.setdefault(curve.database, {})[curve.kind] = {
                level: {
                    n: _plain(c) for n, c in zip(names, at, strict=True) if not isinstance(c, str)
                }
                for level, at in zip(curve.table.columns, cells, strict=True)
            }
        return found


_OF_SYSTEMS = {
    "roc": (
        curves.roc,
        "How many fakes are found for how many genuine ones accused, at every threshold.",
    ),
    "det": (curves.det, "Both errors on normal-deviate axes; lower and further left is better."),
}
_OF_RATIOS = {
    "tippett": (
        curves.tippett,
        "Shares of genuine ones and of fakes with a likelihood ratio above each value.",
    ),
    "ece": (
        curves.ece_plot,
        "Cost in bits by prior odds: as calibrated, as it could be at best, and without any "
        "system. At even odds it is Cllr.",
    ),
    "calibration": (
        curves.calibration_curve,
        "Likelihood ratios as given, against those that these labels support (PAV).",
    ),
}


def _own(each: Evaluated) -> list[ScoredSystem]:
    """Those trained on a database; all, if there are none."""
    return [s for s in each.systems if s.trained_on in ("", each.database)] or each.systems


def _shown(each: Evaluated) -> list[ScoredSystem]:
    """The systems of a database's curves: fusions of all, then networks on the face."""
    own = _own(each)
    fused = [s for s in own if s.fused and not s.label.startswith("regions of")]
    faces = [s for s in own if s.region is Region.ENTIRE]
    parts = [s for s in own if s.region not in (None, Region.ENTIRE)]
    return [*fused[-(_MOST // 2) :], *faces, *parts][:_MOST]


def _region_table(each: Evaluated) -> Table:
    networks: dict[str, dict[str, ScoredSystem]] = {}
    for s in (s for region in REGIONS for s in each.systems if s.region is region):
        elsewhere = "" if s.trained_on in ("", each.database) else f" ({s.trained_on})"
        networks.setdefault(f"{s.detector}{elsewhere}", {})[str(s.region)] = s
    regions = [str(region) for region in REGIONS if any(region in x for x in networks.values())]
    cells = [
        [each.estimate(of[r], AUC) if r in of else Estimate.none("") for r in regions]
        for of in networks.values()
    ]
    return Table("AUC", list(networks), regions, cells)


def _plain(estimate: Estimate) -> dict[str, Any]:
    coverage = None if np.isnan(estimate.coverage) else estimate.coverage
    numbers = {name: getattr(estimate, name) for name in ("value", "low", "high", "n")}
    return numbers | {"coverage": coverage, "reason": estimate.reason or estimate.withheld}


def _unit(each: Evaluated) -> str:
    return "faces" if each.settings.level == "frame" else "videos"
