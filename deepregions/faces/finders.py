"""Finders of faces for dlib's landmarks: YuNet through OpenCV, and dlib's own HOG detector.

Both look at a reduced copy first and at a larger one only where that shows no face, so that time
is bounded for any size of image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from deepregions.assets import Asset

Image = NDArray[np.uint8]

# Of the two exports of this network, the one that OpenCV 4.10 reads too (it cannot import the
# dynamic one); OpenCV runs both at any size.
YUNET = Asset(
    name="yunet_n_640_640.onnx",
    url="https://github.com/ShiqiYu/libfacedetection.train/raw/0047ac2/onnx/yunet_n_640_640.onnx",
    sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
    license="Apache-2.0",
    source="ShiqiYu/libfacedetection.train, commit 0047ac2",
)


@dataclass(frozen=True)
class FaceDetection:
    """A face without landmarks.

    Attributes:
        box: (4,) x0, y0, x1, y1: the finder's own box, in the image's pixels.
        square: (3,) centre x, centre y and side of the box on which dlib's landmarks were
            trained: that of its HOG detector.
        roll: By how much the line between the eyes is turned, in radians, clockwise on screen;
            0 where the finder does not know.
        score: The finder's confidence, on its own scale.
        points: (5, 2) eyes, tip of the nose, corners of the mouth, in pixels, left before right in
            the image; None where the finder gives none.
    """

    box: NDArray[np.float64]
    square: NDArray[np.float64]
    roll: float
    score: float
    points: NDArray[np.float64] | None = None


class FaceFinder(Protocol):
    """Finds faces in one image."""

    name: str
    version: str

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""


class YuNetFinder:
    """YuNet (Wu et al., 2023), which at 640 pixels finds faces from about 24 pixels on."""

    # On the shared clips, faces score 0.91 and more at this size, what is no face at most 0.66.
    threshold = 0.7
    overlap = 0.3  # IoU above which the weaker of two boxes is dropped; YuNet's own default
    sides = (640, 1280)

    name = "yunet"
    version = f"yunet {YUNET.sha256[:8]}"

    def __init__(self, model: Path) -> None:
        # OpenCV 5 would tell stderr, at each load, of targets that nobody asked for.
        quiet = getattr(cv2.utils, "logging", None)
        level = quiet.setLogLevel(quiet.LOG_LEVEL_ERROR) if quiet else None
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), self.threshold, self.overlap
            )
        finally:
            if quiet:
                quiet.setLogLevel(level)

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""
        for reduced, scale in _reduced(image, self.sides):
            height, width = reduced.shape[:2]
            self._network.setInputSize((width, height))
            _, rows = self._network.detect(np.ascontiguousarray(reduced[:, :, ::-1]))  # BGR
            if rows is not None and (rows := rows[np.isfinite(rows).all(axis=1)]).size:
                return [self._face(row.astype(np.float64), scale) for row in rows]
        return []

    @staticmethod
    def _face(row: NDArray[np.float64], scale: NDArray[np.float64]) -> FaceDetection:
        """Reads x, y, w, h, five points (eyes, nose tip, mouth corners), score."""
        points = (row[4:14].reshape(5, 2) + 0.5) / scale - 0.5
        x, y, width, height = row[:4]
        corners = (np.array([[x, y], [x + width, y + height]]) + 0.5) / scale - 0.5
        eyes, mouth, across = (
            points[:2].mean(axis=0),
            points[3:].mean(axis=0),
            points[1] - points[0],
        )
        # dlib's landmarks want the box of its HOG detector, whose centre lies midway between the
        # middles of eyes and mouth. Its side is estimated in two ways (medians of 702 faces).
        spread = np.hypot(*across) + np.hypot(*(eyes - mouth))
        area = np.prod(np.maximum(corners[1] - corners[0], 0))
        side = (0.929 * np.sqrt(area) + 1.182 * spread) / 2
        square = np.array([*(eyes + mouth) / 2, side])
        roll = float(np.arctan2(*across[::-1]))
        return FaceDetection(corners.ravel(), square, roll, float(row[14]), points)


class HogFinder:
    """dlib's frontal face detector (histograms of oriented gradients, faces from 80 pixels on).

    Images are enlarged up to fourfold where no face is found at their own size. Where none is sure
    at any, those that are nearly so count: this finds near-profiles.
    """

    name = "hog"
    version = "hog from -0.25"
    sides = (640, 960, 1440)
    doubtful = -0.25  # the least score of a face where none has one above 0, dlib's own threshold

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""
        best: list[FaceDetection] = []
        for reduced, scale in _reduced(image, self.sides, enlarge=4.0):
            rows = self._detector.run(np.ascontiguousarray(reduced), 0, self.doubtful)
            found = []
            for box, score in zip(*rows[:2], strict=True):
                corners = np.array([[box.left(), box.top()], [box.right(), box.bottom()]]) + 0.5
                corners = corners / scale - 0.5
                side = np.sqrt(np.prod(corners[1] - corners[0] + 1))
                square = np.array([*corners.mean(axis=0), side])
                found.append(FaceDetection(corners.ravel(), square, 0.0, float(score)))
            if sure := [one for one in found if one.score > 0]:
                return sure
            best = max(best, found, key=lambda own: max((one.score for one in own), default=-1.0))
        return best


def _reduced(
    image: Image, sides: tuple[int, ...], enlarge: float = 1.0
) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Yields the image at each longer side that makes a difference, with its (x, y) scale."""
    height, width = image.shape[:2]
    if min(height, width) < 16:  # less than any face that is looked for
        return
    last = 0.0
    for side in sides:
        scale = min(side / max(height, width), enlarge if last else 1.0)
        if scale <= last:
            return
        last = scale
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        if min(size) < 16:
            continue
        filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = image if scale == 1 else cv2.resize(image, size, interpolation=filter_)
        yield np.asarray(resized, dtype=np.uint8), np.array(size) / (width, height)
