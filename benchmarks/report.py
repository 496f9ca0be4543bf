"""Pages, lists and annotated videos, short and long: ``python benchmarks/report.py``.

Videos are made in a temporary folder. Each is annotated in a process of its own, whose peak
memory must not grow with the video's length.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from jsonargparse import auto_cli

from deepregions.pipeline.report.index import index_row, write_index
from deepregions.pipeline.report.page import write_page
from deepregions.pipeline.report.table import CsvTable
from deepregions.pipeline.report.video import annotate_video
from deepregions.pipeline.results import FaceResult, Result, summarise_input
from deepregions.pipeline.strip import Strip
from deepregions.types import REGIONS, Status

RATE = 25
DETECTORS = ("xception", "capsule", "dsp-fwa")
FACTS: dict[str, Any] = {
    "models": [{"detector": d, "region": r} for d in DETECTORS for r in REGIONS]
}


def main(
    seconds: tuple[int, int] = (10, 120),
    size: tuple[int, int] = (1280, 720),
    people: int = 3,
    inputs: int = 1000,
) -> None:
    """Measures time, sizes and memory.

    Args:
        seconds: Lengths of the videos.
        size: Their width and height.
        people: How many are in each.
        inputs: How many the list and the table have.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = _result(10, size, people, 32)
        _files(Path(folder), made, inputs)
        for length in seconds:
            path = Path(folder) / f"{length}.mp4"
            _video(path, length, size)
            result = _result(length, size, people, 32)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                took, peak = pool.apply(_annotate, (path, result))
            speed = length * RATE / took
            print(f"annotated video of {length} s: {speed:.0f} frames/s, peak {peak:.0f} MB")


def _files(folder: Path, made: Result, inputs: int) -> None:
    pages = 20
    start = time.perf_counter()
    for _ in range(pages):
        write_page(replace(made, facts=FACTS), folder / "page.html")
    took = (time.perf_counter() - start) / pages
    print(f"page: {took * 1000:.0f} ms, {(folder / 'page.html').stat().st_size / 1000:.0f} kB")
    start = time.perf_counter()
    write_index([index_row(made, "page.html")] * inputs, folder / "index.html")
    took = time.perf_counter() - start
    size = (folder / "index.html").stat().st_size / 1000
    print(f"list of {inputs} inputs: {took:.2f} s, {size:.0f} kB")
    start = time.perf_counter()
    with (folder / "all.csv").open("w", encoding="utf-8", newline="") as stream:
        table = CsvTable(stream, FACTS["models"])
        for _ in range(inputs):
            table.add(replace(made, facts=FACTS).to_dict())
    print(f"table of {inputs} inputs: {time.perf_counter() - start:.2f} s")


def _annotate(path: Path, result: Result) -> tuple[float, float]:
    start = time.perf_counter()
    annotate_video(path, result, path.with_suffix(".out.mp4"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in kB
    return time.perf_counter() - start, peak


def _result(seconds: float, size: tuple[int, int], people: int, frames: int) -> Result:
    generator = np.random.default_rng(0)
    strip, faces = Strip(), []
    pixels = next(_pixels(size))
    for frame in range(frames):
        moment = (frame + 0.5) * seconds / frames
        strip.add(frame, moment, pixels)
        for track in range(people):
            values = generator.normal(size=(len(DETECTORS), len(REGIONS)))
            cells = {
                (detector, region): float(values[row, column])
                for row, detector in enumerate(DETECTORS)
                for column, region in enumerate(REGIONS)
            }
            x, side = size[0] * (track + 0.2) / people, size[0] / people / 2
            box = (x, 100.0, x + side, 100.0 + side)
            faces.append(
                FaceResult(frame, moment, track, box, Status.OK, float(values.mean()), cells)
            )
    media = {"rate": RATE}
    return summarise_input(
        "made.mp4", "video", frames, faces, media=media, strip=strip.thumbnails()
    )


def _pixels(size: tuple[int, int]) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Smooth pictures that move."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    number = 0
    while True:
        waves = [
            np.sin((x + 7 * number) / (40 + 9 * c)) * np.cos(y / (30 + 7 * c)) for c in range(3)
        ]
        yield (127 + 100 * np.stack(waves, -1)).astype(np.uint8)
        number += 1


def _video(path: Path, seconds: int, size: tuple[int, int]) -> None:
    pictures = _pixels(size)
    few = [next(pictures) for _ in range(25)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(seconds * RATE):
            picture = few[number % len(few)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
