"""The Python door: what it returns is what the command prints, and its errors say what to do."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import write_video
from detect_json import read_detect, validate_detect
from networks import dsp_fwa, member, xception
from PIL import Image

import deepregions
from deepregions.commands.cli import run
from deepregions.errors import BundleError, UsageError
from deepregions.types import Region, Status
from deepregions.weights.bundle import save_bundle

ROOT = Path(__file__).parents[1]
HOG = "dlib-hog"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Xception says 2 of the face and -1 of the mouth, DSP-FWA 5 of the face."""
    path = tmp_path_factory.mktemp("bundles") / "three"
    networks = [member(xception(2.0)), member(xception(-1.0), Region.MOUTH), member(dsp_fwa(5.0))]
    save_bundle(networks, path)
    return path


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Any:
    with deepregions.load(bundle, landmarks=HOG) as detector:
        yield detector


@pytest.fixture(scope="module")
def files(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    pixels = np.asarray(Image.open(portrait))
    made = {
        "photograph": portrait,
        "clip": write_video(folder / "clip.mp4", [pixels] * 3),
        "blank": folder / "blank.png",
        "broken": folder / "broken.jpg",
    }
    Image.new("RGB", (90, 90), (200, 200, 200)).save(made["blank"])
    made["broken"].write_text("no picture")
    return made


def test_a_result_is_what_the_command_prints_and_writes(
    detector: Any,
    bundle: Path,
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = [str(path) for path in files.values()]
    command = ["detect", *names, "--bundle", str(bundle), "--landmarks", HOG]
    assert run([*command, "--json", "--out", str(tmp_path)]) == 0
    printed = [read_detect(line) for line in capsys.readouterr().out.splitlines()]
    results = detector(names)
    assert [result.status for result in results] == ["ok", "ok", "no_face", "unreadable"]
    for result, line in zip(results, printed, strict=True):
        ours = result.to_dict()
        validate_detect(ours)
        assert "command" not in ours
        same = {key: line[key] for key in ("command", "date")}
        assert json.loads(json.dumps(ours)) | same == line
        dated = replace(result, facts=result.facts | same)
        page = (tmp_path / f"{Path(result.input).stem}.html").read_text(encoding="utf-8")
        assert dated.to_html() == page


def test_a_result_names_its_parts(detector: Any, files: dict[str, Path]) -> None:
    photograph, broken = detector([files["photograph"], files["broken"]])
    assert photograph.score == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert (photograph.status, photograph.reason, photograph.coverage) == (Status.OK, "", 1.0)
    assert photograph.evidence is None  # uncalibrated
    (person,) = photograph.people
    (entire, mouth) = person.regions[Region.ENTIRE], person.regions[Region.MOUTH]
    assert entire == pytest.approx({"xception": 0.880797, "dsp-fwa": 0.993307}, abs=1e-6)
    assert mouth == pytest.approx({"xception": 0.268941}, abs=1e-6)
    assert (broken.score, broken.people, broken.coverage) == (None, (), 0.0)
    assert "no image" in broken.reason


def test_pictures_in_memory_are_judged_as_their_files_are(
    detector: Any, portrait: Path, tmp_path: Path
) -> None:
    with Image.open(portrait) as opened:
        pixels = np.asarray(opened)
        turned = opened.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "cut.png").write_bytes(portrait.read_bytes()[:5000])
    inputs = [
        portrait,
        Image.open(tmp_path / "turned.png"),
        pixels,
        Image.open(tmp_path / "cut.png"),
    ]
    file, image, array, cut = detector(inputs)
    assert image.input == str(tmp_path / "turned.png")
    for result in (image, array):
        assert result.faces == file.faces
        validate_detect(result.to_dict())
    assert (cut.status, cut.kind) == (Status.UNREADABLE, "image")
    assert detector(pixels[:, ::-1]).status is Status.OK  # a view, and one input is one result


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file .check the path"),
        (".", "a folder .give the files in it"),
        (np.zeros((9, 9)), r"an array of float64 \(9, 9\) is no picture .uint8"),
        (np.zeros((0, 9, 3), np.uint8), "is no picture"),
        (7, "an input is of type int .give a path"),
    ],
)
def test_what_is_no_input_is_the_caller_s_mistake(detector: Any, wrong: Any, message: str) -> None:
    for given in (wrong, [wrong]):
        with pytest.raises(UsageError, match=message):
            detector(given)


def test_one_by_one_a_missing_file_is_a_result_and_the_others_are_judged(
    detector: Any, portrait: Path
) -> None:
    results = list(detector.each([portrait, "nowhere.jpg", ".", portrait]))
    assert [result.status for result in results] == ["ok", "unreadable", "unsupported", "ok"]
    assert "nowhere.jpg: No such file" in results[1].reason
    with pytest.raises(UsageError, match="of type int"):
        list(detector.each([7]))


def test_wrong_bundles_are_one_line(tmp_path: Path, bundle: Path) -> None:
    for wrong in (tmp_path / "nowhere", [bundle, "nowhere"]):
        with pytest.raises(BundleError, match=r"nowhere: no such bundle .give a folder"):
            deepregions.load(wrong)
    with pytest.raises(UsageError, match=r"two bundles hold xception_entire\.made"):
        deepregions.load([bundle, bundle], landmarks=HOG)


def test_the_next_calls_of_several_threads_find_everything_started(
    detector: Any, portrait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector(portrait)

    def none(*_: object) -> None:
        raise AssertionError("another process")

    monkeypatch.setattr("deepregions.media.reader.Child", none)
    with ThreadPoolExecutor(3) as pool:
        assert {result.status for result in pool.map(detector, [portrait] * 6)} == {Status.OK}


def test_importing_it_loads_nothing() -> None:
    code = "import sys, deepregions; print('torch' in sys.modules, 'load' in dir(deepregions))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "True"]
    assert all(hasattr(deepregions, name) for name in deepregions.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deepregions.nothing


def test_the_first_page_s_lines_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path))  # without YuNet: dlib's HOG
    Image.fromarray(data.astronaut()).save("portrait.png")
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## From Python")[2]
    code, said = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)[:2]
    Path("demo-output").mkdir()
    shutil.copy("portrait.png", "demo-output")
    exec(compile(code, "README.md", "exec"), {})
    shutil.rmtree("demo-output")
    assert capsys.readouterr().out == said
    Path("broken.jpg").write_text("no picture")
    monkeypatch.setattr(sys, "argv", ["score_folder.py", "."])
    runpy.run_path(str(ROOT / "examples/score_folder.py"), run_name="__main__")
    broken, portrait = capsys.readouterr().out.splitlines()[:2]
    assert broken.split("\t")[:3] == ["broken.jpg", "unreadable", "None"]
    assert portrait.split("\t")[:2] == ["portrait.png", "ok"]
