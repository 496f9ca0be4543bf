"""What scores archives in tests: quick, and as odd as the file's content says."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deepregions.archive.columns import as_line
from deepregions.archive.driver import Driver
from deepregions.archive.manifest import FileManifest, Listed, list_files, write_manifest
from deepregions.archive.parts import ArchiveResults
from deepregions.archive.ray_pool import RayPool
from deepregions.archive.workers import ScoredFile, ScorerPool, WorkerPool
from deepregions.errors import BundleError, UnreachableError

ROW = {"answer": {"conclusion": "No conclusion"}, "kind": "image", "warnings": []}


class FakeScorer:
    """Answers with a number from the file's content; does what the content says first."""

    def __init__(self, name: str = "fake") -> None:
        self.run = {
            "settings": {"models": [name]},
            "facts": {"deepregions": "0", "limits": "it is made up"},
        }

    def __call__(self, files: Iterable[Listed]) -> Iterator[ScoredFile]:
        for file in files:
            content = Path(file.path).read_bytes()
            order, _, rest = content.partition(b":")
            if order == b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if order == b"raise":
                raise RuntimeError("no such tensor")
            if order == b"network":
                raise UnreachableError("10 files in a row could not be fetched", "wait")
            if order == b"slow":
                time.sleep(float(rest))
            digest = hashlib.sha256(content).hexdigest()
            score = int(digest[:4], 16) / 65536
            told = {"status": "ok", "message": "", "score": score, "log_odds": 4 * score - 2}
            told |= {"media": {"sha256": digest, "bytes": len(content)}}
            page = "<!doctype html>" if order == b"page" else ""
            yield ScoredFile(file.id, as_line(file.id, {**ROW, **told}, 0.001), page)


def together(folder: Path) -> FakeScorer:
    """A scorer that is there when a second process makes one."""
    (folder / f"{os.getpid()}.started").touch()
    until = time.monotonic() + 20
    while len([*folder.glob("*.started")]) < 2:
        if time.monotonic() > until:
            raise BundleError("nobody else was started", "start them at once")
        time.sleep(0.05)
    return FakeScorer()


def broken() -> Any:
    raise BundleError("the bundle is broken", "get another")


def manifest_of(folder: Path, out: Path) -> FileManifest:
    write_manifest(list_files([folder], warn=print), out)
    return FileManifest(out)


def score(
    manifest: Path, out: Path, workers: int = 1, make: Any = FakeScorer, **how: Any
) -> Driver:
    longest = how.pop("longest", 60.0)
    pool: ScorerPool = WorkerPool(make, workers, longest=longest)
    if how.pop("ray", False):
        pool = RayPool(make, workers=workers, longest=longest)
    how.setdefault("part_size", 16)
    driver = Driver(FileManifest(manifest), ArchiveResults(out), pool, **how)
    driver.score()
    return driver


if __name__ == "__main__":  # a driver of its own, to be killed, or for Ray
    score(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, ray=sys.argv[3:] == ["ray"], longest=5)
