"""What the service adds to scoring, and what it loses when its workers are killed: nothing.

``python benchmarks/service.py`` starts ``deepregions serve`` with the default networks, scores
copies of a portrait (each with other bytes, so that none is known), one alone and then under 16
connections of ``wrk`` (Debian's package) for ``--seconds``, and beside it a folder of such copies
by ``deepregions detect``; then kills a random worker every 2 s over 200 jobs, and lists 10,000. It
prints a table. ``--load``, ``--kill`` and ``--listing`` do one of them; ``--photographs N`` sets
how many. ``--hostile N`` uploads the files of ``tests/hostile.py`` N times in all, and
``--endurance N`` N photographs and a hundredth as many videos, for the memory.
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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from deepregions.files import sha256
from deepregions.service.jobs import JobStore, Upload
from deepregions.service.scoring import FileScorer
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
                if process.poll() is not None:
                    sys.exit("the service has ended: deepregions serve says why")
                with suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        break
                time.sleep(0.05)
            print(f"| ready after, s | {time.monotonic() - start:.1f} |")
            yield client, process.pid
        finally:
            process.terminate()
            process.wait()


class DigestScorer(FileScorer):
    """Takes half a second, and answers with the file's digest."""

    facts: Mapping[str, Any] = {"networks": "none"}

    def __init__(self, settings: ServiceSettings) -> None:
        self._log = settings.data / "answers.log"

    def __call__(
        self, paths: Iterable[Path], progress: Progress
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Answers, and notes that it did."""
        for path in paths:
            for done in range(5):
                time.sleep(0.1)
                progress(path, done + 1, 5)
            with self._log.open("a") as log:
                log.write("answered\n")
            yield {"status": "ok", "message": "", "digest": sha256(path)}, ""

    def page(self, path: Path) -> str:
        """Is not asked for."""
        raise NotImplementedError


def load(count: int, workers: int, seconds: int) -> None:
    """Compares the service with ``detect`` on a folder, and with its own workers' time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        for number, content in enumerate(photographs(count, "d")):
            (folder / "photos" / f"{number}.jpg").write_bytes(content)
        with served(folder / "data", workers) as (client, pid):
            alone = [answered(client, content) for content in photographs(60, "a")][10:]
            before = memory(pid)
            hammer(folder, photographs(1, "w")[0], seconds)
            print(f"| memory before and after, MB (PSS) | {before:.0f}, {memory(pid):.0f} |")
            resident = sum(each.memory_info().rss for each in family(pid))
            print(
                f"| the same, shared pages counted in each process (RSS) | {resident / 1e6:.0f} |"
            )
        rates = {
            "writing no pages": detect_rate(folder / "photos", count),
            "writing pages (--out)": detect_rate(
                folder / "photos", count, "--out", str(folder / "o")
            ),
        }
    added = [1000 * (whole - scoring) for whole, scoring in alone]
    for how, rate in rates.items():
        print(f"| photographs/s, detect on a folder, without its start, {how} | {rate:.2f} |")
    print(f"| one photograph alone, ms, p50 | {1000 * median(whole for whole, _ in alone):.0f} |")
    late = quantiles(added, n=20)[-1]
    print(f"| of which added, ms, p50 / p95 | {median(added):.1f} / {late:.1f} |")


def answered(client: httpx.Client, content: bytes) -> tuple[float, float]:
    """Returns the seconds of a request, and those that its worker spent on it."""

    def scoring() -> float:
        text = client.get("/metrics").text
        return float(text.partition('stage_seconds_sum{stage="score"} ')[2].partition("\n")[0] or 0)

    before, start = scoring(), time.perf_counter()
    client.post("/v1/detect", files={"file": content}).raise_for_status()
    return time.perf_counter() - start, scoring() - before


def hammer(folder: Path, content: bytes, seconds: int) -> None:
    """Sends photographs, each with other bytes, by ``wrk``, and prints what it counted."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    (folder / "body").write_bytes(head + content)
    (folder / "post.lua").write_text(
        f"local body, sent = io.open('{folder}/body', 'rb'):read('*a'), 0\n"
        "function request()\n"
        "  sent = sent + 1\n"
        "  local type = {['Content-Type'] = 'multipart/form-data; boundary=b'}\n"
        "  local form = body .. sent .. '\\r\\n--b--\\r\\n'\n"
        "  return wrk.format('POST', '/v1/detect', type, form)\n"
        "end\n"
    )
    command = ["wrk", "--threads=1", f"--connections={CLIENTS}", f"--duration={seconds}"]
    command += ["--timeout=60", "--latency", f"--script={folder}/post.lua"]
    shown = subprocess.run(
        [*command, f"http://127.0.0.1:{PORT}"], capture_output=True, text=True, check=True
    ).stdout
    for line in shown.splitlines():
        if any(each in line for each in ("50%", "99%", "requests in", "Requests/sec", "Non-2xx")):
            print(f"| wrk, {CLIENTS} connections | {line.strip()} |")


def detect_rate(photos: Path, count: int, *options: str) -> float:
    """Returns photographs per second of ``detect``, once a quarter of a folder is done."""
    command = [sys.executable, "-m", "deepregions", "detect", str(photos), "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        times = [time.perf_counter() for _ in process.stdout]
    assert len(times) == count
    return (count - count // 4) / (times[-1] - times[count // 4 - 1])


def family(pid: int) -> list[psutil.Process]:
    """Returns a process and all below it."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def memory(pid: int) -> float:
    """Returns the megabytes of a process and all below it; shared ones count once."""
    return sum(each.memory_full_info().pss for each in family(pid)) / 1e6


def hostile(count: int, workers: int) -> None:
    """Uploads files that were made to harm; none may get a score, or end anything."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from hostile import CASES  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as name:
        files = []
        for number, case in enumerate(CASES):
            path = Path(name) / f"{number}"
            with suppress(OSError, ValueError):  # what no upload can be
                case.make(path.with_suffix(Path(case.name).suffix))
                path = path.with_suffix(Path(case.name).suffix)
                if path.is_file() and case.name.isprintable():
                    files.append((case, path.read_bytes()))
        with served(Path(name) / "data", workers) as (client, pid), ThreadPoolExecutor(4) as pool:

            def send(number: int) -> str:
                case, content = files[number % len(files)]
                answer = client.post(
                    "/v1/detect", files={"file": (case.name, content)}, params={"again": True}
                )
                told = answer.json()
                right = (answer.status_code, told.get("status")) == (200, "no_face")
                if len(content) > ServiceSettings.max_size:
                    right = answer.status_code == told["status"] == 413
                elif case.status != "ok":
                    right = answer.status_code == told["status"] == 422
                scored = "a score" if told.get("score") is not None else "no score"
                return f"{answer.status_code}, {scored}, {'as' if right else 'NOT as'} it should be"

            for what, found in sorted(Counter(pool.map(send, range(count))).items()):
                print(f"| {len(files)} hostile files, {count} uploads: {what} | {found} |")
            deaths = client.get("/metrics").text.partition("\ndeepregions_worker_deaths_total ")[2]
            print(f"| workers that ended | {float(deaths.split()[0]):.0f} |")
            print(f"| memory afterwards, MB (PSS) | {memory(pid):.0f} |")


def endurance(count: int, workers: int) -> None:
    """Prints the memory as photographs and videos are scored."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import numpy as np
    from data_helpers import write_video  # type: ignore[import-not-found]
    from PIL import Image

    contents = photographs(count, "e")
    with (
        tempfile.TemporaryDirectory() as name,
        served(Path(name) / "data", workers) as (client, pid),
    ):
        portrait = np.asarray(Image.open(io.BytesIO(contents[0])))
        frames = [np.roll(portrait, shift, axis=1) for shift in range(60)]
        clip = write_video(Path(name) / "clip.mp4", frames).read_bytes()

        def send(file: tuple[str, bytes]) -> None:
            answer = client.post("/v1/detect", files={"file": file}, params={"again": True})
            assert answer.json()["status"] == "ok"

        for start in range(0, count, max(1, count // 5)):
            part = [("a.jpg", content) for content in contents[start : start + count // 5]]
            part += [("a.mp4", clip)] * (count // 500)
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(send, part))
            time.sleep(2)  # what is freed is returned when nothing is to be done
            done = (
                f"{start + count // 5} photographs, {(start // (count // 5) + 1) * (count // 500)}"
            )
            print(f"| memory after {done} videos, MB (PSS) | {memory(pid):.0f} |", flush=True)


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


def listing(count: int) -> None:
    """Times the questions that are asked most, with so many jobs in the database."""
    result = {"status": "ok", "message": "", "faces": "0" * 7000}  # as long as a photograph's
    with tempfile.TemporaryDirectory() as name:
        store = JobStore(Path(name) / "jobs.sqlite")
        ids: list[str] = []
        for number in range(0, count, 100):
            files = [f"{number + each}" for each in range(100)]
            ids += store.submit([Upload(each, each, 1, "a.jpg") for each in files], "", limit=count)
        for _ in range(count * 9 // 10):
            work = store.claim("worker")
            assert work is not None
            store.finish(work.id, "worker", result)
        asked = {"the state of one": 1, "a list of 100": 100}
        for what, several in asked.items():
            took = []
            for place in range(0, count - several, count // 200):
                start = time.perf_counter()
                found = [job.to_dict() for job in store.jobs(ids[place : place + several])]
                took.append(1000 * (time.perf_counter() - start))
                assert len(found) == several
            late = quantiles(took, n=20)[-1]
            print(f"| {count} jobs: {what}, ms, p50 / p95 | {median(took):.1f} / {late:.1f} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--endurance", type=int, default=0)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--load", action="store_true")
    parser.add_argument("--listing", action="store_true")
    options = parser.parse_args(arguments)
    print("| | |\n|---|---|")
    one = options.load, options.kill, options.listing, options.hostile, options.endurance
    every = not any(one)
    if options.hostile:
        hostile(options.hostile, options.workers)
    if options.endurance:
        endurance(options.endurance, options.workers)
    if options.load or every:
        load(options.photographs, options.workers, options.seconds)
    if options.kill or every:
        kill(options.photographs, options.workers)
    if options.listing or every:
        listing(10_000)


if __name__ == "__main__":
    main()
