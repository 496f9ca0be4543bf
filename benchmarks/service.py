"""What the service adds to scoring, and what it loses when its workers are killed: nothing.

``python benchmarks/service.py`` starts ``deepregions serve`` with the default networks, scores
copies of a portrait (each with other bytes, so that none is known) under 16 clients, and beside it
a folder of such copies by ``deepregions detect``; then kills a random worker every 2 s over 200
jobs. It prints a table. ``--kill`` and ``--load`` do one of them; ``--photographs N`` sets how
many.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from deepregions.files import sha256
from deepregions.service.settings import Progress, ServiceSettings

PORT = 8765
CLIENTS = 16


def photographs(count: int, seed: str) -> list[bytes]:
    """One portrait in files that all differ: what follows a JPEG's end is not looked at."""
    import skimage.data
    from PIL import Image

    stream = io.BytesIO()
    portrait = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    Image.fromarray(portrait).save(stream, "JPEG", quality=92)
    return [stream.getvalue() + f"{seed}{number}".encode() for number in range(count)]


@contextmanager
def served(data: Path, workers: int) -> Iterator[tuple[httpx.Client, int]]:
    """Runs the service."""
    command = [sys.executable, "-m", "deepregions", "serve", "--port", str(PORT)]
    command += ["--data", str(data), "--workers", str(workers)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=600) as client:
        try:
            while True:
                with suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        break
                time.sleep(0.05)
            print(f"| ready after, s | {time.monotonic() - start:.1f} |")
            yield client, process.pid
        finally:
            process.terminate()
            process.wait()


class DigestScorer:
    """Takes half a second, and answers with the file's digest."""

    facts: Mapping[str, Any] = {"networks": "none"}

    def __init__(self, settings: ServiceSettings) -> None:
        self._log = settings.data / "answers.log"

    def __call__(self, path: Path, progress: Progress) -> tuple[dict[str, Any], str]:
        """Answers, and notes that it did."""
        for done in range(5):
            time.sleep(0.1)
            progress(done + 1, 5)
        with self._log.open("a") as log:
            log.write("answered\n")
        return {"status": "ok", "message": "", "digest": sha256(path)}, ""


def load(count: int, workers: int) -> None:
    """Compares the service with ``detect`` on a folder."""
    import psutil

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        for number, content in enumerate(photographs(count, "d")):
            (folder / "photos" / f"{number}.jpg").write_bytes(content)
        with served(folder / "data", workers) as (client, pid):

            def score(content: bytes) -> float:
                start = time.perf_counter()
                answer = client.post("/v1/detect", files={"file": content})
                answer.raise_for_status()
                return time.perf_counter() - start

            alone = [score(each) for each in photographs(40, "a")][5:]
            start = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(score, photographs(count, "s")))
            rate = count / (time.perf_counter() - start)
            service = psutil.Process(pid)
            processes = [service, *service.children(recursive=True)]
            resident = sum(each.memory_info().rss for each in processes)
            text = client.get("/metrics").text
        stages = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        total = float(stages['deepregions_stage_seconds_sum{stage="score"}'])
        scoring = total / float(stages['deepregions_stage_seconds_count{stage="score"}'])
        start = time.perf_counter()
        command = [sys.executable, "-m", "deepregions", "detect", str(folder / "photos"), "--json"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        beside = count / (time.perf_counter() - start)
    print(
        f"| one photograph, s, p50 / p95 | {median(alone):.3f} / {quantiles(alone, n=20)[-1]:.3f} |"
    )
    print(f"| of which scoring under load, s, mean | {scoring:.3f} |")
    print(f"| photographs/s, {CLIENTS} clients | {rate:.2f} |")
    print(f"| photographs/s, detect on a folder, its start included | {beside:.2f} |")
    print(f"| memory of all processes, MB | {resident / 1e6:.0f} |")


def kill(count: int, workers: int, seconds: float = 2.0) -> None:
    """Kills a random worker every so many seconds; every job must have its one answer.

    The workers are quick to start: networks take longer to load than they would live.
    """
    from fastapi.testclient import TestClient

    from deepregions.service.app import create_app

    chance, kills = random.Random(0), 0
    contents = photographs(count, "k")
    with tempfile.TemporaryDirectory() as name:
        settings = ServiceSettings(Path(name), workers=workers, make_scorer=DigestScorer)
        app = create_app(settings)
        with TestClient(app, base_url="http://127.0.0.1") as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.1)
            jobs = []
            for content in contents:
                jobs += client.post("/v1/jobs", files={"file": content}).json()["jobs"]
            start = time.monotonic()
            while app.state.service.store.left():
                time.sleep(seconds)
                pids = app.state.service.supervisor.pids()
                with suppress(ProcessLookupError, IndexError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    kills += 1
            took = time.monotonic() - start
            told = [client.get(job["links"]["self"]).json() for job in jobs]
        answered = len((settings.data / "answers.log").read_text().split())
    right = [hashlib.sha256(content).hexdigest() for content in contents]
    found = [(job["result"] or {}).get("digest") for job in told]
    same = sum(map(str.__eq__, map(str, found), right))
    given_up = sum(job["state"] == "error" for job in told)
    print(
        f"| {count} jobs, {kills} kills in {took:.0f} s: right / given up | {same} / {given_up} |"
    )
    print(f"| answers that workers made, with those that were lost | {answered} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--load", action="store_true")
    options = parser.parse_args(arguments)
    print("| | |\n|---|---|")
    if options.load or not options.kill:
        load(options.photographs, options.workers)
    if options.kill or not options.load:
        kill(options.photographs, options.workers)


if __name__ == "__main__":
    main()
