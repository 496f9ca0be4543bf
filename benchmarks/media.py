"""Memory and speed of reading: ``python benchmarks/media.py``.

Makes its photographs and videos in a temporary folder. Memory is the most that was resident, of the
process that asks (which holds torch) and of those that decode, each in a fresh process.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
from decoding import frames, read_frames
from jsonargparse import auto_cli
from numpy.typing import NDArray
from PIL import Image

from deepregions.media import Frame, MediaReader, Sampling, videos

MB = 1 << 20
RATE = 25


def main(
    width: int = 640, height: int = 360, minutes: float = 10.0, photographs: int = 1000
) -> None:
    """Measures memory for short and long, few and many; then frames a second.

    Args:
        width: The videos' width in pixels.
        height: Their height.
        minutes: Length of the long video; the short one has 10 s.
        photographs: How many the many are; the few are 10.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = _video(folder / "short.mp4", 10.0, width, height)
        long = _video(folder / "long.mp4", 60 * minutes, width, height)
        many = list(_photographs(folder / "photographs", photographs))
        print(f"videos of {width} x {height}, photographs of 1024 x 768")
        _memory(short, long, minutes, many)
        _speed(short, long, many[:200])


def _memory(short: Path, long: Path, minutes: float, many: list[Path]) -> None:
    print("\nresident at most, MB                  asks  decode (each)    sum")
    rows: list[tuple[str, list[Path], Sampling]] = []
    for name, sampling in (("32 frames", Sampling()), ("2 frames/s", Sampling("rate"))):
        rows += [(f"video of 10 s, {name}", [short], sampling)]
        rows += [(f"video of {minutes:g} min, {name}", [long], sampling)]
    rows += [(f"{len(files)} photographs", files, Sampling()) for files in (many[:10], many)]
    sums = []
    context = multiprocessing.get_context("spawn")
    for name, files, sampling in rows:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            asks, decode = pool.submit(_resident, files, sampling).result()
        sums.append(asks + sum(decode))
        each = " ".join(f"{one / MB:6.1f}" for one in decode)
        growth = f"  {sums[-1] / sums[-2] - 1:+.1%}" if len(sums) % 2 == 0 else ""
        print(f"{name:34} {asks / MB:7.1f}  {each:13} {sums[-1] / MB:6.1f}{growth}")


def _resident(files: list[Path], sampling: Sampling) -> tuple[int, list[int]]:
    """Reads files; returns the highest resident sizes of this process and of those that decode."""
    highest: dict[int, int] = {}
    with MediaReader() as reader:
        for media in reader.open_all(files, sampling):
            for _ in media.batches():
                pass
            for child in psutil.Process().children():
                highest[child.pid] = _highest(child)
    # Where processes were replaced on the way: those that were there together at the end.
    return _highest(psutil.Process()), list(highest.values())[-2:]


def _highest(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _speed(short: Path, long: Path, photographs: list[Path]) -> None:
    print("\n32 frames of the long video           seconds  of the processor")
    for name, near in (("jumping between keyframes", videos._NEAR), ("decoding all", 10**9)):
        kept, videos._NEAR = videos._NEAR, near
        start, used = time.perf_counter(), time.process_time()
        assert sum(1 for _ in frames(long, 32)) == 32
        wall, used = time.perf_counter() - start, time.process_time() - used
        print(f"{name:37} {wall:7.2f}  {used:7.2f}")
        videos._NEAR = kept
    print("\nframes a second                   here  process  process, one ahead")
    everything = range(round(10 * RATE))
    for name, files, sampling in (
        ("every frame of the short video", [short] * 4, Sampling(count=len(everything))),
        ("32 frames of the short video", [short] * 8, Sampling()),
        ("photographs", photographs, Sampling()),
    ):
        rates = [_rate(_here(files, sampling))]
        for ahead in (0, 1):
            with MediaReader(ahead=ahead) as reader:
                list(_apart(reader, photographs[:4], Sampling()))  # so the processes have started
                rates.append(_rate(_apart(reader, files, sampling)))
        print(f"{name:30} {rates[0]:7.0f}  {rates[1]:7.0f}  {rates[2]:7.0f}")


def _here(files: Iterable[Path], sampling: Sampling) -> Iterator[Frame]:
    for file in files:
        if sampling.count > 32:
            yield from read_frames(file, range(sampling.count))
        else:
            yield from frames(file, sampling.count)


def _apart(reader: MediaReader, files: Iterable[Path], sampling: Sampling) -> Iterator[Frame]:
    for media in reader.open_all(files, sampling):
        for batch in media.batches():
            yield from batch


def _rate(frames: Iterator[Frame]) -> float:
    start = time.perf_counter()
    count = sum(1 for _ in frames)
    return count / (time.perf_counter() - start)


def _video(path: Path, seconds: float, width: int, height: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        scene = _scene(2 * width, 2 * height)
        for index in range(round(seconds * RATE)):
            x, y = (
                round(size / 2 * (1 + np.sin(index / k))) for size, k in ((width, 40), (height, 53))
            )
            pixels = np.ascontiguousarray(scene[y : y + height, x : x + width])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _photographs(folder: Path, count: int) -> Iterator[Path]:
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if number < 10:
            Image.fromarray(np.roll(_scene(1024, 768), 64 * number, 1)).save(path, quality=90)
        else:
            shutil.copy(folder / f"{number % 10:05d}.jpg", path)
        yield path


def _scene(width: int, height: int) -> NDArray[np.uint8]:
    """Something with edges and gradients in it."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / k) * np.cos(y / (k + 3)) + (x // 40 + y // 40) % 2 / 2 for k in (7, 19, 31)]
    return (np.stack(waves, 2) * 80 + 100).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    auto_cli(main)
