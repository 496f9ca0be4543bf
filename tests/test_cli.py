"""Commands through their real entry points: what they print, write and exit with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detect_json import read_detect
from networks import dsp_fwa, member, xception
from PIL import Image

from deepregions.commands.cli import COMMANDS, run
from deepregions.faces.cropping import segment
from deepregions.types import REGIONS, Region
from deepregions.weights.bundle import save_bundle


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of a face that dlib's HOG finds (public domain)."""
    data = pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two bundles: Xception says 2 of the face and -1 of the mouth, DSP-FWA 5 of the face."""
    folder = tmp_path_factory.mktemp("bundles")
    save_bundle([member(xception(2.0)), member(xception(-1.0), Region.MOUTH)], folder / "a")
    save_bundle([member(dsp_fwa(5.0))], folder / "b")
    return [str(folder / "a"), str(folder / "b")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run([*command.split(), "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "usage:" in printed
    assert run(["--help"]) == 0
    assert command.split(maxsplit=1)[0] in capsys.readouterr().out


@pytest.mark.parametrize("module", ["deepregions", "deepregions.fit"])
def test_both_modules_are_programs(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detct"], "did you mean detect"),
        (["benchmark"], "benchmarks/runtimes.py"),
        (["detect", "x.jpg"], "x.jpg: no such file"),
        (["detect", "-"], "standard input"),
        (["detect", "https://x.org/a.jpg"], "https://x.org/a.jpg: web addresses"),
        (["detect", "*.jpeg"], "no file matches"),
        (["detect", ".", "--bundle", "b"], "b: no such bundle"),
        (["bundle", "pull"], "there is no command 'pull'"),
        (["detect", ".", "--segmented"], "--segmented needs to know the region"),
        (["detect", ".", "--frames", "0"], "--frames is 0"),
        (["detect", ".", "--frames", "many"], "frames"),
        (["detect", ".", "--segmented", "--region", "ear"], "entire, eyes, nose"),
        (["segment", "x.jpg", "--out", "o"], "x.jpg: no such file"),
        (["prepare", "--database", "ffpp", "--out", "o"], "needs --root"),
        (["prepare", "--database", "ffpp", "--out", "o", "--root", "nowhere"], "is not a folder"),
        (["prepare", "--database", "celeb", "--out", "o", "--root", "."], "ffpp"),
        (["fit", "--model", "Xceptoin"], "Capsule, DSPFWA, Xception"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--model", "Xception", "--data.store", "nowhere"], "no store at nowhere"),
        (["fit", "--model", "DSPFWA", "--model.size", "64", "--data.store", "x"], "pyramid"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[:2] == ["detect", "."]:
        (tmp_path / "x.jpg").touch()
    assert run(arguments) != 0
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = [text for text in printed.err.splitlines() if "error" in text]
    assert re.search(message, line)
    assert line.endswith(")")  # the hint
    assert not (tmp_path / "o").exists()


def test_detect_prints_json_that_says_all(
    portrait: Path, bundles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--landmarks", "dlib-hog", "--json"]
    assert run(["detect", str(portrait), "--bundle", *bundles, *options]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = read_detect(line)
    assert (result["schema"], result["version"]) == ("deepregions.detect", 3)
    assert (result["status"], result["input"]) == ("ok", str(portrait))
    assert result["log_odds"] == pytest.approx(2.0)
    assert result["score"] == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item(), abs=1e-6)
    (face,) = result["faces"]
    cells = {(cell["detector"], cell["region"]): cell["log_odds"] for cell in face["cells"]}
    assert cells == {
        ("xception", "entire"): 2.0,
        ("xception", "mouth"): -1.0,
        ("dsp-fwa", "entire"): 5.0,
    }
    x0, y0, x1, y1 = face["box"]
    assert 140 < x0 < 200 < x1 < 300  # where the astronaut's face is
    assert 40 < y0 < 100 < y1 < 240
    assert [model["sha256"] for model in result["models"]] == [
        entry["sha256"]
        for bundle in bundles
        for entry in json.loads((Path(bundle) / "bundle.json").read_text())["members"]
    ]
    assert result["landmarks"]["name"] == "dlib68+hog"


def test_detect_goes_on_after_a_bad_file_and_writes_pictures(
    portrait: Path, bundles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_broken.jpg").write_text("no picture")
    (tmp_path / "in" / "b.png").write_bytes(portrait.read_bytes())
    Image.fromarray(np.full((90, 90, 3), 200, np.uint8)).save(tmp_path / "in" / "c_empty.png")
    options = ["--landmarks", "dlib-hog", "--out", str(tmp_path / "out")]
    assert run(["detect", str(tmp_path / "in"), "--bundle", *bundles, *options]) == 0
    printed = capsys.readouterr()
    assert re.search(r"a_broken.jpg.*Not scored", printed.out)
    assert re.search(r"b.png.*Score 0\.88 \(uncalibrated", printed.out)
    assert re.search(r"c_empty.png.*Not scored: no face was found", printed.out)
    assert len([line for line in printed.err.splitlines() if line.startswith("deepregions")]) == 2
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    pages = {"a_broken.html", "b.html", "c_empty.html"}
    assert names == {*pages, "b.png", "index.html", "results.csv", "results.jsonl"}
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    results = [read_detect(line) for line in lines]
    assert [result["status"] for result in results] == ["unreadable", "ok", "no_face"]
    assert [result["score"] is None for result in results] == [True, False, True]


def test_detect_exits_with_5_when_nothing_could_be_scored(
    bundles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.png"
    Image.fromarray(np.full((90, 90, 3), 200, np.uint8)).save(path)
    assert run(["detect", str(path), "--bundle", bundles[0], "--landmarks", "dlib-hog"]) == 5
    assert "no face was found" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "truncated", "no bundle"])
def test_detect_refuses_a_damaged_bundle(
    damage: str, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bundle"
    if damage == "truncated":
        save_bundle([member(xception(0.0))], path)
        file = next(path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "no bundle":
        path.mkdir()
    assert run(["detect", str(portrait), "--bundle", str(path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("deepregions: error: ")


def test_detect_takes_region_canvases_as_they_are(
    tmp_path: Path, bundles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mouth.png"
    Image.fromarray(np.full((70, 50, 3), 99, np.uint8)).save(path)
    options = ["--segmented", "--region", "mouth", "--json"]
    assert run(["detect", str(path), "--bundle", *bundles, *options]) == 0
    result = read_detect(capsys.readouterr().out)
    assert result["log_odds"] == pytest.approx(-1.0)
    assert result["landmarks"] is None
    options[2] = "nose"
    assert run(["detect", str(path), "--bundle", *bundles, *options]) == 2
    assert "there is no network for nose" in capsys.readouterr().err


def test_options_may_come_from_yaml(
    portrait: Path, bundles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "detect.yaml"
    config.write_text(
        f"bundle: {json.dumps(bundles[:1])}\nlandmarks: dlib-hog\njson: true\n", encoding="utf-8"
    )
    assert run(["detect", str(portrait), "--config", str(config)]) == 0
    assert read_detect(capsys.readouterr().out)["log_odds"] == pytest.approx(0.5)


def _points(path: Path) -> torch.Tensor:
    return torch.tensor(json.loads(path.read_text())["points"])


@pytest.mark.parametrize("size", [None, 96])
def test_segment_writes_the_five_regions(
    size: int | None, portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stretch = [] if size is None else ["--size", str(size)]
    out = tmp_path / "out"
    assert (
        run(["segment", str(portrait), "--out", str(out), "--backend", "dlib-hog", *stretch]) == 0
    )
    folder = out / "portrait" / "face-0"
    assert capsys.readouterr().out.strip() == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {*(f"{region}.png" for region in REGIONS), "landmarks.json"}
    pictures = {region: np.asarray(Image.open(folder / f"{region}.png")) for region in REGIONS}
    if size is not None:
        assert {picture.shape for picture in pictures.values()} == {(size, size, 3)}
        return
    image = torch.from_numpy(np.array(Image.open(portrait))).permute(2, 0, 1)
    expected = segment(image, _points(folder / "landmarks.json"))
    for region in REGIONS:
        np.testing.assert_array_equal(pictures[region], expected[region].permute(1, 2, 0))
    parts = sum(pictures[region].astype(int) for region in REGIONS if region != Region.ENTIRE)
    np.testing.assert_array_equal(parts, pictures[Region.ENTIRE])


def test_segment_takes_landmarks_as_they_are(portrait: Path, tmp_path: Path) -> None:
    assert (
        run(["segment", str(portrait), "--out", str(tmp_path / "a"), "--backend", "dlib-hog"]) == 0
    )
    first = tmp_path / "a" / "portrait" / "face-0"
    given = ["--landmarks", str(first / "landmarks.json")]
    assert run(["segment", str(portrait), "--out", str(tmp_path / "b"), *given]) == 0
    second = tmp_path / "b" / "portrait" / "face-0"
    assert (first / "eyes.png").read_bytes() == (second / "eyes.png").read_bytes()


@pytest.mark.parametrize("command", ["detect", "segment"])
def test_a_file_is_no_folder_to_write_to(
    command: str,
    portrait: Path,
    bundles: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine").write_text("precious")
    options = ["--backend", "dlib-hog"]
    if command == "detect":
        options = ["--bundle", bundles[0], "--landmarks", "dlib-hog"]
    assert run([command, str(portrait), "--out", str(tmp_path / "mine"), *options]) == 1
    error = capsys.readouterr().err
    assert re.search(r"/mine(/portrait)?: (File exists|Not a directory) \(check the path", error)
    assert error.count("\n") == 1
    assert (tmp_path / "mine").read_text() == "precious"


def test_segment_says_where_there_is_no_face(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.png"
    Image.fromarray(np.full((90, 90, 3), 200, np.uint8)).save(path)
    options = ["--out", str(tmp_path / "out"), "--backend", "dlib-hog"]
    assert run(["segment", str(path), *options]) == 5
    assert "no face was found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bundle_does_not_swallow_the_inputs(
    portrait: Path, bundles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Several bundles or a folder of them, before or after the inputs."""
    folder = str(Path(bundles[0]).parent)
    options = ["--landmarks", "dlib-hog", "--json"]
    for words in (
        ["--bundle", *bundles, str(portrait), *options],
        ["--bundle", folder, str(portrait), *options],
        [*options, f"--bundle={folder}", str(portrait)],
        [str(portrait), *options, "--bundle", folder],
    ):
        assert run(["detect", *words]) == 0
        assert len(read_detect(capsys.readouterr().out)["models"]) == 3
    assert run(["detect", "--bundle", bundles[0], "typo.jpg"]) == 2
    assert "typo.jpg: no such file" in capsys.readouterr().err


def test_old_spellings_work_and_say_the_new_ones(
    portrait: Path, bundles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "old.yaml"
    config.write_text("rules: {track: median}\nlandmarks: dlib-hog\n")
    command = ["detect", str(portrait), "--models", str(Path(bundles[0]).parent)]
    assert run([*command, "--database=made", "--json", "-c", str(config)]) == 0
    printed = capsys.readouterr()
    assert read_detect(printed.out)["rules"]["faces"].startswith("median")
    assert printed.err.splitlines() == [
        "deepregions: --models is now --bundle",
        "deepregions: --database is now --trained-on",
        f"deepregions: rules.track in {config} is now pool.frames",
    ]
