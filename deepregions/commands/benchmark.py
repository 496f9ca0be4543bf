"""``deepregions benchmark``: how fast networks run here, by each runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deepregions.deploy.benchmark import Benchmark


def benchmark(
    *,
    bundle: list[Path],
    runtime: Literal["torch", "onnxruntime", "openvino", "all"] = "all",
    batch_size: int = 16,
    seconds: float = 3.0,
    threads: int = 0,
    device: str = "cpu",
    file: Path | None = None,
    video: Path | None = None,
    frames: int = 32,
    rate: float | None = None,
    json: bool = False,
) -> int:
    """Measures how fast networks run on this machine.

    For one network of each detector, and for all networks together: faces per second one by one
    and in batches, latency, peak memory, and the share of the machine's speed in matrix products;
    beside them the original way (one image and one network after another in float32), measured in
    the same run. Crops are random, and cropping is not counted. What the runtimes need is
    exported first and kept in the cache folder.

    With --video, instead: how long each stage of `deepregions detect` takes for one file, from
    decoding to fusing.

    Args:
        bundle: Bundle folders, or hf://OWNER/NAME.
        runtime: Measure only this runtime, beside the original way.
        batch_size: Number of faces at once.
        seconds: How long to measure each.
        threads: CPU threads; 0 leaves it to PyTorch.
        device: cpu, cuda or cuda:N. On a GPU only PyTorch is measured, in float32 and bfloat16.
        file: Also measure this file, made by `deepregions export --crops-in` from the same
            bundles in another precision.
        video: Time the stages of `deepregions detect` for this file.
        frames: Number of its frames to look at, evenly spaced.
        rate: Look at this many of its frames per second instead.
        json: Print JSON instead of a table.
    """
    import torch

    from deepregions.commands import checks, stages
    from deepregions.deploy.benchmark import benchmark as measure
    from deepregions.deploy.benchmark import checked_file
    from deepregions.devices import choose_device
    from deepregions.errors import UsageError
    from deepregions.weights.selection import Choice, choose_members

    checks.positive(batch_size=batch_size)
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds is {seconds}", "above 0, and an hour at most")
    if threads < 0:
        raise UsageError(f"--threads is {threads}", "it must be 0 or more")
    if threads:
        torch.set_num_threads(threads)
    chosen = choose_members(Choice(), bundle)
    if video is not None:
        if device != "cpu":
            raise UsageError("--video is timed on the CPU", "leave --device out")
        sampling = stages.sampling(frames, rate)
        stages.show(stages.timed(video, chosen, runtime, sampling, batch_size), json=json)
        return 0
    measured = measure(
        bundle,
        chosen,
        runtimes=None if runtime == "all" else [runtime],
        batch_size=batch_size,
        seconds=seconds,
        device=choose_device(device),
        file=None if file is None else checked_file(file, chosen.system()),
    )
    if json:
        checks.print_json(measured.to_json())
    else:
        _show(measured)
    return 0


def _show(measured: Benchmark) -> None:
    from rich import box
    from rich.table import Table

    from deepregions.commands import checks

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
