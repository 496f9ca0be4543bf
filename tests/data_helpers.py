"""Faces, videos and stores for the tests of ``deepregions.data``."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import torch

from deepregions.data.store import FaceRecord, FaceStore, StoreInfo, create_store, encode_image

INFO = StoreInfo("test", "painted", "1")


def face_points() -> np.ndarray:
    """68 landmarks of a plain frontal face in a unit square, (68, 2) float32."""
    jaw = [(0.5 - 0.5 * np.cos(t), 0.25 + 0.75 * np.sin(t)) for t in np.linspace(0, np.pi, 17)]
    brows = [(x, 0.15) for x in (*np.linspace(0.1, 0.42, 5), *np.linspace(0.58, 0.9, 5))]
    nose = [(0.5, y) for y in (0.3, 0.38, 0.46, 0.54)] + [
        (x, 0.6) for x in np.linspace(0.4, 0.6, 5)
    ]
    eye = [(-0.1, 0), (-0.04, -0.04), (0.04, -0.04), (0.1, 0), (0.04, 0.03), (-0.04, 0.03)]
    eyes = [(x + dx, 0.3 + dy) for x in (0.28, 0.72) for dx, dy in eye]

    def lips(count: int, width: float, height: float) -> list[tuple[float, float]]:
        turn = np.pi + np.arange(count) * 2 * np.pi / count  # from the left corner over the top
        return [(0.5 + width * np.cos(t), 0.78 + height * np.sin(t)) for t in turn]

    points = [*jaw, *brows, *nose, *eyes, *lips(12, 0.18, 0.08), *lips(8, 0.14, 0.03)]
    return np.array(points, np.float32)


def record(number: int = 0, size: int = 64, **values: object) -> FaceRecord:
    """A face whose picture is of one colour, bluer with its number."""
    colour = torch.tensor([200, 100, number % 256], dtype=torch.uint8)
    defaults: dict[str, object] = {
        "image": encode_image(colour[:, None, None].expand(3, size, size)),
        "landmarks": face_points() * (size / 2) + size / 4,
        "key": f"k{number}",
        "video": f"v{number // 2}",
        "label": number % 2,
        "split": "train",
    }
    return FaceRecord(**(defaults | values))


def small_store(path: Path, splits: Iterable[str], **values: object) -> FaceStore:
    """A store of one face a split word, genuine and fake in turns."""
    faces = (record(i, split=split, **values) for i, split in enumerate(splits))
    return create_store(path, INFO, faces)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Starts Python, importing what tests import, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Whoever runs the tests in the background may ignore SIGINT, and so would the program.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def write_video(path: Path, pictures: Iterable[np.ndarray], rate: int = 8) -> Path:
    """Writes pictures (H, W, 3) of one size as the frames of a video; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for number, picture in enumerate(pictures):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
