"""Preparation that is killed, or that has no room, or may not write."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_helpers import start
from test_prepare import PaintedDetector, ffpp, files, photos  # noqa: F401

from deepregions.data import prepare as module
from deepregions.data.databases import FaceForensics, Folder
from deepregions.data.prepare import prepare
from deepregions.data.store import FaceStore, shard_name
from deepregions.errors import StoreError

TESTS = Path(__file__).parent
OPTIONS = {"detector": PaintedDetector(), "frames_per_video": 4}


@pytest.mark.slow
def test_killed_at_random_moments_gives_the_undisturbed_store(
    ffpp: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_FACES_PER_SHARD", 4)  # a clip a shard: nine
    prepare(FaceForensics(ffpp), tmp_path / "whole", **OPTIONS)
    seed = random.randrange(10**6)
    process = start(TESTS / "interrupted.py", ffpp, tmp_path / "killed", seed, 12)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert int(out) >= 3, "too few were killed to show anything"
    assert files(tmp_path / "killed") == files(tmp_path / "whole"), f"seed {seed}"
    assert len(FaceStore(tmp_path / "killed")) == 36


RUN = """
import sys
from pathlib import Path
from deepregions.data import prepare
from deepregions.data.databases import Folder
from test_prepare import SlowDetector
if __name__ == "__main__":
    prepare._FACES_PER_SHARD = 2
    folder, out = map(Path, sys.argv[1:])
    try:
        prepare.prepare(Folder(folder), out, detector=SlowDetector(), workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_ended_with_its_processes_gives_the_undisturbed_store(
    end: signal.Signals,
    photos: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C goes to the whole group: no process says a word, and none is left."""
    (tmp_path / "run.py").write_text(RUN)
    victim = start(tmp_path / "run.py", photos, tmp_path / "killed")
    while victim.poll() is None and not (tmp_path / "killed" / shard_name(0)).exists():
        time.sleep(0.005)
    children = [int(pid) for pid in children_of(victim.pid)]
    children += [int(pid) for child in children for pid in children_of(child)]
    (victim.kill if end == signal.SIGKILL else lambda: os.killpg(victim.pid, end))()
    _, errors = victim.communicate(timeout=60)
    assert victim.returncode == (-end if end == signal.SIGKILL else 130)
    # Of a process that was killed, Python's own watcher of semaphores says that some are left.
    assert not errors or (end == signal.SIGKILL and "Traceback" not in errors)
    assert len(children) >= 4  # two that look for faces, and what decodes for each
    deadline = time.monotonic() + 5
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, children)), "processes outlive the one that was ended"
    monkeypatch.setattr(module, "_FACES_PER_SHARD", 2)
    prepare(Folder(photos), tmp_path / "killed", detector=PaintedDetector())
    prepare(Folder(photos), tmp_path / "whole", detector=PaintedDetector())
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def children_of(pid: int) -> list[str]:
    found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    if not found:
        pytest.skip("this system does not tell who a process's children are")
    return " ".join(found).split()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a small file system")
    yield place
    # Lazily: whoever looks into it at this moment, an indexer say, does not keep it.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_read_only(ffpp: Path, small_disk: Path) -> None:  # noqa: F811
    prepare(FaceForensics(ffpp), small_disk / "store", **OPTIONS)
    before = files(small_disk / "store")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    work: list[int] = []
    with pytest.raises(StoreError, match=r"cannot write the store .*Read-only"):
        prepare(
            FaceForensics(ffpp),
            small_disk / "other",
            **OPTIONS,
            progress=lambda *numbers: work.append(numbers[0]),
        )
    assert not work  # before anything was done
    assert len(FaceStore(small_disk / "store")) == 36  # what was finished opens
    assert files(small_disk / "store") == before


def test_no_room_for_a_shard(photos: Path, tmp_path: Path) -> None:  # noqa: F811
    """Files may not grow beyond 8 kB."""
    import resource

    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, earlier[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write the store .*File too large"):
            prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"plan.json"}
    with pytest.raises(StoreError):
        FaceStore(tmp_path / "store")
    prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())
    prepare(Folder(photos), tmp_path / "whole", detector=PaintedDetector())
    assert files(tmp_path / "store") == files(tmp_path / "whole")


def test_a_full_disk_at_the_very_end(
    photos: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All faces are written, but not the list of them: nothing is made again."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "finish_store", full)
        with pytest.raises(StoreError, match="No space left on device"):
            prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())
    with pytest.raises(StoreError, match=r"unfinished.*goes on where it was"):
        FaceStore(tmp_path / "store")
    work: list[int] = []
    prepare(
        Folder(photos),
        tmp_path / "store",
        detector=PaintedDetector(),
        progress=lambda *numbers: work.append(numbers[0]),
    )
    assert not work
    assert len(FaceStore(tmp_path / "store")) == 12
    assert json.loads((tmp_path / "store/report.json").read_text())["faces"] == 12
