"""Everything that an evaluation found, before it is written: tables, figures, and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import AUC, CLLR, EER, MIN_CLLR, Measure
from deepregions.evaluation.protocols import Evaluated, Scored, Settings
from deepregions.evaluation.report import figures
from deepregions.evaluation.report.comparisons import (
    across_tables,
    aggregation_tables,
    calibration_table,
    coverage_table,
    fusion_tables,
    method_tables,
    overview_table,
    pairs_table,
    region_tables,
    within_tables,
)
from deepregions.evaluation.report.tables import Table
from deepregions.evaluation.robustness import AXES, Curve
from deepregions.evaluation.systems import Calibrated
from deepregions.fusion.score_table import ScoredSystem
from deepregions.types import REGIONS, Region

_MOST = 8  # curves of a figure that can be told apart
_PAIRS = 12  # systems of which every pair is tested: more make no readable table


@dataclass(frozen=True)
class Drawing:
    """A figure and what it is called.

    Attributes:
        stem: Of its files.
        title: In a few words.
        figure: The figure.
        caption: What is to be seen, and how to read it.
    """

    stem: str
    title: str
    figure: Figure | Image.Image
    caption: str


@dataclass(frozen=True)
class Chapter:
    """A part of the report.

    Attributes:
        heading: Its name.
        text: What it says.
        tables: In this order.
        drawings: After the tables.
    """

    heading: str
    text: str
    tables: Sequence[Table]
    drawings: Sequence[Drawing]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an evaluation found.

    Attributes:
        scored: The databases with all scores.
        settings: How they were measured.
        evaluated: Their evaluation parts, measured.
        calibrated: The same in likelihood ratios.
        curves: Of robustness.
        grids: By database, its most confident right and wrong decisions as a picture.
        frames: The evaluation parts face by face, where videos have several.
        slices: By attribute, by its value, by database, those people measured.
        notes: What a reader of the figures should know besides.
    """

    scored: Sequence[Scored]
    settings: Settings
    evaluated: Sequence[Evaluated]
    calibrated: Sequence[Calibrated]
    curves: Sequence[Curve] = ()
    frames: Sequence[Evaluated] = ()
    grids: Mapping[str, Image.Image] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Evaluated]]] | None = None
    notes: Sequence[str] = ()

    def chapters(self) -> Iterator[Chapter]:
        """Yields the parts of the report."""
        text = "In brackets after a system: the database that it was trained on."
        yield Chapter("Overview", text, [overview_table(self.evaluated)], ())
        for each, ratios in zip(self.evaluated, self.calibrated, strict=True):
            yield self._database(each, ratios)
        if len({s.trained_on for e in self.evaluated for s in e.systems}) > 1 or (
            len(self.evaluated) > 1
        ):
            yield self._across()
        if self.frames:
            text = "Each face of a video is a trial of its own."
            tables = [table for each in self.frames for table in within_tables(each)]
            yield Chapter("Face by face", text, tables, ())
            text = "How the faces of a video become one score makes a difference; here, how much."
            tables = aggregation_tables(self.scored, self.settings)
            yield Chapter("Rules over the faces of a video", text, tables, ())
        if self.curves:
            yield self._robustness()
        for attribute, groups in (self.slices or {}).items():
            yield self._slices(attribute, groups)

    def headline(self, each: Evaluated) -> ScoredSystem:
        """Returns the system of a database to look at first: the widest fusion learned on it."""
        own = [s for s in each.systems if s.trained_on in ("", each.database)] or [*each.systems]
        fused = [s for s in own if s.fused]
        for wanted in ("learned head", "logistic regression", "mean"):
            found = [s for s in fused if s.label.endswith(wanted)]
            if found:
                return found[-1]  # of all networks: these come last
        faces = [s for s in own if s.region is Region.ENTIRE]
        return (fused or faces or own)[0]

    def _database(self, each: Evaluated, ratios: Calibrated) -> Chapter:
        tables = [*within_tables(each), coverage_table(each)]
        for measure in (AUC, EER):
            tables += region_tables(each, measure)
        tables += [*method_tables(each), *fusion_tables(each)]
        tables.append(calibration_table(ratios, each))
        if 1 < len(each.systems) <= _PAIRS:
            tables.append(pairs_table(each))
        text = (
            f"{_counted(each)} of the evaluation part. Thresholds come from the development part "
            "of what a system was trained on."
        )
        return Chapter(each.database, text, tables, list(self._drawings(each, ratios)))

    def _drawings(self, each: Evaluated, ratios: Calibrated) -> Iterator[Drawing]:
        name, unit = each.database, _unit(each)
        shown = self._shown(each)
        place = {system: number for number, system in enumerate(each.systems)}
        curves = {
            s.name: (each.trials[place[s]].log_odds, each.trials[place[s]].fake) for s in shown
        }
        yield Drawing(
            f"{name}-roc",
            f"ROC on {name}",
            figures.roc(curves, title=f"ROC on {name}", unit=unit),
            "How many fakes are found for how many genuine ones accused, at every threshold.",
        )
        yield Drawing(
            f"{name}-det",
            f"DET on {name}",
            figures.det(curves, title=f"DET on {name}", unit=unit),
            "Both errors on normal-deviate axes; lower and further left is better.",
        )
        first = self.headline(each)
        trials, threshold = each.trials[place[first]], each.thresholds[place[first]]
        known = {} if np.isnan(threshold.value) else {"development EER": threshold.value}
        yield Drawing(
            f"{name}-histogram",
            f"Scores of {first.name} on {name}",
            figures.histogram(
                trials.log_odds,
                trials.fake,
                known,
                methods=trials.method.tolist(),
                title=f"{first.name} on {name}",
                unit=unit,
            ),
            "Log-odds of genuine ones and of each manipulation, with the operating threshold.",
        )
        yield from self._regions(each)
        yield from self._ratios(each, ratios, first)
        if name in self.grids:
            yield Drawing(
                f"{name}-decisions",
                f"Decisions on {name}",
                self.grids[name],
                "The most confident right and wrong decisions on the whole face, of each detector "
                "on real and fake faces, with where it looked (Grad-CAM).",
            )

    def _regions(self, each: Evaluated) -> Iterator[Drawing]:
        networks = [s for s in each.systems if not s.fused]
        groups = {
            str(region): {
                s.detector
                if s.trained_on in ("", each.database)
                else f"{s.detector} ({s.trained_on})": _interval(each.estimate(s, AUC))
                for s in networks
                if s.region == region
            }
            for region in REGIONS
            if any(s.region == region for s in networks)
        }
        title = f"AUC by region on {each.database}"
        figure = figures.bars(groups, measure="AUC", title=title, baseline=0.5)
        caption = "Each detector on each region; lines are intervals. Bars begin at chance."
        yield Drawing(f"{each.database}-regions", title, figure, caption)

    def _ratios(
        self, each: Evaluated, ratios: Calibrated, first: ScoredSystem
    ) -> Iterator[Drawing]:
        if first not in ratios.systems:
            return
        trials = ratios.trials[ratios.systems.index(first)]
        name, unit = each.database, _unit(each)
        for stem, draw, caption in (
            (
                "tippett",
                figures.tippett,
                "Shares of genuine ones and of fakes with a likelihood ratio above each value.",
            ),
            (
                "ece",
                figures.ece_plot,
                "Cost in bits by prior odds: as calibrated, as it could be at best, and without "
                "any system. At even odds it is Cllr.",
            ),
            (
                "calibration",
                figures.calibration_curve,
                "Likelihood ratios as given, against those that these labels support (PAV).",
            ),
        ):
            title = f"{first.name} on {name}"
            figure = draw(trials.log_odds, trials.fake, title=title, unit=unit)
            yield Drawing(f"{name}-{stem}", f"{stem.capitalize()}: {title}", figure, caption)

    def _shown(self, each: Evaluated) -> list[ScoredSystem]:
        """The systems of a database's curves: fusions of all, then networks on the face."""
        own = [s for s in each.systems if s.trained_on in ("", each.database)] or [*each.systems]
        fused = [s for s in own if s.fused and not s.label.startswith("regions of")]
        faces = [s for s in own if s.region is Region.ENTIRE]
        parts = [s for s in own if s.region not in (None, Region.ENTIRE)]
        half = fused[-(_MOST // 2) :]
        return [*half, *faces, *parts][:_MOST]

    def _across(self) -> Chapter:
        tables = [
            table
            for measure in (AUC, EER, CLLR, MIN_CLLR)
            for table in across_tables(self.evaluated, measure)
        ]
        drawings = [
            drawing
            for label in self._labels_across()
            if (drawing := self._matrix(label, EER)) is not None
        ]
        text = (
            "Rows are what a system was trained on, columns where it is tested. Off the diagonal "
            "it meets people, cameras and manipulations that it never saw."
        )
        return Chapter("Across databases", text, tables, drawings)

    def _labels_across(self) -> list[str]:
        labels = [self.headline(each).label for each in self.evaluated]
        for each in self.evaluated:
            labels += [s.label for s in each.systems if s.region is Region.ENTIRE]
        return list(dict.fromkeys(labels))

    def _matrix(self, label: str, measure: Measure) -> Drawing | None:
        own = [s for each in self.evaluated for s in each.systems if s.label == label]
        rows = list(dict.fromkeys(s.trained_on for s in own if s.trained_on))
        if not rows or len(self.evaluated) < 2:
            return None
        cells = np.full((3, len(rows), len(self.evaluated)), np.nan)
        for c, each in enumerate(self.evaluated):
            for system in each.systems:
                if system.label == label and system.trained_on in rows:
                    interval = _interval(each.estimate(system, measure))
                    cells[:, rows.index(system.trained_on), c] = interval
        title = f"{measure.title} of {label}"
        figure = figures.cross_matrix(
            rows,
            [each.database for each in self.evaluated],
            *cells,
            title=title,
            better="lower",
            percent=True,
        )
        stem = "across-" + "".join(x if x.isalnum() else "-" for x in label)
        return Drawing(stem, title, figure, "Framed: tested on what it was trained on.")

    def _robustness(self) -> Chapter:
        tables, drawings = [], []
        for curve in self.curves:
            tables.append(curve.table(AUC))
            shown = self._shown(curve.measured[0])
            lines = {}
            for system in shown:
                each = curve.estimates(system, AUC)
                lines[system.name] = (curve.levels, *np.array([_interval(x) for x in each]).T)
            title = f"{AXES[curve.kind]}, {curve.database}"
            figure = figures.robustness(lines, AXES[curve.kind], "AUC", title=title)
            stem = f"{curve.database}-robustness-{curve.kind}"
            drawings.append(Drawing(stem, title, figure, "Bands are intervals."))
        text = "The evaluation part again, altered by real codecs, or with fewer frames."
        return Chapter("Robustness", text, tables, drawings)

    def _slices(self, attribute: str, groups: Mapping[str, Mapping[str, Evaluated]]) -> Chapter:
        tables, drawings = [], []
        for each in self.evaluated:
            own = ((value, found.get(each.database)) for value, found in groups.items())
            parts = {value: part for value, part in own if part is not None}
            if not parts:
                continue
            shown = self._shown(each)
            cells = tuple(tuple(p.estimate(s, AUC) for p in parts.values()) for s in shown)
            title = f"AUC on {each.database} by {attribute}"
            names = tuple(system.name for system in shown)
            tables.append(Table(title, names, tuple(parts), cells, "none", corner="System"))
            bars = {
                name: {s.name: _interval(part.estimate(s, AUC)) for s in shown}
                for name, part in parts.items()
            }
            figure = figures.slices(attribute, bars, baseline=0.5)
            drawings.append(Drawing(f"{each.database}-by-{attribute}", title, figure, ""))
        return Chapter(f"By {attribute}", "Differences between groups of people.", tables, drawings)

    def facts(self) -> dict[str, Any]:
        """Returns every figure as JSON values: by database and system, all measures."""
        found: dict[str, Any] = {}
        for each, ratios in zip(self.evaluated, self.calibrated, strict=True):
            systems = {}
            for number, system in enumerate(each.systems):
                figures_of = {
                    measure.name: _plain(each.estimate(system, measure))
                    for measure in each.result.measures
                }
                if system in ratios.systems and ratios.result is not None:
                    at = ratios.systems.index(system)
                    figures_of["llr"] = {
                        m.name: _plain(ratios.result.estimate(at, m))
                        for m in ratios.result.measures
                    }
                threshold = each.thresholds[number]
                systems[system.name] = {
                    "detector": system.detector,
                    "region": None if system.region is None else str(system.region),
                    "trained_on": system.trained_on,
                    "threshold": None if np.isnan(threshold.value) else threshold.value,
                    "measures": figures_of,
                }
            found[each.database] = systems
        return found


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "coverage": None if np.isnan(estimate.coverage) else estimate.coverage,
        "reason": estimate.reason or estimate.withheld,
    }


def _interval(estimate: Estimate) -> tuple[float, float, float]:
    low, middle, high = (
        np.nan if value is None else value
        for value in (estimate.low, estimate.value, estimate.high)
    )
    return middle, low, high


def _unit(each: Evaluated) -> str:
    return "faces" if each.settings.level == "frame" else "videos"


def _counted(each: Evaluated) -> str:
    fake = each.trials[0].fake
    return f"{int((~fake).sum())} genuine and {int(fake.sum())} fake {_unit(each)}"
