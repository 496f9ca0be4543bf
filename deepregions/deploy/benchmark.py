"""How fast a system runs here, by each runtime, against the way of the original.

The original scores one image after another in float32, one region and one network after another,
Capsule's ten capsules in a loop; that is measured in the same run, with our networks in PyTorch.
Each measurement is made in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from deepregions.deploy.export import OPSET
from deepregions.deploy.graph import CropsGraph
from deepregions.deploy.original import as_original
from deepregions.deploy.runtimes import (
    Name,
    Precision,
    Runtime,
    TorchRuntime,
    has_bf16,
    installed,
    open_file,
)
from deepregions.deploy.system import exported, random_crops
from deepregions.errors import ExportError, require
from deepregions.system import Member, System
from deepregions.weights.bundle import load_bundle

ORIGINAL = "original way"
EVERYTHING = "all networks"

_MATRIX = 4096  # columns; smaller ones do not keep all units busy


@dataclass(frozen=True)
class Job:
    """What is measured in one process.

    Attributes:
        what: The networks' name in the table.
        names: Of the networks.
        bundles: Where they are.
        runtime: What runs them.
        precision: What it computes in.
        batch: Faces at once.
        file: The exported file, for runtimes that take one.
        original: Whether they run one after another, as the original's.
        seconds: How long to measure.
        threads: Of the CPU.
    """

    what: str
    names: tuple[str, ...]
    bundles: tuple[str, ...]
    runtime: Name
    precision: Precision
    batch: int
    file: Path | None
    original: bool
    seconds: float
    threads: int


@dataclass(frozen=True)
class Measurement:
    """What a job took.

    Attributes:
        what: As the job's.
        way: The runtime and its precision, or ``ORIGINAL``.
        batch: Faces at once.
        rate: Faces a second: of the median run.
        p50: Milliseconds of the median run.
        p95: Milliseconds that 95 % of the runs stay below.
        memory: The process's peak resident size in MB; None where the system does not tell.
        ratio: ``rate`` by that of the original way.
        share: Of the matrix-multiply rate that was measured here, in the same precision.
    """

    what: str
    way: str
    batch: int
    rate: float
    p50: float
    p95: float
    memory: float | None
    ratio: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """All that was measured.

    Attributes:
        measurements: In the order of the table.
        matrix: GFLOP/s of a matrix product here, by precision.
        work: GFLOP of a face, by networks.
        threads: Of the CPU.
    """

    measurements: tuple[Measurement, ...]
    matrix: dict[str, float]
    work: dict[str, float]
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)


def benchmark(
    bundles: Sequence[Path],
    members: Sequence[Member],
    *,
    runtimes: Sequence[Name] | None = None,
    batch_size: int = 16,
    seconds: float = 3.0,
) -> Benchmark:
    """Measures networks, one of each detector and all together, on the CPU.

    Args:
        bundles: Where the networks are.
        members: The networks.
        runtimes: Which to measure; all that are installed, if left out.
        batch_size: How many faces at once, beside one.
        seconds: How long to measure each; the medians count.

    Raises:
        UsageError: No networks.
        ExportError: A measurement's process ended, as it does when memory is out.
    """
    threads = torch.get_num_threads()
    matrix = {"fp32": _matrix_rate(torch.float32, seconds)}
    ways: list[tuple[Name, Precision]] = [(name, "fp32") for name in runtimes or installed()]
    if ("openvino", "fp32") in ways and has_bf16():
        matrix["bf16"] = _matrix_rate(torch.bfloat16, seconds)
        ways.append(("openvino", "bf16"))
    work, measured = {}, []
    for what, chosen in _groups(members):
        system = System(chosen)
        work[what] = sum(_gflop(member) for member in chosen)
        names = tuple(member.name for member in chosen)
        common = (what, names, tuple(map(str, bundles)))
        base = _run(Job(*common, "torch", "fp32", 1, None, True, seconds, threads))
        measured.append(_related(base, base, work[what], matrix["fp32"]))
        for name, precision in ways:
            file = None if name == "torch" else exported(system)
            for batch in dict.fromkeys((1, batch_size)):
                job = Job(*common, name, precision, batch, file, False, seconds, threads)
                measured.append(_related(_run(job), base, work[what], matrix[precision]))
    return Benchmark(tuple(measured), matrix, work, threads)


def _groups(members: Sequence[Member]) -> Iterator[tuple[str, list[Member]]]:
    """Yields one network of each detector, and all, with what the table calls them."""
    first: dict[str, Member] = {}
    for member in members:
        first.setdefault(member.detector.name, member)
    for name, member in first.items():
        yield name, [member]
    if len(members) > 1:
        yield EVERYTHING, list(members)


def _run(job: Job) -> Measurement:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, job).result()
        except BrokenProcessPool as error:
            raise ExportError(
                f"measuring {job.what} by {job.runtime} at batch {job.batch} ended the process",
                "it may have run out of memory: a smaller --batch-size",
            ) from error


def measure(job: Job) -> Measurement:
    """Runs a job in this process.

    Raises:
        DeepregionsError: The networks or their file cannot be loaded.
    """
    torch.set_num_threads(job.threads)
    times = _times(_work(job), job.seconds)
    middle = statistics.median(times)
    high = sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]
    way = ORIGINAL if job.original else f"{job.runtime} {job.precision}"
    return Measurement(
        job.what, way, job.batch, job.batch / middle, 1e3 * middle, 1e3 * high, _peak_memory()
    )


def _work(job: Job) -> Callable[[], object]:
    """Returns what a job repeats; nothing else stays in memory."""
    members = [
        member
        for bundle in job.bundles
        for member in load_bundle(bundle)
        if member.name in job.names
    ]
    inputs = random_crops(System(members), job.batch)
    if job.original:
        for member in members:
            as_original(member.detector)
        alone = [System([member]) for member in members]
        parts = [(TorchRuntime(CropsGraph(one)), random_crops(one, job.batch)) for one in alone]
        return lambda: [part.run(given) for part, given in parts]
    if job.file is None:
        runtime: Runtime = TorchRuntime(CropsGraph(System(members)))
    else:
        del members
        runtime = open_file(job.runtime, job.file, precision=job.precision)
    return lambda: runtime.run(inputs)


def _times(work: Callable[[], object], seconds: float) -> list[float]:
    """Returns the seconds of each run, after one that does not count; three at least."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def _matrix_rate(kind: torch.dtype, seconds: float) -> float:
    """Returns GFLOP/s of a product of square matrices: the best of those who offer one.

    On some CPUs PyTorch's float32 product takes twice as long as onnxruntime's, and would make a
    network seem to compute more than the machine can.
    """
    a = torch.rand(_MATRIX, _MATRIX).to(kind)
    ways: list[Callable[[], object]] = [lambda: a @ a]
    if kind == torch.float32 and "onnxruntime" in installed():
        ways.append(_onnx_product(a))
    return max(2e-9 * _MATRIX**3 / statistics.median(_times(way, seconds)) for way in ways)


def _onnx_product(a: torch.Tensor) -> Callable[[], object]:
    """Returns what multiplies a matrix by itself with onnxruntime."""
    sides = [None, None]
    a_in, a_out = (onnx.helper.make_tensor_value_info(x, 1, sides) for x in ("a", "square"))
    node = onnx.helper.make_node("MatMul", ["a", "a"], ["square"])
    graph = onnx.helper.make_graph([node], "product", [a_in], [a_out])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10
    )
    library = require("onnxruntime", "onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = library.InferenceSession(model.SerializeToString(), options)
    given = {"a": a.numpy()}
    return lambda: session.run(None, given)


def _gflop(member: Member) -> float:
    """Returns the work of one crop; a multiplication and an addition are two."""
    size = member.detector.size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        member.detector(torch.zeros(1, 3, size, size))
    return float(1e-9 * counter.get_total_flops())


def _related(made: Measurement, base: Measurement, work: float, matrix: float) -> Measurement:
    return replace(made, ratio=made.rate / base.rate, share=made.rate * work / matrix)


def _peak_memory() -> float | None:
    """Returns this process's peak resident size in MB, where the system is Linux.

    Not ``ru_maxrss``, which begins with that of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e6
