"""Whether likelihood ratios mean what they say: Tippett, cross-entropy, calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepregions.evaluation.report.figures import style
from deepregions.evaluation.report.figures.numbers import (
    Verdicts,
    cross_entropy,
    exceedance,
    span,
    supported,
    thinned,
)
from deepregions.roc import Floats, ScoreCounts

_LOG10 = np.log(10.0)
_PRIORS = np.linspace(-2.5, 2.5, 61)  # log10 odds; 0 is among them


def tippett(
    llr: npt.ArrayLike, fake: npt.ArrayLike, *, title: str = "Tippett plot", unit: str = "faces"
) -> Figure:
    """Draws of each class the share whose likelihood ratio is above each value.

    Args:
        llr: (N,) natural log-likelihood ratios, positive for fake; NaN for no verdict.
        fake: (N,), whether it is a fake.
        title: Whose they are.
        unit: What was judged, in the plural.

    Returns:
        A figure over log10 ratios. The legend has the rates of misleading evidence: genuine ones
        with a ratio above 1, fakes with one below 1.
    """
    verdicts = Verdicts.of(llr, fake)
    why = verdicts.why_undefined(unit)
    if why:
        return style.undefined(title, why)
    ratios = verdicts.scores / _LOG10
    fakes, genuine = ratios[verdicts.fake], ratios[~verdicts.fake]
    labels = [
        f"fake {unit}: {_percent((fakes < 0).mean())} below 0 (misleading)",
        f"genuine {unit}: {_percent((genuine > 0).mean())} above 0 (misleading)",
        *_lost(verdicts, unit),
    ]
    low, high = span(ratios, [0.0])
    with style.styled():
        figure, axes = style.canvas(title, legend=labels)
        handles: list[Artist] = []
        for values, colour, pattern in (
            (fakes, style.FAKE, style.PATTERNS[0]),
            (genuine, style.GENUINE, style.PATTERNS[1]),
        ):
            at = np.unique(values[np.isfinite(values)].clip(low, high))
            x = np.concatenate([[low], at, [high]])
            y = exceedance(values, x)
            kept = thinned((x - low) / (high - low), y)
            handles += axes.step(
                x[kept], 100 * y[kept], where="post", color=colour, linestyle=pattern
            )
        axes.axvline(0, color=style.FAINT, linewidth=0.8)
        axes.set(xlim=(low, high), ylim=(0, 101))
        style.name_axes(axes, "log10 likelihood ratio, greater than", f"share of {unit} (%)")
        _finish(figure, handles, labels)
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _lost(verdicts: Verdicts, unit: str) -> list[str]:
    return [verdicts.told_missing(unit)] if verdicts.missing else []


def _finish(figure: Figure, handles: list[Artist], labels: list[str]) -> None:
    notes = [style.note() for _ in labels[len(handles) :]]
    style.legend_below(figure, [*handles, *notes], labels)
    style.describe(figure, "; ".join(labels))


def ece_plot(
    llr: npt.ArrayLike,
    fake: npt.ArrayLike,
    *,
    title: str = "Empirical cross-entropy",
    unit: str = "faces",
) -> Figure:
    """Draws what is left unknown after the ratios were heard, at any prior.

    As in Ramos and Gonzalez-Rodriguez 2013 (Forensic Science International 230): the ratios as
    they are, as they would be at best (calibrated on these very labels by PAV), and none at all.
    What lies between the first two is lost by calibration.

    Args:
        llr: As of :func:`tippett`.
        fake: As of :func:`tippett`.
        title: As of :func:`tippett`.
        unit: As of :func:`tippett`.

    Returns:
        A figure in bits over log10 prior odds of a fake. Cllr, the value at even odds, is in the
        legend.
    """
    verdicts = Verdicts.of(llr, fake)
    why = verdicts.why_undefined(unit)
    if why:
        return style.undefined(title, why)
    counts = verdicts.counts
    prior = _PRIORS * _LOG10
    best = replace(counts, values=supported(counts))
    bits = [cross_entropy(each, prior) for each in (counts, best)]
    nothing = cross_entropy(ScoreCounts(np.zeros(1), np.ones(1), np.ones(1)), prior)
    even = len(prior) // 2
    finite = bits[0][
        np.isfinite(bits[0])
    ]  # all or none: one infinite ratio that misleads is enough
    labels = [
        f"as given: Cllr {bits[0][even]:.3f}" if finite.size else "as given: infinite",
        f"calibrated by PAV: minimum Cllr {bits[1][even]:.3f}",
        "reference (log ratio 0)",
        *_lost(verdicts, unit),
    ]
    with style.styled():
        figure, axes = style.canvas(title, legend=labels)
        handles: list[Artist] = []
        for values, colour, pattern in (
            (bits[0], style.FAKE, style.PATTERNS[0]),
            (bits[1], style.GENUINE, style.PATTERNS[1]),
            (nothing, style.INK, style.PATTERNS[2]),
        ):
            drawn = np.where(np.isfinite(values), values, np.nan)
            handles += axes.plot(_PRIORS, drawn, color=colour, linestyle=pattern)
        axes.axvline(0, color=style.FAINT, linewidth=0.8)
        top = max(1.0, min(2.0, float(finite.max(initial=0.0))))
        axes.set(xlim=(_PRIORS[0], _PRIORS[-1]), ylim=(0, 1.05 * top))
        style.name_axes(axes, "prior log10 odds of a fake", "empirical cross-entropy (bits)")
        _finish(figure, handles, labels)
    return figure


def calibration_curve(
    llr: npt.ArrayLike,
    fake: npt.ArrayLike,
    *,
    title: str = "Calibration",
    axis_label: str = "log10 likelihood ratio, as given",
    unit: str = "faces",
) -> Figure:
    """Draws the ratios that the labels support (PAV) against those that were given.

    On the diagonal they mean what they say; below it on the right, and above it on the left, they
    say too much.

    Args:
        llr: As of :func:`tippett`; or natural log-odds, which differ by the prior.
        fake: As of :func:`tippett`.
        title: As of :func:`tippett`.
        axis_label: What they are.
        unit: As of :func:`tippett`.

    Returns:
        A figure in log10 ratios. Where all is of one class, the line leaves the axes.
    """
    verdicts = Verdicts.of(llr, fake)
    why = verdicts.why_undefined(unit)
    if why:
        return style.undefined(title, why)
    counts = verdicts.counts
    given, best = (each[::-1] / _LOG10 for each in (counts.values, supported(counts)))
    low, high = span(given, [0.0])
    inside = np.isfinite(given)
    bottom, top = span(best, [0.0, low, high])
    labels = ["supported by the labels (PAV)", "perfectly calibrated", *_lost(verdicts, unit)]
    with style.styled():
        figure, axes = style.canvas(title, legend=labels)
        beyond = top - bottom  # lines go this far out of the axes, where ratios are infinite
        y = best[inside].clip(bottom - beyond, top + beyond)
        x = given[inside]
        handles = _calibration_lines(axes, x, y, (low, high))
        axes.set(xlim=(low, high), ylim=(bottom, top))
        style.name_axes(axes, axis_label, "log10 likelihood ratio, supported")
        _finish(figure, handles, labels)
    return figure


def _calibration_lines(axes: Axes, x: Floats, y: Floats, ends: tuple[float, float]) -> list[Artist]:
    axes.axhline(0, color=style.FAINT, linewidth=0.6)
    axes.axvline(0, color=style.FAINT, linewidth=0.6)
    if len(x) > 1:
        kept = thinned((x - x[0]) / np.ptp(x), y / (np.ptp(y) or 1.0))
        x, y = x[kept], y[kept]
    marker = "o" if len(x) == 1 else ""
    (line,) = axes.plot(x, y, color=style.FAKE, marker=marker, drawstyle="steps-mid")
    (perfect,) = axes.plot(ends, ends, color=style.INK, linestyle=style.PATTERNS[2])
    return [line, perfect]
