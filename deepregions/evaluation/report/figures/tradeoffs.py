"""What each threshold trades: ROC and DET curves, and the scores themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from deepregions.evaluation.report.figures import style
from deepregions.evaluation.report.figures.numbers import (
    Verdicts,
    operating_points,
    span,
    thinned,
)
from deepregions.roc import Bools, Floats, area_under_curve, equal_error_rate

Systems = Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]


@dataclass(frozen=True, eq=False)
class _Line:
    x: Floats
    y: Floats
    said: str
    mark: float | None = None


_Curve = Callable[[Verdicts], _Line]

_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)  # rates
_FEWER_TICKS = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)
_DIAGONAL: dict[str, Any] = {
    "color": style.FAINT,
    "linewidth": 0.8,
    "linestyle": (0, (2, 3)),
}
_BEYOND = 1e-5  # rates below are drawn here, outside the axes
_FEWEST, _MOST = 12, 60  # bins


def roc(systems: Systems, *, title: str = "ROC", unit: str = "faces") -> Figure:
    """Draws the share of fakes found against the share of genuine ones called fake.

    Args:
        systems: Of each its (N,) scores, higher is more fake, NaN for no verdict; and (N,) bool,
            whether it is a fake. Their N may differ.
        title: What is compared.
        unit: What was judged, in the plural.

    Returns:
        A figure with a line, named as the system, for each in which both classes have verdicts.
        The area under it is in the legend, and how many had no verdict.
    """

    def curve(verdicts: Verdicts) -> _Line:
        counts = verdicts.counts
        accused, missed = operating_points(counts)
        return _Line(accused, 1.0 - missed, f"AUC {area_under_curve(counts):.3f}")

    with style.styled():
        figure, axes = _curves(systems, curve, 1.0, title, unit)
        if axes is not None:
            axes.plot([0, 1], [0, 1], **_DIAGONAL)
            axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
            style.name_axes(axes, f"genuine {unit} called fake", f"fake {unit} found")
    return figure


def det(systems: Systems, *, title: str = "DET", unit: str = "faces") -> Figure:
    """Draws fakes missed against genuine ones called fake, on normal-deviate axes.

    As of Martin et al. 1997: normally distributed scores of equal variance give straight lines.

    Args:
        systems: As of :func:`roc`.
        title: As of :func:`roc`.
        unit: As of :func:`roc`.

    Returns:
        A figure whose lines are in normal deviates of the rates (``scipy.stats.norm.ppf``), with
        ticks in per cent. A point marks where both rates are equal, the EER of the legend.
    """
    worst = [0.0]

    def curve(verdicts: Verdicts) -> _Line:
        counts = verdicts.counts
        accused, missed = operating_points(counts)
        rate, _ = equal_error_rate(counts)
        worst.append(rate)
        x, y, mark = (_deviate(each) for each in (accused, missed, rate))
        seen = _FEWER_TICKS[0] <= rate <= _FEWER_TICKS[-1]
        said = f"EER {100 * rate:.1f} %{'' if seen else ' (beyond the axes)'}"
        return _Line(x, y, said, float(mark))

    with style.styled():
        figure, axes = _curves(systems, curve, ndtri(_TICKS[-1]) - ndtri(_TICKS[0]), title, unit)
        if axes is not None:
            places = _TICKS if max(worst) < 0.9 * _TICKS[-1] else _FEWER_TICKS
            low, high = ndtri([places[0], places[-1]])
            axes.plot([low, high], [low, high], **_DIAGONAL)
            names = [f"{100 * rate:g}" for rate in places]
            axes.set_xticks(ndtri(places), names)
            axes.set_yticks(ndtri(places), names)
            limits = (low - 0.05, high + 0.05)
            axes.set(xlim=limits, ylim=limits, aspect="equal")
            style.name_axes(axes, f"genuine {unit} called fake (%)", f"fake {unit} missed (%)")
    return figure


def _deviate(rates: npt.ArrayLike) -> Floats:
    bounded = np.clip(np.asarray(rates, dtype=np.float64), _BEYOND, 1.0 - _BEYOND)
    return np.asarray(ndtri(bounded), dtype=np.float64)


def _curves(
    systems: Systems, curve: _Curve, side: float, title: str, unit: str
) -> tuple[Figure, Axes | None]:
    """Draws a line for each system, and says in the legend what is not defined.

    Args:
        systems: As of :func:`roc`.
        curve: Returns of a system its line, what is said of it, and where to mark it, if at all.
        side: How long the axes are, in the line's units.
        title: As of :func:`roc`.
        unit: As of :func:`roc`.

    Returns:
        The figure, and its axes if there is a line in them.
    """
    lines, labels = [], []
    for name, (scores, fake) in systems.items():
        verdicts = Verdicts.of(scores, fake)
        why = verdicts.why_undefined(unit)
        line = None if why else curve(verdicts)
        told = f", {verdicts.told_missing(unit)}" if verdicts.missing else ""
        said = f"not defined: {why}" if line is None else f"{line.said}{told}"
        labels.append(f"{style.plain(name, 40)}: {said}")
        lines.append((style.plain(name), line))
    if not any(line for _, line in lines):
        only = labels[0].partition("not defined: ")[2] if len(labels) == 1 else ""
        reason = only or ("; ".join(labels) if labels else "no systems")
        return style.undefined(title, reason), None
    figure, axes = style.canvas(title, height=4.4, legend=labels)
    handles: list[Artist] = []
    for place, (name, line) in enumerate(lines):
        if line is None:
            handles.append(style.note())
            continue
        kept = thinned(line.x / side, line.y / side)
        look: dict[str, Any] = style.line_style(place)
        handles += axes.plot(line.x[kept], line.y[kept], label=name, **look)
        if line.mark is not None:
            look |= {"linestyle": "none", "marker": "o", "markersize": 4.5}
            axes.plot([line.mark], [line.mark], label=f"EER of {name}", **look)
    style.legend_below(figure, handles, labels)
    style.describe(figure, "; ".join(labels))
    return figure, axes


def histogram(
    scores: npt.ArrayLike,
    fake: npt.ArrayLike,
    thresholds: Mapping[str, float] | None = None,
    *,
    methods: Sequence[str] | None = None,
    title: str = "Scores",
    axis_label: str = "fake log-odds",
    unit: str = "faces",
) -> Figure:
    """Draws how scores are distributed in each class, and of each manipulation.

    Args:
        scores: (N,) log-odds; NaN for no verdict.
        fake: (N,), whether it is a fake.
        thresholds: Places to mark, by name.
        methods: (N,) how each was made; given, a line for each of the fakes' is drawn.
        title: Whose scores they are.
        axis_label: What they are.
        unit: What was judged, in the plural.

    Returns:
        A figure of shares of each class by score. Where it ends, a bin holds all beyond.
    """
    verdicts = Verdicts.of(scores, fake)
    if not verdicts.scores.size:
        return style.undefined(title, verdicts.why_undefined(unit))
    marks = {name: float(at) for name, at in (thresholds or {}).items() if np.isfinite(at)}
    low, high = span(verdicts.scores, list(marks.values()))
    bins = round(2.5 * float(np.cbrt(verdicts.scores.size)))
    edges = np.linspace(low, high, min(max(bins, _FEWEST), _MOST) + 1)
    shown = verdicts.scores.clip(low, high)
    groups = _groups(verdicts, methods, unit)
    lost = verdicts.told_missing(unit)
    labels = [*(label for label, _, _ in groups)]
    labels += [f"threshold {style.plain(name, 40)}: {at:.2f}" for name, at in marks.items()]
    labels += [lost] if lost else []
    with style.styled():
        figure, axes = style.canvas(title, legend=labels)
        handles: list[Artist] = []
        for _, rows, look in groups:
            share = np.histogram(shown[rows], edges)[0] / max(1, int(rows.sum()))
            handles.append(axes.stairs(100 * share, edges, **look))
        for place, at in enumerate(marks.values()):
            pattern = style.PATTERNS[(place + 1) % len(style.PATTERNS)]  # not solid, as groups are
            handles.append(axes.axvline(at, color=style.INK, linewidth=1.3, linestyle=pattern))
        handles += [style.note()] if lost else []
        beyond = bool(((verdicts.scores < low) | (verdicts.scores > high)).any())
        style.name_axes(
            axes,
            f"{axis_label}{' (the outer bins hold all beyond)' if beyond else ''}",
            "share of its class (%)",
        )
        axes.set_xlim(low, high)
        style.legend_below(figure, handles, labels)
        style.describe(figure, f"histograms of {axis_label}; " + "; ".join(labels))
    return figure


def _groups(
    verdicts: Verdicts, methods: Sequence[str] | None, unit: str
) -> list[tuple[str, Bools, dict[str, Any]]]:
    """Returns what is drawn of each class and manipulation: its label, rows and look."""
    fake = verdicts.fake
    classes = (("genuine", ~fake, style.GENUINE), ("fake", fake, style.FAKE))
    groups = []
    for word, rows, colour in classes:
        label = f"{word} ({rows.sum():,} {unit})" if rows.any() else f"no {word} {unit}"
        look = {"fill": True, "color": colour, "alpha": 0.45}
        groups.append((label, rows, look))
    if methods is None:
        return groups
    names = np.asarray([str(name) for name in methods], dtype=np.object_)[verdicts.kept]
    for place, name in enumerate(sorted(set(names[fake]))):
        rows = np.asarray(fake & (names == name), dtype=np.bool_)
        look = style.line_style(place + 2) | {"linewidth": 1.5}
        groups.append((f"{style.plain(name, 40)} ({rows.sum():,})", rows, look))
    return groups
