"""``deepregions benchmark --video``: what each stage of scoring a file takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.table import Table

from deepregions.commands import checks

if TYPE_CHECKING:
    from deepregions.deploy.runtimes import Name
    from deepregions.media import Sampling
    from deepregions.pipeline.stages import FileTimes
    from deepregions.weights.bundle import Bundle


def sampling(frames: int, rate: float | None) -> Sampling:
    """Returns which frames are looked at, as `detect` has it.

    Raises:
        UsageError: None, or none a second.
    """
    from deepregions.media import Sampling

    checks.positive(frames=frames)
    return Sampling(count=frames) if rate is None else Sampling("rate", rate=rate)


def timed(
    path: Path,
    bundle: Bundle,
    runtime: Name | Literal["all"],
    sampling: Sampling,
    batch_size: int,
) -> list[FileTimes]:
    """Times a file by one runtime, or by each that is installed.

    Raises:
        UsageError: The file is not there, or a folder.
        UnreadableError: It cannot be read.
        MissingExtraError: The runtime is not installed.
    """
    from deepregions.deploy.runtime_system import RuntimeSystem, run_by
    from deepregions.deploy.runtimes import installed
    from deepregions.errors import UsageError
    from deepregions.pipeline.build import build_analyser
    from deepregions.pipeline.stages import time_file

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {what}", "--video names one file")
    made = []
    for name in installed() if runtime == "all" else (runtime,):
        analyser, _ = build_analyser(
            bundle,
            landmarks="auto",
            device="cpu",
            sampling=sampling,
            batch_size=batch_size,
            pictures=False,
        )
        if name != "torch":
            system = analyser.scorer.system
            analyser.scorer.system = RuntimeSystem(system, run_by(name, system))
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
