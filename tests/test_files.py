"""Files and folders appear whole or not at all, whatever ends a writer; a folder has one writer."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepregions.errors import UsageError
from deepregions.files import atomic_file, atomic_folder, is_empty, lock_folder

STEPS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "ctypes.call_function")


def write(path: Path, content: str) -> None:
    """A bundle in small: two files that belong together, one of a name of its own."""
    with atomic_folder(path) as folder:
        (folder / "bundle.json").write_text(content)
        (folder / f"{content}.weights").write_text(content)


def write_file(path: Path, content: str) -> None:
    with atomic_file(path) as file:
        file.write_text(content)


def content(path: Path) -> str:
    """Of a whole folder: what a reader that follows the manifest gets."""
    said = (path / "bundle.json").read_text()
    assert (path / f"{said}.weights").read_text() == said
    return said


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Runs in a process that is killed before its n-th change; returns whether there was one."""
    process = os.fork()
    if not process:
        left = [step]

        def hook(event: str, _: object) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def steps(work: Callable[[], None]) -> Iterator[int]:
    for step in range(100):
        if not killed_at(step, work):
            return
        yield step


def test_a_folder_is_old_or_new_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "bundle"
    write(path, "old")
    seen = [content(path) for _ in steps(lambda: write(path, "new"))]
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert sorted(set(seen)) == ["new", "old"]
    write(path, "newer")
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]  # nothing of the killed ones


@pytest.mark.parametrize("kind", ["elsewhere", "mount"])
def test_where_folders_cannot_be_exchanged_the_next_writer_brings_one_back(
    tmp_path, monkeypatch, kind
):
    if kind == "mount":
        monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "bundle")
    else:
        monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "bundle.json").write_text("old")
    (path / "old.weights").write_text("old")

    def fail() -> None:
        with pytest.raises(ZeroDivisionError), atomic_folder(path):
            raise ZeroDivisionError

    seen = []
    for _ in steps(lambda: write(path, "new")):
        fail()  # a writer that writes nothing
        seen.append(content(path))
        write(path, "old")
    assert set(seen) == {"old", "new"}
    write(path, "newer")
    assert (content(path), hidden(tmp_path)) == ("newer", [])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root mounts")
def test_a_mount_point_is_filled(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        write(path, "old")
        write(path, "new")
        assert sorted(each.name for each in path.iterdir()) == ["bundle.json", "new.weights"]
        with (
            pytest.raises(OSError, match="No space left") as caught,
            atomic_file(path / "x") as file,
        ):
            file.write_bytes(bytes(2 << 20))
        assert caught.value.filename == str(path / "x")
        with lock_folder(path, "detect"):
            assert is_empty(path) is False
        assert (content(path), hidden(path)) == ("new", [])
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == "new"
    (tmp_path / "file").symlink_to("later")
    with atomic_file(tmp_path / "file") as file:
        file.write_text("x")
    assert (tmp_path / "later").read_text() == "x"
    with atomic_file(Path(os.devnull)) as file:
        assert file == Path(os.devnull)


def test_nothing_is_left_of_what_fails_or_was_killed(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def half() -> None:
        with atomic_file(path) as file:
            file.write_text("ha")
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(99, half)
    assert (path.read_text(), len(hidden(tmp_path))) == ("old", 1)
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write_text("h")
        raise ZeroDivisionError
    assert (path.read_text(), hidden(tmp_path)) == ("old", [])
    assert killed_at(99, half)
    (tmp_path / ".mine.part").write_text("precious")
    with lock_folder(tmp_path, "detect"):
        assert hidden(tmp_path) == [".mine.part"]


def test_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "x"
    with atomic_file(path) as one, atomic_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert (path.read_text(), hidden(tmp_path)) == ("one", [])


@pytest.mark.parametrize("write_one", [write_file, write])
def test_a_writer_that_ends_takes_nothing_from_the_next(tmp_path, write_one):
    """The next may have claimed the hidden name as soon as the first has put it in place."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write_one(tmp_path / "x", str(number)), range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert (tmp_path / "x").is_file() or content(tmp_path / "x")
    with lock_folder(tmp_path, "detect"):  # old folders may wait here for the next writer
        assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_modes_follow_the_umask_which_no_other_thread_sees_changed(tmp_path):
    before = os.umask(0o027)
    stop, wrong = threading.Event(), []

    def watch() -> None:
        number = 0
        while not stop.is_set():
            file = tmp_path / f"w{(number := number + 1)}"
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o666))
            wrong.extend([file] if file.stat().st_mode & 0o777 != 0o640 else [])
            file.unlink()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(200):
            with atomic_file(tmp_path / "file") as file:
                file.touch()
            write(tmp_path / "folder", "x")
    finally:
        stop.set()
        watcher.join()
        sys.setswitchinterval(interval)
        os.umask(before)
    assert not wrong
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_an_error_names_the_file_that_was_wanted(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "x")
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomic_folder(tmp_path / "b") as f,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(f / "w.safetensors"))
    assert caught.value.filename == str(tmp_path / "b" / "w.safetensors")


def test_a_folder_has_one_writer_and_a_killed_one_frees_it(tmp_path):
    out = tmp_path / "out"
    ready, go = os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        with lock_folder(out, "prepare"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    expected = rf"out is being written by prepare \(process {process} on .*wait until"
    with pytest.raises(UsageError, match=expected), lock_folder(out, "detect"):
        pass
    with lock_folder(tmp_path / "other", "detect"), lock_folder(None, "detect"):
        pass
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with lock_folder(out, "detect"):
        assert not out.exists()
        with pytest.raises(UsageError, match="written by detect"), lock_folder(out, "detect"):
            pass
        write(out, "x")
    assert hidden(tmp_path) == []
