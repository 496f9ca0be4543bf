"""An evaluation as files: tables as Markdown, CSV and LaTeX, figures, and one page."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepregions import pages
from deepregions.evaluation.measures import AUC, EER
from deepregions.evaluation.report.chapters import Chapter, Drawing, Outcome
from deepregions.evaluation.report.figures import style
from deepregions.evaluation.report.tables import (
    CellText,
    format_estimate,
    percent,
    to_csv,
    to_latex,
    to_latex_comment,
    to_markdown,
)
from deepregions.files import Names, atomic_file

PAGE = "index.html"
SCHEMA = "deepregions.evaluation"
VERSION = 1
_PIXELS = 96  # of an inch


@dataclass(frozen=True)
class PageImage:
    """A figure as the page has it, in a data URI; the title is empty if the picture says it."""

    uri: str
    width: int
    alt: str
    title: str = ""


def write_outcome(outcome: Outcome, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Writes everything that was found; returns the page, written last: what has one is whole."""
    (folder / PAGE).unlink(missing_ok=True)
    chapters = list(outcome.chapters())
    tables = [table for chapter in chapters for table in chapter.tables]
    names = Names()
    images = {
        drawing.stem: write_drawing(drawing, folder / "figures", names.unused(drawing.stem))
        for chapter in chapters
        for drawing in chapter.drawings
    }
    title = "Evaluation: " + ", ".join(each.database for each in outcome.evaluated)
    results = {
        "schema": SCHEMA,
        "version": VERSION,
        "level": outcome.settings.level,
        "rounds": outcome.settings.rounds,
        "confidence": outcome.settings.confidence,
        "databases": outcome.facts(),
        "robustness": outcome.robustness_facts(),
        "notes": list(outcome.notes),
        **facts,
    }
    texts = {
        "tables.md": "\n".join(to_markdown(table) for table in tables),
        "tables.csv": to_csv(tables),
        "tables.tex": "\n".join(to_latex(table) for table in tables),
        "summary.tex": to_latex_comment(outcome.notes) + outcome.column_table(),
        "results.json": json.dumps(results, indent=1, allow_nan=False) + "\n",
        PAGE: render_page(title, summary(outcome), chapters, images, facts),
    }
    for name, text in texts.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return folder / PAGE


def render_page(
    title: str,
    summary: str,
    chapters: Sequence[Chapter],
    images: Mapping[str, PageImage],
    facts: Mapping[str, Any],
) -> str:
    """Returns an evaluation as one HTML file that opens offline.

    In ``summary`` an empty line begins another paragraph; ``images`` are by stem of the drawings.
    """
    template = pages.environment("deepregions.evaluation.report").get_template("evaluation.html.j2")
    return template.render(
        title=title,
        summary=summary,
        chapters=chapters,
        images=images,
        facts=facts,
        command=pages.command_line(facts.get("command")),
        paragraphs=_paragraphs,
        numeric=_numeric,
    )


def summary(outcome: Outcome) -> str:
    """Returns what came of it in a few sentences, a paragraph for each database."""
    paragraphs = []
    for each in outcome.evaluated:
        first = outcome.headline(each)
        auc, eer = each.estimate(first, AUC), each.estimate(first, EER)
        words = (
            f"{each.database}: {first.name} has AUC {format_estimate(auc)}"
            f" and EER {format_estimate(eer)}"
        )
        best = each.best_single()
        if best is not None and best != first:
            gain = format_estimate(each.difference(first, best, EER))
            rival = format_estimate(each.estimate(best, EER))
            words += f"; the best single network, {best.name}, has EER {rival} (difference {gain})"
        if auc.coverage < 1:
            words += f". {percent(auc.coverage)} % got a verdict"
        if auc.withheld:
            words += f". There are no intervals: {auc.withheld}"
        paragraphs.append(f"{words}.")
    paragraphs += [f"{note[:1].upper()}{note[1:]}." for note in outcome.notes]
    return "\n\n".join(paragraphs)


def write_drawing(drawing: Drawing, folder: Path, stem: str) -> PageImage:
    """Writes a figure as PNG, SVG and PDF; returns it for the page."""
    figure, alt = drawing.figure, style.alt_text(drawing.figure)
    svg = style.save(figure, folder, stem)
    width = round(figure.get_size_inches()[0] * _PIXELS)
    title = "" if alt.startswith(drawing.title) else drawing.title
    return PageImage(pages.data_uri("svg+xml", svg.encode()), width, alt, title)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _numeric(rows: Sequence[Sequence[CellText]], column: int) -> bool:
    """Says whether a column is of numbers: whether one of its cells is."""
    return any(re.match(r"[-+−]?[\d.]+", row[column].value) for row in rows)
