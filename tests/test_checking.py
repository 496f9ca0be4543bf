"""``databases check``: what is missing or wrong in a database, before hours of work."""

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from trees import TREES, touch, write_json

from deepregions.commands.cli import run
from deepregions.data.databases import ADAPTERS, CelebDF, Dfdc, FaceForensics, Folder, Uadfv
from deepregions.data.databases.checking import check
from deepregions.data.splits import Splitting


def fill(path: Path, content: bytes = b"") -> None:
    """A file that differs from all others, unless its content is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or str(path).encode())


@pytest.fixture
def uadfv(tmp_path: Path) -> Path:
    for number in range(49):
        fill(tmp_path / f"real/{number:04d}.mp4")
        fill(tmp_path / f"fake/{number:04d}_fake.mp4")
    return tmp_path


def test_a_complete_database(uadfv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    findings = check(Uadfv(uadfv))
    assert [(g.group, g.found, g.published) for g in findings.groups] == [
        ("original", 49, 49),
        ("fake", 49, 49),
    ]
    assert not findings.partial
    assert not findings.problems
    assert {count.split: count.genuine for count in findings.splits} == {
        count.split: count.fake for count in findings.splits
    }
    assert sum(count.genuine for count in findings.splits) == 49
    assert run(["databases", "check", "uadfv", "--root", str(uadfv)]) == 0
    assert "uadfv: nothing is wrong" in capsys.readouterr().out


def test_a_half_downloaded_one(uadfv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted((uadfv / "fake").iterdir())[20:]:
        path.unlink()
    findings = check(Uadfv(uadfv))
    assert findings.partial
    assert findings.problems == ("fake: 20 of 49 videos",)
    assert run(["databases", "check", "uadfv", "--root", str(uadfv), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert printed["partial"] is True
    assert printed["groups"][1] == {
        "group": "fake",
        "found": 20,
        "published": 49,
        "least": 49,
        "optional": False,
    }
    out = uadfv.parent / "store"
    assert run(["prepare", "--database", "uadfv", "--root", str(uadfv), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "fake: 20 of 49 videos" in error
    assert "--allow-partial" in error
    assert not out.exists()


@pytest.mark.parametrize("name", ["uadfv", "ffpp", "dfd", "celebdf", "dfdc", "dfdc-preview", "csv"])
def test_another_root_says_what_was_expected(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "holiday.mp4")
    assert run(["databases", "check", name, "--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("problem: ")
    assert "expected" in printed
    assert run(["databases", "check", name, "--root", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


def test_counts_of_others_may_be_a_little_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = tmp_path / "dfdc_train_part_0"
    names = [f"v{number:03d}.mp4" for number in range(198)]
    write_json(part / "metadata.json", {name: {"label": "REAL"} for name in names})
    for name in names:
        fill(part / name)
    facts = replace(Dfdc.facts, published={"train original": 200})
    monkeypatch.setattr(Dfdc, "facts", facts)
    assert not check(Dfdc(tmp_path)).partial
    (part / names[0]).unlink()
    assert check(Dfdc(tmp_path)).absent == ("dfdc_train_part_0/v000.mp4",)
    write_json(part / "metadata.json", {name: {"label": "REAL"} for name in names[1:]})
    assert check(Dfdc(tmp_path)).problems == ("train original: 197 of 200 videos",)


def test_lists_that_name_absent_files(tmp_path: Path) -> None:
    TREES["celebdf"][0](tmp_path, Random(0), fill)
    path = tmp_path / "List_of_testing_videos.txt"
    path.write_text(path.read_text() + "1 YouTube-real/77777.mp4\n0 Celeb-real/nobody.mp4\n")
    findings = check(CelebDF(tmp_path))
    assert findings.absent == ("YouTube-real/77777.mp4", "Celeb-real/nobody.mp4")
    assert findings.partial
    assert any("not there: 2 (YouTube-real/77777.mp4" in line for line in findings.problems)


def test_files_with_the_same_contents(tmp_path: Path) -> None:
    big = bytes(range(256)) * 1024  # longer than what is sampled
    fill(tmp_path / "real/001_a.mp4", big)
    fill(tmp_path / "real/002_a.mp4", big[:-1] + b"?")
    fill(tmp_path / "fake/003_a.mp4", big)
    fill(tmp_path / "fake/004_a.mp4", big + b"longer")
    fill(tmp_path / "fake/005_a.mp4", b"x")
    fill(tmp_path / "fake/006_a.mp4", b"y")
    touch(tmp_path / "real/007_a.mp4")
    touch(tmp_path / "real/008_a.mp4")
    findings = check(Folder(tmp_path))
    assert findings.duplicates == (("real/001_a.mp4", "fake/003_a.mp4"),)
    assert findings.empty == ("real/007_a.mp4", "real/008_a.mp4")
    assert len(findings.problems) == 2
    assert not findings.partial


def test_chosen_manipulations_only_are_expected(tmp_path: Path) -> None:
    TREES["ffpp"][0](tmp_path, Random(0), fill)
    groups = {group.group: group for group in check(FaceForensics(tmp_path)).groups}
    published = {"original", "Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"}
    assert set(groups) == published | {"FaceShifter"}
    assert groups["Face2Face"].short
    assert not groups["FaceShifter"].short  # it need not be there at all
    chosen = check(FaceForensics(tmp_path, methods=["Deepfakes"])).groups
    assert [(group.group, group.found) for group in chosen] == [("original", 12), ("Deepfakes", 12)]


def test_a_split_that_leaves_nothing_to_train_on_is_noted(tmp_path: Path) -> None:
    for name in ("Celeb-real/id0_0000", "Celeb-real/id1_0000", "Celeb-synthesis/id0_id1_0000"):
        fill(tmp_path / f"{name}.mp4")
    lines = "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
    (tmp_path / "List_of_testing_videos.txt").write_text(lines)
    findings = check(CelebDF(tmp_path, Splitting("official")))
    assert findings.scheme == "official"
    assert "the split train has no fake clips" in findings.notes
    assert [(c.split, c.genuine, c.fake) for c in findings.splits][2] == ("test", 1, 1)


def test_the_dfdc_part_that_names_an_absent_clip(shared: Path) -> None:
    findings = check(Dfdc(shared / "videos/dfdc"))
    assert findings.absent == ("dfdc_train_part_0/awnfpubqmo.mp4",)
    assert findings.partial
    assert any(line.startswith("train fake: 1 of 100000") for line in findings.problems)


def test_names_of_strangers_do_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "metadata.json", {"\x1b[31mred.mp4": {"label": "REAL"}})
    assert run(["databases", "check", "dfdc", "--root", str(tmp_path)]) == 1
    assert run(["prepare", "--database", "dfdc", "--root", str(tmp_path), "--out", "o"]) == 2
    printed = capsys.readouterr()
    assert "red.mp4" in printed.out
    assert "\x1b" not in printed.out + printed.err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["databases", "list"]) == 0
    printed = capsys.readouterr().out
    assert run(["databases", "list", "--json"]) == 0
    facts = {one["name"]: one for one in json.loads(capsys.readouterr().out)["databases"]}
    assert [*facts] == [*ADAPTERS]
    assert {
        *[
            "uadfv",
            "ffpp",
            "dfd",
            "celebdf-v1",
            "celebdf",
            "celebdf-pp",
            "dfdc-preview",
            "dfdc",
            "df40",
        ]
    } < {*facts}
    for name, one in facts.items():
        assert name in printed
        assert bool(one["published"]) == bool(one["source"])
        assert not one["published"] or one["url"].startswith("https://")
    assert facts["celebdf"]["published"]["Celeb-synthesis"] == 5639


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check"], "required: database"),
        (["check", "celeb"], "database is 'celeb' .one of .*celebdf"),
        (["check", "ffpp"], "needs --root"),
        (["check", "ffpp", "--root", "nowhere"], "is not a folder"),
        (["check", "folder", "--root", ".", "--folds", "1"], "folds must be at least 2"),
        (["describe"], "required: store"),
        (["describe", "nowhere"], "no store at nowhere"),
        (["mend"], "no command 'mend'"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["databases", *arguments]) in (1, 2)
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.count("\n") == 1
    assert re.search(message, printed.err)
