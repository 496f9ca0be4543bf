"""The list of inputs: in their order, with counts and links that lead nowhere else."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from detect_json import CALIBRATION
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import HOSTILE, Page, check_page, video

from deepregions.fusion.pooling import probability
from deepregions.media.provenance import Provenance
from deepregions.pipeline.report.index import index_row, link, write_index
from deepregions.pipeline.results import Result
from deepregions.pipeline.words import Answer
from deepregions.types import Status


def test_a_file_that_says_where_it_comes_from_is_listed_with_it(tmp_path: Path) -> None:
    told = Provenance(software=("<b>GIMP</b>",))
    page = written([index_row(replace(video(), provenance=told)), unread("b.jpg")], tmp_path)
    assert page.words.count("Where it comes from: it names <b>GIMP</b> as its software.") == 1


def unread(name: str, status: Status = Status.UNREADABLE) -> dict[str, Any]:
    return index_row(Result(name, "image", status, "damaged"))


def written(rows: list[dict[str, Any]], folder: Path) -> Page:
    folder.mkdir(exist_ok=True)
    write_index(rows, folder / "index.html")
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    return check_page((folder / "index.html").read_text(encoding="utf-8"))


def test_inputs_are_listed_in_their_order_with_status_score_and_link(tmp_path: Path) -> None:
    made = video()
    low = replace(made, input="z.mp4", log_odds=-0.7654321)
    rows = [
        index_row(made, "a b.html"),
        unread("folder/b.jpg"),
        index_row(replace(low, strip=(), faces=()), "z.html"),
        unread("c.jpg", Status.NO_FACE),
    ]
    page = written(rows, tmp_path)
    assert page.values == [
        round(probability(value) or 0, 6) for value in (made.log_odds, low.log_odds)
    ]
    assert [link["href"] for link in page.all("a")] == ["./a%20b.html", "./z.html"]
    order = [page.words.index(name) for name in ("a b.mp4", "b.jpg", "z.mp4", "c.jpg")]
    assert order == sorted(order)
    for said in (
        "4 files",
        "all: 4",
        "no conclusion: 2",
        "no face found: 1",
        "cannot be opened: 1",
    ):
        assert said in page.words
    assert page.words.count("Not scored: damaged") == 2
    assert page.words.count("no score") == 2
    (image,) = page.all("img")
    assert image["alt"] == "a b.mp4"


def test_what_was_found_is_chosen_without_scripts(tmp_path: Path) -> None:
    calibrated = video(calibration=CALIBRATION)
    fake = replace(calibrated, evidence=CALIBRATION.likelihood_ratio(9.0))
    page = written([unread("a.jpg"), *map(index_row, (video(), fake))], tmp_path)
    style = (tmp_path / "index.html").read_text().split("<style>")[1].split("</style>")[0]
    groups = ("manipulated", "none", "unreadable")
    assert [entry["id"] for entry in page.all("input")] == [
        "show-all",
        *(f"show-{each}" for each in groups),
    ]
    for each in groups:
        rule = f"body:has(#show-{each}:checked) tbody tr:not(.is-{each}) {{ display: none; }}"
        assert rule in style
    rows = [row["class"] for row in page.all("tr") if "class" in row]
    assert rows == ["is-unreadable", "is-none", "is-manipulated"]
    assert "evidence of manipulation: 1" in page.words
    assert page.words.count("Holds only for material like") == 1


def test_a_thousand_inputs_stay_small(tmp_path: Path) -> None:
    row = index_row(video(), "a.html")
    assert len(row["thumbnail"]) < 8000  # of noise; a photograph takes 3000
    page = written([row | {"thumbnail": "data:image/jpeg;base64,AAAA"}] * 1000, tmp_path)
    assert len(page.all("tr")) == 1001
    assert "1,000 files" in page.words
    assert (tmp_path / "index.html").stat().st_size < 2_000_000


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "_")
    hostile = unread(name) | {"page": f"{name}.html", "answer": asdict(Answer(HOSTILE))}
    page = written([hostile], tmp_path / "hostile")
    plain = written([unread("x") | {"page": "x.html"}], tmp_path / "plain")
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "<script>alert(1)<_script>\\n" in page.words
    assert "\\u202e" in page.words


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=30))
@settings(max_examples=60)
def test_a_link_leads_to_its_file_and_nowhere_else(name: str) -> None:
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return  # no file can have this name
    found = link(name)
    assert found.startswith("./")
    assert found.isascii()
    assert not set(found) & set("<>\"'?#:\\ \n")
    assert unquote_to_bytes(found.removeprefix("./")) == encoded
