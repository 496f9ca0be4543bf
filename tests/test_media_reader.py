"""The sandbox: the same frames as without it, and a decoder that fails costs one line."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from data_helpers import start, write_video
from decoding import frames, read_frames
from hostile import make_video, picture
from PIL import Image

from deepregions.errors import DeepregionsError, UnreadableError, UnsupportedError
from deepregions.media import Frame, Limits, MediaReader, Sampling, sandbox

HERE = Path(__file__).parent


def all_frames(reader: MediaReader, paths: Iterable[Path], count: int = 32) -> list[object]:
    """What comes of each file: its frames, or its error."""
    results: list[object] = []
    for media in reader.open_all(paths, Sampling(count=count)):
        try:
            results.append([frame for batch in media.batches() for frame in batch])
        except DeepregionsError as error:
            results.append(error)
    return results


def same(ones: Iterable[Frame], others: Iterable[Frame]) -> bool:
    return all(
        (one.number, one.time) == (other.number, other.time)
        and np.array_equal(one.image, other.image)
        for one, other in zip(ones, others, strict=True)
    )


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the processes decode as ``saboteur.py`` does."""
    start = sandbox._START.replace(
        "from deep", f"sys.path.append({str(HERE)!r}); import saboteur; from deep"
    )
    assert "saboteur" in start
    monkeypatch.setattr(sandbox, "_START", start)


def children() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if "media.worker" in str(child.cmdline())
    ]


def test_a_user_s_script_does_not_stand_in_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("html", "fractions", "colorsys"):  # of the standard library
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.syspath_prepend(tmp_path)
    picture().save(path := tmp_path / "a.png")
    with MediaReader() as reader:
        (result,) = all_frames(reader, [path], 1)
    assert same(result, frames(path, 1))


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_frames_come_in_order_and_are_those_of_reading_here(tmp_path: Path, ahead: int) -> None:
    paths = [make_video(tmp_path / f"{number}.mp4", 40 + number) for number in range(3)]
    for number in range(6):
        picture().rotate(10 * number).save(path := tmp_path / f"{number}.png")
        paths.insert(2 * number, path)
    with MediaReader(ahead=ahead) as reader:
        results = all_frames(reader, iter(paths), 7)
        assert len(children()) == ahead + 1
    for path, result in zip(paths, results, strict=True):
        assert same(result, frames(path, 7))
    assert not children()


def test_what_a_file_is_is_known_with_its_first_frame(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 50)
    picture().save(still := tmp_path / "a.png")
    with MediaReader() as reader:
        opened = reader.open_all([video, still], Sampling("rate", rate=5))
        media = next(opened)
        assert media.info is None
        assert media.choice is None
        batch = next(media.batches())
        assert media.info is not None
        assert (media.info.kind, media.info.width, media.info.height) == ("video", 64, 48)
        assert (media.info.frames, media.info.duration, media.info.rate) == (50, 2.0, 25.0)
        assert media.info.codec == "h264"
        expected = [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
        assert [frame.number for frame in batch] == expected[:8]
        assert media.choice is not None
        assert (media.choice["how"], media.choice["numbers"]) == ("rate", expected)
        media = next(opened)
        list(media.batches())
        assert media.info is not None
        assert (media.info.kind, media.info.frames, media.info.codec) == ("image", 1, "png")


def test_more_frames_can_be_asked_for(tmp_path: Path) -> None:
    paths = [make_video(tmp_path / f"{number}.mp4", 90) for number in range(2)]
    with MediaReader() as reader:
        for media in reader.open_all(paths, Sampling("adaptive", count=8)):
            batches = list(media.batches(at_once=3))
            assert [len(batch) for batch in batches] == [3, 1]
            assert [frame.number for batch in batches for frame in batch] == [11, 33, 56, 78]
            for wanted in ([5, 60, 34], [89], []):
                more = [frame for batch in media.read(wanted) for frame in batch]
                assert [frame.number for frame in more] == sorted(wanted)
                assert same(more, read_frames(media.path, wanted))
        with pytest.raises(RuntimeError, match="closed"):
            media.read([1])


def test_a_file_left_early_does_not_disturb_the_next(tmp_path: Path) -> None:
    paths = [make_video(tmp_path / f"{number}.mp4", 90) for number in range(4)]
    with MediaReader() as reader:
        for media in reader.open_all(paths, Sampling(count=40)):
            taken = []
            for batch in media.batches():
                taken += batch
                if media.path in paths[::2]:
                    break
            if media.path in paths[1::2]:
                assert same(taken, frames(media.path, 40))
        assert len(children()) <= 2
    assert not children()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", r"hangs \(no progress in 2 s\)"),
        ("hang-in-c", r"hangs \(no progress in 2 s\)"),
        ("endless", "takes more than 4 s"),
        ("segfault", "died of SIGSEGV"),
        ("abort", "died of SIGABRT"),
        ("killed", "died of SIGKILL"),
        ("exit", "its decoder died"),
        ("memory", "needs more memory than it may have"),
        ("memory-in-c", "died of SIGABRT"),
        ("write", r"\[Errno 27\]|File too large"),
        ("bug", "its decoder died: KeyError: 'a bug'"),
        ("rubbish", "its decoder went wrong"),
        ("no-json", "its decoder went wrong"),
        ("empty-end", "its decoder went wrong"),
        ("no-number", "its decoder went wrong"),
        ("huge-frame", "its decoder went wrong"),
    ],
)
@pytest.mark.usefixtures("sabotage")
def test_a_decoder_that_fails_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setenv("SABOTEUR", str(tmp_path / "written"))
    for name in ("1.png", f"{fault}.png", "2.png", "3.png"):
        picture().save(tmp_path / name)
    paths = [tmp_path / name for name in ("1.png", f"{fault}.png", "2.png", "3.png")]
    slow = fault in (
        "hang",
        "hang-in-c",
        "endless",
    )  # the others must not be late where all is slow
    limits = Limits(seconds=4 if slow else 60, silence=2 if slow else 30, memory=200 << 20)
    with MediaReader(limits) as reader:
        first, failed, *others = all_frames(reader, paths)
        assert len(children()) <= 2
    for path, result in ((paths[0], first), *zip(paths[2:], others, strict=True)):
        assert same(result, frames(path, 1))
    with pytest.raises(UnreadableError, match=rf"{fault}\.png: .*({reason})"):
        raise failed
    assert failed.hint
    assert "\n" not in str(failed)
    assert not (tmp_path / "written").exists() or not (tmp_path / "written").stat().st_size
    assert not children()


@pytest.mark.usefixtures("sabotage")
def test_a_process_that_was_stopped_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_GRACE", 2.0)
    for name in ("stopped.png", "2.png"):
        picture().save(tmp_path / name)
    with MediaReader(Limits(silence=1)) as reader:
        failed, other = all_frames(reader, [tmp_path / "stopped.png", tmp_path / "2.png"])
    assert "hangs" in str(failed)
    assert len(other) == 1


@pytest.mark.parametrize("noise", ["complain", "chatter"])
@pytest.mark.usefixtures("sabotage")
def test_what_decoders_print_disturbs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], noise: str
) -> None:
    picture().save(path := tmp_path / f"{noise}.png")
    with MediaReader() as reader:
        assert same(all_frames(reader, [path])[0], frames(path, 1))
    assert capfd.readouterr() == ("", "")


def test_pixels_are_limited(tmp_path: Path) -> None:
    picture().save(still := tmp_path / "a.png")
    paths = [still, make_video(tmp_path / "a.mp4", 3)]
    with MediaReader(Limits(pixels=64 * 48 - 1)) as reader:
        for result in all_frames(reader, paths):
            assert isinstance(result, UnreadableError | UnsupportedError)
            assert "64 x 48" in str(result)


def test_memory_is_limited_beyond_what_the_process_has(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5000, 5000, 3), np.uint8)).save(path := tmp_path / "a.png")
    picture().save(small := tmp_path / "b.png")
    with MediaReader(Limits(memory=40 << 20)) as reader:
        failed, other = all_frames(reader, [path, small])
    assert isinstance(failed, UnreadableError)
    assert "memory" in str(failed)
    assert len(other) == 1


@pytest.mark.parametrize("fault", ["imports", "python"])
def test_an_installation_that_does_not_work_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "imports":
        monkeypatch.setattr(sandbox, "_START", "import sys; raise ImportError('no module av')")
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    picture().save(path := tmp_path / "a.png")
    before = psutil.Process().num_fds()
    with (
        MediaReader() as reader,
        pytest.raises(DeepregionsError, match=r"no module av|/nowhere/python: No such") as caught,
    ):
        for media in reader.open_all([path], Sampling()):
            list(media.batches())
    assert not isinstance(caught.value, UnreadableError)
    assert psutil.Process().num_fds() == before


def test_files_and_processes_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepregions.media.reader._FILES", 40)  # so processes are replaced too
    picture().save(good := tmp_path / "a.png")
    (bad := tmp_path / "b.png").write_bytes(b"no picture")
    (killing := tmp_path / "c.png").write_bytes(b"")
    gc.collect()
    before = psutil.Process().num_fds()
    with MediaReader() as reader:
        for number, media in enumerate(reader.open_all([good, bad, killing] * 100, Sampling())):
            with suppress(UnreadableError):
                list(media.batches())
            if number == 20:
                during = psutil.Process().num_fds()
        assert len(children()) == 2
        assert psutil.Process().num_fds() == during
    assert psutil.Process().num_fds() == before
    assert not children()


PROGRAM = """
    import os, sys, time
    from pathlib import Path
    from deepregions.media import MediaReader, Sampling, sandbox
    sandbox._START = sandbox._START.replace(
        "from deep", f"sys.path.append({here!r}); import saboteur; from deep"
    )
    try:
        with MediaReader() as reader:
            for media in reader.open_all([Path(path) for path in sys.argv[1:]], Sampling()):
                print("open", flush=True)
                list(media.batches())
                print("read", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        raise SystemExit(130)
"""


def wait_for(process: subprocess.Popen[str], line: str) -> list[psutil.Process]:
    """Waits until the program has printed a line; returns its processes that decode."""
    assert process.stdout is not None
    while process.stdout.readline().strip() != line:
        assert process.poll() is None, process.stderr and process.stderr.read()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = psutil.Process(process.pid).children()
        ready = [child for child in found if "media.worker" in str(child.cmdline())]
        if len(ready) == 2:
            return ready
    raise AssertionError("no processes")


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (signal.SIGINT, "hang"),
        (signal.SIGINT, "full"),
        (signal.SIGTERM, "full"),
        (signal.SIGKILL, "hang"),
    ],
)
def test_processes_end_with_the_one_that_asks(tmp_path: Path, number: int, fault: str) -> None:
    """However it ends, and whether they are in a decoder or wait for frames to be taken."""
    Image.fromarray(np.zeros((4000, 4000, 3), np.uint8)).save(big := tmp_path / "big.bmp")
    picture().save(hanging := tmp_path / "hang.png")
    program = textwrap.dedent(PROGRAM).replace("{here!r}", repr(str(HERE)))
    with start("-c", program, hanging, hanging if fault == "hang" else big) as process:
        decoders = wait_for(process, "open")
        time.sleep(0.5)
        os.killpg(process.pid, number)  # as Ctrl-C does: the whole group
        output, complaints = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert output.split() == ["interrupted"]
        assert not complaints
    _, alive = psutil.wait_procs(decoders, timeout=20)
    assert not alive


def test_processes_hold_no_torch(tmp_path: Path) -> None:
    picture().save(path := tmp_path / "a.png")
    with MediaReader(ahead=0) as reader:
        all_frames(reader, [path])
        (child,) = children()
        loaded = Path(f"/proc/{child.pid}/maps").read_text()
    assert "libav" in loaded
    assert "torch" not in loaded


def test_the_users_folder_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('a module that lay beside the photographs')")
    picture().save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with MediaReader() as reader:
        assert len(all_frames(reader, [Path("a.png")])[0]) == 1


def test_bytes_ahead_are_bounded_and_waiting_is_no_work(tmp_path: Path) -> None:
    """Of a video of 250 MB of frames, a process holds a few until they are asked for."""
    shades = (np.full((720, 1280, 3), shade, np.uint8) for shade in range(96))
    path = write_video(tmp_path / "a.mp4", shades)
    with MediaReader(Limits(seconds=30, silence=3), ahead=0) as reader:
        for media in reader.open_all([path], Sampling(count=96)):
            batches = media.batches(at_once=1)
            next(batches)
            (child,) = children()
            time.sleep(3.5)
            assert child.memory_info().rss < 250e6
            assert 1 + sum(len(batch) for batch in batches) == 96
