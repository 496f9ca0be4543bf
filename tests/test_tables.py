"""Tables in three formats: readers that are not ours give back what went in."""

import csv
import io
import math
import re
import shutil
import subprocess
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from deepregions.errors import printable
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.report.tables import (
    CSV_COLUMNS,
    Table,
    escape_latex,
    escape_markdown,
    number,
    to_csv,
    to_latex,
    to_latex_column,
    to_markdown,
)

SPECIAL = "\\`*_[]<>|&~$:@#!{}()^%\"'-=+ \t\n\r=＝\u202e\x1b\udcff.wé漢0aZ/"
hostile = st.one_of(
    st.text(st.sampled_from(SPECIAL), max_size=12),
    st.text(max_size=12),
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "![x](http://x)",
            "[x]: http://x",
            "www.x.org",
            "a|b",
            r"a\|b",
            "=1+1",
            r"\input{x}",
            "&amp;",
            "---",
            "`a`",
        ]
    ),
)


def estimate(value: float | None = 0.5, **other: Any) -> Estimate:
    made = {"low": 0.4, "high": 0.6, "n": 12, "coverage": 0.75, "reason": "", "dropped": 0} | other
    return Estimate(value, **made)


def parsed(markdown: str) -> tuple[str, list[list[str]]]:
    """The heading and the cells, as a reader of Markdown shows them."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    heading = next(t for n, t in enumerate(tokens) if tokens[n - 1].type == "heading_open")
    rows: list[list[str]] = []
    for before, token in pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            rows[-1].append(_text(token))
    return _text(heading), rows


def _text(token: Any) -> str:
    children = token.children or []
    assert {c.type for c in children} <= {"text", "text_special"}, "something was marked up"
    return "".join(child.content for child in children)


def shown(text: str) -> str:
    return printable(text).strip()


@settings(max_examples=300)
@given(st.lists(hostile, min_size=3, max_size=3))
def test_markdown_shows_names_as_they_are(names):
    one, two, three = names
    table = Table(one, (two,), (three, "x"), ((one, two),), corner=three, note=two)
    heading, rows = parsed(to_markdown(table))
    assert heading == shown(one)
    assert rows == [[shown(three), shown(three), "x"], [shown(two), shown(one), shown(two)]]


@given(hostile, hostile)
def test_no_link_is_made_of_a_name(before, after):
    text = escape_markdown(f"{before}http://x.org/{after} www.x.org a@b.org")
    assert "http:" not in text
    assert "www." not in text
    assert "a@b" not in text


@given(st.lists(hostile, min_size=4, max_size=4), st.floats(-2, 2), st.integers(0, 9))
def test_csv_gives_back_names_and_all_digits(names, value, n):
    title, row, column, reason = names
    cell = Estimate(value, value - 1, value + 1, n, 0.3, reason, 2)
    table = Table(title, (row,), (column, "b"), ((cell, reason),))
    lines = list(csv.DictReader(io.StringIO(to_csv([table, table]), newline="")))
    assert len(lines) == 4
    assert tuple(lines[0]) == CSV_COLUMNS
    for field, expected in (("table", title), ("row", row), ("column", column), ("reason", reason)):
        got = lines[0][field]
        kept = expected.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        assert got.removeprefix("'") == kept if got.startswith("'") else got == kept
        assert not got.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    figures = [float(lines[0][f]) for f in ("value", "low", "high", "coverage", "dropped_rounds")]
    assert figures == [value, value - 1, value + 1, 0.3, 2]
    assert int(lines[0]["n"]) == n
    assert lines[1]["value"] == lines[1]["n"] == ""


LATEX = {  # what LaTeX sets for each command that may be there
    r"\textbackslash{}": "\\",
    r"\textasciicircum{}": "^",
    r"\textasciitilde{}": "~",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotedbl{}": '"',
    r"\textasciigrave{}": "`",
    r"\textquotesingle{}": "'",
    "{[}": "[",
    "{]}": "]",
    "{-}": "-",
    **{f"\\{c}": c for c in "{}$&#%_"},
}
TOKEN = re.compile(
    "|".join([*map(re.escape, sorted(LATEX, key=len, reverse=True)), r"[^\\{}$&#%_^~<>|\"`'\[\]-]"])
)


@settings(max_examples=300)
@given(hostile)
def test_latex_has_nothing_but_letters_and_known_commands(text):
    escaped = escape_latex(text)
    tokens = TOKEN.findall(escaped)
    assert "".join(tokens) == escaped, "something has a meaning of its own"
    assert "".join(LATEX.get(token, token) for token in tokens) == printable(text)


def test_markdown_has_interval_n_and_coverage_in_every_cell():
    table = Table(
        "t",
        ("a", "b", "c"),
        ("AUC",),
        (
            (estimate(0.91),),
            (Estimate.none("no fake | with", 3, 0.5),),
            (estimate(0.9, coverage=1.0, low=-0.0001),),
        ),
        "higher",
    )
    lines = to_markdown(table).splitlines()
    assert r"| a | **0.910** \[0.400, 0.600\], n=12, 75.0 % |" in lines
    assert r"| b | – (1), n=3, 50.0 % |" in lines
    assert r"(1) no fake \| with." in lines
    assert r"| c | 0.900 \[0.000, 0.600\], n=12, 100 % |" in lines


def test_nearly_all_is_not_all():
    table = Table("t", ("a",), ("x",), ((estimate(coverage=0.9999),),))
    assert "99.9 %" in to_markdown(table)
    assert "n=12 |" in to_markdown(Table("t", ("a",), ("x",), ((estimate(coverage=math.nan),),)))


@given(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=1, max_size=6), st.booleans())
def test_the_best_of_each_column_is_bold(values, higher):
    cells = tuple((estimate(v) if v is not None else Estimate.none("x"), "text") for v in values)
    rows = tuple(str(n) for n in range(len(values)))
    table = Table("t", rows, ("a", "b"), cells, "higher" if higher else "lower")
    there = {row: float(number(v)) for row, v in enumerate(values) if v is not None}
    best = (max if higher else min)(there.values(), default=None)
    expected = {(row, 0) for row, v in there.items() if v == best} if len(there) > 1 else set()
    assert table.winners() == expected
    assert to_markdown(table).count("**") == 2 * len(expected)
    assert to_latex(table).count(r"\textbf") == len(expected)


def test_tables_without_rows_are_tables():
    table = Table("t", (), ("a", "b"), ())
    assert parsed(to_markdown(table))[1] == [["", "a", "b"]]
    assert len(to_csv([table]).splitlines()) == 1


def column(said: Any) -> str:
    cells = ((estimate(0.91), estimate(-0.5)), (Estimate.none("no fake", 3, 0.5), estimate(12.25)))
    rows = ("a_1", "detectors on the face: logistic regression")
    columns = ("AUC", "Cllr & co")
    tables = [Table(name, rows, columns, cells, "higher", said=said) for name in ("FF++", "b_c")]
    return to_latex_column(tables, "AUC of 50 % & more")


def test_a_table_for_a_column_has_a_figure_in_each_column_of_siunitx():
    lines = column("value").splitlines()
    assert "S[table-format=1.3] S[table-format=-2.3]" in "".join(lines)
    assert r"    a\_1 & 0.910 & -0.500 \\" in lines
    assert (
        lines.count(r"    detectors on the face: logistic regression & {--} & \bfseries 12.250 \\")
        == 2
    )
    assert r"{[}0.400, 0.600{]}" in column("interval")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_sets_it_within_a_column(tmp_path):
    packages = "".join(rf"\usepackage{{{name}}}" for name in ("booktabs", "siunitx", "tabularx"))
    page = r"\documentclass[twocolumn]{article}\usepackage[T1]{fontenc}\usepackage{textcomp}"
    text = rf"{page}{packages}\begin{{document}}{column('interval')}\end{{document}}"
    (tmp_path / "a.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout
