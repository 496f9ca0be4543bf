"""A driver over a Ray cluster of two cores and two GPUs, which are none: what they do is killed."""

import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from deepregions.archive.driver import Driver
from deepregions.archive.manifest import FileManifest
from deepregions.archive.parts import ArchiveResults
from deepregions.archive.ray_networks import RayNetworks
from deepregions.archive.ray_pool import RayPool
from deepregions.archive.scoring import ScorerFactory
from deepregions.pipeline.build import build_analyser
from deepregions.weights.bundle import load_bundle


def analyser(runtime: Any, bundle: Path, *, cpu: bool = False) -> Any:
    made = build_analyser(
        load_bundle(bundle), landmarks="dlib-hog", device="cpu", pictures=False, runtime=runtime
    )
    score: Any = made.scorer.score

    def deadly(faces: Any, **how: Any) -> Any:
        if any(face.image[..., 0].min() == 255 for face in faces):
            os.kill(os.getpid(), signal.SIGKILL)
        return score(faces, **how)

    # Where faces are found, others score; and these do not survive a face that is all red.
    made.scorer = None if cpu else SimpleNamespace(score=deadly)  # type: ignore[assignment]
    return made


def kill(out: Path, moments: list[tuple[int, str]]) -> None:
    """Kills a process of a name whenever so many files have a result."""
    for wanted, name in moments:
        while True:
            time.sleep(0.05)
            journals = (out / "parts").glob("*.jsonl")
            with suppress(OSError):
                if sum(path.read_bytes().count(b'"status"') for path in journals) >= wanted:
                    break
        found: list[psutil.Process] = []
        while not found:
            time.sleep(0.05)
            found = [each for each in psutil.process_iter() if _is(each, name)]
        random.choice(found).kill()
        sys.stdout.write(f"{name}\n")


def _is(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        ours = any(parent.name() == "raylet" for parent in process.parents())
        return ours and f"ray::{name}" in " ".join(process.cmdline())
    return False


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    moments = [(int(n), name) for n, name in (each.split(":") for each in sys.argv[2:])]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2})
    make = ScorerFactory(partial(analyser, bundle=folder / "bundle"), workers=2)
    pool = RayPool(make, cluster.address, networks=RayNetworks(make))
    threading.Thread(target=kill, args=(folder / "out", moments), daemon=True).start()
    Driver(FileManifest(folder / "m.parquet"), ArchiveResults(folder / "out"), pool).score()
    cluster.shutdown()  # type: ignore[no-untyped-call]
