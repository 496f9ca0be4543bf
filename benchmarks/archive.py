"""What an archive costs beside its scoring, and what it loses when processes are killed: nothing.

``python benchmarks/archive.py overhead`` scores copies of a portrait (each with other bytes) with
the default networks in a bare loop, by ``archive score`` and, where Ray is installed, by ``--ray``.
``copies`` says what it costs to look for copies, and saves.
``kill`` scores while at 30 random moments a random worker, the driver or a Ray node gets SIGKILL
(each driver scores by processes or by a Ray cluster of two nodes, as chance has it), and compares
the results with an undisturbed run's. ``nodes`` scores on one and on two Ray nodes of one core, and
then ends a node in the midst. ``driver`` takes a made manifest of 10 million rows and a stub in
place of networks. ``rows`` makes results of 10 million rows, if they are not there, and times
``status`` and ``report``. ``--count`` sets how many files or rows, ``--side`` how large the
photographs are, ``--region`` that only the default bundle's network of a region scores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from deepregions.archive.columns import as_line, as_results, schema
from deepregions.archive.contents import KnownContents
from deepregions.archive.driver import Driver
from deepregions.archive.manifest import (
    SCHEMA,
    FileManifest,
    Listed,
    as_table,
    list_files,
    write_manifest,
)
from deepregions.archive.parts import ArchiveResults, IdRange
from deepregions.archive.scoring import AnalyserScorer, ScorerFactory
from deepregions.archive.summary import results_of
from deepregions.archive.workers import FileOutcome, ScoredFile, WorkerPool

KILLS = 30
TIMES = ["date", "seconds"]


def make_analyser(runtime: Any, region: str | None = None) -> Any:
    """The default networks, or the one of a region, as ``archive score`` loads them."""
    from deepregions.pipeline.build import build_analyser
    from deepregions.weights.bundle_folder import default_bundle
    from deepregions.weights.selection import Choice, choose_members

    bundle = default_bundle()
    members = choose_members(Choice.named(region=region), [bundle] if bundle else None)
    return build_analyser(members, landmarks="auto", runtime=runtime, pictures=False)


def photographs(folder: Path, count: int, side: int = 300, same: int = 1) -> FileManifest:
    """Lists copies of a portrait, so many the same; what follows a JPEG's end is not looked at."""
    import skimage.data
    from PIL import Image

    stream = io.BytesIO()
    portrait = skimage.data.astronaut()[:300, 80:380]  # type: ignore[no-untyped-call]
    Image.fromarray(portrait).resize((side, side)).save(stream, "JPEG", quality=92)
    (folder / "in").mkdir(parents=True)
    for number in range(count):
        content = stream.getvalue() + f"{number // same}".encode()
        (folder / "in" / f"{number:06d}.jpg").write_bytes(content)
    write_manifest(list_files([folder / "in"], warn=print), folder / "manifest.parquet")
    return FileManifest(folder / "manifest.parquet")


def score(manifest: FileManifest, out: Path, pool: Any, **how: Any) -> float:
    """Scores a manifest; returns the seconds from when the networks were loaded."""
    driver = Driver(manifest, ArchiveResults(out), pool, **how)
    driver.score()
    return float(json.loads(ArchiveResults(out).shard(1, 1).read_text())["seconds"])


def table(out: Path) -> pa.Table:
    return pa.concat_tables(map(pq.read_table, results_of(out))).drop_columns(TIMES)


def overhead(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = photographs(folder, count)
        make = ScorerFactory(make_analyser)
        scorer = AnalyserScorer(make_analyser("torch"))
        files = [Listed.look(n, str(folder / "in" / f"{n:06d}.jpg")) for n in range(count)]
        for _ in scorer(files[:20]):
            pass
        bare = _timed(lambda: [None for _ in scorer(files)])
        print(f"bare loop: {count / bare:.2f} files/s")
        ours = score(manifest, folder / "out", WorkerPool(make, 1))
        print(f"archive score: {count / ours:.2f} files/s, {100 * (ours / bare - 1):+.1f} %")
        with contextlib.suppress(ImportError):
            from deepregions.archive.ray_pool import RayPool

            by_ray = score(manifest, folder / "ray", RayPool(make, workers=1))
            print(f"--ray: {count / by_ray:.2f} files/s, {100 * (by_ray / bare - 1):+.1f} %")


def copies(count: int) -> None:
    """Files of a size that others have, all different or ten of each, compared and not."""
    with tempfile.TemporaryDirectory() as name:
        for same in (1, 10):
            folder = Path(name) / f"{same}"
            manifest = photographs(folder, count, same=same)
            took: dict[bool, list[float]] = {False: [], True: []}
            for number, reuse in enumerate((False, True, True, False)):
                out = folder / f"out{number}"
                pool = WorkerPool(ScorerFactory(make_analyser, contents=out / "contents"), 1)
                took[reuse].append(score(manifest, out, pool, reuse_copies=reuse))
            told = {reuse: [f"{count / each:.2f}" for each in took[reuse]] for reuse in took}
            stored = sum(path.stat().st_size for path in (folder / "out1/contents").iterdir())
            print(f"{same} of each, files/s: compared {told[True]}, not {told[False]}; ", end="")
            print(f"{stored / (count / same):.0f} bytes of results for each content", flush=True)
        known = KnownContents(Path(name) / "10" / "out1" / "contents")
        path = Path(name) / "10" / "in" / "000000.jpg"
        told_once = known.find(known.key(path))
        assert told_once is not None
        key = _timed(lambda: [known.key(path) for _ in range(1000)])
        content = known.key(path)
        find = _timed(lambda: [known.find(content) for _ in range(1000)])
        keep = _timed(lambda: known.keep(content, told_once, "!")) * 1000
        print(f"digest {key:.3f}, look-up {find:.3f}, keeping {keep:.3f} ms")


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def kill(count: int, side: int, region: str | None) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    rng, killed = random.Random(1), Counter[str]()
    cluster = _patiently(partial(Cluster, True, head_node_args={"num_cpus": 0}))
    add_node = partial(_patiently, partial(cluster.add_node, num_cpus=1))
    nodes = [add_node(), add_node()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = photographs(folder, count, side)
        by_ray, process = _driver(folder, region, rng.choice(["", cluster.address]))
        for number in range(KILLS):
            _await(folder / "out", (number + rng.random()) * count / (KILLS + 1), process)
            if process.poll() is not None:
                break
            parents = [_raylet(each) for each in nodes] if by_ray else [process.pid]
            workers = [each for parent in parents for each in _workers(parent)]
            what = rng.choice(["worker", "driver", "node"] if by_ray else ["worker", "driver"])
            what = what if workers else "driver"
            if what == "worker":
                with contextlib.suppress(psutil.Error):
                    rng.choice(workers).kill()
            elif what == "node":
                node = nodes.pop(rng.randrange(2))
                for each in (*_workers(_raylet(node)), psutil.Process(_raylet(node))):
                    each.kill()
                cluster.remove_node(node, allow_graceful=False)
                nodes.append(add_node())
            else:
                process.kill()
                process.wait()
                by_ray, process = _driver(folder, region, rng.choice(["", cluster.address]))
            killed[f"{what} {'by Ray' if by_ray and what != 'driver' else ''}".strip()] += 1
            print(f"{time.strftime('%X')} {number + 1}: {what}", flush=True)
        assert process.wait() == 0
        print(f"{time.strftime('%X')} the rest", flush=True)
        make = ScorerFactory(partial(make_analyser, region=region))
        score(manifest, folder / "whole", WorkerPool(make, 1))
        ours, whole = table(folder / "out"), table(folder / "whole")
        ids = ours["id"].to_pylist()
        print(f"{count} files of {side} px; SIGKILL: {dict(killed)}")
        print(f"each id once: {ids == [*range(count)]}; equal to an undisturbed run: ", end="")
        print(ours.equals(whole), f"({ours['status'].value_counts().to_pylist()})")
    cluster.shutdown()


def _patiently(start: Callable[[], Any]) -> Any:
    """Starts part of a Ray cluster, which takes more than Ray's half a minute on a busy machine."""
    for _ in range(5):
        with contextlib.suppress(Exception):
            return start()
    return start()


def _driver(folder: Path, region: str | None, address: str) -> tuple[bool, subprocess.Popen[bytes]]:
    command = [sys.executable, __file__, "drive", "--folder", str(folder), "--address", address]
    return bool(address), subprocess.Popen([*command, *(["--region", region] if region else [])])


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _workers(parent: int) -> list[psutil.Process]:
    """The processes that score: a driver's, or those of a Ray node."""
    found = []
    for each in psutil.Process(parent).children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if any(name in " ".join(each.cmdline()) for name in ("spawn_main", "_FileActor")):
                found.append(each)
    return found


def _await(out: Path, wanted: float, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        time.sleep(0.1)
        found = 0
        for path in (out / "parts").glob("*.*"):
            with contextlib.suppress(OSError):
                if path.suffix == ".parquet":
                    found += pq.read_metadata(path).num_rows
                elif path.suffix == ".jsonl":
                    found += path.read_bytes().count(b'"status"')
        if found >= wanted:
            return


def drive(folder: Path, region: str | None, address: str) -> None:
    from deepregions.archive.ray_pool import RayPool

    make = ScorerFactory(partial(make_analyser, region=region), workers=2)
    pool = RayPool(make, address) if address else WorkerPool(make, 2)
    score(FileManifest(folder / "manifest.parquet"), folder / "out", pool)


def nodes(count: int) -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    from ray.cluster_utils import Cluster

    from deepregions.archive.ray_pool import RayPool

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = photographs(folder, count)
        make = ScorerFactory(make_analyser)
        quiet = {"include_dashboard": False, "include_log_monitor": False}  # they take of the cores
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
        took = []
        for number in (1, 2):
            last = cluster.add_node(num_cpus=1, **quiet)
            pool = RayPool(make, cluster.address)
            took.append(score(manifest, folder / f"{number}", pool))
        print(f"two nodes of one core: {took[0] / took[1]:.2f} times one ({count} files)")

        def end(done: int, total: int) -> None:
            nonlocal last
            if last is not None and done > total / 3:
                cluster.remove_node(last, allow_graceful=False)
                last = None

        score(manifest, folder / "ended", RayPool(make, cluster.address), show=end)
        same = table(folder / "ended").equals(table(folder / "1"))
        print(f"a node ended in the midst: {last is None}; results equal: {same}")
        cluster.shutdown()  # type: ignore[no-untyped-call]


class _StubPool:
    """Answers at once, in the driver's own process."""

    def __init__(self, line: bytes, seconds: float) -> None:
        self._line, self._until = line, time.monotonic() + seconds
        self._files: list[Listed] = []
        self.first = 0.0

    def start(self) -> Mapping[str, Any]:
        return {"settings": {}, "facts": {}}

    def room(self) -> int:
        return 64 - len(self._files)

    def put(self, file: Listed) -> None:
        self.first = self.first or time.monotonic()
        self._files.append(file)

    def flush(self) -> None:
        """Nothing waits."""

    def wait(self) -> list[FileOutcome]:
        if time.monotonic() > self._until:
            raise KeyboardInterrupt
        files, self._files = self._files, []
        return [
            FileOutcome(each, ScoredFile(each.id, self._line.replace(b"#", b"%d" % each.id)))
            for each in files
        ]

    def close(self) -> None:
        """There are no processes."""


def driver(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        write_manifest(_made(count), folder / "manifest.parquet")
        print(f"manifest of {count:,} rows: {time.monotonic() - start:.0f} s, ", end="")
        print(f"{(folder / 'manifest.parquet').stat().st_size / 1e6:.0f} MB, {_memory()}")
        line = b'{"id": #' + _line(0)[len(b'{"id": 0') :]
        start = time.monotonic()
        pool = _StubPool(line, 60)
        last = 0.0

        def show(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 15:
                last = time.monotonic()
                print(f"{done:,} of {total:,}: {_memory()} so far", flush=True)

        manifest = FileManifest(folder / "manifest.parquet")
        with contextlib.suppress(KeyboardInterrupt):
            Driver(manifest, ArchiveResults(folder / "out"), pool, show=show).score()
        print(f"first file after {pool.first - start:.1f} s; {_memory()}")
        pool = _StubPool(line, 0)
        start = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            Driver(manifest, ArchiveResults(folder / "out"), pool, show=show).score()
        print(f"started again: first file after {pool.first - start:.1f} s; {_memory()}")


def _made(count: int, first: int = 0) -> Iterator[Listed]:
    for n in range(first, count):
        yield Listed(n, f"/archive/{n % 97:02d}/{n // 1000 % 1000:03d}/{n:08d}.jpg", n % 10**7, n)


def _memory() -> str:
    return f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def _line(number: int) -> bytes:
    """The line of a photograph's result."""
    cells = [{"detector": "net", "region": "entire", "score": 0.5, "log_odds": 0.0}] * 5
    face: dict[str, Any] = {
        "frame": 0,
        "time": 0.0,
        "track": 0,
        "box": [1.0, 2.0, 3.0, 4.0],
        "status": "ok",
    }
    face |= {"score": 0.5, "log_odds": 0.0, "cells": cells, "reasons": []}
    face |= {"quality": {"size": 90.0, "sharpness": 0.7, "yaw": 3.0, "pitch": 2.0, "roll": 1.0}}
    track: dict[str, Any] = {
        "track": 0,
        "start": 0.0,
        "end": 0.0,
        "faces": 1,
        "scored": 1,
        "status": "ok",
    }
    told: dict[str, Any] = {
        "answer": {"conclusion": "No conclusion"},
        "kind": "image",
        "status": "ok",
    }
    told |= {"message": "", "score": 0.5, "log_odds": 0.0, "frames": 1, "warnings": []}
    told |= {"media": {"kind": "image", "width": 300, "height": 300, "sha256": "0" * 64}}
    llr: dict[str, Any] = {
        "log10": 0.0,
        "log10_bounds": [-1.4, 1.4],
        "verbal": "weak support for manipulated",
    }
    told |= {"llr": llr, "date": "2026-01-01T00:00:00+00:00"}
    return as_line(number, {**told, "tracks": [{**track, "cells": cells}], "faces": [face]}, 0.05)


def make_rows(out: Path, count: int, size: int = 4096) -> None:
    """Writes results of random scores: every hundredth is a copy, every fiftieth unreadable."""
    rng = np.random.default_rng(0)
    folder = ArchiveResults(out)
    folder.begin({"settings": {"part_size": size}, "facts": {}})
    whole = as_results(_files(0, size), [_line(n) for n in range(size)])
    for first in range(0, count, size):
        rows = min(size, count - first)
        part = whole.slice(0, rows)
        scores = rng.beta(1, 8, rows)
        digests = rng.bytes(32 * rows).hex()
        hashes = [digests[64 * n : 64 * n + 64] if n % 100 else "ab" * 32 for n in range(rows)]
        lost = np.arange(rows) % 50 == 7
        media = part["media"].combine_chunks()
        ratios = part["llr"].combine_chunks()
        changed = {
            **dict(zip(SCHEMA.names, _files(first, rows).columns, strict=True)),
            "status": pa.array(np.where(lost, "unreadable", "ok")),
            "message": pa.array(np.where(lost, "the file is empty", "")),
            "score": pa.array(scores, mask=lost),
            "log_odds": pa.array(np.log(scores / (1 - scores)), mask=lost),
            "media": _with(media, "sha256", pa.array(hashes)),
            "llr": _with(ratios, "log10", pa.array(rng.normal(-0.5, 0.5, rows))),
        }
        changed["input"] = changed.pop("path")
        columns = [changed.get(name, part[name]) for name in schema().names]
        made = pa.table(columns, schema=schema())
        span = IdRange(first, first + rows - 1, "00000000")
        pq.write_table(made, folder.part(span), row_group_size=256, compression="zstd")


def _files(first: int, rows: int) -> pa.Table:
    return as_table(list(islice(_made(first + rows, first), rows)))


def _with(struct: Any, name: str, values: Any) -> Any:
    kinds = {field.name: struct.field(field.name) for field in struct.type} | {name: values}
    return pa.StructArray.from_arrays(list(kinds.values()), fields=list(struct.type))


def rows(folder: Path, count: int) -> None:
    if not (folder / "run.json").exists():
        start = time.monotonic()
        make_rows(folder, count)
        print(f"made in {time.monotonic() - start:.0f} s", flush=True)
    for command in ("status", "report"):
        words = [sys.executable, "-m", "deepregions", "archive", command, str(folder)]
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told = f"at most {most / 1e6:.2f} GB" if most > before else "no more memory"
        print(f"{command}: {time.monotonic() - start:.0f} s, {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", choices=["overhead", "copies", "kill", "nodes", "driver", "rows", "drive"]
    )
    parser.add_argument("--count", type=int)
    parser.add_argument("--folder", type=Path, default=Path("archive-rows"))
    parser.add_argument("--side", type=int, default=300, help="pixels of a photograph, with kill")
    parser.add_argument("--region", help="score by the network of this region only, with kill")
    parser.add_argument("--address", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    many = options.count or 10_000_000
    works: Mapping[str, Any] = {
        "overhead": partial(overhead, options.count or 1000),
        "copies": partial(copies, options.count or 150),
        "kill": partial(kill, options.count or 10_000, options.side, options.region),
        "nodes": partial(nodes, options.count or 1000),
        "driver": partial(driver, many),
        "rows": partial(rows, options.folder, many),
        "drive": partial(drive, options.folder, options.region, options.address),
    }
    works[options.what]()


if __name__ == "__main__":
    main()
