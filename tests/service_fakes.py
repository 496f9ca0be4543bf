"""What workers score with in tests: quick, and as odd as the file's content says."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepregions.errors import BundleError
from deepregions.service.settings import ServiceSettings

FACTS = {"models": [], "fusion": "mean", "runtime": "torch", "deepregions": "0"}


class FakeScorer:
    """Answers with the file's digest; does what the file says first."""

    facts = FACTS

    def __call__(
        self, path: Path, progress: Callable[[int, int | None], None]
    ) -> tuple[dict[str, Any], str]:
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
                progress(done + 1, 4)
        status = "unreadable" if order == b"broken" else "ok"
        with (path.parent.parent / "scored.log").open("a") as log:
            log.write(f"{hashlib.sha256(content).hexdigest()}\n")
        result = {"input": path.name, "status": status, "message": "", "score": None}
        if status != "ok":
            result["message"] = f"{path.name}: no picture"
        result["digest"] = hashlib.sha256(content).hexdigest()
        return result, f"<!doctype html><title>{path.name}</title>"


def quick(settings: ServiceSettings) -> FakeScorer:
    time.sleep(0)
    return FakeScorer()


def broken(settings: ServiceSettings) -> FakeScorer:
    raise BundleError("the bundle is broken", "get another")


def scored(data: Path) -> list[str]:
    """The digests of what was scored, in order."""
    log = data / "scored.log"
    return log.read_text().split() if log.exists() else []


def result_of(line: str) -> Any:
    return json.loads(line)
