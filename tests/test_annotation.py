"""The annotated video, decoded again: its frames, its times, and what is drawn on them."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageColor

from deepregions.errors import UnreadableError, UsageError
from deepregions.pipeline.report import video as annotation
from deepregions.pipeline.report.drawing import TRACKS
from deepregions.pipeline.report.video import FrameLayout, Marks, annotate_video
from deepregions.pipeline.results import FaceResult, Result, summarise_input
from deepregions.pipeline.words import Answer
from deepregions.types import Status

RATE = 10
GREY = 120


def write_video(
    path: Path,
    *,
    frames: int = 20,
    size: tuple[int, int] = (320, 240),
    times: Sequence[int] | None = None,
    colour: tuple[int, int, int] = (GREY, GREY, GREY),
    sound: bool = False,
    halves: bool = False,
    degrees: int = 0,
) -> Path:
    """A video of one colour, or with a red left half; ``times`` are in milliseconds."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if degrees:
            stream.set_display_rotation(degrees)
        audio: Any = container.add_stream("aac", rate=8000) if sound else None
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), colour, np.uint8)
            if halves:
                pixels[:, : size[0] // 2] = (200, 30, 30)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[number] if times else number * 1000 // RATE
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            silence.sample_rate = 8000
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
        container.mux(stream.encode(None))
    return path


def face(
    frame: int, log_odds: float | None, x: float = 100.0, *, track: int = 0, time: float = -1
) -> FaceResult:
    status = Status.OK if log_odds is not None else Status.LOW_QUALITY
    box = (x, 80.0, x + 80, 180.0)
    time = frame / RATE if time < 0 else time
    return FaceResult(frame, time, track, box, status, log_odds, {})


def result_of(*faces: FaceResult, frames: int = 20, **facts: Any) -> Result:
    numbers = sorted({each.frame for each in faces})
    facts.setdefault("sampling", {"numbers": numbers})
    return summarise_input("x.mp4", "video", frames, faces, media={"rate": RATE}, **facts)


def decoded(path: Path) -> tuple[list[NDArray[np.uint8]], list[float]]:
    with av.open(str(path)) as container:
        frames = [*container.decode(video=0)]
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time or 0) for f in frames]


def near(pixels: NDArray[np.uint8], colour: str | tuple[int, ...], within: int = 40) -> Any:
    target = np.array(ImageColor.getrgb(colour) if isinstance(colour, str) else colour[:3])
    return (np.abs(pixels.astype(int) - target) <= within).all(-1)


def left_edge(pixels: NDArray[np.uint8], track: int = 0) -> int | None:
    """Where the left side of a track's box is, in the middle third of its height."""
    columns = near(pixels[84:96], TRACKS[track][0]).mean(0)  # near its upper corners
    found = np.flatnonzero(columns > 0.6)
    return int(found[0]) if len(found) else None


def test_every_frame_is_there_at_its_time_with_its_box(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", sound=True)
    faces = [face(frame, frame / 10, 40 + 5 * frame) for frame in (2, 6, 10, 14)]
    annotate_video(path, result_of(*faces), tmp_path / "out.mp4")
    frames, times = decoded(tmp_path / "out.mp4")
    assert times == pytest.approx([number / RATE for number in range(20)], abs=1e-4)
    for number, pixels in enumerate(frames):
        edge = left_edge(pixels)
        if 2 <= number <= 14:
            assert edge == pytest.approx(40 + 5 * number, abs=4), number
        elif number in (0, 18, 19):
            assert edge is None, number  # not looked at, and no face known beyond
    with av.open(str(tmp_path / "out.mp4")) as container:
        heard = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        (stream,) = container.streams.video
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.name == "h264"
    with av.open(str(path)) as container:
        assert heard == [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable while it loads
    assert {each.name for each in tmp_path.iterdir()} == {"a.mp4", "out.mp4"}


def test_a_module_beside_the_video_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("av", "fractions", "heapq"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w'); raise SystemExit(9)")
    write_video(tmp_path / "a.mp4", sound=True)
    monkeypatch.chdir(tmp_path)
    annotate_video(Path("a.mp4"), result_of(face(2, 0.2)), Path("out.mp4"))
    assert not Path("ran").exists()
    with av.open("out.mp4") as container:
        assert container.streams.audio


def test_boxes_do_not_cross_gaps_that_tracks_do_not(tmp_path: Path) -> None:
    faces = (face(0, 1.0), face(18, 1.0))
    others = [face(frame, 0.0, 10.0, track=1) for frame in (3, 6, 9, 12, 15)]
    path = write_video(tmp_path / "a.mp4")
    annotate_video(path, result_of(*faces, *others), tmp_path / "out.mp4")
    frames, _ = decoded(tmp_path / "out.mp4")
    assert left_edge(frames[0]) is not None
    assert left_edge(frames[18]) is not None
    assert left_edge(frames[9]) is None
    bridged = (face(0, 1.0), face(8, 1.0))  # 0.8 s
    annotate_video(path, result_of(*bridged), tmp_path / "out.mp4")
    assert left_edge(decoded(tmp_path / "out.mp4")[0][4]) is not None


def test_colours_stay_and_each_track_has_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", colour=(200, 40, 60))
    faces = [face(0, 1.0, 20.0 + 100 * track, track=track) for track in range(3)]
    annotate_video(path, result_of(*faces), tmp_path / "out.mp4")
    pixels = decoded(tmp_path / "out.mp4")[0][0]
    source = decoded(path)[0][0]
    assert np.abs(pixels[10:40, 10:300].astype(int) - source[10:40, 10:300]).mean() < 6
    for track in range(3):
        chip = pixels[64:78, 24 + 100 * track : 40 + 100 * track]
        assert near(chip, TRACKS[track][0], 45).mean() > 0.4


def test_times_that_are_not_even_stay(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 520, 1900, 1933, 1966, 4000, 4100]
    path = write_video(tmp_path / "a.mp4", frames=10, times=times)
    annotate_video(path, result_of(face(0, 0.0)), tmp_path / "out.mp4")
    assert decoded(tmp_path / "out.mp4")[1] == pytest.approx([t / 1000 for t in times], abs=1e-3)


@pytest.mark.parametrize("size", [(1080, 1920), (322, 242), (16, 16), (2000, 20)])
def test_sizes_are_even_and_at_most_1280(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2, size=size)
    annotate_video(path, result_of(face(0, 0.0)), tmp_path / "out.mp4")
    frames, _ = decoded(tmp_path / "out.mp4")
    height, width = frames[0].shape[:2]
    assert width % 2 == height % 2 == 0
    assert max(width, height) <= 1280
    if min(size) > 100 and max(size) > 1280:
        assert max(width, height) > 1200


def test_boxes_are_scaled_with_the_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=1, size=(1920, 1080))
    wide = replace(face(0, 1.0), box=(600.0, 400.0, 1200.0, 900.0))
    annotate_video(path, result_of(wide), tmp_path / "out.mp4")
    pixels = decoded(tmp_path / "out.mp4")[0][0]
    scale = pixels.shape[1] / 1920
    row = near(pixels[round(650 * scale)], TRACKS[0][0])
    found = np.flatnonzero(row)
    assert found[0] == pytest.approx(600 * scale, abs=5)
    assert found[-1] == pytest.approx(1200 * scale, abs=5)


@given(
    st.tuples(*[st.floats(-5000, 5000)] * 4),
    st.integers(0, 10**6),
    st.none() | st.floats(-50, 50),
    st.booleans(),
)
def test_any_box_can_be_drawn(
    box: tuple[float, float, float, float], track: int, log_odds: float | None, seen: bool
) -> None:
    frame = Image.new("RGB", (64, 48), "#808080")
    x0, y0, x1, y1 = box
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    found = replace(face(0, log_odds, track=track), box=box)
    layout = FrameLayout(64, 48, Answer("No conclusion possible"))
    assert layout.draw(frame, [(found, seen)], 1.5).size == layout.size


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=8, unique=True), st.floats(-1, 10))
def test_a_box_is_between_those_of_its_neighbours(milliseconds: list[int], at: float) -> None:
    times = sorted(each / 1000 for each in milliseconds)
    faces = [face(n, 0.5, 10.0 * n, time=time) for n, time in enumerate(times)]
    marks = Marks(result_of(*faces))(at)
    x = marks[0][0].box[0] if marks else None
    before = [n for n, time in enumerate(times) if time <= at]
    after = [n for n, time in enumerate(times) if time >= at]
    if before and after:
        assert x is not None  # neighbours are successive here
        assert 10 * before[-1] - 1e-3 <= x <= 10 * after[0] + 1e-3
    elif x is not None:
        assert min(abs(time - at) for time in times) <= 0.15 + 1e-5
        assert x in (0.0, 10.0 * (len(times) - 1))


def test_only_videos_are_annotated(tmp_path: Path) -> None:
    image = Result("a.jpg", "image", Status.NO_FACE, "no face was found", frames=1)
    with pytest.raises(UsageError, match="is no video"):
        annotate_video(tmp_path / "a.jpg", image, tmp_path / "out.mp4")


def test_a_video_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UnreadableError):
        annotate_video(path, result_of(face(0, 0.0)), tmp_path / "out.mp4")
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_without_x264_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")

    def no_x264(name: str, mode: str) -> None:
        raise annotation.UnknownCodecError(f"no codec {name} to {mode}")

    monkeypatch.setattr(annotation.av, "Codec", no_x264)
    annotate_video(path, result_of(face(5, 1.0)), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert len([*container.decode(video=0)]) == 20


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX's")
def test_where_there_is_no_room_there_is_one_error_and_no_file(tmp_path: Path) -> None:
    import resource

    path, out = write_video(tmp_path / "a.mp4", frames=60), tmp_path / "out.mp4"
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, earlier[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            annotate_video(path, result_of(frames=60), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert caught.value.filename == str(out)
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotation"
)
def test_a_video_that_lies_on_its_side_is_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", halves=True, degrees=90)
    annotate_video(path, result_of(face(0, 1.0)), tmp_path / "out.mp4")
    pixels = decoded(tmp_path / "out.mp4")[0][0]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "DISPLAYMATRIX" not in next(container.decode(video=0)).side_data
    lying = decoded(path)[0][0]
    upright = np.rot90(lying)  # 240 wide, 320 tall
    assert pixels.shape[1] == 240
    assert pixels.shape[0] > 320
    for rows in (slice(5, 60), slice(200, 310)):
        assert np.abs(pixels[rows, 5:90].astype(int) - upright[rows, 5:90]).mean() < 8
    assert left_edge(pixels) == pytest.approx(100, abs=4)
