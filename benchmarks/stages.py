"""Where the time of scoring a file goes: ``python benchmarks/stages.py --file F --bundle B``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar
from unittest import mock

from rich import box
from rich.table import Table
from torch import nn

from deepregions.commands import checks
from deepregions.commands.cli import run_program
from deepregions.deploy.runtime_system import RuntimeSystem
from deepregions.deploy.runtimes import Name, installed
from deepregions.errors import UnreadableError, UsageError
from deepregions.faces.backends.dlib68 import DlibLandmarks
from deepregions.faces.finders import FaceDetection, FaceFinder, Image
from deepregions.faces.landmarks import Face, Frames, LandmarkDetector, Place
from deepregions.media import MediaReader, Sampling
from deepregions.media.sandbox import Child
from deepregions.pipeline.analyser import Analyser
from deepregions.pipeline.build import build_analyser
from deepregions.pipeline.face_scorer import system_of
from deepregions.pipeline.results import FacePatch
from deepregions.types import Status
from deepregions.weights.bundle import Bundle
from deepregions.weights.selection import Choice, choose_members

STAGES = ("decode", "find", "landmark", "crop", "detect", "fuse", "other")
"""In the order in which a frame goes through them; other is gates, tracks and bookkeeping."""

_WAITING = "waiting"  # for frames: not a stage, as decoding goes on beside the others

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


@dataclass
class Stopwatch:
    """Seconds by stage; where one runs within another, its seconds are not the other's.

    Attributes:
        seconds: So far.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what is done within it."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """Counts what follows, until :meth:`end`."""
        self._count()
        self._running.append(name)

    def end(self) -> None:
        """Goes back to the stage that was running when this one began."""
        self._count()
        self._running.pop()

    def timed(self, name: str, function: Callable[Given, Answer]) -> Callable[Given, Answer]:
        """Returns a function that counts as this stage."""

        def call(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
            with self.stage(name):
                return function(*args, **kwargs)

        return call

    def watch(self, name: str, module: nn.Module) -> None:
        """Counts a module's calls as this stage from here on."""
        module.register_forward_pre_hook(lambda *_: self.begin(name))
        module.register_forward_hook(lambda *_: self.end(), always_call=True)

    def _count(self) -> None:
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


@dataclass(frozen=True)
class FileTimes:
    """What scoring one file took.

    Attributes:
        runtime: What ran the networks.
        frames: How many were looked at.
        faces: How many were found on them.
        scored: How many of these were given to the networks and got a score.
        seconds: By stage, see :data:`STAGES`. Decoding was timed by itself, before: while the
            others work, it goes on in a process of its own. Without ``fuse`` where the runtime
            fuses in the same graph.
        total: Seconds from opening the file to its result.
        waited: Seconds of these in which nothing was done but wait for frames.
    """

    runtime: str
    frames: int
    faces: int
    scored: int
    seconds: Mapping[str, float]
    total: float
    waited: float

    @property
    def bound(self) -> str:
        """The stage that takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    def share(self, stage: str) -> float:
        """Returns a stage's share of the work of all."""
        return self.seconds[stage] / sum(self.seconds.values())

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return asdict(self) | {"seconds": dict(self.seconds), "bound": self.bound}


def time_file(analyser: Analyser, path: Path) -> FileTimes:
    """Scores a file with an analyser, and times its parts.

    Args:
        analyser: Made for this: it stays instrumented. On the CPU, where nothing is still running
            when a call has returned.
        path: A video, or a photograph.

    Raises:
        UnreadableError: The file cannot be read.
        UnsupportedError: It is of a kind that is not read here.
    """
    clock = Stopwatch()
    decoding = _decoding(path, analyser.sampling)
    _instrument(analyser, clock)
    cut = mock.patch.object(FacePatch, "cut", clock.timed("crop", FacePatch.cut))
    # The networks work when they are told to, not beside the search for faces.
    at_once = mock.patch("deepregions.pipeline.analyser.ThreadPoolExecutor", _AtOnce)
    waiting = mock.patch.object(Child, "receive", clock.timed(_WAITING, Child.receive))
    with cut, at_once, waiting, MediaReader() as reader:
        start = time.perf_counter()
        with clock.stage("other"):
            (result,) = analyser.analyse([path], reader)
        total = time.perf_counter() - start
    if result.status in (Status.UNREADABLE, Status.UNSUPPORTED):
        raise UnreadableError(result.reason)
    waited = clock.seconds.pop(_WAITING, 0.0)
    fused = isinstance(system_of(analyser.scorer), RuntimeSystem)
    stages = [name for name in STAGES if name != "fuse" or not fused]
    return FileTimes(
        runtime=_runtime(analyser),
        frames=result.frames,
        faces=len(result.faces),
        scored=sum(face.log_odds is not None for face in result.faces),
        seconds={name: clock.seconds.get(name, 0.0) for name in stages} | {"decode": decoding},
        total=total,
        waited=waited,
    )


def _decoding(path: Path, sampling: Sampling) -> float:
    """Returns the seconds that reading the chosen frames takes, and nothing else.

    The file is read twice by the same process: its start is not decoding.
    """
    seconds = 0.0
    with MediaReader(ahead=0) as reader:
        for chosen in (Sampling(count=1), sampling):
            start = time.perf_counter()
            for media in reader.open_all([path], chosen):
                for _ in media.batches():
                    pass
            seconds = time.perf_counter() - start
    return seconds


def _runtime(analyser: Analyser) -> str:
    system = system_of(analyser.scorer)
    return system.runtime.name if isinstance(system, RuntimeSystem) else "torch"


def _instrument(analyser: Analyser, clock: Stopwatch) -> None:
    if analyser.find is not None:
        if isinstance(analyser.find, DlibLandmarks):
            analyser.find.finder = _TimedFinder(analyser.find.finder, clock)
        analyser.find = _TimedLandmarks(analyser.find, clock)
    system = system_of(analyser.scorer)
    for cropper in system.croppers:
        clock.watch("crop", cropper)
    if isinstance(system, RuntimeSystem):
        runtime = system.runtime
        runtime.run = clock.timed("detect", runtime.run)  # type: ignore[method-assign]
        return
    for detector in system.detectors:
        clock.watch("detect", detector)
    clock.watch("fuse", system.fusion)


class _AtOnce(Executor):
    """Does what it is given before it returns."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def submit(
        self, fn: Callable[Given, Answer], /, *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _TimedFinder:
    def __init__(self, finder: FaceFinder, clock: Stopwatch) -> None:
        self.name, self.version = finder.name, finder.version
        self._find = clock.timed("find", finder.__call__)

    def __call__(self, image: Image) -> list[FaceDetection]:
        return self._find(image)


class _TimedLandmarks:
    def __init__(self, detector: LandmarkDetector, clock: Stopwatch) -> None:
        self.name, self.version = detector.name, detector.version
        self._detect = clock.timed("landmark", detector.__call__)

    def __call__(self, frames: Frames, places: Sequence[Place] = ()) -> list[list[Face]]:
        return self._detect(frames, places)


def sampling(frames: int, rate: float | None) -> Sampling:
    """Returns which frames are looked at, as `detect` has it.

    Raises:
        UsageError: None, or none a second.
    """
    checks.positive(frames=frames)
    return Sampling(count=frames) if rate is None else Sampling("rate", rate=rate)


def timed(
    path: Path, bundle: Bundle, runtime: Name | Literal["all"], sampling: Sampling, batch_size: int
) -> list[FileTimes]:
    """Times a file by one runtime, or by each that is installed.

    Raises:
        UsageError: The file is not there, or a folder.
        UnreadableError: It cannot be read.
        MissingExtraError: The runtime is not installed.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {what}", "--file names one")
    made = []
    for name in installed() if runtime == "all" else (runtime,):
        analyser = build_analyser(
            bundle,
            landmarks="auto",
            device="cpu",
            sampling=sampling,
            batch_size=batch_size,
            pictures=False,
            runtime=name,
        )
        made.append(time_file(analyser, path))
    return made


def show(measured: list[FileTimes], *, json: bool) -> None:
    """Prints tables, or JSON; a warning goes to standard error."""
    if json:
        checks.print_json([each.to_json() for each in measured])
    else:
        for each in measured:
            checks.output().print(_table(each))
            sys.stdout.write("".join(f"{line}\n" for line in _said(each)))
    if not measured[0].faces:
        sys.stderr.write("deepregions: no face was found: there was nothing to crop or detect\n")


def _table(times: FileTimes) -> Table:
    counts = f"{times.frames} frames, {times.faces} faces, {times.scored} scored"
    table = Table(title=f"{times.runtime}: {counts}", box=box.SIMPLE)
    table.add_column("stage")
    for name in ("seconds", "ms a frame", "share"):
        table.add_column(name, justify="right")
    for stage, seconds in times.seconds.items():
        a_frame = f"{1e3 * seconds / times.frames:.1f}" if times.frames else ""
        table.add_row(stage, f"{seconds:.3f}", a_frame, f"{times.share(stage):.0%}")
    return table


def _said(times: FileTimes) -> Iterator[str]:
    yield f"{times.bound} takes longest: {times.share(times.bound):.0%} of all work"
    yield (
        f"from the file to its result: {times.total:.2f} s, {times.waited:.2f} s of it waiting "
        "for frames, which are decoded meanwhile"
    )
    if "fuse" not in times.seconds:
        yield f"{times.runtime} fuses in the same graph: that is in detect"


def main(
    *,
    file: Path,
    bundle: list[Path],
    runtime: Literal["torch", "onnxruntime", "openvino", "all"] = "all",
    batch_size: int = 16,
    frames: int = 32,
    rate: float | None = None,
    json: bool = False,
) -> int:
    """Measures what each stage of `deepregions detect` takes for one file, on the CPU.

    Args:
        file: A video, or a photograph.
        bundle: Bundle folders, or hf://OWNER/NAME.
        runtime: Measure only this one.
        batch_size: How many faces at once.
        frames: How many frames to look at, evenly in time.
        rate: Look at this many frames per second instead.
        json: Print JSON instead of tables.
    """
    checks.positive(batch_size=batch_size)
    chosen = choose_members(Choice(), bundle)
    show(timed(file, chosen, runtime, sampling(frames, rate), batch_size), json=json)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main, sys.argv[1:]))
