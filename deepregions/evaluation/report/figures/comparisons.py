"""Systems side by side: across databases, region by region, group by group, and when degraded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from deepregions.evaluation.report.figures import style
from deepregions.roc import Floats

Interval = tuple[float, float, float]  # a value, and the ends of its interval
Curve = tuple[Sequence[float | str], npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]

_CELL, _CELL_HEIGHT = 1.02, 0.62  # inches
_LONG, _CHARACTER = 28, 0.08  # characters of a row's or column's name, and inches of each
_BAR = 0.24  # inches


def cross_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    *,
    title: str,
    better: Literal["higher", "lower"],
    percent: bool = False,
    axis_labels: tuple[str, str] = ("trained on", "tested on"),
) -> Figure:
    """Draws a matrix, such as training databases by test databases, with its numbers.

    Args:
        rows: R names.
        columns: C names.
        values: (R, C); NaN where there is none.
        low: (R, C), lower ends of intervals; NaN where there is none.
        high: (R, C), upper ends.
        title: What the values are.
        better: Which of them are light.
        percent: Whether shares are written as per cent.
        axis_labels: What rows and columns are.

    Returns:
        A figure; a frame is around cells whose row and column have one name.
    """
    shape = (len(rows), len(columns))
    cells = [np.asarray(each, dtype=np.float64).reshape(shape) for each in (values, low, high)]
    if not np.isfinite(cells[0]).any():
        return style.undefined(title, "no values")
    names = [[style.plain(name, _LONG) for name in each] for each in (rows, columns)]
    longest = [max(len(name) for name in each) for each in names]
    turned = _CHARACTER * (longest[1] + 1) > max(_CELL, 4.0 / shape[1])
    width = max(style.WIDTH, 0.6 + _CHARACTER * longest[0] + _CELL * shape[1])
    height = 1.35 + _CELL_HEIGHT * shape[0] + (0.04 * longest[1] if turned else 0)
    with style.styled():
        figure, axes = style.canvas(title, width=width, height=height)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        colours = matplotlib.colormaps["viridis" if better == "higher" else "viridis_r"]
        known = cells[0][np.isfinite(cells[0])]
        shade = Normalize(known.min(), known.max())
        for place in np.ndindex(shape):
            number = [float(each[place]) for each in cells]
            colour = colours(shade(number[0])) if np.isfinite(number[0]) else None
            _cell(axes, place, number, colour, percent)
            if rows[place[0]] == columns[place[1]]:
                corner = (place[1] - 0.5, place[0] - 0.5)
                frame = Rectangle(
                    corner, 1, 1, fill=False, edgecolor=style.INK, linewidth=2, zorder=3
                )
                axes.add_patch(frame).set_clip_on(False)
        axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
        axes.set_yticks(range(shape[0]), names[0])
        axes.set_xticks(range(shape[1]), names[1], **_turned(turned))
        style.name_axes(axes, f"{axis_labels[1]} (lighter is better)", axis_labels[0])
        told = [
            f"{rows[r]} on {columns[c]} {_number(float(cells[0][r, c]), percent)}"
            for r, c in np.ndindex(shape)
        ]
        style.describe(figure, "; ".join(told))
    return figure


def _turned(turned: bool) -> dict[str, Any]:
    """Returns how names stand below an axis."""
    return {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if turned else {}


def _cell(
    axes: Axes, place: tuple[int, ...], number: list[float], colour: Any, percent: bool
) -> None:
    """Writes a cell's value and interval, dark on light and light on dark."""
    row, column = place
    value, low, high = number
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white"}
    if colour is None:
        look = {"facecolor": "white", "edgecolor": "#c5c9cf", "hatch": "///"}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, linewidth=0.8, **look))
    if colour is None:
        axes.text(column, row, "–", ha="center", va="center")
        return
    ink = "black" if _luminance(colour) > 0.179 else "white"
    told = np.isfinite(low) and np.isfinite(high)
    said = _number(value, percent)
    axes.text(
        column, row - (0.14 if told else 0), said, ha="center", va="center", color=ink,
        fontsize=11, fontweight="bold",
    )  # fmt: skip
    if told:
        said = f"{_number(low, percent)}–{_number(high, percent)}"
        axes.text(column, row + 0.22, said, ha="center", va="center", color=ink, fontsize=8.5)


def _luminance(colour: Any) -> float:
    """Returns the relative luminance of sRGB (WCAG 2.2); at 0.179 black is as far as white."""
    rgb = np.asarray(colour[:3], dtype=np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _number(value: float, percent: bool) -> str:
    if not np.isfinite(value):
        return "none"
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"


def robustness(
    curves: Mapping[str, Curve],
    axis_label: str,
    measure: str,
    *,
    title: str = "Robustness",
    percent: bool = False,
) -> Figure:
    """Draws a measure of systems as their input gets worse, with bands of its intervals.

    Args:
        curves: Of each system x (K,), numbers or words; and (K,) values, lower and upper ends.
        axis_label: What is changed, such as ``"JPEG quality"``.
        measure: What the values are.
        title: What it is about.
        percent: Whether shares are shown as per cent.

    Returns:
        A figure with a line, named as the system, for each. Any word makes places of all x, in
        the order in which they come.
    """
    scale = 100.0 if percent else 1.0
    data = {}
    for name, (x, *numbers) in curves.items():
        y, low, high = (scale * np.asarray(each, dtype=np.float64).reshape(-1) for each in numbers)
        if np.isfinite(y).any():
            data[name] = (list(x), y, low, high)
    if not data:
        return style.undefined(title, "no values" if curves else "no systems")
    undrawn = [name for name in curves if name not in data]
    labels = [style.plain(name, 40) for name in data]
    labels += [f"{style.plain(name, 40)}: not defined" for name in undrawn]
    places = _places([x for x, *_ in data.values()])
    with style.styled():
        figure, axes = style.canvas(title, legend=labels)
        handles: list[Artist] = []
        for place, (name, (x, y, low, high)) in enumerate(data.items()):
            look: dict[str, Any] = style.line_style(place)
            at = np.array([places[each] for each in x], dtype=np.float64)
            order = np.argsort(at, kind="stable")
            at, middle, bottom, top = (each[order] for each in (at, y, low, high))
            axes.fill_between(at, bottom, top, color=look["color"], alpha=0.14, linewidth=0)
            look |= {"marker": "o", "markersize": 4}
            handles += axes.plot(at, middle, label=style.plain(name), **look)
        _ticks(axes, places)
        style.name_axes(axes, axis_label, f"{measure} (%)" if percent else measure)
        style.legend_below(figure, handles + [style.note() for _ in undrawn], labels)
        told = [
            f"{name} {y[0]:.3g} at {x[0]} to {y[-1]:.3g} at {x[-1]}"
            for name, (x, y, *_) in data.items()
        ]
        style.describe(figure, f"{measure} by {axis_label}: " + "; ".join(told))
    return figure


def _places(columns: Sequence[Sequence[float | str]]) -> dict[float | str, float]:
    """Returns where each x is: itself if all are numbers, else its turn."""
    known = list(dict.fromkeys(each for column in columns for each in column))
    if any(isinstance(each, str) for each in known):
        return {each: float(turn) for turn, each in enumerate(known)}
    return {each: float(each) for each in known}


def _ticks(axes: Axes, places: Mapping[float | str, float]) -> None:
    """Marks every x that there is room for; the ends first."""
    ordered = sorted(places.items(), key=lambda item: item[1])
    extent = ordered[-1][1] - ordered[0][1] or 1.0
    names = {at: each if isinstance(each, str) else f"{each:g}" for each, at in ordered}
    turned = len(names) > 1 and sum(len(name) for name in names.values()) > 55
    widest = max(len(name) for name in names.values())
    room = 0.05 if turned else 0.018 * (min(widest, _LONG) + 1)
    kept = [ordered[-1][1]]
    for _, at in ordered[:-1]:
        if at == ordered[0][1] or all(abs(at - other) >= room * extent for other in kept):
            kept.append(at)
    shown = [style.plain(names[at], _LONG) for at in kept]
    axes.set_xticks(kept, shown, **_turned(turned))


def bars(
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    measure: str = "AUC",
    title: str = "Regions",
    percent: bool = False,
    baseline: float = 0.0,
    counts: Mapping[str, int] | None = None,
) -> Figure:
    """Draws a measure as bars with intervals: groups, such as regions, of the same systems.

    Args:
        groups: Of each group, of each system, the value and the ends of its interval; NaN for
            none.
        measure: What the values are.
        title: What it is about.
        percent: Whether shares are shown as per cent.
        baseline: Where bars begin, such as 0.5 for the AUC of chance.
        counts: How many there are in a group, if that is to be said.

    Returns:
        A figure with one colour for each system; where there is no value a dash is in its place.
    """
    systems = list(dict.fromkeys(name for group in groups.values() for name in group))
    scale = 100.0 if percent else 1.0
    nothing = (np.nan, np.nan, np.nan)
    table = np.array(
        [[group.get(name, nothing) for name in systems] for group in groups.values()],
        dtype=np.float64,
    ).reshape(len(groups), len(systems), 3)
    table = scale * table
    if not np.isfinite(table[..., 0]).any():
        return style.undefined(title, "no values" if table.size else "no systems")
    labels = [style.plain(name, 40) for name in systems]
    width = max(style.WIDTH, 0.9 + (_BAR * len(systems) + 0.2) * len(groups))
    with style.styled():
        figure, axes = style.canvas(title, width=width, legend=labels)
        axes.grid(visible=False, axis="x")
        handles = _bars(axes, table, scale * baseline)
        names = [style.plain(name, _LONG) for name in groups]
        turned = _CHARACTER * (max(len(name) for name in names) + 1) > (width - 0.9) / len(names)
        if counts is not None:
            joint = ", " if turned else "\n"
            names = [
                f"{name}{joint}n={counts[group]:,}" if group in counts else name
                for name, group in zip(names, groups, strict=True)
            ]
        axes.set_xticks(range(len(groups)), names, **_turned(turned))
        axes.tick_params("x", length=0)
        axes.set_xlim(-0.55, len(groups) - 0.45)
        start = f", bars begin at {scale * baseline:g}" if baseline else ""
        style.name_axes(axes, "", f"{measure} (%{start})" if percent else f"{measure}{start}")
        style.legend_below(figure, handles, labels)
        told = [
            f"{group}: " + ", ".join(f"{name} {each[0]:.3g}" for name, each in of.items())
            for group, of in groups.items()
        ]
        style.describe(figure, f"{measure}; " + "; ".join(told))
    return figure


def _bars(axes: Axes, table: Floats, baseline: float) -> list[Artist]:
    """FaceRng (G, S, 3) values with intervals, and returns what a legend shows of S systems."""
    count = table.shape[1]
    wide = 0.84 / count
    handles: list[Artist] = []
    for place in range(count):
        value, low, high = table[:, place].T
        x = np.arange(len(table)) + (place - (count - 1) / 2) * wide
        there = np.isfinite(value)
        look: dict[str, Any] = {
            "facecolor": style.PALETTE[place % len(style.PALETTE)],
            "hatch": "" if place < len(style.PALETTE) else "////",
            "edgecolor": "white",
            "linewidth": 0.5,
        }
        axes.bar(x[there], value[there] - baseline, 0.92 * wide, baseline, **look)
        handles.append(Patch(**look))
        known = there & np.isfinite(low) & np.isfinite(high)
        ends = np.abs(np.stack([value - low, high - value]))[:, known]
        axes.errorbar(
            x[known], value[known], ends, linestyle="none", ecolor=style.INK, elinewidth=1.1,
            capsize=min(2.5, 12 * wide),
        )  # fmt: skip
        for at in x[~there]:
            axes.text(at, baseline, "–", ha="center", va="bottom")
    axes.axhline(baseline, color=style.FAINT, linewidth=0.8)
    return handles


def slices(
    attribute: str,
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    counts: Mapping[str, int] | None = None,
    measure: str = "AUC",
    percent: bool = False,
    baseline: float = 0.0,
) -> Figure:
    """Draws a measure of systems for each group of people or videos, as :func:`bars` does.

    Args:
        attribute: What tells the groups apart, such as ``"age"``.
        groups: As of :func:`bars`.
        counts: How many there are in each group.
        measure: As of :func:`bars`.
        percent: As of :func:`bars`.
        baseline: As of :func:`bars`.
    """
    return bars(
        groups,
        measure=measure,
        title=f"{measure} by {attribute}",
        percent=percent,
        baseline=baseline,
        counts=counts,
    )
