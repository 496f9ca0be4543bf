"""An evaluation as files: tables as Markdown, CSV and LaTeX, figures as PNG and SVG, one page."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import AUC, EER
from deepregions.evaluation.report import figures
from deepregions.evaluation.report.chapters import Chapter, Drawing, Outcome
from deepregions.evaluation.report.page import (
    Page,
    PageCell,
    PageFigure,
    PageTable,
    Section,
    write_evaluation_page,
)
from deepregions.evaluation.report.tables import Table, number, to_csv, to_latex, to_markdown
from deepregions.files import Names, atomic_file

PAGE = "index.html"
SCHEMA = "deepregions.evaluation"
VERSION = 1


def write_outcome(outcome: Outcome, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Writes everything that was found; the page last, so that what has one is whole.

    Args:
        outcome: What was found.
        folder: Where to; it is made.
        facts: What it was made with.

    Returns:
        The page.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).unlink(missing_ok=True)
    chapters = list(outcome.chapters())
    tables = [table for chapter in chapters for table in chapter.tables]
    texts = {
        "tables.md": "\n".join(to_markdown(table) for table in tables),
        "tables.csv": to_csv(tables),
        "tables.tex": "\n".join(to_latex(table) for table in tables),
        "results.json": _json(outcome, facts),
    }
    for name, text in texts.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    names, drawn = Names(), {}
    for drawing in (drawing for chapter in chapters for drawing in chapter.drawings):
        drawn[drawing.stem] = _draw(drawing, folder / "figures", names.unused(drawing.stem))
    page = Page(
        title="Evaluation: " + ", ".join(each.database for each in outcome.evaluated),
        summary=summary(outcome),
        sections=[_section(chapter, drawn) for chapter in chapters],
        facts=facts,
    )
    write_evaluation_page(folder / PAGE, page)
    return folder / PAGE


def summary(outcome: Outcome) -> str:
    """Returns what came of it in a few sentences, a paragraph for each database."""
    paragraphs = []
    for each in outcome.evaluated:
        first = outcome.headline(each)
        auc, eer = each.estimate(first, AUC), each.estimate(first, EER)
        words = f"{each.database}: {first.name} has AUC {told(auc)} and EER {told(eer)}"
        best = each.best_single()
        if best is not None and best != first:
            gain = each.difference(first, best, EER)
            words += (
                f"; the best single network, {best.name}, has EER {told(each.estimate(best, EER))}"
                f" (difference {told(gain)})"
            )
        if auc.coverage < 1:
            words += f". {1 - auc.coverage:.1%} got no verdict"
        paragraphs.append(f"{words}.")
    paragraphs += [f"{note[:1].upper()}{note[1:]}." for note in outcome.notes]
    return "\n\n".join(paragraphs)


def told(estimate: Estimate) -> str:
    """Writes a figure with its interval."""
    if estimate.value is None:
        return f"undefined ({estimate.reason})"
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _json(outcome: Outcome, facts: Mapping[str, Any]) -> str:
    found = {
        "schema": SCHEMA,
        "version": VERSION,
        "level": outcome.settings.level,
        "rounds": outcome.settings.rounds,
        "confidence": outcome.settings.confidence,
        "databases": outcome.facts(),
        "notes": list(outcome.notes),
        **facts,
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _draw(drawing: Drawing, folder: Path, stem: str) -> str | bytes:
    """Writes a figure, and returns it as the page has it."""
    if not isinstance(drawing.figure, Image.Image):
        return figures.save(drawing.figure, folder, stem)[1].read_text(encoding="utf-8")
    buffer = io.BytesIO()
    drawing.figure.save(buffer, "PNG")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / f"{stem}.png") as partial:
        partial.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _section(chapter: Chapter, drawn: Mapping[str, str | bytes]) -> Section:
    return Section(
        heading=chapter.heading,
        text=chapter.text,
        tables=[_table(table) for table in chapter.tables],
        figures=[
            PageFigure(
                drawing.title,
                drawn[drawing.stem],
                drawing.caption,
                drawing.caption
                if isinstance(drawing.figure, Image.Image)
                else figures.alt_text(drawing.figure),
            )
            for drawing in chapter.drawings
        ],
    )


def _table(table: Table) -> PageTable:
    winners = table.winners()
    rows: list[Sequence[PageCell]] = []
    for r, (name, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        row = [PageCell(name)]
        for c, cell in enumerate(cells):
            row.append(_cell(cell, (r, c) in winners))
        rows.append(row)
    return PageTable(table.title, (table.corner, *table.columns), rows, table.note)


def _cell(cell: Estimate | str, best: bool) -> PageCell:
    if isinstance(cell, str):
        return PageCell(cell)
    covered = "" if math.isnan(cell.coverage) else f", {cell.coverage:.1%}"
    over = f"{cell.n}{covered}"
    if cell.value is None:
        return PageCell("–", cell.reason, over)
    interval = ""
    if cell.low is not None and cell.high is not None:
        interval = f"{number(cell.low)} to {number(cell.high)}"
    return PageCell(number(cell.value), interval, over, best)
