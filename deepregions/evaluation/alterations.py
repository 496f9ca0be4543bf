"""What happens to pictures on their way to a lab, by real codecs: the axes of robustness."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from deepregions.errors import UsageError
from deepregions.faces.patches import smaller
from deepregions.faces.pose import head_pose
from deepregions.pipeline.results import FacePatch
from deepregions.pixels.face_rng import seeds_of

Picture = npt.NDArray[np.uint8]

LEVELS: Mapping[str, tuple[float, ...]] = {
    "size": (128, 96, 64, 48),  # pixels: the widest that a face is; nothing is enlarged again
    "jpeg": (90, 70, 50, 30),  # quality
    "h264": (18, 23, 30, 40),  # CRF: FaceForensics++ has 23 and 40
    "resize": (0.75, 0.5, 0.25),  # of the side; enlarged again
    "blur": (0.25, 0.5, 1),  # standard deviation, in hundredths of the picture's longer side
    "noise": (2, 5, 10),  # standard deviation, grey values
    "gamma": (0.5, 0.75, 1.5, 2.0),  # exponent
}

_RANGES = {
    **{"size": (1, 10_000), "jpeg": (1, 100), "h264": (0, 51), "resize": (0.01, 1)},
    **{"blur": (0, 50), "noise": (0, 255), "gamma": (0.01, 100)},
}


@dataclass(frozen=True)
class Alteration:
    """One kind of alteration at one level.

    Raises:
        UsageError: There is no such kind, or the level is out of its range.
    """

    kind: str
    level: float

    def __post_init__(self) -> None:
        if self.kind not in _RANGES:
            raise UsageError(f"no alteration {self.kind!r}", f"there are {', '.join(_RANGES)}")
        low, high = _RANGES[self.kind]
        if not low <= self.level <= high:
            raise UsageError(f"{self.kind} at {self.level}", f"from {low} to {high}")

    def __str__(self) -> str:
        return f"{self.kind} {self.level:g}"

    def __call__(self, faces: Sequence[FacePatch], keys: Sequence[str]) -> list[FacePatch]:
        """Alters the faces of one video in order of time; noise is by key."""
        if self.kind == "size":
            return [_narrow(face, self.level) for face in faces]
        images = self._altered([face.image for face in faces], keys)
        return [replace(face, image=image) for face, image in zip(faces, images, strict=True)]

    def _altered(self, pictures: Sequence[Picture], keys: Sequence[str]) -> Sequence[Picture]:
        if self.kind == "h264":
            return _video(pictures, round(self.level))
        if self.kind == "noise":
            seeds = [abs(int(seed)) for seed in seeds_of(keys)]
            return [_noisy(*each, self.level) for each in zip(pictures, seeds, strict=True)]
        return [_ALTER[self.kind](picture, self.level) for picture in pictures]


def _narrow(face: FacePatch, width: float) -> FacePatch:
    """As if the frame had been so small that the face is no wider than so many pixels."""
    if face.landmarks is None:
        return face
    scale = width / max(float(head_pose(torch.from_numpy(face.landmarks)[None]).width), 1.0)
    if scale >= 1:
        return face
    image, landmarks = smaller(face.image, face.landmarks, scale)
    return replace(face, image=image, landmarks=landmarks, scale=1.0)


def _jpeg(picture: Picture, quality: float) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=round(quality))
    return np.asarray(Image.open(buffer))


def _resized(picture: Picture, share: float) -> Picture:
    height, width = picture.shape[:2]
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _blurred(picture: Picture, sigma: float) -> Picture:
    if not sigma:
        return picture
    pixels = sigma / 100 * max(picture.shape[:2])
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), pixels), np.uint8)


def _gamma(picture: Picture, exponent: float) -> Picture:
    table = (255 * (np.arange(256) / 255) ** exponent).round().astype(np.uint8)
    return table[picture]


def _noisy(picture: Picture, seed: int, deviation: float) -> Picture:
    noise = np.random.default_rng(seed).normal(0, deviation, picture.shape)
    return (picture + noise).round().clip(0, 255).astype(np.uint8)


_ALTER: Mapping[str, Callable[[Picture, float], Picture]] = {
    "jpeg": _jpeg,
    "resize": _resized,
    "blur": _blurred,
    "gamma": _gamma,
}


def _video(pictures: Sequence[Picture], crf: int) -> list[Picture]:
    """Faces of one video after H.264, as its frames; smaller ones are continued at their edges."""
    height, width = (2 * -(-max(p.shape[side] for p in pictures) // 2) for side in (0, 1))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": "medium"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on any machine
        for picture in pictures:
            rows, columns = height - picture.shape[0], width - picture.shape[1]
            padded = np.pad(picture, ((0, rows), (0, columns), (0, 0)), "edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer, "r") as coded:
        frames = [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
    return [
        np.asarray(frame[: picture.shape[0], : picture.shape[1]], np.uint8)
        for frame, picture in zip(frames, pictures, strict=True)
    ]
