"""Tables of estimates, as Markdown, CSV and LaTeX: interval and n in every cell, best in bold.

Names come from users and from files of others, so everything is escaped for where it goes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from deepregions.errors import UsageError, printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import Best
from deepregions.pipeline.report.table import guarded

Cell = Estimate | str

CSV_COLUMNS = (
    "table",
    "row",
    "column",
    "value",
    "low",
    "high",
    "n",
    "coverage",
    "dropped_rounds",
    "reason",
)
DIGITS = 3
_WIDE = 4  # columns that fit a page

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~$@#]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # else taken for the argument of the line break before it
    "]": "{]}",
    "-": "{-}",  # else two make a dash
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
}


@dataclass(frozen=True)
class Table:
    """A table with R rows and C columns.

    Attributes:
        title: What it shows.
        rows: R names.
        columns: C names.
        cells: R rows of C estimates, or texts.
        best: What is best in each column, or in all alike.
        note: What must be known to read it.
        corner: What the rows are.

    Raises:
        UsageError: The cells are of another shape.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    best: Best | tuple[Best, ...] = "none"
    note: str = ""
    corner: str = ""

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.cells} or {len(self.columns)}
        if len(self.cells) != len(self.rows) or widths != {len(self.columns)}:
            raise UsageError(f"the cells of {self.title!r} do not fit its rows and columns")
        if not isinstance(self.best, str) and len(self.best) != len(self.columns):
            raise UsageError(f"{self.title!r} does not say what is best in each column")

    def best_of(self, column: int) -> Best:
        """Returns what is best in a column."""
        return self.best if isinstance(self.best, str) else self.best[column]

    def winners(self) -> frozenset[tuple[int, int]]:
        """Returns the places (row, column) of the best of each column that has two values.

        Those that are written alike are best alike.
        """
        found = set()
        for column in range(len(self.columns)):
            best = self.best_of(column)
            values = {
                row: float(number(cell.value))
                for row, cells in enumerate(self.cells)
                if isinstance(cell := cells[column], Estimate) and cell.value is not None
            }
            if best == "none" or len(values) < 2:
                continue
            top = (max if best == "higher" else min)(values.values())
            found |= {(row, column) for row, value in values.items() if value == top}
        return frozenset(found)

    def transposed(self, best: Best | tuple[Best, ...], title: str = "", corner: str = "") -> Table:
        """Returns the table with rows and columns exchanged; ``best`` is of the new columns."""
        cells = tuple(zip(*self.cells, strict=True)) if self.rows else ((),) * len(self.columns)
        return Table(title or self.title, self.columns, self.rows, cells, best, self.note, corner)


def number(value: float) -> str:
    """Writes a figure; nothing is ever written as minus zero."""
    text = f"{value:.{DIGITS}f}"
    return text.lstrip("-") if float(text) == 0 else text


def to_markdown(table: Table, level: int = 3) -> str:
    """Writes a heading, a table of GitHub's Markdown, and the note."""
    winners = table.winners()
    lines = [f"{'#' * level} {escape_markdown(table.title)}", ""]
    header = [escape_markdown(name) for name in (table.corner, *table.columns)]
    lines += [_piped(header), _piped(["---", *(["---:"] * len(table.columns))])]
    for r, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        texts = [_markdown_cell(cell, (r, c) in winners) for c, cell in enumerate(cells)]
        lines.append(_piped([escape_markdown(name), *texts]))
    if table.note:
        lines += ["", escape_markdown(table.note)]
    return "\n".join(lines) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """Writes all cells of some tables, a line each, with every number to full precision.

    A text stands in ``reason``'s column. A text that a spreadsheet would calculate is marked, as
    in all tables of this package.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row, cells in zip(table.rows, table.cells, strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                names = (guarded(table.title), guarded(row), guarded(column))
                writer.writerow([*names, *_csv_cell(cell)])
    return stream.getvalue()


def to_latex(table: Table) -> str:
    r"""Writes a ``table`` environment with rules of the package ``booktabs``.

    It needs ``booktabs``, ``graphicx`` (wide tables are shrunk to the page), and ``textcomp`` with
    T1 fonts.
    """
    wide = len(table.columns) > _WIDE
    winners = table.winners()
    header = " & ".join(escape_latex(name) for name in (table.corner, *table.columns))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(table.title)}}}",
        *([r"  \resizebox{\linewidth}{!}{%"] if wide else []),
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"    \toprule",
        rf"    {header} \\",
        r"    \midrule",
    ]
    for r, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        texts = [_latex_cell(cell, (r, c) in winners) for c, cell in enumerate(cells)]
        lines.append(rf"    {' & '.join([escape_latex(name), *texts])} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}" + ("}" if wide else "")]
    if table.note:
        lines.append(rf"  \par\smallskip {{\footnotesize {escape_latex(table.note)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it stands, on one line."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def escape_latex(text: str) -> str:
    """Returns a text that LaTeX sets as it stands, on one line."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(cell: Estimate) -> list[str]:
    """The ends of an estimate's interval, if it has one."""
    if cell.low is None or cell.high is None:
        return []
    return [number(cell.low), number(cell.high)]


def _covered(cell: Estimate, percent: str) -> str:
    if math.isnan(cell.coverage):
        return ""
    share = cell.coverage * 100
    text = "100" if share == 100 else f"{min(share, 99.9):.1f}"  # 99.96 % is not all
    return f", {text}{percent}"


def _markdown_cell(cell: Cell, winner: bool) -> str:
    if isinstance(cell, str):
        return escape_markdown(cell)
    over = f"n={cell.n}{_covered(cell, ' %')}"
    if cell.value is None:
        return f"– {escape_markdown(cell.reason)}, {over}"
    value = f"**{number(cell.value)}**" if winner else number(cell.value)
    interval = rf" \[{', '.join(_interval(cell))}\]" if _interval(cell) else ""
    return f"{value}{interval}, {over}"


def _latex_cell(cell: Cell, winner: bool) -> str:
    if isinstance(cell, str):
        return escape_latex(cell)
    percent = r"\,\%"
    over = f"$n$={cell.n}{_covered(cell, percent)}"
    if cell.value is None:
        return rf"-- {{\scriptsize {escape_latex(cell.reason)}, {over}}}"
    figure = f"${number(cell.value)}$"
    value = rf"\textbf{{{_bold(cell.value)}}}" if winner else figure
    interval = f"{{[}}${'$, $'.join(_interval(cell))}${{]}}, " if _interval(cell) else ""
    return rf"{value} {{\scriptsize {interval}{over}}}"


def _bold(value: float) -> str:
    return number(value).replace("-", r"\textminus{}")


def _csv_cell(cell: Cell) -> list[float | str | None]:
    if isinstance(cell, str):
        return [None, None, None, None, None, None, guarded(cell)]
    coverage = None if math.isnan(cell.coverage) else cell.coverage
    numbers = [cell.value, cell.low, cell.high, cell.n, coverage, cell.dropped]
    return [*numbers, guarded(cell.reason)]
