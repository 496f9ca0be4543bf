"""Patches: the part of a picture around a face, small enough to keep and to batch."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepregions.faces.landmarks import Face

Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]

MARGIN = 0.5
MAX_SIZE = 512
CONTEXT = 1.3
"""Side of the context box, in units of the longer side of the landmarks'."""
FOREHEAD = 0.9
"""Top of the canvas above the brows, in units of the bridge of the nose: 0.84 to 1.04 in the
published images of :mod:`deepregions.faces.regions`."""
_FARTHEST = 1e9  # pixels; NaN is no nearer


def upright(image: Pixels, landmarks: Points) -> tuple[Pixels, Points]:
    """Turns a picture (H, W, 3) by quarters until the eyes of a face (68, 2) lie side by side."""
    across, down = (landmarks[42:48].mean(0) - landmarks[36:42].mean(0)).tolist()
    turns = round(math.atan2(down, across) / (math.pi / 2)) % 4
    for _ in range(turns):
        landmarks = np.stack((landmarks[:, 1], image.shape[1] - 1 - landmarks[:, 0]), axis=1)
        image = np.rot90(image)
    return image, landmarks


def crop_face(
    image: Pixels, face: Face, margin: float = MARGIN, max_size: int = MAX_SIZE
) -> tuple[Pixels, Points, float] | None:
    """Cuts a face out with its surroundings, upright, and makes it smaller where it is large.

    One that lies on its side or stands on its head is turned by quarters. ``margin`` is what
    surrounds box and landmarks on each side, as a share of their width or height; ``max_size`` the
    longest side in pixels.

    Returns:
        The crop (h, w, 3) uint8, the landmarks (68, 2) in its pixels, which may be off it, and its
        pixels per pixel of ``image``; None if the face is off the picture or a landmark is not a
        number.
    """
    if not all((np.abs(each) < _FARTHEST).all() for each in (face.landmarks, face.box)):
        return None
    low = np.minimum(face.box[:2], face.landmarks.min(0))
    high = np.maximum(face.box[2:], face.landmarks.max(0))
    around = margin * (high - low)
    left, top = (max(math.floor(each), 0) for each in low - around)
    right, bottom = (max(math.ceil(each) + 1, 0) for each in high + around)
    crop = image[top:bottom, left:right]
    if not crop.size:
        return None
    crop, landmarks = upright(crop, face.landmarks - np.array([left, top], np.float32))
    scale = min(1.0, max_size / max(crop.shape[:2]))
    return *smaller(crop, landmarks, scale), scale


def without_margin(
    image: Pixels, landmarks: Points, *, context: bool = False
) -> tuple[Pixels, Points]:
    """Returns the part of a patch that networks look at, and the landmarks on it.

    It holds what lies on the patch of the face's canvas, with ``context`` also of its context box
    (:mod:`deepregions.faces.regions`), and is as long as these where the patch is: crops and
    quality are the same, and take less time.
    """
    if not (np.abs(landmarks) < _FARTHEST).all():
        return image, landmarks
    across = landmarks[42:48].mean(0) - landmarks[36:42].mean(0)
    up = np.array([across[1], -across[0]]) / max(np.linalg.norm(across), 1e-6)
    bridge = np.linalg.norm(landmarks[27] - landmarks[30])
    points = np.concatenate([landmarks, landmarks[17:27] + FOREHEAD * bridge * up])
    if context:
        low, high = landmarks.min(0), landmarks.max(0)
        middle, square = (low + high) / 2, CONTEXT / 2 * (high - low).max()
        points = np.concatenate([points, [middle - square, middle + square]])
    first, last = np.floor(points.min(0)) - 2, np.ceil(points.max(0)) + 3
    sides = np.array(image.shape[1::-1])
    length = np.clip(last - first, 1, sides)
    start = np.clip(first, 0, sides - length)
    (left, top), (right, bottom) = start.astype(int).tolist(), (start + length).astype(int).tolist()
    return image[top:bottom, left:right], landmarks - np.array([left, top], np.float32)


def smaller(image: Pixels, landmarks: Points, scale: float) -> tuple[Pixels, Points]:
    """Returns a picture (H, W, 3) uint8 and landmarks on it at ``scale`` of its size, at most 1."""
    if scale == 1:
        return image, landmarks
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = Image.fromarray(np.ascontiguousarray(image))
    small = np.array(pixels.resize(size, Image.Resampling.LANCZOS))
    ratio = np.array([size[0] / width, size[1] / height], np.float32)
    # Pixel centres are at whole numbers, so the picture's corner, which stays, is at (-0.5, -0.5).
    return small, ((landmarks + 0.5) * ratio - 0.5).astype(np.float32)
