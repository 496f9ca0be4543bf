"""Faces a second through the region cropper: ``python benchmarks/cropper.py [--device cuda]``.

Rows are faces of several sizes in square images; the work depends on the image's size and not on
what is in it, so the pictures are noise and the landmarks a drawn face. ``CPU ms`` is processor
time per face summed over threads, which other work on the machine disturbs less than faces/s.
The first line gives the machine's own rates at that moment, to compare runs.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from deepregions.faces.cropping import RegionCropper
from deepregions.memory import keep_freed
from deepregions.types import REGIONS, Layout

ROWS: tuple[tuple[int, int, Layout], ...] = (  # image, jaw width, layout
    (200, 120, "masked"),
    (400, 215, "masked"),
    (400, 215, "tight"),
    (1000, 700, "masked"),
    (2000, 1500, "masked"),
)


def drawn_face(width: float, image: int) -> Tensor:
    """68 landmarks, (68, 2), in the middle of a square image."""
    jaw = [(-0.5 * math.cos(t), -0.2 + 0.8 * math.sin(t)) for t in _steps(0, math.pi, 17)]
    brows = [(x, -0.32) for x in (*_steps(-0.42, -0.12, 5), *_steps(0.12, 0.42, 5))]
    nose = [(0, y) for y in _steps(-0.2, 0.05, 4)] + [(x, 0.12) for x in _steps(-0.1, 0.1, 5)]
    eyes = [(x + dx, -0.2 + dy) for x in (-0.24, 0.24) for dx, dy in _loop(6, 0.1, 0.03)]
    mouth = [(x, 0.32 + y) for x, y in (*_loop(12, 0.2, 0.08), *_loop(8, 0.16, 0.03))]
    points = torch.tensor([*jaw, *brows, *nose, *eyes, *mouth], dtype=torch.float32)
    return points * width + image / 2


def _steps(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * i / (count - 1) for i in range(count)]


def _loop(count: int, width: float, height: float) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / count for i in range(count)]
    return [(-width * math.cos(t), -height * math.sin(t)) for t in turns]


def seconds(run: Callable[[], object], repeat: int, device: torch.device) -> tuple[float, ...]:
    """Best and median wall time, and best processor time, of one run."""
    wall, processor = [], []
    for _ in range(repeat + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start, used = time.perf_counter(), time.process_time()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    wall = sorted(wall[2:])
    return wall[0], wall[len(wall) // 2], min(processor[2:])


def peak_mebibytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="faces of 400 px at a time")
    parser.add_argument("--size", type=int, default=200, help="side of the crops")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_freed()  # as commands do: to map large arrays anew takes longer than to fill them
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)

    matrix, block = torch.rand(2048, 2048, device=device), torch.rand(1 << 24, device=device)
    product = 2 * 2048**3 / seconds(lambda: matrix @ matrix, 5, device)[0] / 1e9
    copy = 2 * 4 * (1 << 24) / seconds(block.clone, 5, device)[0] / 1e9
    print(
        f"{device}, {options.threads} threads: {product:.0f} GFLOP/s float32, copy {copy:.1f} GB/s"
    )
    print("image   face  layout  batch   faces/s (median)  CPU ms/face  peak MiB")
    for image, face, layout in ROWS:
        batch = max(1, options.batch * 400**2 // image**2)
        pictures = torch.randint(0, 256, (batch, 3, image, image), dtype=torch.uint8).to(device)
        landmarks = drawn_face(face, image).expand(batch, -1, -1).to(device)
        cropper = RegionCropper(options.size, REGIONS, layout)
        run = partial(cropper, pictures, landmarks)
        best, median, used = seconds(run, options.repeat, device)
        rate = f"{batch / best:8.1f} ({batch / median:6.1f})"
        cost = f"{used / batch * 1e3:11.2f}  {peak_mebibytes(device):8.0f}"
        print(f"{image:5d}  {face:5d}  {layout:6s}  {batch:5d}  {rate}  {cost}")


if __name__ == "__main__":
    main()
