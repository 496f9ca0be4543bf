"""The page of an evaluation: one file, escaped, with all of its tables and figures."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from deepregions.errors import UsageError, printable
from deepregions.evaluation.report import figures
from deepregions.evaluation.report.page import (
    Page,
    PageCell,
    PageFigure,
    PageTable,
    Section,
    inline,
    render_evaluation_page,
    write_evaluation_page,
)

VOID = {"meta", "link"}
HOSTILE = "<script>alert(1)</script>\n\"'&<img src=//x.y/z onerror=a>\u202egpj.\u2066\x1b[31m\udcff"
SHOWN = printable(HOSTILE)


class Parsed(HTMLParser):
    """What a browser would see of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def curve(name: str) -> Figure:
    scores = np.random.default_rng(0).normal(0, 1, 60)
    return figures.roc({name: (scores, np.arange(60) % 2 == 1)}, title=name)


def drawn(name: str = "a") -> list[PageFigure]:
    """Figures of each kind of element: clip paths, hatches, markers, long texts."""
    fake = np.arange(60) % 2 == 1
    scores = np.random.default_rng(0).normal(0, 1, 60) + fake
    values = np.array([[0.9, 0.6], [math.nan, 0.8]])
    each = {name + str(i): (0.7, 0.6, 0.8) for i in range(8)}
    x = ([1, 2], [0.5, 0.4], [0.4, 0.3], [0.6, 0.5])
    made = [
        figures.det({name: (scores, fake)}, title=name),
        curve(name),
        figures.histogram(scores, fake, {name: 0.2}),
        figures.tippett(scores, fake),
        figures.ece_plot(scores, fake),
        figures.calibration_curve(scores, fake),
        figures.cross_matrix(
            [name, "b"], [name, "b"], values, values, values, title="AUC", better="higher"
        ),
        figures.bars({"eyes": each, "nose": each}),
        figures.robustness({name: x}, "CRF", name),
        figures.roc({}),
    ]
    return [
        PageFigure(name, figures.svg_text(figure), f"caption {name}", figures.alt_text(figure))
        for figure in made
    ]


def page(name: str = "a") -> Page:
    rows = [[PageCell(name), PageCell("12.3", "[10.1, 14.2]", "1,200", best=True), PageCell("–")]]
    table = PageTable(name, ["System", name, "EER %"], rows, note=name)
    return Page(
        title=name,
        summary=f"{name}\n\nSecond paragraph.",
        sections=[
            Section(name, name, [table, table], drawn(name)),
            Section("Again", figures=drawn(name)),
            Section("Empty", tables=[PageTable("none", ["a"], [])]),
        ],
        facts={
            "command": ["deepregions", "evaluate", "--store", f"a b{name}"],
            "environment": {"python": "3.11", "weights_of": name},
            "hashes": {name: "3f" * 32},
        },
    )


def check(text: str) -> Parsed:
    """Checks what holds for every page: it is one file, runs nothing and fetches nothing."""
    parsed = Parsed(text)
    assert not {"script", "iframe", "object", "embed", "base", "form", "img", "image", "style "} & {
        tag for tag, _ in parsed.tags
    }
    assert len(parsed.all("style")) == 1
    assert "@import" not in text
    (policy,) = [m["content"] or "" for m in parsed.all("meta") if m.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert not re.findall(r"(?<!xmlns=\")https?://", text)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "srcset", "xlink:href", "poster", "data", "action"} & attributes.keys()
        target = attributes.get("href")
        if tag == "link":
            assert target == "data:,"
        elif target is not None:
            assert tag in {"a", "use"}
            assert target[0] == "#"
            assert target[1:] in ids
        for value in attributes.values():
            assert set(re.findall(r"url\(#(.*?)\)", value or "")) <= set(ids)
            assert (value or "").count("url(") == (value or "").count("url(#")
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html")[0]["lang"] == "en"
    return parsed


def test_page_has_all_tables_and_figures(tmp_path: Path) -> None:
    about = page()
    write_evaluation_page(tmp_path / "deep" / "page.html", about)
    text = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    parsed = check(text)
    assert len(parsed.all("svg")) == len(parsed.all("figure")) == 20
    assert len(parsed.all("table")) == 3
    labels = [a["aria-label"] for a in parsed.all("div") if a.get("role") == "img"]
    assert labels == [figure.alt for section in about.sections for figure in section.figures]
    words = " ".join(parsed.text.split())
    for said in ("[10.1, 14.2]", "n = 1,200", "12.3 (best)", "caption a", "Second paragraph."):
        assert said in words, said
    assert "genuine faces called fake (%)" in words
    assert "deepregions evaluate --store 'a ba'" in words
    assert "weights of" in words
    assert "3f" * 32 in words
    links = [a["href"] for a in parsed.all("a")]
    assert links == ["#section-1", "#section-2", "#section-3", "#made"]
    assert [a.get("class") for a in parsed.all("td")[:2]] == ["num best", None]
    assert parsed.all("details")
    assert "clippath" in {tag for tag, _ in parsed.tags}
    assert "pattern" in {tag for tag, _ in parsed.tags}
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_page_escapes_whatever_names_there_are() -> None:
    parsed = check(render_evaluation_page(page(HOSTILE)))
    assert parsed.text.count(SHOWN) >= 40
    assert any(SHOWN in (a.get("aria-label") or "") for a in parsed.all("div"))
    assert not any(c in parsed.text for c in "\u202e\u2066\x1b")


def test_page_of_nothing() -> None:
    parsed = check(render_evaluation_page(Page("t", "", [])))
    assert not parsed.all("svg")
    assert [a["href"] for a in parsed.all("a")] == ["#made"]


def test_a_title_stands_once() -> None:
    svg = figures.svg_text(curve("Curves of a"))
    for title, count in (("Curves of a", 0), ("Another", 1)):
        shown = PageFigure(title, svg, "", "")
        text = render_evaluation_page(Page("t", "", [Section("s", figures=[shown])]))
        assert text.count(f"<b>{title}</b>") == count


def test_wide_figures_keep_the_size_of_their_letters() -> None:
    names = [f"database {i}" for i in range(9)]
    values = np.full((9, 9), 0.5)
    figure = figures.cross_matrix(
        names, names, values, values, values, title="AUC", better="higher"
    )
    shown = PageFigure("AUC", figures.svg_text(figure), "", "")
    other = PageFigure("a", figures.svg_text(curve("a")), "", "")
    text = render_evaluation_page(Page("t", "", [Section("s", figures=[shown, other])]))
    parsed = check(text)
    assert [a.get("class") for a in parsed.all("figure")] == ["wide", None]
    width = round(96 * float(figure.get_size_inches()[0]))
    assert f"max-width:{width}px;margin:0 auto;min-width:{int(width * 0.75)}px" in text
    assert "max-width:499px" in text


def test_the_same_figure_twice_has_ids_of_its_own() -> None:
    svg = figures.svg_text(curve("a"))
    ids = [set(re.findall(r' id="([^"]+)"', inline(svg, p).markup)) for p in ("f1-", "f2-")]
    assert len(ids[0]) == len(ids[1]) > 5
    assert not ids[0] & ids[1]
    assert {name.removeprefix("f1-") for name in ids[0]} == {
        name.removeprefix("f2-") for name in ids[1]
    }


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'


@pytest.mark.parametrize(
    ("svg", "said"),
    [
        (SVG.format("<script>a</script>"), "an element 'script'"),
        (SVG.format("<g><foreignObject/></g>"), "an element 'foreignObject'"),
        (SVG.format('<image href="data:image/png;base64,"/>'), "an element 'image'"),
        (SVG.format('<g onclick="a"/>'), "an attribute onclick='a'"),
        (SVG.format('<g onclick="a"><script/></g>'), "an attribute onclick='a'"),
        (SVG.format('<use xlink:href="https://x.y/z#a"/>'), "an attribute href="),
        (SVG.format('<use href="javascript:a"/>'), "an attribute href="),
        (SVG.format('<g style="fill: url(//x.y/z)"/>'), "an attribute style="),
        (SVG.format('<g fill="url(#a) url( https://x.y)"/>'), "an attribute fill="),
        ("<!DOCTYPE svg [<!ENTITY a 'b'>]>" + SVG.format("&a;"), "declares entities"),
        (SVG.format("<g>"), "is no SVG"),
        ("<p/>", "is no SVG but 'p'"),
        ("", "is no SVG"),
    ],
)
def test_what_matplotlib_does_not_draw_is_refused(svg: str, said: str, tmp_path: Path) -> None:
    bad = Page("t", "", [Section("s", figures=[PageFigure("f", svg, "", "")])])
    with pytest.raises(UsageError, match=re.escape(said)):
        write_evaluation_page(tmp_path / "page.html", bad)
    assert not list(tmp_path.iterdir())


def test_metadata_and_styles_are_left_out() -> None:
    extra = (
        '<metadata><script/></metadata><style>* { color: red }</style><title>t</title><g id="a"/>'
    )
    assert inline(SVG.format(extra), "p-").markup == '<svg aria-hidden="true"><g id="p-a" /></svg>'


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    table = PageTable("T", ["a", "b"], [[PageCell("1")]])
    with pytest.raises(UsageError, match="'T' has rows of other columns"):
        write_evaluation_page(tmp_path / "p.html", Page("t", "", [Section("s", tables=[table])]))
    assert not list(tmp_path.iterdir())
