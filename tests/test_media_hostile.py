"""Whatever a stranger has is read, or costs one clear line; the others are read all the same."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from decoding import frames
from hostile import CASES, HLS, NAMES, VIDEOS, Case, picture, video

from deepregions.commands.cli import run
from deepregions.errors import DeepregionsError, UnreadableError, UnsupportedError, printable
from deepregions.media import Frame, Limits, MediaInfo, MediaReader, Sampling, find_media, is_video

LIMITS = Limits(seconds=120, silence=30, memory=600 << 20)
_STATUS = {UnreadableError: "unreadable", UnsupportedError: "unsupported"}


@pytest.fixture(scope="module")
def reader() -> Iterator[MediaReader]:
    with MediaReader(LIMITS, ahead=0) as reader:
        yield reader


def read(
    reader: MediaReader, path: Path, count: int = 8
) -> tuple[list[Frame], MediaInfo | None, DeepregionsError | None]:
    for media in reader.open_all([path], Sampling(count=count)):
        try:
            return [frame for batch in media.batches() for frame in batch], media.info, None
        except (UnreadableError, UnsupportedError) as error:
            return [], media.info, error
    raise AssertionError


def made(case: Case, folder: Path) -> Path:
    os.mkfifo(folder / "bait")  # who opens it waits for ever
    path = folder / case.name
    case.make(path)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: printable(case.name)[:40])
def test_every_file_has_its_status(tmp_path: Path, reader: MediaReader, case: Case) -> None:
    path = made(case, tmp_path)
    found, info, error = read(reader, path)
    if case.status == "ok":
        assert error is None
        assert info is not None
        assert len(found) == case.frames
        assert (info.width, info.height) == case.size
        height, width = found[0].image.shape[:2]
        assert (width, height) == case.size
        assert info.kind == ("video" if case in VIDEOS else "image")
        assert case.says in " ".join(info.notes)
        return
    assert error is not None
    assert _STATUS[type(error)] == case.status
    line = str(error)
    assert line.isprintable()  # so it is one line, and no terminal is told to do anything
    assert printable(case.name) in line
    assert error.hint
    assert "hangs" not in line
    with pytest.raises(type(error), match=case.says):
        raise error
    assert not found


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("name", ["hdr-pq.mp4", "hdr-hlg.mp4"])
def test_high_dynamic_range_becomes_plain(tmp_path: Path, reader: MediaReader, name: str) -> None:
    found, _, _ = read(reader, made(case_of(name), tmp_path))
    black, white = found[0].image[24, 8].tolist(), found[0].image[24, 56].tolist()
    assert max(black) < 12
    assert min(white) > (170 if "pq" in name else 140)
    assert max(white) - min(white) < 6  # grey stays grey


def test_damage_is_noted(tmp_path: Path, reader: MediaReader) -> None:
    _, info, _ = read(reader, made(case_of("damaged.avi"), tmp_path), 60)
    assert info is not None
    assert re.search(r"\d+ of \d+ packets are damaged", " ".join(info.notes))


def test_frames_of_two_sizes_come_apart(tmp_path: Path, reader: MediaReader) -> None:
    path = made(case_of("growing.ts"), tmp_path)
    for media in reader.open_all([path], Sampling(count=20)):
        sizes = [{frame.image.shape for frame in batch} for batch in media.batches(20)]
    assert sizes == [{(48, 64, 3)}, {(96, 128, 3)}]


@pytest.mark.parametrize("name", ["playlist.mp4", "playlist.ts", "playlist.mkv"])
def test_no_address_is_asked(tmp_path: Path, reader: MediaReader, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for text in (HLS.format(address), f"ffconcat version 1.0\nfile '{address}'\n"):
            (path := tmp_path / name).write_text(text)
            _, _, error = read(reader, path)
            assert isinstance(error, UnreadableError)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("change", ["grow", "shrink", "vanish", "replace"])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_video_that_changes_while_it_is_read(tmp_path: Path, change: str, ending: str) -> None:
    video(200, g="5")(path := tmp_path / f"a.{ending}")
    reading = frames(path, 150)
    taken = [next(reading)]
    size = path.stat().st_size
    if change == "grow":
        with path.open("ab") as file:
            file.write(os.urandom(size))
    elif change == "shrink":
        os.truncate(path, size // 2)
    elif change == "vanish":
        path.unlink()
    else:
        picture().save(other := tmp_path / "b", "PNG")
        other.replace(path)
    try:
        taken += reading
    except UnreadableError as error:
        assert change == "shrink"
        assert path.name in str(error)
    if change != "shrink":
        assert len(taken) == 150
    assert [frame.number for frame in taken] == sorted({frame.number for frame in taken})


def test_files_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, for root."""

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    picture().save(path := tmp_path / "a.png")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableError, match=r"a\.png: Permission denied \(check"):
        next(frames(path, 1))


def test_folders_of_odd_things_are_walked(tmp_path: Path) -> None:
    """Pipes, hidden files and dangling links are left out, loops are entered once."""
    (inner := tmp_path / "a folder").mkdir()
    (inner / "back").symlink_to(tmp_path)
    (inner / "self").symlink_to(inner)
    os.mkfifo(inner / "pipe.jpg")
    (inner / "loop.jpg").symlink_to("loop.jpg")
    (inner / "zero.mp4").symlink_to("/dev/zero")
    expected = []
    for case in NAMES:
        case.make(inner / case.name)
        expected.append(inner / case.name)
    for name in ("same.png", "same.jpg", "without", "b/same.png"):
        (inner / name).parent.mkdir(exist_ok=True)
        picture().save(inner / name, "PNG")
        expected.append(inner / name)
    for name in ("b.JPG", "z.HEIC", "z.jfif", "z.qt"):  # known by their endings
        (inner / name).write_bytes(b"x")
        expected.append(inner / name)
    for name in ("README", ".hidden.png", ".git/d.png"):
        (inner / name).parent.mkdir(exist_ok=True)
        (inner / name).write_bytes(b"x")
    assert find_media([tmp_path]) == sorted(expected)
    assert find_media([inner / "README", inner / "b"]) == [inner / "README", inner / "b/same.png"]
    assert is_video(inner / "z.qt")
    assert not is_video(inner / "b.JPG")


def test_a_folder_that_may_not_be_listed_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may list all, so the system's refusal is played here."""
    (closed := tmp_path / "closed").mkdir()
    picture().save(closed / "a.png")
    picture().save(tmp_path / "b.png")
    listing, access = os.scandir, os.access

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    found = find_media([tmp_path])
    assert found == [tmp_path / "b.png", closed]
    with pytest.raises(UnreadableError, match="closed: the folder may not be listed"):
        next(frames(closed, 1))


@pytest.mark.parametrize("name", ["absent\x1b[2J.jpg", "nul\0.jpg", "long" * 99, "\udcff"])
def test_paths_that_are_not_there_cost_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeepregionsError) as caught:
        find_media([tmp_path / name])
    assert str(caught.value).isprintable()
    assert caught.value.hint


@pytest.mark.parametrize("command", ["detect", "segment"])
def test_a_command_shows_no_names_that_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    name = "\x1b]0;title\x07\n\u202e.jpg"
    assert run([command, str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert r"\x1b]0;title\x07\n\u202e.jpg" in line
