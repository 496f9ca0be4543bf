"""What workers score with in tests: quick, and as odd as the file's content says."""

import hashlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deepregions.errors import BundleError
from deepregions.service.settings import Progress, ServiceSettings

FACTS = {
    "models": [
        {
            "name": "fake",
            "detector": "fake",
            "region": "entire",
            "database": "made",
            "sha256": "ab" * 32,
            "landmarks": None,
        }
    ],
    "fusion": "mean",
    "calibration": "uncalibrated",
    "landmarks": {"name": "none", "version": "0"},
    "deepregions": "0",
}
ANSWER = ("conclusion", "ratio", "threshold", "error_rates", "judged", "holds_for", "score")
EMPTY = {
    "schema": "deepregions.detect",
    "version": 3,
    "answer": dict.fromkeys(ANSWER, "") | {"conclusion": "No conclusion"},
    "kind": "image",
    "message": "",
    **dict.fromkeys(("score", "log_odds", "llr", "provenance")),
    "rule": "",
    "frames": 1,
    "media": {},
    "sampling": {},
    "tracks": [],
    "faces": [],
}


class FakeScorer:
    """Answers with the file's digest; does what the file says first."""

    facts = FACTS

    def __call__(
        self, paths: Iterable[Path], progress: Progress
    ) -> Iterator[tuple[dict[str, Any], str]]:
        for path in paths:
            yield self.answer(path, progress)

    def answer(self, path: Path, progress: Progress) -> tuple[dict[str, Any], str]:
        content = path.read_bytes()
        order, _, rest = content.partition(b":")
        if order == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == b"once":  # kills one worker: the file is there after it
            marker = path.parent.parent / f"once-{hashlib.sha256(content).hexdigest()}"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if order == b"memory":
            raise MemoryError
        if order == b"slow":
            for done in range(4):
                time.sleep(float(rest.partition(b" ")[0]) / 4)
                progress(path, done + 1, 4)
        digest = hashlib.sha256(content).hexdigest()
        status = "unreadable" if order == b"broken" else "no_face"
        with (path.parent.parent / "scored.log").open("a") as log:
            log.write(f"{digest}\n")
        message = f"{path.name}: no picture" if status == "unreadable" else "no face"
        told = {"input": path.name, "status": status, "message": message, "warnings": [digest]}
        return {**EMPTY, **told, **FACTS}, f"<!doctype html><title>{path.name}</title>"


class LatePages(FakeScorer):
    """Makes pages when they are asked for; notes each in ``pages.log``."""

    def answer(self, path: Path, progress: Progress) -> tuple[dict[str, Any], str]:
        return super().answer(path, progress)[0], ""

    def page(self, path: Path) -> str:
        order, _, rest = path.read_bytes().partition(b":")
        with (path.parent.parent / "pages.log").open("a") as log:
            log_is_new = log.tell() == 0
            log.write(f"{os.getpid()}\n")
        if order == b"deadly" or (order == b"mortal" and log_is_new):
            os.kill(os.getpid(), signal.SIGKILL)
        if order == b"late":
            time.sleep(float(rest))
        return f"<!doctype html><title>{path.name}</title>"


class GreedyScorer(FakeScorer):
    """Takes all files that there are before it answers."""

    def __call__(
        self, paths: Iterable[Path], progress: Progress
    ) -> Iterator[tuple[dict[str, Any], str]]:
        time.sleep(0.3)  # until they have come
        yield from super().__call__(list(paths), progress)


def greedy(settings: ServiceSettings) -> GreedyScorer:
    return GreedyScorer()


def late(settings: ServiceSettings) -> LatePages:
    return LatePages()


def quick(settings: ServiceSettings) -> FakeScorer:
    time.sleep(0)
    return FakeScorer()


def broken(settings: ServiceSettings) -> FakeScorer:
    raise BundleError("the bundle is broken", "get another")


def scored(data: Path) -> list[str]:
    """The digests of what was scored, in order."""
    log = data / "scored.log"
    return log.read_text().split() if log.exists() else []
