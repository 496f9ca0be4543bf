"""Results in a folder: kept as they come, and gone on with after a stop."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregions.analysis.archive import RESULTS, SETTINGS, Archive, Names
from deepregions.errors import UsageError

FACTS = {key: f"the {key}" for key in SETTINGS} | {"device": "cpu"}


def line(name: str) -> dict[str, object]:
    return {"input": name, "score": None} | FACTS


def test_what_was_written_is_there_after_a_stop(tmp_path: Path) -> None:
    first = Archive(tmp_path / "out", FACTS)
    for name in ("a.jpg", "sub/a.jpg"):
        first.name(name)
        first.add(line(name))
    with (tmp_path / "out" / RESULTS).open("a") as stream:
        stream.write('{"input": "b.jpg", "sco')  # killed in the middle of a line
    again = Archive(tmp_path / "out", FACTS | {"device": "cuda"}, "resume")
    assert again.finished == {"a.jpg", "sub/a.jpg"}
    assert again.name("other/A.png") == "A-3"
    again.add(line("other/A.png"))
    assert [(name, each["input"]) for name, each in again.results()] == [
        ("a", "a.jpg"),
        ("a-2", "sub/a.jpg"),
        ("A-3", "other/A.png"),
    ]


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path: Path, cut: int) -> None:
    archive = Archive(tmp_path, FACTS)
    for name in "abc":
        archive.add({"input": name} | FACTS)
    text = (tmp_path / RESULTS).read_bytes()
    (tmp_path / RESULTS).write_bytes(text[: min(cut * len(text) // 190, len(text))])
    kept = (tmp_path / RESULTS).read_bytes().count(b"\n")
    again = Archive(tmp_path, FACTS, "resume")
    assert again.finished == set("abc"[:kept])


def test_earlier_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    Archive(tmp_path, FACTS).add(line("a"))
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match="--resume"):
        Archive(tmp_path, FACTS)
    assert Archive(tmp_path, FACTS, "overwrite").finished == set()
    assert not (tmp_path / RESULTS).exists()
    assert (tmp_path / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("key", SETTINGS)
def test_results_of_other_settings_are_not_mixed(tmp_path: Path, key: str) -> None:
    Archive(tmp_path, FACTS).add(line("a"))
    with pytest.raises(UsageError, match=f"other settings: {key} differs"):
        Archive(tmp_path, FACTS | {key: "another"}, "resume")
    assert json.loads((tmp_path / RESULTS).read_text())["input"] == "a"


@pytest.mark.parametrize("text", ["no json\n", "[1]\n", '{"score": 1}\n', "[" * 100_000 + "\n"])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(UsageError, match=r"results.jsonl, line 1"):
        Archive(tmp_path, FACTS, "resume")
    assert (tmp_path / RESULTS).read_text() == text


@given(st.lists(st.text(max_size=400), max_size=8))
def test_names_are_plain_short_and_different(stems: list[str]) -> None:
    names = Names()
    given_names = [names.unused(stem) for stem in stems]
    assert len({name.casefold() for name in given_names}) == len(stems)
    for name in given_names:
        assert name.casefold() not in {"results", "index"}
        assert 0 < len(name.encode()) <= 130
        assert not set(name) & set("/\\\0\n\r\x1b<>:\"|?*'&")
        assert not name.startswith((".", "-")) and not name.endswith((" ", "."))
        assert name.isprintable()


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("IMG_0001 (2)", "IMG_0001 (2)"),
        ("-rf", "rf"),
        ("..", "input"),
        ("Zoë-日本", "Zoë-日本"),
        ("a\nb<script>", "a_b_script_"),
        ("index", "index-2"),
    ],
)
def test_names_stay_what_people_know(stem: str, name: str) -> None:
    assert Names().unused(stem) == name
