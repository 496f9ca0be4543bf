"""Commands through their real entry points: what they print, write and exit with."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from deepregions.commands.cli import main, run
from deepregions.faces.cropping import segment
from deepregions.types import REGIONS, Region


@pytest.mark.parametrize(
    ("module", "usage"),
    [("deepregions", "deepregions COMMAND"), ("deepregions.fit", "deepregions fit")],
)
def test_both_modules_are_programs(module, usage):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {usage} [")


@pytest.mark.parametrize(("given", "set_to"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(
    given: str | None, set_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert main(["schema", "detect"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == set_to
    monkeypatch.delenv("OMP_WAIT_POLICY")  # or what the command set would stay


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detct"], "did you mean detect"),
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
        (["explain", ".", "--out", "o", "--segmented"], "--segmented needs to know the region"),
        (["explain", ".", "--out", "o", "--frames", "0"], "--frames is 0"),
        (["segment", "x.jpg", "--out", "o"], "x.jpg: no such file"),
        (["prepare", "--database", "ffpp", "--out", "o"], "needs --root"),
        (["prepare", "--database", "ffpp", "--out", "o", "--root", "nowhere"], "is not a folder"),
        (["prepare", "--database", "celeb", "--out", "o", "--root", "."], "ffpp"),
        (["fit", "--model", "Xceptoin"], "Capsule, DSPFWA, .*Xception"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--model", "Xception", "--data.store", "nowhere"], "no store at nowhere"),
        (["fit", "--model", "DSPFWA", "--model.size", "64", "--data.store", "."], "pyramid"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if arguments[1:2] == ["."]:
        (tmp_path / "x.jpg").touch()
    assert run(arguments) != 0
    printed = capsys.readouterr()
    assert not printed.out
    (line,) = [text for text in printed.err.splitlines() if "error" in text]
    assert re.search(message, line)
    assert line.endswith(")")  # the hint
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("size", [None, 96])
def test_segment_writes_the_five_regions(size, portrait, tmp_path, capsys):
    stretch = [] if size is None else ["--size", str(size)]
    out = tmp_path / "out"
    command = ["segment", str(portrait), "--out", str(out), "--backend", "dlib-hog"]
    assert run([*command, *stretch]) == 0
    folder = out / "portrait" / "face-0"
    assert capsys.readouterr().out.strip() == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {*(f"{region}.png" for region in REGIONS), "landmarks.json"}
    pictures = {region: np.asarray(Image.open(folder / f"{region}.png")) for region in REGIONS}
    if size is not None:
        assert {picture.shape for picture in pictures.values()} == {(size, size, 3)}
        return
    image = torch.from_numpy(np.array(Image.open(portrait))).permute(2, 0, 1)
    points = json.loads((folder / "landmarks.json").read_text())["points"]
    expected = segment(image, torch.tensor(points))
    for region in REGIONS:
        np.testing.assert_array_equal(pictures[region], expected[region].permute(1, 2, 0))
    parts = sum(pictures[region].astype(int) for region in REGIONS if region != Region.ENTIRE)
    np.testing.assert_array_equal(parts, pictures[Region.ENTIRE])


def test_segment_takes_landmarks_as_they_are(portrait, tmp_path):
    command = ["segment", str(portrait), "--out"]
    assert run([*command, str(tmp_path / "a"), "--backend", "dlib-hog"]) == 0
    first = tmp_path / "a" / "portrait" / "face-0"
    given = ["--landmarks", str(first / "landmarks.json")]
    assert run([*command, str(tmp_path / "b"), *given]) == 0
    second = tmp_path / "b" / "portrait" / "face-0"
    assert (first / "eyes.png").read_bytes() == (second / "eyes.png").read_bytes()


def test_segment_says_where_there_is_no_face(tmp_path, capsys):
    path = tmp_path / "empty.png"
    Image.fromarray(np.full((90, 90, 3), 200, np.uint8)).save(path)
    options = ["--out", str(tmp_path / "out"), "--backend", "dlib-hog"]
    assert run(["segment", str(path), *options]) == 5
    assert "no face was found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
