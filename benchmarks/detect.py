"""How much memory ``detect`` takes: it must not grow with a video's length or the files' number.

``python benchmarks/detect.py`` makes a portrait, videos of it and copies of it, scores them in
processes of their own with a small network, pages and all, and prints the peak resident size of
the program (what decodes is apart, and below it). By rate, so that a long video has many frames.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import psutil
import skimage.data
import torch
from PIL import Image

from deepregions.detectors import Xception
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        network = TrainedNetwork(Xception(size=64).eval(), Region.ENTIRE, "random", "masked", {})
        save_bundle([network], folder / "bundle")
        portrait = skimage.data.astronaut()[:320, 60:380]  # type: ignore[no-untyped-call]
        Image.fromarray(portrait).save(folder / "portrait.jpg")
        print("| inputs | seconds | peak resident size, MB |\n|---|---|---|")
        for label, inputs in (
            ("10 photographs", copies(folder, 10)),
            ("1,000 photographs", copies(folder, 1000)),
            ("a video of 10 s, 2 frames/s", video(folder / "short.mp4", portrait, 10)),
            ("a video of 10 min, 2 frames/s", video(folder / "long.mp4", portrait, 600)),
        ):
            begun = time.monotonic()
            peak = measured(folder, inputs)
            print(f"| {label} | {time.monotonic() - begun:.0f} | {peak / 1e6:.0f} |", flush=True)


def copies(folder: Path, count: int) -> Path:
    """Makes a folder of this many photographs."""
    photos = folder / f"photos{count}"
    photos.mkdir()
    for number in range(count):
        shutil.copy(folder / "portrait.jpg", photos / f"{number:04d}.jpg")
    return photos


def video(path: Path, portrait: np.typing.NDArray[np.uint8], seconds: int) -> Path:
    """Writes a video of a portrait that moves to and fro."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.height, stream.width = portrait.shape[:2]
        stream.pix_fmt = "yuv420p"
        for number in range(10 * seconds):
            pixels = np.roll(portrait, int(10 * np.sin(number / 8)), axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def measured(folder: Path, inputs: Path) -> int:
    """Runs detect, and returns its peak resident size in bytes."""
    command = [sys.executable, "-m", "deepregions", "detect", str(inputs)]
    command += ["--bundle", str(folder / "bundle"), "--landmarks", "dlib-hog", "--rate", "2"]
    command += ["--out", str(folder / f"out-{inputs.stem}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    if process.wait():
        raise SystemExit(f"detect ended with {process.returncode}")
    return peak


if __name__ == "__main__":
    main()
