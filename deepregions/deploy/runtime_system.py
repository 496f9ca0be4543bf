"""A system whose networks another runtime runs, to be used in place of the original."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepregions import assets
from deepregions.deploy.export import export
from deepregions.deploy.graph import CropsGraph, Kind
from deepregions.deploy.onnx_metadata import crop_inputs, digest, read_facts
from deepregions.deploy.runtimes import (
    NAMES,
    Arrays,
    Name,
    Precision,
    Runtime,
    TorchRuntime,
    check_precision,
    installed,
    open_file,
)
from deepregions.devices import import_runtime
from deepregions.errors import DeepregionsError, UsageError
from deepregions.system import System, SystemOutput

_TRIALS = 3
_BATCH = 4  # faces of a trial


class RuntimeSystem(System):
    """A system that makes crops with PyTorch and leaves the rest to a runtime."""

    def __init__(self, system: System, runtime: Runtime) -> None:
        super().__init__(system.members)
        self.fusion = system.fusion
        self.runtime = runtime

    def score(self, crops: Sequence[Tensor], present: Tensor) -> SystemOutput:
        """Scores crops by the runtime."""
        names = (*crop_inputs(self), "present")
        pairs = zip(names, (*crops, present), strict=True)
        answers = self.runtime.run({name: values.cpu().numpy() for name, values in pairs})
        return as_output(answers, present)


def as_output(answers: Arrays, present: Tensor) -> SystemOutput:
    """Returns a runtime's answers as a system's, on the device of ``present``, (B, R) bool.

    As :meth:`~deepregions.deploy.exported.ExportedSystem.run` does it, only finite ones are valid.
    """
    logits, valid, fused = (torch.from_numpy(answers[key]) for key in ("logits", "valid", "fused"))
    broken = ~fused.isfinite()
    valid = valid & logits.isfinite() & ~broken[:, None, None]
    logits = torch.where(valid, logits, 0.0)
    fused = torch.where(valid.flatten(1).any(1), fused, torch.nan)
    device = present.device
    return SystemOutput(logits.to(device), valid.to(device), present, fused.to(device))


def exported(system: System, takes: Kind = "crops", folder: Path | None = None) -> Path:
    """Returns the file of a system on the CPU, exporting it if that was not done before.

    It is kept in a folder, by default in the cache of model files; errors are those of
    :func:`~deepregions.deploy.export.export`.
    """
    folder = folder or assets.cache_dir() / "exported"
    made_of = digest(system)
    path = folder / f"{made_of[:24]}-{takes}.onnx"
    try:
        if read_facts(path)["bundle"] == made_of:
            return path
    except DeepregionsError:
        pass  # not there, or not whole: it is written again
    export(system, path, takes=takes)
    return path


def run_by(
    name: Name, system: System, folder: Path | None = None, *, precision: Precision = "fp32"
) -> Runtime:
    """Opens a runtime for the graph of crops of a system on the CPU.

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
    return open_file(name, path, precision)


def fastest(system: System, folder: Path | None = None) -> tuple[Runtime, dict[Name, float]]:
    """Opens the runtime that is fastest here, by a short trial of all that are installed.

    Returns:
        The runtime, and the faces per second of each that was tried.
    """
    runtimes = [run_by(name, system, folder) for name in installed()]
    inputs = random_crops(system, _BATCH)
    rates: dict[Name, float] = {}
    for runtime in runtimes:
        times = []
        for _ in range(1 + _TRIALS):  # the first does not count
            start = time.perf_counter()
            runtime.run(inputs)
            times.append(time.perf_counter() - start)
        rates[runtime.name] = _BATCH / statistics.median(times[1:])
    return max(runtimes, key=lambda each: rates[each.name]), rates


def random_crops(system: System, batch: int) -> Arrays:
    """Returns inputs of a graph of crops: noise, all of it present."""
    random = np.random.default_rng(0)
    inputs: Arrays = {
        name: random.random((batch, len(regions), 3, cut.size, cut.size), dtype=np.float32)
        for name, (cut, regions) in zip(crop_inputs(system), system.cuts.items(), strict=True)
    }
    return inputs | {"present": np.ones((batch, len(system.regions)), dtype=np.bool_)}
