"""Results in a folder: kept as they come, and gone on with after a stop."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregions.errors import UsageError
from deepregions.files import Names
from deepregions.pipeline import results_folder
from deepregions.pipeline.results import FaceResult, summarise_input
from deepregions.pipeline.results_folder import INDEX, RESULTS, SETTINGS, TABLE, Mode, ResultsFolder
from deepregions.types import Region, Status

FACTS = {key: f"the {key}" for key in SETTINGS} | {
    "device": "cpu",
    "operating_point": None,
    "models": [{"detector": "xception", "region": "eyes"}],
}


def add(results: ResultsFolder, name: str, **more: object) -> str:
    """Writes what came of an input; returns its page."""
    cells = {("xception", Region.EYES): 1.0}
    face = FaceResult(0, 0.0, 0, (0.0, 0.0, 9.0, 9.0), Status.OK, 1.0, cells)
    result = summarise_input(name, "image", 1, (face, replace(face, track=1)))
    page = f"{results.name(name)}.html"
    results.add(result, replace(result, facts=FACTS).to_dict() | more, page)
    return page


def inputs(folder: Path) -> tuple[list[str], list[str]]:
    """The inputs in the lines, and those in the table, in their order."""
    lines = [json.loads(text)["input"] for text in (folder / RESULTS).read_text().splitlines()]
    with (folder / TABLE).open(encoding="utf-8-sig", newline="") as stream:
        rows = [row["input"] for row in csv.DictReader(stream)]
    return lines, rows


def test_a_run_that_was_stopped_goes_on_with_the_rest(tmp_path: Path) -> None:
    first = ResultsFolder(tmp_path, FACTS)
    assert [add(first, name) for name in ("a.jpg", "sub/a.jpg")] == ["a.html", "a-2.html"]
    size = (tmp_path / TABLE).stat().st_size
    with pytest.raises(TypeError):  # killed in the middle of an input
        add(first, "b.jpg", odd=object())
    assert (tmp_path / TABLE).stat().st_size > size
    with (tmp_path / RESULTS).open("a") as stream:
        stream.write('{"input": "b.jpg", "sco')
    again = ResultsFolder(tmp_path, FACTS | {"device": "cuda"}, "resume")
    assert (again.finished, again.scored) == ({"a.jpg", "sub/a.jpg"}, 2)
    assert add(again, "b.jpg") == "b.html"  # the name that it would have had
    assert add(again, "other/A.png") == "A-3.html"
    again.close()
    lines, rows = inputs(tmp_path)
    assert lines == ["a.jpg", "sub/a.jpg", "b.jpg", "other/A.png"]
    assert rows == [name for name in lines for _ in range(2)]  # a row a person
    index = (tmp_path / INDEX).read_text()
    assert [index.count(f'"./{page}.html"') > 0 for page in ("a", "a-2", "b", "A-3")] == [True] * 4


@pytest.mark.parametrize("file", [RESULTS, TABLE, ".index.jsonl"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.66, 0.999, 1.0])
def test_files_cut_anywhere_are_made_whole_again(tmp_path: Path, file: str, share: float) -> None:
    whole = ResultsFolder(tmp_path / "whole", FACTS)
    cut = ResultsFolder(tmp_path / "cut", FACTS)
    for name in "abcde":
        add(whole, name)
    for name in "abc":
        add(cut, name)
    if file == RESULTS:  # written last of the three: the others have at least as much
        path = tmp_path / "cut" / file
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    else:  # something half written of the next input
        with (tmp_path / "cut" / file).open("a") as stream:
            stream.write('{"input": "d", "page"'[: int(21 * share)])
    again = ResultsFolder(tmp_path / "cut", FACTS, "resume")
    for name in "abcde":
        if name not in again.finished:
            add(again, name)
    again.close()
    whole.close()
    for name in (RESULTS, TABLE, INDEX):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.parametrize("mode", ["new", "resume"])
@pytest.mark.parametrize("when", ["the row", "the index", "the line"])
def test_a_run_killed_before_its_first_line_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, mode: Mode
) -> None:
    killed = ResultsFolder(tmp_path, FACTS)
    if when != "the row":  # what was written before
        append = results_folder._append

        def dies(path: Path, line: dict[str, object]) -> None:
            if when == "the index" or path.name == RESULTS:
                raise KeyboardInterrupt
            append(path, line)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(results_folder, "_append", dies)
            add(killed, "a")
    again = ResultsFolder(tmp_path, FACTS, mode)
    for name in "abc":
        add(again, name)
    again.close()
    lines, rows = inputs(tmp_path)
    assert lines == [*"abc"]
    assert rows == [name for name in "abc" for _ in range(2)]  # a row a person, below a header
    index = (tmp_path / ".index.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in index] == [*"abc"]


def test_earlier_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    add(ResultsFolder(tmp_path, FACTS), "a")
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match="--resume"):
        ResultsFolder(tmp_path, FACTS)
    assert inputs(tmp_path)[0] == ["a"]
    assert ResultsFolder(tmp_path, FACTS, "overwrite").finished == set()
    assert not (tmp_path / RESULTS).exists()
    assert (tmp_path / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("key", ["models", "runtime"])
def test_results_of_other_settings_are_not_mixed(tmp_path: Path, key: str) -> None:
    add(ResultsFolder(tmp_path, FACTS), "a")
    with pytest.raises(UsageError, match=f"other settings: {key} differs"):
        ResultsFolder(tmp_path, FACTS | {key: [{"detector": "x", "region": "y"}]}, "resume")
    assert inputs(tmp_path)[0] == ["a"]


def test_frames_chosen_otherwise_are_not_mixed(tmp_path: Path) -> None:
    add(
        ResultsFolder(tmp_path, FACTS),
        "a",
        sampling={"how": "count", "count": 32, "numbers": [1, 2]},
    )
    same = ResultsFolder(
        tmp_path, FACTS, "resume", sampling={"how": "count", "count": 32, "rate": 2.0}
    )
    assert same.finished == {"a"}
    with pytest.raises(UsageError, match="sampling differs"):
        ResultsFolder(tmp_path, FACTS, "resume", sampling={"how": "count", "count": 8, "rate": 2.0})


@pytest.mark.parametrize("text", ["no json\n", "[1]\n", '{"score": 1}\n', "[" * 100_000 + "\n"])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(UsageError, match=r"results.jsonl, line 1"):
        ResultsFolder(tmp_path, FACTS, "resume")
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
