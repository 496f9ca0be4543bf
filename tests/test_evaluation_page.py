"""The page of an evaluation: one file, escaped, with all of its tables and figures."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deepregions.errors import printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.report import figures
from deepregions.evaluation.report.chapters import Chapter, Drawing
from deepregions.evaluation.report.render import render_page, write_drawing
from deepregions.evaluation.report.tables import Table, to_latex, to_markdown
from deepregions.fusion.trials import Trials

VOID = {"meta", "link", "img"}
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
    scores, number = np.random.default_rng(0).normal(0, 1, 60), np.arange(60)
    method = np.array(["original", "swap"] * 30, dtype=object)
    return figures.roc([Trials(name, scores, number % 2 == 1, method, number)], title=name)


def matrix(names: list[str]) -> Figure:
    cells = [[Estimate(0.5, 0.4, 0.6, 9, 1.0)] * len(names)] * len(names)
    return figures.cross_matrix(Table("AUC", names, names, cells), title="AUC")


def check(text: str) -> Parsed:
    """Checks what holds for every page: it is one file, runs nothing and fetches nothing."""
    parsed = Parsed(text)
    assert not {"script", "iframe", "object", "embed", "base", "form", "svg", "image", "style "} & {
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
        if tag == "img":
            assert re.fullmatch(
                r"data:image/(svg\+xml|png);base64,[\w+/=]+", attributes.pop("src") or ""
            )
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


def page(name: str, folder: Path) -> str:
    """A page whose names are all alike."""
    few = Estimate(0.5, None, None, 9, 1.0, withheld="7 people are too few")
    cells = (
        (Estimate(0.123, 0.101, 0.142, 1200, 0.9996), Estimate.none(name, 3, 0.5)),
        (few, Estimate.none(name, 4, 0.5)),
    )
    table = Table(name, (name, "b"), (name, "EER"), cells, "lower", note=name, corner="System")
    drawings = [
        Drawing("roc", name, curve(name), f"caption {name}"),
        Drawing("matrix", name, matrix([name, *"bcdefghi"]), name),
        Drawing("small", name, matrix([name, "b"]), name),
        Drawing("grid", name, Image.new("RGB", (700, 9)), name),
    ]
    chapters = [
        Chapter(name, name, [table], drawings),
        Chapter("Empty", "", [Table("none", (), ("a",), ())], ()),
    ]
    images = {each.stem: write_drawing(each, folder, each.stem) for each in drawings}
    facts = {
        "command": ["deepregions", "evaluate", "--store", f"a b{name}"],
        "environment": {"python": "3.11", "weights_of": name},
        "hashes": {name: "3f" * 32},
    }
    return render_page(name, f"{name}\n\nSecond paragraph.", chapters, images, facts)


def test_page_has_all_tables_and_figures(tmp_path: Path) -> None:
    text = page("a", tmp_path)
    parsed = check(text)
    assert len(parsed.all("img")) == len(parsed.all("figure")) == 4
    assert [a.get("class") for a in parsed.all("figure")] == [None, "wide", None, "wide"]
    svg = (tmp_path / "roc.svg").read_bytes()
    assert base64.b64encode(svg).decode() in text
    assert len(parsed.all("table")) == 2
    words = " ".join(parsed.text.split())
    for said in ("0.101 to 0.142", "n=1200, 99.9 %", "0.123 (best)", "caption a", "Second para"):
        assert said in words, said
    assert "deepregions evaluate --store 'a ba'" in words
    assert "weights of" in words
    assert "3f" * 32 in words
    links = [a["href"] for a in parsed.all("a")]
    assert links == ["#section-1", "#section-2", "#made"]
    assert [a.get("class") for a in parsed.all("td")[:2]] == ["num best", None]
    assert parsed.all("details")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_a_reason_stands_once_below_its_table() -> None:
    why = "nothing genuine with a verdict"
    cells = tuple(
        (Estimate.none(why, n, 0.5), Estimate(0.5, None, None, 9, 1.0)) for n in (1, 2, 3)
    )
    table = Table("t", ("a", "b", "c"), ("x", "y"), cells)
    for text in (to_markdown(table), to_latex(table)):
        assert text.count(why) == 1
        assert text.count("(1)") == 4


def test_page_escapes_whatever_names_there_are(tmp_path: Path) -> None:
    parsed = check(page(HOSTILE, tmp_path))
    assert parsed.text.count(SHOWN) >= 15
    assert any(SHOWN in (a.get("alt") or "") for a in parsed.all("img"))
    assert not any(c in parsed.text for c in "\u202e\u2066\x1b")


def test_page_of_nothing() -> None:
    parsed = check(render_page("t", "", [], {}, {}))
    assert not parsed.all("img")
    assert [a["href"] for a in parsed.all("a")] == ["#made"]
