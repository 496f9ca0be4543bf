"""The page of an evaluation: one file, escaped, with all of its tables and figures."""

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from score_tables import make_trials
from test_report import HOSTILE, check_page

from deepregions.errors import printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.report.chapters import Chapter, Drawing
from deepregions.evaluation.report.figures import comparisons, curves
from deepregions.evaluation.report.render import render_page, summary, write_drawing
from deepregions.evaluation.report.tables import Table, to_latex, to_markdown

SHOWN = printable(HOSTILE)


def curve(name: str) -> Figure:
    scores = np.random.default_rng(0).normal(0, 1, 60)
    return curves.roc([make_trials(scores, [False, True] * 30, name)], title=name)


def matrix(names: list[str]) -> Figure:
    cells = [[Estimate(0.5, 0.4, 0.6, 9, 1.0)] * len(names)] * len(names)
    return comparisons.cross_matrix(Table("AUC", names, names, cells), title="AUC")


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


def test_nearly_all_is_not_all():
    """B12: a share of .9996 was shown as 0.0 % without a verdict."""
    each: Any = SimpleNamespace(
        database="made",
        estimate=lambda *_: Estimate(0.5, 0.4, 0.6, 2500, 0.9996),
        best_single=lambda: None,
    )
    system = SimpleNamespace(name="all")
    outcome: Any = SimpleNamespace(evaluated=[each], headline=lambda _: system, notes=[])
    assert summary(outcome).endswith(". 99.9 % got a verdict.")


def test_page_has_all_tables_and_figures(tmp_path):
    text = page("a", tmp_path)
    parsed = check_page(text)
    assert len(parsed.all("img")) == len(parsed.all("figure")) == 3
    assert [a.get("class") for a in parsed.all("figure")] == [None, "wide", None]
    svg = (tmp_path / "roc.svg").read_bytes()
    assert base64.b64encode(svg).decode() in text
    assert len(parsed.all("table")) == 2
    for said in ("0.101 to 0.142", "n=1200, 99.9 %", "0.123 (best)", "caption a", "Second para"):
        assert said in parsed.words, said
    assert "deepregions evaluate --store 'a ba'" in parsed.words
    assert "weights of" in parsed.words
    assert "3f" * 32 in parsed.words
    links = [a["href"] for a in parsed.all("a")]
    assert links == ["#section-1", "#section-2", "#made"]
    assert [a.get("class") for a in parsed.all("td")[:2]] == ["num best", None]
    assert parsed.all("details")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_a_reason_stands_once_below_its_table():
    why = "nothing genuine with a verdict"
    cells = tuple(
        (Estimate.none(why, n, 0.5), Estimate(0.5, None, None, 9, 1.0)) for n in (1, 2, 3)
    )
    table = Table("t", ("a", "b", "c"), ("x", "y"), cells)
    for text in (to_markdown(table), to_latex(table)):
        assert text.count(why) == 1
        assert text.count("(1)") == 4


def test_page_escapes_whatever_names_there_are(tmp_path):
    parsed = check_page(page(HOSTILE, tmp_path))
    assert parsed.words.count(SHOWN) >= 15
    assert any(SHOWN in (a.get("alt") or "") for a in parsed.all("img"))
    assert not any(c in parsed.words for c in "\u202e\u2066\x1b")


def test_page_of_nothing():
    parsed = check_page(render_page("t", "", [], {}, {}))
    assert not parsed.all("img")
    assert [a["href"] for a in parsed.all("a")] == ["#made"]
