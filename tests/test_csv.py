"""Detect's table: what is in it, that no cell is a formula, and that it grows row by row."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
from detect_json import CALIBRATION, FACTS, input_results
from hypothesis import given, settings
from test_report import video as made_video

from deepregions.media.provenance import Credentials, Provenance
from deepregions.pipeline.origin_words import origin_line
from deepregions.pipeline.report.table import COLUMNS, CsvTable
from deepregions.pipeline.results import Result
from deepregions.types import REGIONS, Status

MODELS = [
    {"detector": detector, "region": str(region)}
    for detector in ("xception", "dsp-fwa")
    for region in REGIONS
]


def table(*results: Result, models: Any = MODELS) -> list[dict[str, str]]:
    stream = io.StringIO(text_of(*results, models=models), newline="")
    return list(csv.DictReader(stream, strict=True))


def text_of(*results: Result, models: Any = MODELS) -> str:
    stream = io.StringIO(newline="")
    rows = CsvTable(stream, models)
    for result in results:
        rows.add(replace(result, facts=FACTS).to_dict())
    return stream.getvalue()


def test_a_calibrated_track_has_its_ratio_with_bounds_and_words() -> None:
    video = made_video()
    tracks = [
        replace(each, evidence=CALIBRATION.likelihood_ratio(each.log_odds)) for each in video.people
    ]
    rows = table(replace(video, people=tuple(tracks)))
    assert any(each.evidence for each in tracks)
    for row, track in zip(rows, tracks, strict=True):
        if track.evidence is None:
            assert {
                row[key] for key in ("log10_llr", "log10_llr_min", "log10_llr_max", "verbal")
            } == {""}
            continue
        assert float(row["log10_llr"]) == pytest.approx(track.evidence.ln / math.log(10), abs=1e-6)
        assert float(row["log10_llr_min"]) == pytest.approx(-3 / math.log(10), abs=1e-6)
        assert float(row["log10_llr_max"]) == pytest.approx(4 / math.log(10), abs=1e-6)
        assert row["verbal"] == track.evidence.verbal


def test_a_row_for_each_track_with_the_numbers_of_the_json(tmp_path: Path) -> None:
    video = made_video()
    unread = Result("b.jpg", "image", Status.UNREADABLE, "b.jpg: damaged image")
    path = tmp_path / "results.csv"
    path.write_text(text_of(video, unread), encoding="utf-8", newline="")
    read = pyarrow.csv.read_csv(path)  # numbers become numbers, without being told
    assert read.column_names == [*COLUMNS, *(f"{m['detector']}/{m['region']}" for m in MODELS)]
    first, second, last = read.to_pylist()
    written = replace(video, facts=FACTS).to_dict()
    for row, track in zip((first, second), written["tracks"], strict=True):
        assert (row["input"], row["kind"]) == ("case/a b.mp4", "video")
        for key in ("track", "status", "score", "log_odds", "start", "end", "faces", "scored"):
            assert row[key] == track[key]
        assert row["message"] == "; ".join(track["reasons"])
        assert (row["input_status"], row["input_score"]) == ("ok", written["score"])
        assert (row["log10_llr"], row["verbal"]) == (None, None)
        for cell in track["cells"]:
            assert row[f"{cell['detector']}/{cell['region']}"] == cell["score"]
    known = {key: value for key, value in last.items() if value}
    assert known == {
        "input": "b.jpg",
        "kind": "image",
        "conclusion": "Not scored: damaged image",
        "status": "unreadable",
        "message": "b.jpg: damaged image",
        "input_status": "unreadable",
    }


def test_every_row_tells_where_its_file_comes_from() -> None:
    told = Provenance(
        software=("GIMP 2.10",), signs=("it has two headers",), credentials=Credentials("broken")
    )
    rows = table(replace(made_video(), provenance=told))
    assert len(rows) > 1
    assert {row["origin"] for row in rows} == {origin_line(told)}
    assert "broken" in rows[0]["origin"]
    assert "GIMP 2.10" in rows[0]["origin"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-rf", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1"])
def test_no_cell_is_a_formula(name: str) -> None:
    result = Result(name, "image", Status.UNREADABLE, name)
    models = [{"detector": name, "region": "eyes"}]
    (row,) = table(result, models=models)
    for text in (row["input"], row["message"], [*row][-1]):
        assert text.startswith("'")
    assert row["input"].removeprefix("'") == name


def test_texts_are_quoted_so_that_no_other_separator_splits_them() -> None:
    text = text_of(Result("a;=1+1", "image", Status.ERROR, "x\ty"), models=[])
    assert '"a;=1+1"' in text
    assert '"x\ty"' in text


@given(input_results())
@settings(max_examples=60)
def test_any_result_is_rows_that_can_be_read_again(result: Result) -> None:
    networks = {(each, str(region)) for track in result.people for each, region in track.cells}
    models = [{"detector": detector, "region": region} for detector, region in sorted(networks)]
    text = text_of(result, models=models)
    assert text.encode("utf-8").decode("utf-8") == text
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert len(header) == len(COLUMNS) + len(models)
    assert len(rows) == max(1, len(result.people))
    written = replace(result, facts=FACTS).to_dict()
    for row, track in zip(rows, written["tracks"], strict=False):
        named = dict(zip(header, row, strict=True))
        assert named["score"] == ("" if track["score"] is None else str(track["score"]))
        assert named["status"] == track["status"]
        for place, (detector, region) in enumerate(sorted(networks), len(COLUMNS)):
            (score,) = (
                cell["score"]
                for cell in track["cells"]
                if (cell["detector"], cell["region"]) == (detector, region)
            )
            assert row[place] == ("" if score is None else str(score))
    for row in rows:
        assert not row[0].startswith(("=", "+", "-", "@", "\t"))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_is_shown_no_text_that_moves_it(terminal: bool) -> None:
    """N4: names from strangers held escape sequences; a file or a pipe has them as they are."""
    stream = io.StringIO(newline="")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    name = "\x1b[2J\u202egnp.png"
    result = Result(name, "image", Status.UNREADABLE, "no picture\x07")
    CsvTable(stream, MODELS).add(replace(result, facts=FACTS).to_dict())
    assert bool({"\x1b", "\u202e", "\x07"} & {*stream.getvalue()}) is not terminal
    assert ("\\x1b[2J\\u202egnp.png" if terminal else name) in stream.getvalue()


def test_rows_are_there_as_soon_as_their_input_is_done(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = CsvTable(stream, MODELS)
        rows.add(replace(made_video(), facts=FACTS).to_dict())
        assert len(path.read_text().splitlines()) == 3  # not closed yet
