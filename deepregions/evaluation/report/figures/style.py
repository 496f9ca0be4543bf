"""How all figures look, and how they are saved: the same bytes for the same numbers."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from deepregions.errors import printable
from deepregions.files import atomic_file

# Of Okabe and Ito's palette (Color Universal Design, 2008), told apart by the colour-blind, what
# stands out from white; a line's pattern always goes with its colour.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#1b1d21", "#e69f00")
PATTERNS: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "solid",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
)
MARKERS = ("", "s", "^")  # a round one is at the EER
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
GENUINE, FAKE, INK, FAINT = "#0072b2", "#d55e00", "#1b1d21", "#5a5f67"
WIDTH, HEIGHT = 5.2, 3.7  # inches; 500 pixels of a page
_LEGEND_LINE, _ROOM = 0.21, 0.09  # inches
_HANDLE, _CHARACTER = 0.62, 0.068  # inches of a legend's column
_LONGEST = 64  # characters of a legend's line
_DPI = 200

_LOOK = Path(__file__).with_name("evaluation.mplstyle")


@contextmanager
def styled() -> Iterator[None]:
    """The look of figures while they are made and drawn, whatever the user's settings are."""
    with matplotlib.style.context(["default", _LOOK]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in any script
        yield


def plain(name: str, longest: int = _LONGEST) -> str:
    """Returns a name as one line that a legend shows: made visible, its middle left out if long."""
    text = printable(str(name))
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves such out of legends


def line_style(place: int) -> dict[str, object]:
    """Returns colour and pattern of the line at a place of a legend: 12 that differ."""
    pattern = PATTERNS[(place + place // 12) % len(PATTERNS)]
    return {"color": PALETTE[place % len(PALETTE)], "linestyle": pattern}


def marks(place: int) -> dict[str, object]:
    """Returns the marks of a line, so that 12 differ without colour; the first four have none."""
    shape = MARKERS[place // len(PATTERNS) % len(MARKERS)]
    start = 0.04 + 0.04 * (place % len(PATTERNS))
    return {"marker": shape, "markersize": 4.5, "markevery": (start, 0.2)} if shape else {}


@contextmanager
def sheet(
    title: str,
    legend: Sequence[str] = (),
    *,
    words: str = "",
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Iterator[tuple[Figure, Axes, list[Artist]]]:
    """Makes a figure with one pair of axes; its legend is put below when the body has drawn it.

    Width and height (without the legend) are in inches. ``words`` says what it shows for those who
    do not see it; by default the legend does.

    Yields:
        The figure, its axes, and a list that takes what stands before each line of the legend, by
        turns; what is left of the legend is only words.
    """
    columns = _columns(legend, width) if legend else 1
    longest = int((width - 2 * _ROOM - _HANDLE) / _CHARACTER)  # of a column that is alone
    entries = [textwrap.fill(label, longest) if columns == 1 else label for label in legend]
    lines = (
        sum(entry.count("\n") + 1 for entry in entries)
        if columns == 1
        else -(-len(legend) // columns)
    )
    with styled():
        figure = Figure(
            figsize=(width, height + _ROOM + _LEGEND_LINE * lines),
            layout=ConstrainedLayoutEngine(w_pad=_ROOM, h_pad=_ROOM),
        )
        figure.set_label(printable(f"{title}: {words or '; '.join(legend)}"))
        axes = figure.add_subplot()
        axes.set_title(plain(title), pad=9)
        handles: list[Artist] = []
        yield figure, axes, handles
        if legend:
            figure.legend(
                [*handles, *(note() for _ in legend[len(handles) :])],
                entries,
                loc="outside lower center",
                ncols=columns,
                handlelength=2.6,
                columnspacing=1.4,
                borderaxespad=0.6,
                borderpad=0,
            )


def _columns(labels: Sequence[str], width: float) -> int:
    column = _HANDLE + _CHARACTER * max(len(label) for label in labels)
    fitting = min(len(labels), 3, max(1, int((width - 0.1) / column)))
    lines = -(-len(labels) // fitting)
    return -(-len(labels) // lines)  # as even as they can be


def note() -> Line2D:
    """Returns what stands before a line of a legend that is only words."""
    return Line2D([], [], linestyle="none")


def undefined(title: str, reason: str) -> Figure:
    """Returns a figure that says why there is nothing to be seen."""
    said = f"not defined: {reason}"
    with sheet(title, words=said, height=HEIGHT / 2) as (figure, axes, _):
        axes.set_axis_off()
        axes.text(0.5, 0.5, plain(said), ha="center", va="center", transform=axes.transAxes)
    return figure


def alt_text(figure: Figure) -> str:
    """Returns what a figure shows in words."""
    return str(figure.get_label())


def svg_text(figure: Figure) -> str:
    """Returns a figure as SVG: text stays text, and nothing in it depends on the day."""
    buffer = io.StringIO()
    about = {"Title": alt_text(figure), "Date": None, "Creator": None}
    with styled():
        figure.savefig(buffer, format="svg", metadata=about)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def save(figure: Figure, folder: Path, stem: str) -> str:
    """Writes a figure as PNG (200 dots an inch), PDF and SVG, each whole or not at all.

    All have the figure's words as their title, and no date. Returns the SVG.
    """
    png, pdf = io.BytesIO(), io.BytesIO()
    title = {"Title": alt_text(figure)}
    with styled():
        figure.savefig(png, format="png", dpi=_DPI, metadata=title | {"Software": None})
        figure.savefig(pdf, format="pdf", metadata=title | {"CreationDate": None})
    svg = svg_text(figure)
    for kind, data in (("png", png.getvalue()), ("pdf", pdf.getvalue()), ("svg", svg.encode())):
        with atomic_file(folder / f"{stem}.{kind}") as partial:
            partial.write_bytes(data)
    return svg
