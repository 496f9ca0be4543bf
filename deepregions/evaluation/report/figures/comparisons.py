"""Comparisons as figures: across databases, by region, by group, and when degraded."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.report.figures import style
from deepregions.evaluation.report.tables import Table
from deepregions.roc import Floats

_CELL, _CELL_HEIGHT = 1.02, 0.62  # inches
_LONG, _CHARACTER = 28, 0.08  # characters of a row's or column's name, and inches of each
_BAR = 0.24  # inches
_CHANCE = 0.5  # AUC


def _numbers(table: Table) -> Floats:
    """(3, R, C), values and the ends of their intervals; NaN where there is none."""
    cells = [
        [(cell.value, cell.low, cell.high) for cell in row if isinstance(cell, Estimate)]
        for row in table.cells
    ]
    shape = (len(table.rows), len(table.columns), 3)
    return np.array(cells, dtype=np.float64).reshape(shape).transpose(2, 0, 1)


def _turned(turned: bool) -> dict[str, Any]:
    return {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if turned else {}


def cross_matrix(table: Table, *, title: str) -> Figure:
    """Draws a rate by training (rows) and test database (columns); own ones are framed."""
    values, low, high = _numbers(table)
    if not np.isfinite(values).any():
        return style.undefined(title, "no values")
    rows, columns = (
        [style.plain(x, _LONG) for x in names] for names in (table.rows, table.columns)
    )
    longest = max(map(len, columns))
    turned = _CHARACTER * (longest + 1) > max(_CELL, 4.0 / len(columns))
    width = max(style.WIDTH, 0.6 + _CHARACTER * max(map(len, rows)) + _CELL * len(columns))
    height = 1.35 + _CELL_HEIGHT * len(rows) + (0.04 * longest if turned else 0)
    colours = matplotlib.colormaps["viridis" if table.best == "higher" else "viridis_r"]
    shade = Normalize(np.nanmin(values), np.nanmax(values))
    told = [
        f"{table.rows[r]} on {table.columns[c]} {_percent(values[r, c])}"
        for r, c in np.ndindex(values.shape)
    ]
    words = "; ".join(told)
    with style.sheet(title, words=words, width=width, height=height) as (figure, axes, _):
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for r, c in np.ndindex(values.shape):
            known = np.isfinite(values[r, c])
            colour = colours(shade(values[r, c])) if known else None
            _cell(axes, (r, c), (values[r, c], low[r, c], high[r, c]), colour)
            if table.rows[r] == table.columns[c]:
                look: dict[str, Any] = {"fill": False, "edgecolor": style.INK, "linewidth": 2}
                frame = Rectangle((c - 0.5, r - 0.5), 1, 1, zorder=3, **look)
                axes.add_patch(frame).set_clip_on(False)
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(columns)), columns, **_turned(turned))
        axes.set(xlabel="tested on (lighter is better)", ylabel="trained on")
    return figure


def _cell(
    axes: Axes, place: tuple[int, int], numbers: tuple[float, float, float], colour: Any
) -> None:
    """Writes a cell's value and interval, dark on light and light on dark."""
    row, column = place
    value, low, high = numbers
    look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white"}
    if colour is None:
        look = {"facecolor": "white", "edgecolor": "#c5c9cf", "hatch": "///"}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, linewidth=0.8, **look))
    look = {"ha": "center", "va": "center"}
    if colour is None:
        axes.text(column, row, "–", **look)
        return
    look["color"] = "black" if _luminance(colour) > 0.179 else "white"
    told = np.isfinite(low) and np.isfinite(high)
    up = 0.14 if told else 0
    axes.text(column, row - up, _percent(value), fontsize=11, fontweight="bold", **look)
    if told:
        axes.text(column, row + 0.22, f"{_percent(low)}–{_percent(high)}", fontsize=8.5, **look)


def _luminance(colour: Any) -> float:
    """Returns the relative luminance of sRGB (WCAG 2.2); at 0.179 black is as far as white."""
    rgb = np.asarray(colour[:3], dtype=np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "none"


def robustness(table: Table, *, title: str, axis_label: str) -> Figure:
    """Draws the AUC of systems (rows) by levels of what is changed (columns), with intervals."""
    numbers = _numbers(table)
    defined = np.isfinite(numbers[0]).any(1)
    if not defined.any():
        return style.undefined(title, "no values" if table.rows else "no systems")
    names, levels = [style.plain(name, 40) for name in table.rows], table.columns
    labels = [x if ok else f"{x}: not defined" for x, ok in zip(names, defined, strict=True)]
    told = [
        f"{name} {values[0]:.3g} at {levels[0]} to {values[-1]:.3g} at {levels[-1]}"
        for name, values in zip(table.rows, numbers[0], strict=True)
    ]
    words = f"AUC by {axis_label}: {'; '.join(told)}"
    with style.sheet(title, labels, words=words) as (figure, axes, handles):
        at = np.arange(len(levels))
        for place, name in enumerate(names):
            value, low, high = numbers[:, place]
            look: dict[str, Any] = style.line_style(place)
            axes.fill_between(at, low, high, color=look["color"], alpha=0.14, linewidth=0)
            marks: dict[str, Any] = {"marker": "os^D"[place // 4 % 4], "markersize": 4}
            look |= marks if defined[place] else {"linestyle": "none"}
            handles.extend(axes.plot(at, value, label=name, **look))
        axes.set_xticks(at, levels)
        axes.set(xlabel=axis_label, ylabel="AUC")
    return figure


def bars(table: Table, *, title: str) -> Figure:
    """Draws the AUC of systems (rows) in groups (columns) as bars, from chance on."""
    numbers = _numbers(table).transpose(0, 2, 1)
    groups, systems = numbers.shape[1:]
    if not np.isfinite(numbers[0]).any():
        return style.undefined(title, "no values" if numbers.size else "no systems")
    labels = [style.plain(name, 40) for name in table.rows]
    names = [style.plain(name, _LONG) for name in table.columns]
    width = max(style.WIDTH, 0.9 + (_BAR * systems + 0.2) * groups)
    turned = _CHARACTER * (max(map(len, names)) + 1) > (width - 0.9) / groups
    told = [
        f"{group}: "
        + ", ".join(
            f"{name} {value:.3g}"
            for name, value in zip(table.rows, values, strict=True)
            if np.isfinite(value)
        )
        for group, values in zip(table.columns, numbers[0], strict=True)
    ]
    words = f"AUC; {'; '.join(told)}"
    with style.sheet(title, labels, words=words, width=width) as (figure, axes, handles):
        axes.grid(visible=False, axis="x")
        for place in range(systems):
            handles.append(_bars(axes, numbers[..., place], place, 0.84 / systems))
        axes.axhline(_CHANCE, color=style.FAINT, linewidth=0.8)
        axes.set_xticks(range(groups), names, **_turned(turned))
        axes.tick_params("x", length=0)
        axes.set(xlim=(-0.55, groups - 0.45), ylabel=f"AUC, bars begin at {_CHANCE:g}")
    return figure


def _bars(axes: Axes, numbers: Floats, place: int, wide: float) -> Patch:
    """Draws the bars of one system with their intervals; returns what a legend shows of it."""
    value, low, high = numbers
    x = np.arange(len(value)) - 0.42 + (place + 0.5) * wide
    there, known = np.isfinite(value), np.isfinite(numbers).all(0)
    look: dict[str, Any] = {
        "facecolor": style.PALETTE[place % len(style.PALETTE)],
        "hatch": style.HATCHES[place % len(style.HATCHES)],
        "edgecolor": "white",
        "linewidth": 0.5,
    }
    axes.bar(x[there], value[there] - _CHANCE, 0.92 * wide, _CHANCE, **look)
    ends = np.abs(np.stack([value - low, high - value]))[:, known]
    look_of_ends: dict[str, Any] = {"linestyle": "none", "ecolor": style.INK, "elinewidth": 1.1}
    axes.errorbar(x[known], value[known], ends, capsize=min(2.5, 12 * wide), **look_of_ends)
    for at in x[~there]:
        axes.text(at, _CHANCE, "–", ha="center", va="bottom")
    return Patch(**look)
