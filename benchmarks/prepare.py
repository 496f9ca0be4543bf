"""Preparation, stage by stage and whole: ``python benchmarks/prepare.py --root FaceForensics++``.

The stages are timed in this process, one after the other; the whole is ``prepare`` with its
processes, over the clips several times. Processor time is given too, as it does not depend on what
else the machine does: faces per second of processor time, times the cores, is what a quiet machine
can reach.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import decoding
import numpy as np
import torch
from jsonargparse import auto_cli

from deepregions import assets
from deepregions.data.clips import Clip
from deepregions.data.databases import FaceForensics
from deepregions.data.prepare import prepare
from deepregions.data.store import encode_image
from deepregions.errors import UsageError
from deepregions.faces.appearance import appearance
from deepregions.faces.backends.dlib68 import DlibLandmarks
from deepregions.faces.finders import (
    YUNET,
    FaceDetection,
    FaceFinder,
    HogFinder,
    Image,
    YuNetFinder,
)
from deepregions.faces.patches import crop_face
from deepregions.faces.shots import ShotDetector
from deepregions.pixels.tensors import as_tensor


def main(
    root: Path = Path("../shared/videos/ffpp"), frames: int = 32, workers: int = 2, repeat: int = 8
) -> None:
    """Measures decoding, finding, landmarking, following, encoding, and all of it.

    Args:
        root: FaceForensics++, or a part of it.
        frames: How many of each video.
        workers: Processes of the whole.
        repeat: How many times each clip is prepared in the whole.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = FaceForensics(root).clips()
    if not clips:
        raise UsageError(f"there are no clips in {root}", "--root is FaceForensics++")
    print(f"{len(clips)} clips, {frames} frames each; {os.cpu_count()} cores, {_load()}")
    _measure_stages(clips, frames)
    _measure_whole(root, frames, workers, repeat)
    _measure_command(root, frames, workers)


@dataclass
class _Stage:
    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


class _TimedFinder:
    """A finder of faces that knows how long it took."""

    def __init__(self, finder: FaceFinder, stage: _Stage) -> None:
        self.name = finder.name
        self.version = finder.version
        self.finder = finder
        self.stage = stage

    def __call__(self, image: Image) -> list[FaceDetection]:
        with self.stage.timed():
            return self.finder(image)


def _measure_stages(clips: list[Clip], frames: int) -> None:
    model = assets.find(YUNET)
    stages = {name: _Stage() for name in ("decode", "find", "landmark", "follow", "encode")}
    finder = _TimedFinder(HogFinder() if model is None else YuNetFinder(model), stages["find"])
    detector = DlibLandmarks(finder)
    seen = faces = 0
    for clip in clips:
        with stages["decode"].timed():
            sampled = list(decoding.frames(clip.path, frames))
            batches = [sampled[start : start + 8] for start in range(0, len(sampled), 8)]
        shot_changes = ShotDetector()
        for batch in batches:
            with stages["landmark"].timed():
                found = detector([frame.image for frame in batch])
            with stages["follow"].timed():  # what tells shots and people apart
                for frame, each in zip(batch, found, strict=True):
                    shot_changes(frame.image)
                    for face in each:
                        appearance(frame.image, face)
            with stages["encode"].timed():
                for frame, each in zip(batch, found, strict=True):
                    cuts = [crop_face(frame.image, face) for face in each]
                    faces += sum(len(encode_image(as_tensor(cut[0]))) > 0 for cut in cuts if cut)
            seen += len(batch)
    stages["landmark"].wall -= stages["find"].wall  # which it called
    stages["landmark"].cpu -= stages["find"].cpu
    print(f"one process, faces by {finder.name}: {faces} faces in {seen} frames")
    stages["all stages"] = _Stage(*np.sum([(s.wall, s.cpu) for s in stages.values()], axis=0))
    for name, stage in stages.items():
        per_second = (
            f"{seen / stage.wall:6.0f} frames/s, {seen / stage.cpu:6.0f} per processor second"
        )
        print(f"  {name:10} {per_second} ({1e3 * stage.cpu / seen:.1f} ms)")


class _Repeated(FaceForensics):
    """The clips several times over, under different names."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self._times = times

    def clips(self) -> list[Clip]:
        clips = super().clips()
        numbers = range(self._times)
        return [replace(clip, key=f"{clip.key} {number}") for number in numbers for clip in clips]


def _measure_whole(root: Path, frames: int, workers: int, repeat: int) -> None:
    progress: list[tuple[float, int]] = []

    def note(_done: int, _total: int, faces: int) -> None:
        progress.append((time.perf_counter(), faces))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = prepare(
            _Repeated(root, repeat),
            Path(folder) / "store",
            detector="dlib",
            frames_per_video=frames,
            workers=workers,
            progress=note,
        )
        whole = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The first results of all processes come together: what follows is without their start.
    (begun, first), (ended, last) = progress[workers - 1], progress[-1]
    print(f"prepare with {workers} processes, by {report.landmarks}: {report.faces} faces")
    print(f"  {(last - first) / (ended - begun):.1f} faces/s without the processes' start")
    print(f"  {report.faces / whole:.1f} faces/s with it ({begun - start:.1f} s to first results)")
    print(f"  {report.faces / cpu:.1f} faces per processor second of the processes; {_load()}")


def _measure_command(root: Path, frames: int, workers: int) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "deepregions", "prepare", "--database", "ffpp"]
        command += ["--root", str(root), "--out", str(Path(folder) / "store"), "--allow-partial"]
        command += ["--landmarks", "dlib", "--frames", str(frames), "--workers", str(workers)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faces = int(next(line for line in done.stdout.splitlines() if " faces by " in line).split()[0])
    print(f"deepregions prepare, once over the clips: {faces} faces in {whole:.1f} s")
    print(f"  {faces / whole:.1f} faces/s with all start-up; {cpu:.1f} s of processor time")


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    auto_cli(main)
