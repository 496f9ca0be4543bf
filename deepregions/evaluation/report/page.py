"""An evaluation as one HTML file that opens offline: tables, figures, and how they were made."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from PIL import Image

from deepregions import pages
from deepregions.errors import UsageError
from deepregions.files import atomic_file

# What matplotlib draws with. Nothing of it runs, and nothing of it is fetched.
_ELEMENTS = {"svg", "g", "defs", "clipPath", "pattern", "path", "rect", "use", "text", "tspan"}
_DROPPED = {"metadata", "style", "title"}
_REFERENCE = re.compile(r"url\(\s*#([\w.-]+)\s*\)")
_SIZE = re.compile(r"([\d.]+)(?:pt)?")
_PIXELS, _USUAL = 96 / 72, 500  # of a point; of a figure's width


@dataclass(frozen=True)
class PageCell:
    """A cell of a table.

    Attributes:
        value: What it says.
        interval: The interval of its value, as text.
        n: Of how many, as text.
        best: Whether it is the best of those it is compared with.
    """

    value: str
    interval: str = ""
    n: str = ""
    best: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table.

    Attributes:
        title: What it shows.
        header: C names of columns.
        rows: Of each row C cells; the first names it.
        note: What is to be known to read it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[PageCell]]
    note: str = ""


@dataclass(frozen=True)
class PageFigure:
    """A figure.

    Attributes:
        title: What it shows, in a few words.
        svg: As :func:`deepregions.evaluation.report.figures.svg_text` makes it; or the bytes of a
        PNG. caption: What is to be seen in it, and how to read it.
        alt: The same in words, for those who do not see it.
    """

    title: str
    svg: str | bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        heading: Its name.
        text: What it says; an empty line begins another paragraph.
        tables: In this order.
        figures: After the tables.
    """

    heading: str
    text: str = ""
    tables: Sequence[PageTable] = ()
    figures: Sequence[PageFigure] = ()


@dataclass(frozen=True)
class Page:
    """What an evaluation found.

    Attributes:
        title: What was evaluated.
        summary: What came of it; an empty line begins another paragraph.
        sections: Its parts.
        facts: What it was made with, by name: environment, hashes, and as ``command`` the exact
            command, as text or as its parts.
    """

    title: str
    summary: str
    sections: Sequence[Section]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inlined:
    """A figure's SVG as a part of a page.

    Attributes:
        markup: Its element; ids in it are its own.
        width: In CSS pixels.
        words: The texts in it.
    """

    markup: Markup
    width: int
    words: frozenset[str]


def write_evaluation_page(path: Path, page: Page) -> None:
    """Writes an evaluation's page.

    Args:
        path: The HTML file; it appears whole or not at all.
        page: What is on it.

    Raises:
        UsageError: A figure is not such an SVG, or a row has other columns than its table.
        OSError: The file cannot be written.
    """
    text = render_evaluation_page(page)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def render_evaluation_page(page: Page) -> str:
    """Returns an evaluation's page as HTML; arguments and errors as of the function that writes."""
    for table in _tables(page):
        if any(len(row) != len(table.header) for row in table.rows):
            raise UsageError(
                f"the table {table.title!r} has rows of other columns than its header",
                "give each row as many cells as there are names of columns",
            )
    drawings = {
        (number, place): (
            inline(figure.svg, f"f{number}-{place}-")
            if isinstance(figure.svg, str)
            else _picture(figure.svg)
        )
        for number, section in enumerate(page.sections, 1)
        for place, figure in enumerate(section.figures, 1)
    }
    template = pages.environment("deepregions.evaluation.report").get_template("evaluation.html.j2")
    return template.render(
        page=page,
        drawings=drawings,
        command=pages.command_line(page.facts.get("command")),
        paragraphs=_paragraphs,
        numeric=_numeric,
    )


def _picture(png: bytes) -> Inlined:
    """Makes a picture a part of a page."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        width = image.width
    data = base64.b64encode(png).decode("ascii")
    tag = Markup('<img src="data:image/png;base64,{}" alt="" style="width:100%">').format(data)
    return Inlined(tag, width, frozenset())


def inline(svg: str, prefix: str) -> Inlined:
    """Makes a figure's SVG a part of a page.

    Metadata and style sheets are left out, ids and references to them get a prefix, and of what
    is not known to be harmless nothing is let through.

    Args:
        svg: As matplotlib writes it.
        prefix: Of its ids; another for each figure of a page.

    Raises:
        UsageError: It is no SVG, or has elements or references that matplotlib does not write.
    """
    hint = "figures come from deepregions.evaluation.report.figures"
    if "<!ENTITY" in svg:
        raise UsageError("a figure's SVG declares entities", hint)
    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 - entities are refused above
    except ElementTree.ParseError as error:
        raise UsageError(f"a figure is no SVG: {error}", hint) from error
    if _local(root.tag) != "svg":
        raise UsageError(f"a figure is no SVG but {_local(root.tag)!r}", hint)
    try:
        _clean(root, prefix)
    except ValueError as error:
        raise UsageError(f"a figure's SVG has {error}", hint) from error
    width = _SIZE.match(root.attrib.pop("width", "") or "")
    root.attrib.pop("height", None)
    root.attrib.pop("version", None)
    root.attrib["aria-hidden"] = "true"  # its words are the figure's
    return Inlined(
        Markup(ElementTree.tostring(root, encoding="unicode")),  # noqa: S704 - cleaned above
        round(float(width[1]) * _PIXELS) if width else _USUAL,
        frozenset((element.text or "").strip() for element in root.iter("text")),
    )


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """Takes namespaces and what is not shown from an element and all in it.

    Raises:
        ValueError: What is not allowed.
    """
    element.tag = _local(element.tag)
    if element.tag not in _ELEMENTS:
        raise ValueError(f"an element {element.tag!r}")
    attributes = {_local(name): value for name, value in element.attrib.items()}
    for name, value in attributes.items():
        if name.startswith("on") or (name == "href" and not value.startswith("#")):
            raise ValueError(f"an attribute {name}={value!r}")
        if name == "id":
            attributes[name] = prefix + value
        elif name == "href":
            attributes[name] = f"#{prefix}{value[1:]}"
        else:
            attributes[name] = _REFERENCE.sub(rf"url(#{prefix}\1)", value)
            if "url(" in _REFERENCE.sub("", value):
                raise ValueError(f"an attribute {name}={value!r}")
    element.attrib.clear()
    element.attrib.update(attributes)
    for child in list(element):
        if _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]


def _tables(page: Page) -> Iterator[PageTable]:
    for section in page.sections:
        yield from section.tables


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _numeric(table: PageTable) -> list[bool]:
    """Says which columns are of numbers: all after the first in which a cell is one."""
    return [
        place > 0 and any(re.match(r"[-+−]?[\d.]+", row[place].value) for row in table.rows)
        for place in range(len(table.header))
    ]
