"""Images per second of each detector: ``python benchmarks/detectors.py [--device cuda]``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor

from deepregions.detectors import DSPFWA, Capsule, Xception

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rate(function: Callable[[Tensor], Tensor], x: Tensor, seconds: float) -> float:
    """Returns how many of a batch's images are judged per second, after one warm-up."""

    def run() -> None:
        function(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    run()
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return len(x) / sorted(times)[len(times) // 2]


def main(
    device: str = "cpu",
    threads: int = 2,
    size: int = 200,
    batch: tuple[int, ...] = (1, 16),
    seconds: float = 3.0,
) -> None:
    """Prints a table of images per second, in evaluation mode, channels last.

    Args:
        device: Where to run, as torch names it.
        threads: CPU threads.
        size: Height and width of the crops.
        batch: Sizes of batches.
        seconds: How long to measure each; the median run counts.
    """
    torch.set_num_threads(threads)
    last: dict[str, Any] = {"memory_format": torch.channels_last}
    table = Table(title=f"images/s at {size} px on {device}, torch {torch.__version__}")
    table.add_column("detector")
    for precision in PRECISIONS:
        for count in batch:
            table.add_column(f"{precision}, batch {count}", justify="right")
    for kind in (Xception, DSPFWA, Capsule):
        cells = []
        for dtype in PRECISIONS.values():
            detector = kind(size).eval().to(device, dtype).to(**last)
            for count in batch:
                crops = torch.rand(count, 3, size, size, device=device).to(dtype).to(**last)
                with torch.inference_mode():
                    cells.append(f"{rate(detector, crops, seconds):.1f}")
        table.add_row(kind.__name__, *cells)
    Console().print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
