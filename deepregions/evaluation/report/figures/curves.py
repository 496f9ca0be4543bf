"""Curves over all scores: what each threshold trades, and whether ratios mean what they say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from deepregions.evaluation.report.figures import style
from deepregions.fusion.fitting import isotonic_llr
from deepregions.fusion.trials import Trials
from deepregions.roc import (
    Bools,
    Floats,
    ScoreCounts,
    area_under_curve,
    empirical_cross_entropy,
    equal_error_rate,
    tally,
)

_TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)  # rates
_FEWER_TICKS = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)
_DIAGONAL: dict[str, Any] = {"color": style.FAINT, "linewidth": 0.8, "linestyle": (0, (2, 3))}
_BEYOND = 1e-5  # rates below are drawn here, outside the axes
_FEWEST, _MOST = 12, 60  # bins
_LOG10 = np.log(10.0)
_PRIORS = np.linspace(-2.5, 2.5, 61)  # log10 odds; 0 is among them


@dataclass(frozen=True, eq=False)
class _Line:
    x: Floats
    y: Floats
    said: str
    mark: float | None = None


def roc(systems: Sequence[Trials], *, title: str, unit: str = "faces") -> Figure:
    """Draws the share of fakes found against the share of genuine ones called fake."""

    def curve(counts: ScoreCounts) -> _Line:
        accused, missed = _operating_points(counts)
        return _Line(accused, 1.0 - missed, f"AUC {area_under_curve(counts):.3f}")

    def frame(axes: Axes, _: Sequence[_Line]) -> None:
        axes.plot([0, 1], [0, 1], **_DIAGONAL)
        axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
        axes.set(xlabel=f"genuine {unit} called fake", ylabel=f"fake {unit} found")

    return _compared(systems, curve, frame, title=title, unit=unit)


def det(systems: Sequence[Trials], *, title: str, unit: str = "faces") -> Figure:
    """Draws fakes missed against genuine ones called fake, on normal-deviate axes.

    As of Martin et al. 1997: normally distributed scores of equal variance give straight lines.
    Lines are in normal deviates of the rates, ticks in per cent; a point marks the EER.
    """

    def curve(counts: ScoreCounts) -> _Line:
        rate = equal_error_rate(counts)[0]
        x, y, mark = (_deviate(each) for each in (*_operating_points(counts), rate))
        seen = _FEWER_TICKS[0] <= rate <= _FEWER_TICKS[-1]
        said = f"EER {100 * rate:.1f} %{'' if seen else ' (beyond the axes)'}"
        return _Line(x, y, said, float(mark))

    def frame(axes: Axes, lines: Sequence[_Line]) -> None:
        worst = max(line.mark for line in lines if line.mark is not None)
        places = _TICKS if worst < ndtri(0.9 * _TICKS[-1]) else _FEWER_TICKS
        low, high = ndtri([places[0], places[-1]])
        axes.plot([low, high], [low, high], **_DIAGONAL)
        names = [f"{100 * rate:g}" for rate in places]
        axes.set_xticks(ndtri(places), names)
        axes.set_yticks(ndtri(places), names)
        limits = (low - 0.05, high + 0.05)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set(xlabel=f"genuine {unit} called fake (%)", ylabel=f"fake {unit} missed (%)")

    return _compared(systems, curve, frame, title=title, unit=unit)


def _deviate(rates: npt.ArrayLike) -> Floats:
    bounded = np.clip(np.asarray(rates, dtype=np.float64), _BEYOND, 1.0 - _BEYOND)
    return np.asarray(ndtri(bounded), dtype=np.float64)


def _compared(
    systems: Sequence[Trials],
    curve: Callable[[ScoreCounts], _Line],
    frame: Callable[[Axes, Sequence[_Line]], None],
    *,
    title: str,
    unit: str,
) -> Figure:
    """Draws a line for each system, and says what is not defined."""
    lines, labels = [], []
    for trials in systems:
        why = trials.absent()
        line = None if why else curve(_counts(trials))
        said = ", ".join([line.said, *_lost(trials, unit)]) if line else f"not defined: {why}"
        labels.append(f"{style.plain(trials.name, 40)}: {said}")
        lines.append((style.plain(trials.name), line))
    drawn = [line for _, line in lines if line is not None]
    if not drawn:
        return style.undefined(title, "; ".join(labels) or "no systems")
    with style.sheet(title, labels, height=4.4) as (figure, axes, handles):
        for place, (name, line) in enumerate(lines):
            if line is None:
                handles.append(style.note())
                continue
            look: dict[str, Any] = style.line_style(place)
            marks: dict[str, Any] = style.marks(place)
            handles.extend(axes.plot(line.x, line.y, label=name, **look, **marks))
            if line.mark is not None:
                look |= {"linestyle": "none", "marker": "o", "markersize": 4.5}
                axes.plot([line.mark], [line.mark], label=f"EER of {name}", **look)
        frame(axes, drawn)
    return figure


def _counts(trials: Trials) -> ScoreCounts:
    own = trials.select(trials.judged)
    return tally(own.log_odds, own.fake)


def _lost(trials: Trials, unit: str) -> list[str]:
    missing = int((~trials.judged).sum())
    return [f"no verdict on {missing:,} of {len(trials):,} {unit}"] if missing else []


def histogram(
    trials: Trials, threshold: float | None = None, *, title: str, unit: str = "faces"
) -> Figure:
    """Draws what share of each class and manipulation has which log-odds, with the threshold."""
    own = trials.select(trials.judged)
    if not len(own):
        return style.undefined(title, trials.absent())
    marks = [] if threshold is None else [threshold]
    low, high = _span(own.log_odds, *marks)
    bins = min(max(round(2.5 * float(np.cbrt(len(own)))), _FEWEST), _MOST)
    edges = np.linspace(low, high, bins + 1)
    shown = own.log_odds.clip(low, high)
    beyond = bool((shown != own.log_odds).any())
    groups: list[tuple[str, Bools, dict[str, Any]]] = []
    for word, rows, colour, hatch in (
        ("genuine", ~own.fake, style.GENUINE, ""),
        ("fake", own.fake, style.FAKE, "////"),
    ):
        label = f"{word} ({rows.sum():,} {unit})" if rows.any() else f"no {word} {unit}"
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": colour, "alpha": 0.45}
        groups.append((label, rows, look | {"fill": True, "hatch": hatch}))
    for place, name in enumerate(own.methods):
        rows = own.fake & (own.method == name)
        label = f"{style.plain(name, 40)} ({rows.sum():,})"
        groups.append((label, rows, style.line_style(place + 2) | {"linewidth": 1.5}))
    labels = [label for label, _, _ in groups]
    labels += [f"threshold development EER: {at:.2f}" for at in marks]
    labels += _lost(trials, unit)
    words = f"histograms of fake log-odds; {'; '.join(labels)}"
    with style.sheet(title, labels, words=words) as (figure, axes, handles):
        for _, rows, look in groups:
            share = np.histogram(shown[rows], edges)[0] / max(1, int(rows.sum()))
            handles.append(axes.stairs(100 * share, edges, **look))
        for at in marks:
            dashed = style.PATTERNS[1]
            handles.append(axes.axvline(at, color=style.INK, linewidth=1.3, linestyle=dashed))
        outer = " (the outer bins hold all beyond)" if beyond else ""
        axes.set(xlabel=f"fake log-odds{outer}", ylabel="share of its class (%)", xlim=(low, high))
    return figure


def tippett(llr: Trials, *, title: str, unit: str = "faces") -> Figure:
    """Draws of each class the share whose likelihood ratio, natural logarithm, is above each value.

    In log10. The legend has the rates of misleading evidence: genuine ones with a ratio above 1,
    fakes with one below 1.
    """
    if why := llr.absent():
        return style.undefined(title, why)
    ratios = llr.log_odds[llr.judged] / _LOG10
    fake = llr.fake[llr.judged]
    fakes, genuine = np.sort(ratios[fake]), np.sort(ratios[~fake])
    labels = [
        f"fake {unit}: {100 * (fakes < 0).mean():.1f} % below 0 (misleading)",
        f"genuine {unit}: {100 * (genuine > 0).mean():.1f} % above 0 (misleading)",
        *_lost(llr, unit),
    ]
    low, high = _span(ratios, 0.0)
    with style.sheet(title, labels) as (figure, axes, handles):
        for values, colour, pattern in (
            (fakes, style.FAKE, style.PATTERNS[0]),
            (genuine, style.GENUINE, style.PATTERNS[1]),
        ):
            x = np.concatenate([[low], np.unique(values.clip(low, high)), [high]])
            y = 1.0 - np.searchsorted(values, x, side="right") / len(values)
            look: dict[str, Any] = {"color": colour, "linestyle": pattern}
            handles.extend(axes.step(x, 100 * y, where="post", **look))
        axes.axvline(0, color=style.FAINT, linewidth=0.8)
        axes.set(xlim=(low, high), ylim=(0, 101))
        axes.set(xlabel="log10 likelihood ratio, greater than", ylabel=f"share of {unit} (%)")
    return figure


def ece_plot(llr: Trials, *, title: str, unit: str = "faces") -> Figure:
    """Draws the bits left unknown after the ratios were heard, over log10 prior odds of a fake.

    As in Ramos and Gonzalez-Rodriguez 2013: the ratios as they are, as they would be at best
    (calibrated on these very labels by PAV), and none at all. What lies between the first two is
    lost by calibration. Cllr, the value at even odds, is in the legend.
    """
    if why := llr.absent():
        return style.undefined(title, why)
    counts, prior = _counts(llr), _PRIORS * _LOG10
    best = replace(counts, values=isotonic_llr(counts))
    nothing = ScoreCounts(np.zeros(1), np.ones(1), np.ones(1))
    bits = [
        np.array([empirical_cross_entropy(each, odds) for odds in prior.tolist()])
        for each in (counts, best, nothing)
    ]
    even = len(prior) // 2
    labels = [
        f"as given: Cllr {bits[0][even]:.3f}",
        f"calibrated by PAV: minimum Cllr {bits[1][even]:.3f}",
        "reference (log ratio 0)",
        *_lost(llr, unit),
    ]
    with style.sheet(title, labels) as (figure, axes, handles):
        colours = (style.FAKE, style.GENUINE, style.INK)
        for values, colour, pattern in zip(bits, colours, style.PATTERNS, strict=False):
            handles.extend(axes.plot(_PRIORS, values, color=colour, linestyle=pattern))
        axes.axvline(0, color=style.FAINT, linewidth=0.8)
        top = max(1.0, min(2.0, float(bits[0].max())))
        axes.set(xlim=(_PRIORS[0], _PRIORS[-1]), ylim=(0, 1.05 * top))
        axes.set(xlabel="prior log10 odds of a fake", ylabel="empirical cross-entropy (bits)")
    return figure


def calibration_curve(llr: Trials, *, title: str, unit: str = "faces") -> Figure:
    """Draws the log10 ratios that the labels support (PAV) against those that were given.

    On the diagonal they mean what they say; below it on the right, and above it on the left, they
    say too much. Where all is of one class, the line leaves the axes.
    """
    if why := llr.absent():
        return style.undefined(title, why)
    counts = _counts(llr)
    x, best = (each[::-1] / _LOG10 for each in (counts.values, isotonic_llr(counts)))
    low, high = _span(x, 0.0)
    bottom, top = _span(best, 0.0, low, high)
    beyond = top - bottom  # lines go this far out of the axes, where ratios are infinite
    y = best.clip(bottom - beyond, top + beyond)
    labels = ["supported by the labels (PAV)", "perfectly calibrated", *_lost(llr, unit)]
    with style.sheet(title, labels) as (figure, axes, handles):
        axes.axhline(0, color=style.FAINT, linewidth=0.6)
        axes.axvline(0, color=style.FAINT, linewidth=0.6)
        marker = "o" if len(x) == 1 else ""
        look: dict[str, Any] = {"color": style.FAKE, "marker": marker, "drawstyle": "steps-mid"}
        handles.extend(axes.plot(x, y, **look))
        handles.extend(
            axes.plot([low, high], [low, high], color=style.INK, linestyle=style.PATTERNS[2])
        )
        axes.set(xlim=(low, high), ylim=(bottom, top))
        axes.set(
            xlabel="log10 likelihood ratio, as given", ylabel="log10 likelihood ratio, supported"
        )
    return figure


def _operating_points(counts: ScoreCounts) -> tuple[Floats, Floats]:
    """Returns BPCER, rising from 0 to 1, and APCER, falling from 1 to 0, by threshold: (K + 1,).

    The strictest comes first, which calls none fake.
    """
    accused = np.append(0.0, counts.false_positives) / counts.negatives
    return accused, 1.0 - np.append(0.0, counts.true_positives) / counts.positives


def _span(values: Floats, *extra: float) -> tuple[float, float]:
    """Returns ends between which nearly all finite values lie, with a little room."""
    finite = values[np.isfinite(values)]
    ends = [*(np.quantile(finite, (0.001, 0.999)) if finite.size else ()), *extra]
    low, high = min(ends), max(ends)
    room = 0.03 * (high - low) if high > low else 0.5
    return float(low - room), float(high + room)
