"""How fast networks run here, by each runtime: ``python benchmarks/runtimes.py --bundle B``.

The original scores one image after another in float32, one region and one network after another,
Capsule's ten capsules in a loop; that is measured in the same run, with our networks in PyTorch.
Each measurement is made in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from matrix import matrix_rate, run_times
from original import as_original
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepregions.commands import checks
from deepregions.commands.cli import run_program
from deepregions.deploy.graph import CropsGraph, HalfNetwork
from deepregions.deploy.onnx_metadata import crop_inputs, digest, read_facts
from deepregions.deploy.runtime_system import exported, random_crops
from deepregions.deploy.runtimes import Name, Precision, has_bf16, installed, open_file
from deepregions.devices import choose_device
from deepregions.errors import BundleError, ExportError, UsageError
from deepregions.system import System, TrainedNetwork
from deepregions.weights.bundle import load_bundle
from deepregions.weights.selection import Choice, choose_members

ORIGINAL = "original way"
EVERYTHING = "all networks"

_CPU = torch.device("cpu")
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What is measured in one process.

    Attributes:
        what: The networks' name in the table.
        names: The networks' names.
        bundles: Where they are.
        runtime: What runs them.
        precision: What it computes in.
        batch: Faces at once.
        file: The exported file, for runtimes that take one.
        stored: What that file's networks compute in, where it is not float32.
        original: Whether they run one after another, as the original's.
        seconds: How long to measure.
        threads: CPU threads.
        device: Where PyTorch computes; the other runtimes do on the CPU.
    """

    what: str
    names: tuple[str, ...]
    bundles: tuple[str, ...]
    runtime: Name = "torch"
    precision: Precision = "fp32"
    batch: int = 1
    file: Path | None = None
    stored: str | None = None
    original: bool = False
    seconds: float = 3.0
    threads: int = 1
    device: str = "cpu"


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
        memory: The process's peak resident size in MB, on a GPU what it took there; None where
            the system does not tell.
        ratio: ``rate`` by that of the original way.
        share: Share of the matrix-multiply rate measured here in the same precision; None for
            files in others.
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
        threads: CPU threads.
        device: Where it was measured.
    """

    measurements: tuple[Measurement, ...]
    matrix: dict[str, float]
    work: dict[str, float]
    threads: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class File:
    """An exported file to measure beside what is exported here.

    Attributes:
        path: Where it is.
        precision: What its networks compute in, as :func:`deepregions.deploy.export.export` has it.
    """

    path: Path
    precision: str


def checked_file(path: Path, system: System) -> File:
    """Returns a file that is of this system.

    Raises:
        UnreadableError: It is not one of ours.
        BundleError: It is of another system.
        UsageError: It takes photographs.
    """
    facts = read_facts(path)
    if facts["bundle"] != digest(system):
        raise BundleError(f"{path} was exported from other bundles", "give those that it is of")
    if facts["takes"] != "crops":
        raise UsageError(f"{path} takes photographs", "export it with --crops-in")
    return File(path, str(facts.get("precision", "as stored")))


def measure_all(
    bundles: Sequence[Path],
    members: Sequence[TrainedNetwork],
    *,
    runtimes: Sequence[Name] | None = None,
    batch_size: int = 16,
    seconds: float = 3.0,
    device: torch.device = _CPU,
    file: File | None = None,
    tell: Callable[[Measurement], None] = lambda _: None,
) -> Benchmark:
    """Measures networks, one of each detector and all together.

    Args:
        bundles: Where the networks are.
        members: The networks.
        runtimes: Which to measure; all that are installed, if left out.
        batch_size: How many faces at once, beside one.
        seconds: How long to measure each; the medians count.
        device: On a GPU PyTorch is measured, in float32 and bfloat16; crops are there already.
        file: A file of all networks in another precision, to be measured too.
        tell: Called with each measurement as it is made.

    Raises:
        UsageError: No networks, a runtime that does not run on the device, or none for the file.
        ExportError: A measurement's process ended, as it does when memory is out.
    """
    threads = torch.get_num_threads()
    ways = _ways(runtimes, device)
    if file is not None and all(name == "torch" for name, _ in ways):
        raise UsageError("torch runs no exported files", "--runtime onnxruntime or openvino")
    used = dict.fromkeys(("fp32", *(str(precision) for _, precision in ways)))
    matrix = {each: matrix_rate(_TYPES[each], seconds, device) for each in used}
    work, measured = {}, []
    for what, chosen in _groups(members):
        system = System(chosen)
        work[what] = sum(_gflop(member) for member in chosen)
        names = tuple(member.name for member in chosen)
        at_once = Job(
            what,
            names,
            tuple(map(str, bundles)),
            seconds=seconds,
            threads=threads,
            device=str(device),
        )
        base = _run(replace(at_once, original=True))
        measured.append(_related(base, base, work[what], matrix["fp32"]))
        tell(measured[-1])
        for name, precision in ways:
            made_file = None if name == "torch" else exported(system)
            for batch in dict.fromkeys((1, batch_size)):
                job = replace(
                    at_once, runtime=name, precision=precision, batch=batch, file=made_file
                )
                measured.append(_related(_run(job), base, work[what], matrix[precision]))
                tell(measured[-1])
        if file is not None and len(chosen) == len(members):
            for job in _file_jobs(at_once, file, ways, batch_size):
                made = _run(job)
                measured.append(replace(made, ratio=made.rate / base.rate))
                tell(measured[-1])
    return Benchmark(tuple(measured), matrix, work, threads, str(device))


def _ways(runtimes: Sequence[Name] | None, device: torch.device) -> list[tuple[Name, Precision]]:
    """Returns what is measured on a device."""
    if device.type != "cpu":
        if any(name != "torch" for name in runtimes or ()):
            raise UsageError(f"only torch is measured on {device}", "--device cpu, for the others")
        return [("torch", "fp32"), ("torch", "bf16")]
    ways: list[tuple[Name, Precision]] = [(name, "fp32") for name in runtimes or installed()]
    if ("openvino", "fp32") in ways and has_bf16():
        ways.append(("openvino", "bf16"))
    return ways


def _groups(members: Sequence[TrainedNetwork]) -> Iterator[tuple[str, list[TrainedNetwork]]]:
    """Yields one network of each detector, and all, with what the table calls them."""
    first: dict[str, TrainedNetwork] = {}
    for member in members:
        first.setdefault(member.detector.name, member)
    for name, member in first.items():
        yield name, [member]
    if len(members) > 1:
        yield EVERYTHING, list(members)


def _file_jobs(
    at_once: Job, file: File, ways: Sequence[tuple[Name, Precision]], batch_size: int
) -> Iterator[Job]:
    """Yields what is measured of a file; OpenVINO may compute what is float32 in it in bfloat16."""
    for name, precision in ways:
        for batch in dict.fromkeys((1, batch_size)):
            if name != "torch":
                yield replace(
                    at_once,
                    runtime=name,
                    precision=precision,
                    batch=batch,
                    file=file.path,
                    stored=file.precision,
                )


def _run(job: Job) -> Measurement:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with _main_left_out():
            made = pool.submit(measure, job)  # starts the process
        try:
            return made.result()
        except BrokenProcessPool as error:
            raise ExportError(
                f"measuring {job.what} by {job.runtime} at batch {job.batch} ended the process",
                "it may have run out of memory: a smaller --batch-size",
            ) from error


@contextmanager
def _main_left_out() -> Iterator[None]:
    """Lets a spawned process not import the main program's file before its task.

    Where it does, OpenVINO (2026.4.1) computes there in one thread, at half its speed.
    """
    main = sys.modules["__main__"]
    hidden: tuple[str, ...] = ("__spec__", "__file__")
    kept = {name: vars(main)[name] for name in hidden if name in vars(main)}
    vars(main).update(dict.fromkeys(kept))
    try:
        yield
    finally:
        vars(main).update(kept)


def measure(job: Job) -> Measurement:
    """Runs a job in this process.

    Raises:
        DeepregionsError: The networks or their file cannot be loaded.
    """
    torch.set_num_threads(job.threads)
    times = run_times(_work(job), job.seconds)
    middle = statistics.median(times)
    high = sorted(times)[min(len(times) - 1, int(0.95 * len(times)))]
    computes: str = job.precision
    if job.stored is not None:
        computes = job.stored if job.precision == "fp32" else f"{job.stored}, {job.precision}"
    way = ORIGINAL if job.original else f"{job.runtime} {computes}"
    memory = _peak_memory() if job.device == "cpu" else 1e-6 * torch.cuda.max_memory_allocated()
    return Measurement(
        job.what, way, job.batch, job.batch / middle, 1e3 * middle, 1e3 * high, memory
    )


def _work(job: Job) -> Callable[[], object]:
    """Returns what a job repeats; nothing else stays in memory."""
    members = [
        member
        for bundle in job.bundles
        for member in load_bundle(bundle)
        if member.name in job.names
    ]
    if job.original:
        for member in members:
            as_original(member.detector)
        parts = [_by_torch(System([member]), job) for member in members]
        return lambda: [part() for part in parts]
    if job.file is None:
        return _by_torch(System(members), job)
    inputs = random_crops(System(members), job.batch)
    del members
    runtime = open_file(job.runtime, job.file, precision=job.precision)
    return lambda: runtime.run(inputs)


def _by_torch(system: System, job: Job) -> Callable[[], object]:
    """Returns what runs a system in PyTorch, on crops that are on the device already."""
    graph, device = CropsGraph(system), torch.device(job.device)
    given = random_crops(system, job.batch)
    crops = [torch.from_numpy(given[name]).to(device) for name in crop_inputs(system)]
    present = torch.from_numpy(given["present"]).to(device)
    if job.precision == "bf16":
        system.detectors = nn.ModuleList(
            HalfNetwork(each, torch.bfloat16) for each in system.detectors
        )
    graph.to(device)
    if not job.original:
        graph.to(memory_format=torch.channels_last)  # as detect does

    @torch.inference_mode()
    def run() -> list[Tensor]:
        return [answer.cpu() for answer in graph(*crops, present)]  # waits for the device

    return run


def _gflop(member: TrainedNetwork) -> float:
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


def main(
    *,
    bundle: list[Path],
    runtime: Literal["torch", "onnxruntime", "openvino", "all"] = "all",
    batch_size: int = 16,
    seconds: float = 3.0,
    threads: int = 0,
    device: str = "cpu",
    file: Path | None = None,
    json: bool = False,
) -> int:
    """Measures how fast networks run on this machine.

    One network of each detector, and all of the bundles together: faces per second one by one and
    in batches, the time of a run, peak memory, and the share of the rate at which this machine
    multiplies matrices; beside them the way of the original, measured in the same run. Crops are
    random, and cutting them is not counted. Each figure is also told as soon as it is known.

    Args:
        bundle: Bundle folders, or hf://OWNER/NAME.
        runtime: Measure only this one, beside the original way.
        batch_size: How many faces at once, beside one.
        seconds: How long to measure each.
        threads: CPU threads; 0 for as many as PyTorch takes.
        device: cpu, cuda or cuda:N. On a GPU only PyTorch is measured, in float32 and bfloat16.
        file: Measure this file too, which `deepregions export --crops-in` has made of the same
            bundles in another precision.
        json: Print JSON instead of a table.
    """
    checks.positive(batch_size=batch_size)
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds is {seconds}", "above 0, and an hour at most")
    if threads < 0:
        raise UsageError(f"--threads is {threads}", "it must be 0 or more")
    if threads:
        torch.set_num_threads(threads)
    chosen = choose_members(Choice(), bundle)
    measured = measure_all(
        bundle,
        chosen,
        runtimes=None if runtime == "all" else [runtime],
        batch_size=batch_size,
        seconds=seconds,
        device=choose_device(device),
        file=None if file is None else checked_file(file, chosen.system()),
        tell=_tell,
    )
    if json:
        checks.print_json(measured.to_json())
    else:
        _show(measured)
    return 0


def _tell(made: Measurement) -> None:
    """Says on stderr what was measured: whoever stops it keeps that."""
    said = f"{made.what}, {made.way}, batch {made.batch}: {made.rate:.2f} faces/s"
    sys.stderr.write(f"{said}, {made.ratio:.2f} times the original\n")


def _show(measured: Benchmark) -> None:
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in measured.matrix.items())
    title = f"{measured.device}, {measured.threads} threads; matrix product, GFLOP/s: {rates}"
    table = Table(title=title, box=box.SIMPLE)
    for name in ("networks", "GFLOP", "by"):
        table.add_column(name)
    for name in ("batch", "faces/s", "p50 ms", "p95 ms", "peak MB", "x original", "of matrix"):
        table.add_column(name, justify="right")
    for each in measured.measurements:
        table.add_row(
            each.what,
            f"{measured.work[each.what]:.1f}",
            each.way,
            str(each.batch),
            f"{each.rate:.1f}",
            f"{each.p50:.1f}",
            f"{each.p95:.1f}",
            "" if each.memory is None else f"{each.memory:.0f}",
            f"{each.ratio:.2f}",
            "" if each.share is None else f"{each.share:.0%}",
        )
    checks.output().print(table)


if __name__ == "__main__":
    import runtimes  # as what spawned processes can import

    sys.exit(run_program(runtimes.main, sys.argv[1:]))
