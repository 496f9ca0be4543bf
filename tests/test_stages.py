"""``deepregions benchmark --video``: which stage took what, on a real face in a real video."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import stages
from networks import dsp_fwa, member, xception
from PIL import Image
from stages import STAGES, FileTimes, Stopwatch

from deepregions.commands.cli import run_program
from deepregions.deploy.faces import portrait
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("stages") / "bundle"
    save_bundle([member(dsp_fwa()), member(xception(), Region.EYES)], path)
    return str(path)


def clip(path: Path, image: np.ndarray, frames: int = 20, rate: int = 10) -> str:
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = image.shape[:2]
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two seconds of a person who does not move."""
    face = portrait()[0].permute(1, 2, 0).numpy()
    return clip(tmp_path_factory.mktemp("clips") / "clip.mp4", face)


def test_a_stage_within_another_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    clock = Stopwatch()

    def work(seconds: float) -> None:
        now[0] += seconds

    work(100)
    with clock.stage("outer"):
        work(1)
        clock.timed("inner", work)(20)
        work(3)
        with pytest.raises(ZeroDivisionError), clock.stage("inner"):
            work(40)
            raise ZeroDivisionError
        with clock.stage("outer"):
            work(5)
    work(1000)
    with clock.stage("inner"):
        work(7)
    assert clock.seconds == {"outer": 9, "inner": 67}


def test_the_longest_stage_is_the_bound() -> None:
    times = FileTimes("torch", 4, 4, 4, {"decode": 1.0, "find": 3.0, "detect": 2.0}, 5.5, 0.5)
    assert times.bound == "find" and times.share("find") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "frames"), [(["--rate", "2"], 4), (["--frames", "3"], 3), ([], 20)]
)
def test_every_stage_of_a_video_is_timed(
    bundle: str, video: str, options: list[str], frames: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--bundle", bundle, "--file", video, "--runtime", "torch", "--json"]
    assert run_program(stages.main, [*command, *options]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert (made["runtime"], made["frames"], made["faces"]) == ("torch", frames, frames)
    assert made["scored"] == frames
    seconds = made["seconds"]
    assert tuple(seconds) == STAGES and min(seconds.values()) > 0
    assert made["bound"] == max(seconds, key=lambda name: seconds[name])
    rest = sum(seconds.values()) - seconds["decode"] + made["waited"]
    assert rest == pytest.approx(made["total"], rel=0.05)  # nothing is counted twice or missed


def test_each_runtime_has_a_table(
    bundle: str,
    video: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("deepregions.assets.cache_dir", lambda: tmp_path)
    monkeypatch.setattr("deepregions.deploy.runtimes.NAMES", ("torch", "onnxruntime"))
    assert run_program(stages.main, ["--bundle", bundle, "--file", video, "--frames", "2"]) == 0
    out = capsys.readouterr().out
    first, second = out.split("onnxruntime: 2 frames, 2 faces, 2 scored")
    assert "torch: 2 frames, 2 faces, 2 scored" in first
    for text in (first, second):
        assert "takes longest: " in text and "waiting for frames" in text
        assert all(f"\n  {name} " in text for name in STAGES if name != "fuse")
    assert "\n  fuse " in first and "\n  fuse " not in second
    assert "onnxruntime fuses in the same graph" in second


def test_a_photograph_is_one_frame(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = portrait()[0].permute(1, 2, 0).numpy()
    Image.fromarray(face).save(tmp_path / "face.png")
    command = ["--bundle", bundle, "--runtime", "torch", "--json", "--file"]
    assert run_program(stages.main, [*command, str(tmp_path / "face.png")]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert (made["frames"], made["faces"], made["scored"]) == (1, 1, 1)


def test_a_video_without_a_face_says_so(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clip(tmp_path / "grey.mp4", np.full((120, 160, 3), 128, np.uint8), frames=3)
    command = ["--bundle", bundle, "--runtime", "torch", "--json", "--file"]
    assert run_program(stages.main, [*command, path]) == 0
    said = capsys.readouterr()
    (made,) = json.loads(said.out)
    assert (made["frames"], made["faces"], made["seconds"]["detect"]) == (3, 0, 0)
    assert "no face was found" in said.err


def test_wrong_use_is_named(
    bundle: str, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    base = ["--bundle", bundle, "--runtime", "torch", "--file"]
    for options, code, said in (
        ([str(tmp_path / "gone.mp4")], 2, "gone.mp4: no such file"),
        ([str(tmp_path)], 2, "is a folder"),
        ([str(tmp_path / "text.mp4")], 1, "text.mp4"),
        ([video, "--frames", "0"], 2, "--frames is 0"),
        ([video, "--rate", "0"], 2, "0 frames a second"),
    ):
        assert run_program(stages.main, [*base, *options]) == code
        captured = capsys.readouterr()
        assert said in captured.err and not captured.out
        assert len(captured.err.strip().splitlines()) <= 2
