"""What a face looks like, in a few numbers: enough to tell the people of a video apart.

A histogram of colours; two are compared by their Euclidean distance (docs/faces.md).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from deepregions.faces.landmarks import Face

_SIDE = 64
# Where the middles of the eyes and of the mouth come to lie: the patch is skin, eyes and mouth.
_PLACES = np.array([[20, 22], [44, 22], [32, 50]], dtype=np.float32)
_BINS = 8
# CIE L*a*b* as OpenCV has it in 8 bits: skin, lips and hair lie within 40 of its grey, 128.
_CHROMA, _LIGHT = (100.0, 180.0), (0.0, 256.0)


def appearance(image: NDArray[np.uint8], face: Face) -> NDArray[np.float32] | None:
    """Describes a face by its colours: (72,) float32; None of one off the image, or without a face.

    The square roots of two histograms (8 x 8 chromaticities, 8 lightnesses) that sum to 1 together,
    of an image (H, W, 3) uint8 RGB.
    """
    points = face.landmarks.astype(np.float64)
    eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    corners = np.stack([*eyes, (points[48] + points[54]) / 2]).astype(np.float32)
    if not np.isfinite(corners).all() or np.abs(corners).max() > 1e6:
        return None
    (ax, ay), (bx, by) = corners[1] - corners[0], corners[2] - corners[0]
    if abs(ax * by - ay * bx) < 1:  # one line, or all in one pixel
        return None
    reach = np.ptp(corners, axis=0).max()
    left, top = np.maximum(np.floor(corners.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.maximum(np.ceil(corners.max(axis=0) + reach), 0).astype(int)
    pixels = np.ascontiguousarray(image[top:bottom, left:right])
    if not pixels.size:
        return None
    corners -= np.array([left, top], dtype=np.float32)
    affine = cv2.getAffineTransform(corners, _PLACES)
    patch = cv2.warpAffine(pixels, affine, (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE)
    lab = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB)
    chroma = cv2.calcHist([lab], [1, 2], None, [_BINS, _BINS], [*_CHROMA, *_CHROMA])
    light = cv2.calcHist([lab], [0], None, [_BINS], [*_LIGHT])
    both = np.concatenate([chroma.ravel() / max(float(chroma.sum()), 1), light.ravel() / _SIDE**2])
    return np.asarray(np.sqrt(both / 2), np.float32)
