"""Tables of estimates, as Markdown, CSV and LaTeX: interval and n in each cell, best in bold.

Names come from users and from files of others, so everything is escaped for where it goes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

from deepregions.errors import printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import Best
from deepregions.fusion.score_table import ScoredSystem
from deepregions.pipeline.report.table import guarded

Cell = Estimate | str
Key = TypeVar("Key")

CSV_COLUMNS = (
    *("table", "row", "column", "value", "low", "high"),
    *("n", "coverage", "dropped_rounds", "reason"),
)
DIGITS = 3
_WIDE = 4  # columns that fit a page

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~$@#]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_LATEX = {character: f"\\{character}" for character in "{}$&#%_"} | {
    "\\": r"\textbackslash{}",
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
    """A table with R named rows and C named columns of estimates, or texts.

    ``best`` is of each column, or of all alike; ``corner`` says what the rows are.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    best: Best | Sequence[Best] = "none"
    note: str = ""
    corner: str = ""

    @classmethod
    def of_systems(
        cls,
        title: str,
        systems: Sequence[ScoredSystem],
        columns: Sequence[tuple[str, Key]],
        cell: Callable[[ScoredSystem, Key], Cell],
        *,
        best: Best | Sequence[Best] = "none",
        note: str = "",
    ) -> Self:
        """Returns a table with a row for each system; ``cell`` is told the key of a column."""
        cells = [[cell(system, key) for _, key in columns] for system in systems]
        rows, names = [system.name for system in systems], [name for name, _ in columns]
        return cls(title, rows, names, cells, best, note, "System")

    def winners(self) -> frozenset[tuple[int, int]]:
        """Returns the places (row, column) of the best of each column that has two values.

        Those that are written alike are best alike.
        """
        found = set()
        for column in range(len(self.columns)):
            best = self.best if isinstance(self.best, str) else self.best[column]
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

    def texts(self) -> list[list[CellText]]:
        """Returns what the cells say; a reason stands in the notes, and its number in the cell."""
        winners, reasons = self.winners(), self.reasons()
        return [
            [
                cell_text(cell, best=(r, c) in winners, reasons=reasons)
                for c, cell in enumerate(cells)
            ]
            for r, cells in enumerate(self.cells)
        ]

    def reasons(self) -> list[str]:
        """Returns why cells have no value, each reason once."""
        return list(dict.fromkeys(x.reason for x in self._estimates() if x.value is None))

    def notes(self) -> list[str]:
        """Returns what stands below it: numbered reasons, why intervals are absent, its note."""
        withheld = dict.fromkeys(each.withheld for each in self._estimates() if each.withheld)
        numbered = [f"({n}) {reason}." for n, reason in enumerate(self.reasons(), 1)]
        said = [*numbered, *(f"No interval: {why}." for why in withheld), self.note]
        return [text for text in said if text]

    def _estimates(self) -> list[Estimate]:
        return [cell for row in self.cells for cell in row if isinstance(cell, Estimate)]


class CellText(NamedTuple):
    """What a cell says, in parts that each format puts together."""

    value: str
    """A figure, a dash with the number of a reason, or a text."""
    interval: tuple[str, str] | tuple[()] = ()
    over: str = ""
    """Of how many trials, and their share with a verdict; empty for a text."""
    best: bool = False


def cell_text(cell: Cell, *, best: bool = False, reasons: Sequence[str] = ()) -> CellText:
    """Returns what a cell says; reasons for having no value stand by their place in ``reasons``."""
    if isinstance(cell, str):
        return CellText(cell)
    over = f"n={cell.n}"
    if not math.isnan(cell.coverage):
        share = cell.coverage * 100
        over += f", {'100' if share == 100 else f'{min(share, 99.9):.1f}'} %"  # 99.96 % is not all
    if cell.value is None:
        return CellText(f"– ({reasons.index(cell.reason) + 1})", (), over)
    ends = () if cell.low is None or cell.high is None else (number(cell.low), number(cell.high))
    return CellText(number(cell.value), ends, over, best)


def format_estimate(estimate: Estimate) -> str:
    """Returns an estimate with its interval in one line."""
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    text = cell_text(estimate)
    return f"{text.value} [{', '.join(text.interval)}]" if text.interval else text.value


def number(value: float) -> str:
    """Writes a figure; nothing is ever written as minus zero."""
    text = f"{value:.{DIGITS}f}"
    return text.lstrip("-") if float(text) == 0 else text


def to_markdown(table: Table) -> str:
    """Writes a heading, a table of GitHub's Markdown, and the notes."""
    lines = [f"### {escape_markdown(table.title)}", ""]
    header = [escape_markdown(name) for name in (table.corner, *table.columns)]
    lines += [_piped(header), _piped(["---", *(["---:"] * len(table.columns))])]
    for name, texts in zip(table.rows, table.texts(), strict=True):
        lines.append(_piped([escape_markdown(name), *map(_markdown_cell, texts)]))
    for note in table.notes():
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """Writes all cells of some tables, a line each, with every number to full precision.

    A text stands in ``reason``'s column; one that a spreadsheet would calculate is marked.
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
    for name, texts in zip(table.rows, table.texts(), strict=True):
        lines.append(rf"    {' & '.join([escape_latex(name), *map(_latex_cell, texts)])} \\")
    lines += [r"    \bottomrule", r"  \end{tabular}" + ("}" if wide else "")]
    for note in table.notes():
        lines.append(rf"  \par\smallskip {{\footnotesize {escape_latex(note)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it stands, on one line."""
    return _MARKDOWN.sub(r"\\\1", printable(text))


def escape_latex(text: str) -> str:
    """Returns a text that LaTeX sets as it stands, on one line."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: CellText) -> str:
    value = escape_markdown(cell.value)
    if not cell.over:
        return value
    interval = rf" \[{', '.join(cell.interval)}\]" if cell.interval else ""
    return f"{f'**{value}**' if cell.best else value}{interval}, {cell.over}"


def _latex_cell(cell: CellText) -> str:
    if not cell.over:
        return escape_latex(cell.value)
    value = cell.value.replace("–", "--") if cell.value.startswith("–") else f"${cell.value}$"
    if cell.best:
        value = rf"\textbf{{{cell.value.replace('-', chr(92) + 'textminus{}')}}}"
    ends = f"{{[}}${'$, $'.join(cell.interval)}${{]}}, " if cell.interval else ""
    over = cell.over.replace("n=", "$n$=").replace(" %", r"\,\%")
    return rf"{value} {{\scriptsize {ends}{over}}}"


def _csv_cell(cell: Cell) -> list[float | str | None]:
    if isinstance(cell, str):
        return [None, None, None, None, None, None, guarded(cell)]
    coverage = None if math.isnan(cell.coverage) else cell.coverage
    numbers = [cell.value, cell.low, cell.high, cell.n, coverage, cell.dropped]
    return [*numbers, guarded(cell.reason)]
