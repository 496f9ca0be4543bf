"""A system whose networks another runtime runs, to be used in place of the original."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepregions import assets
from deepregions.deploy.export import export
from deepregions.deploy.graph import CropsGraph, Kind, crop_inputs
from deepregions.deploy.onnx_metadata import digest, read_facts
from deepregions.deploy.runtimes import (
    NAMES,
    Arrays,
    Name,
    Precision,
    Runtime,
    TorchRuntime,
    check_precision,
    import_runtime,
    installed,
    open_file,
)
from deepregions.errors import DeepregionsError, UsageError
from deepregions.system import System, SystemOutput

_TRIALS = 3
_BATCH = 4  # faces of a trial


class RuntimeSystem(System):
    """A system that cuts its crops with PyTorch and leaves the rest to a runtime.

    Args:
        system: What it answers as.
        runtime: Has the system's graph of crops.
    """

    def __init__(self, system: System, runtime: Runtime) -> None:
        super().__init__(system.members)
        self.fusion = system.fusion
        self.runtime = runtime

    def score(self, crops: Sequence[Tensor], present: Tensor) -> SystemOutput:
        """Scores crops by the runtime."""
        pairs = zip(crop_inputs(self), crops, strict=True)
        inputs = {name: pixels.cpu().numpy() for name, pixels in pairs}
        answers = self.runtime.run(inputs | {"present": present.cpu().numpy()})
        return as_output(answers, present)


def as_output(answers: Arrays, present: Tensor) -> SystemOutput:
    """Returns a runtime's answers as a system's, on the device of ``present``, (B, R) bool.

    What is not a finite number is no answer. Nor is what was fused into none, though the networks'
    log-odds are: then none of them is valid.
    """
    logits, valid, fused = (torch.from_numpy(answers[key]) for key in ("logits", "valid", "fused"))
    broken = ~fused.isfinite()
    valid = valid & logits.isfinite() & ~broken[:, None, None]
    logits = torch.where(valid, logits, 0.0)
    fused = torch.where(valid.flatten(1).any(1), fused, torch.nan)
    device = present.device
    return SystemOutput(logits.to(device), valid.to(device), present, fused.to(device))


def exported(system: System, takes: Kind = "crops", folder: Path | None = None) -> Path:
    """Returns a system's file, exporting it if that was not done before.

    Args:
        system: On the CPU.
        takes: What the file takes.
        folder: Where it is kept; by default in the cache folder of model files.

    Raises:
        ExportError: It cannot be exported.
        MissingExtraError: What exports is not installed.
    """
    folder = folder or assets.cache_dir() / "exported"
    made_of = digest(system)
    path = folder / f"{made_of[:24]}-{takes}.onnx"
    try:
        if read_facts(path).bundle == made_of:
            return path
    except DeepregionsError:
        pass  # not there, or not whole: it is written again
    export(system, path, takes=takes)
    return path


def run_by(
    name: Name, system: System, folder: Path | None = None, *, precision: Precision = "fp32"
) -> Runtime:
    """Opens a runtime for a system's graph of crops.

    Args:
        name: Which.
        system: On the CPU.
        folder: Where exported files are kept, see :func:`exported`.
        precision: ``bf16`` is for OpenVINO only.

    Raises:
        UsageError: There is no such runtime, or it does not compute in that precision.
        UnsupportedError: This CPU has no bfloat16.
        MissingExtraError: It is not installed.
    """
    if name not in NAMES:
        raise UsageError(f"there is no runtime {name!r}", f"one of {', '.join(NAMES)}, or auto")
    check_precision(name, precision)
    if name == "torch":
        return TorchRuntime(CropsGraph(system))
    import_runtime(name)  # before what takes minutes
    path = exported(system, "crops", folder)
    return open_file(name, path, bundle=digest(system), precision=precision)


def fastest(
    system: System, names: Sequence[Name] | None = None, folder: Path | None = None
) -> tuple[Runtime, dict[Name, float]]:
    """Opens the runtime that is fastest here, by a short trial of each that is installed.

    Args:
        system: On the CPU.
        names: Which to try.
        folder: Where exported files are kept, see :func:`exported`.

    Returns:
        It, and the faces a second of each that was tried.
    """
    runtimes = [run_by(name, system, folder) for name in names or installed()]
    inputs = random_crops(system, _BATCH)
    rates = {each.name: _BATCH / _seconds(each, inputs) for each in runtimes}
    return max(runtimes, key=lambda each: rates[each.name]), rates


def random_crops(system: System, batch: int) -> Arrays:
    """Returns inputs of a graph of crops: noise, all of it present."""
    random = np.random.default_rng(0)
    inputs: Arrays = {
        name: random.random((batch, len(regions), 3, cut.size, cut.size), dtype=np.float32)
        for name, (cut, regions) in zip(crop_inputs(system), system.cuts.items(), strict=True)
    }
    return inputs | {"present": np.ones((batch, len(system.regions)), dtype=np.bool_)}


def _seconds(runtime: Runtime, inputs: Arrays) -> float:
    """Returns the median time of a run, after one that does not count."""
    times = []
    for _ in range(1 + _TRIALS):
        start = time.perf_counter()
        runtime.run(inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
