"""Tables of estimates, as Markdown, CSV and LaTeX, best in bold.

Names come from users and from files of others, so everything is escaped for where it goes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeVar

from deepregions.errors import printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import Best
from deepregions.fusion.score_table import ScoredSystem
from deepregions.pipeline.report.table import guarded

Cell = Estimate | str
Said = Literal["all", "interval", "value"]
Key = TypeVar("Key")

CSV_COLUMNS = (
    *("table", "row", "column", "value", "low", "high"),
    *("n", "coverage", "dropped_rounds", "reason"),
)
DIGITS = 3
_WIDE = 4  # columns that fit a page

_NUMBER = re.compile(r"-?\d+\.\d+")
_BROKEN = r">{\raggedright\arraybackslash\hangindent=1em}X"
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

    ``best`` is of each column, or of all alike; ``corner`` says what the rows are. Cells have a
    value, its interval, n and coverage; in an ``interval`` or ``value`` table the others stand once
    in the note, or nowhere.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    best: Best | Sequence[Best] = "none"
    note: str = ""
    corner: str = ""
    said: Said = "all"

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
        said: Said = "all",
    ) -> Self:
        """Returns a table with a row for each system; ``cell`` is told the key of a column."""
        cells = [[cell(system, key) for _, key in columns] for system in systems]
        rows, names = [system.name for system in systems], [name for name, _ in columns]
        return cls(title, rows, names, cells, best, note, "System", said)

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
                cell_text(cell, best=(r, c) in winners, reasons=reasons, said=self.said)
                for c, cell in enumerate(cells)
            ]
            for r, cells in enumerate(self.cells)
        ]

    def reasons(self) -> list[str]:
        """Returns why cells have no value, each reason once."""
        return list(dict.fromkeys(x.reason for x in self._estimates() if x.value is None))

    def notes(self) -> list[str]:
        """Returns what stands below it: numbered reasons, why intervals are absent, its note."""
        shown = self._estimates() if self.said != "value" else ()
        withheld = dict.fromkeys(each.withheld for each in shown if each.withheld)
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
    """The number of trials, and the share of them that has a verdict."""
    best: bool = False


def cell_text(
    cell: Cell, *, best: bool = False, reasons: Sequence[str] = (), said: Said = "all"
) -> CellText:
    """Returns what a cell says; reasons for having no value stand by their place in ``reasons``."""
    if isinstance(cell, str):
        return CellText(cell)
    over = f"n={cell.n}" if said == "all" else ""
    if over and not math.isnan(cell.coverage):
        over += f", {percent(cell.coverage)} %"
    if cell.value is None:
        return CellText(f"– ({reasons.index(cell.reason) + 1})", (), over)
    ends: tuple[str, str] | tuple[()] = ()
    if said != "value" and cell.low is not None and cell.high is not None:
        ends = number(cell.low), number(cell.high)
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


def percent(share: float) -> str:
    """Writes a share in per cent; what is nearly all is not all."""
    return "100" if share == 1 else f"{min(share * 100, 99.9):.1f}"


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


def to_latex_comment(notes: Sequence[str]) -> str:
    """Writes what :func:`to_latex_column` needs, and what to know of it, as LaTeX's comments."""
    packages = r"needs \usepackage{booktabs, siunitx, tabularx}"
    return "".join(f"% {printable(line)}\n" for line in (packages, *notes))


def to_latex_column(tables: Sequence[Table], caption: str) -> str:
    r"""Writes tables of the same columns, one below the other, as one that fits a column of text.

    It needs ``booktabs``, ``siunitx`` (whose columns ``S`` figures are in) and ``tabularx`` (names
    of rows are broken so that all is as wide as the column). Everything else is in the caption.
    """
    intervals = tables[0].said == "interval"
    kinds, heads = [], []
    for place, name in enumerate(tables[0].columns):
        shown = [row[place] for table in tables for row in table.texts()]
        kinds.append(f"S[table-format={_digits(shown)}]" + (r"@{\,}l" if intervals else ""))
        heads.append(rf"\multicolumn{{{1 + intervals}}}{{c}}{{{escape_latex(name)}}}")
    width = 1 + len(heads) * (1 + intervals)
    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize",
        r"  \setlength{\tabcolsep}{3pt}",
        r"  \sisetup{detect-weight=true, mode=text}",
        rf"  \caption{{{escape_latex(caption)}}}",
        rf"  \begin{{tabularx}}{{\linewidth}}{{@{{}}{_BROKEN}{' '.join(kinds)}@{{}}}}",
        r"    \toprule",
        rf"    {escape_latex(tables[0].corner)} & {' & '.join(heads)} \\",
    ]
    for table in tables:
        lines.append(r"    \midrule")
        if len(tables) > 1:
            title = rf"\textit{{{escape_latex(table.title)}}}"
            lines.append(rf"    \multicolumn{{{width}}}{{@{{}}l}}{{{title}}} \\")
        for name, texts in zip(table.rows, table.texts(), strict=True):
            cells = [_aligned(cell, intervals=intervals) for cell in texts]
            lines.append(rf"    {' & '.join([escape_latex(name), *cells])} \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabularx}", r"\end{table}"]) + "\n"


def _digits(cells: Sequence[CellText]) -> str:
    """What siunitx must know of a column: its sign, and digits before and after the point."""
    numbers = [cell.value for cell in cells if _NUMBER.fullmatch(cell.value)]
    signed = any(text.startswith("-") for text in numbers)
    whole = max((len(text.lstrip("-").partition(".")[0]) for text in numbers), default=1)
    return f"{'-' if signed else ''}{whole}.{DIGITS}"


def _aligned(cell: CellText, *, intervals: bool) -> str:
    value = cell.value if _NUMBER.fullmatch(cell.value) else "{--}"  # the caption says why
    ends = rf"{{\scriptsize {{[}}{', '.join(cell.interval)}{{]}}}}" if cell.interval else ""
    bold = r"\bfseries " if cell.best else ""
    return bold + value + (f" & {ends}" if intervals else "")


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
    interval = rf" \[{', '.join(cell.interval)}\]" if cell.interval else ""
    over = f", {cell.over}" if cell.over else ""
    return f"{f'**{value}**' if cell.best else value}{interval}{over}"


def _latex_cell(cell: CellText) -> str:
    if not _NUMBER.fullmatch(cell.value):
        return escape_latex(cell.value).replace("–", "--")
    value = f"${cell.value}$"
    if cell.best:
        value = rf"\textbf{{{cell.value.replace('-', chr(92) + 'textminus{}')}}}"
    ends = f"{{[}}${'$, $'.join(cell.interval)}${{]}}" if cell.interval else ""
    over = cell.over.replace("n=", "$n$=").replace(" %", r"\,\%")
    small = ", ".join(filter(None, (ends, over)))
    return rf"{value} {{\scriptsize {small}}}" if small else value


def _csv_cell(cell: Cell) -> list[float | str | None]:
    if isinstance(cell, str):
        return [None, None, None, None, None, None, guarded(cell)]
    coverage = None if math.isnan(cell.coverage) else cell.coverage
    numbers = [cell.value, cell.low, cell.high, cell.n, coverage, cell.dropped]
    return [*numbers, guarded(cell.reason)]
