"""The face store and the datamodule with many faces: ``python benchmarks/store.py``.

Makes a store of small faces in a temporary folder, measures, and removes it. What shows that a
store is mapped and not loaded is the process's own memory (resident minus shared): mapped pages of
files are shared, and the system takes them back when it needs them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch
from jsonargparse import auto_cli

from deepregions.data.datamodule import RegionDataModule
from deepregions.data.store import FaceRecord, FaceStore, StoreInfo, create_store, encode_image
from deepregions.types import RegionBatch

MB = 1 << 20


def main(
    faces: int = 100_000, size: int = 128, batch_size: int = 32, workers: int = 2, threads: int = 1
) -> None:
    """Measures opening, random access, memory, and batches.

    Args:
        faces: How many faces the store has.
        size: Side of a face's picture in pixels.
        batch_size: Faces a batch.
        workers: Worker processes in the second measurement of the datamodule.
        threads: Torch's threads for cropping; more are slower on a busy machine.
    """
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        start = time.perf_counter()
        info = StoreInfo("benchmark", "none", "0")
        create_store(path, info, _faces(faces, size))
        took = time.perf_counter() - start
        disk = sum(file.stat().st_size for file in path.iterdir())
        print(f"store of {faces} faces of {size} px: {disk / MB:.0f} MB, written in {took:.0f} s")
        _measure_store(path)
        for count in (0, workers):
            _measure_batches(path, batch_size, count)


def _faces(count: int, size: int) -> Iterator[FaceRecord]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(256, 3, size // 10, size // 10, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    images = [encode_image(i) for i in (smooth.clamp(0, 1) * 255).to(torch.uint8)]
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = size * (0.5 + 0.3 * np.stack([np.cos(turn), np.sin(turn)], 1))
    landmarks = points.astype(np.float32)
    for row in range(count):
        split = "val" if row % 10 == 9 else "train"
        yield FaceRecord(
            images[row % len(images)], landmarks, f"f{row}", f"v{row // 32}", row // 32 % 2, split
        )


def _measure_store(path: Path) -> None:
    _memory("before opening")
    start = time.perf_counter()
    store = FaceStore(path)
    print(f"opened in {1e3 * (time.perf_counter() - start):.1f} ms")
    _memory("opened")
    start = time.perf_counter()
    columns = store.labels, store.splits, store.videos
    print(f"labels, splits and videos of all faces in {time.perf_counter() - start:.2f} s")
    del columns
    _memory("columns read and dropped")
    rows = np.random.default_rng(0).integers(0, len(store), 5000).tolist()
    start = time.perf_counter()
    read = sum(len(store[row].image) for row in rows)
    took = time.perf_counter() - start
    print(f"random access: {len(rows) / took:.0f} faces/s ({read / len(rows) / 1024:.1f} kB each)")
    _memory(f"{len(rows)} random faces read")
    for _ in (store[row] for row in range(len(store))):
        pass
    _memory("every face read once")


def _measure_batches(path: Path, batch_size: int, workers: int) -> None:
    data = RegionDataModule(str(path), batch_size=batch_size, workers=workers)
    data.setup("fit")
    loader = data.train_dataloader()
    loaded = _rate(iter(loader), batch_size)
    cropped = _rate((data.on_after_batch_transfer(batch, 0) for batch in loader), batch_size)
    print(f"{workers} workers: decoded and collated {loaded}; and cropped to 200 px {cropped}")
    _memory(f"batches with {workers} workers")


def _rate(batches: Iterable[RegionBatch], batch_size: int, count: int = 60) -> str:
    stream = iter(batches)
    for _ in islice(stream, 10):
        pass
    start = time.perf_counter()
    done = sum(1 for _ in islice(stream, count))
    rate = done / (time.perf_counter() - start)
    return f"{rate:.1f} batches/s ({rate * batch_size:.0f} faces/s)"


def _memory(when: str) -> None:
    memory = psutil.Process().memory_info()
    own = (memory.rss - memory.shared) / MB
    print(f"    {when}: resident {memory.rss / MB:.0f} MB, of which its own {own:.0f} MB")


if __name__ == "__main__":
    auto_cli(main)
