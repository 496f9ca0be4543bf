"""Where the shot changes between two sampled frames of a video, which may lie seconds apart.

Two frames of one shot show the same things, moved: many corners of one are found in the other, all
moved alike (ORB features; a similarity by RANSAC). As plain pictures have few corners, the colours
count too. The weights come from a logistic regression (docs/faces.md).
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 256  # pixels of the longer side in which frames are compared
_CORNERS = 250
_ENOUGH = 20  # corners; frames with fewer are passed over, as colours alone mislead
_EQUAL = 0.06  # distance of colours; two people in one studio have 0.15 and more, 98 % of them
_EDGE = 16  # pixels within which of a picture's edge no corner is looked for
_NEAR = 50  # bits of 256 in which two descriptors of one corner may differ
_TOLERANCE = 5.0  # pixels by which a corner may miss where the others' motion takes it
_CONTRAST = 50.0  # grey values, the standard deviation to which all frames are brought
_FLAT = 3.0  # below this standard deviation a frame has no detail
# Of the logarithm of the odds of a cut, in nats.
_COLOUR, _LIGHT, _SHARED, _OFFSET = 6.0, 7.0, -17.0, 1.0
_SEED = 0  # RANSAC's, so that equal videos have equal cuts


@dataclass(frozen=True, eq=False)
class FrameSignature:
    """What is kept of a frame, some 10 KB: square roots of histograms, and its N corners."""

    colour: NDArray[np.float32]
    light: NDArray[np.float32]
    places: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


class ShotDetector:
    """Says, of frames in their order, between which of them the shot changes."""

    def __init__(self) -> None:
        self._finder = cv2.ORB.create(_CORNERS, edgeThreshold=_EDGE)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
        self._last: FrameSignature | None = None

    def __call__(self, image: NDArray[np.uint8]) -> bool:
        """Takes the next frame, as :meth:`look` does; says whether the shot changed before it."""
        return self.changes(self.look(image))

    def look(self, image: NDArray[np.uint8]) -> FrameSignature | None:
        """Returns what is kept of a frame (H, W, 3) uint8 RGB; None of one without detail."""
        pixels = _reduced(image)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        mean, deviation = (float(one[0, 0]) for one in cv2.meanStdDev(grey))
        if deviation < _FLAT or min(grey.shape) < 2 * _EDGE:
            return None
        gain = _CONTRAST / deviation
        even = cv2.convertScaleAbs(grey, alpha=gain, beta=128 - gain * mean)
        lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
        counts = (
            cv2.calcHist([lab], [1, 2], None, [8, 8], [88, 168, 88, 168]).ravel(),
            cv2.calcHist([lab], [0], None, [8], [0, 256]).ravel(),
        )
        colour, light = (np.asarray(np.sqrt(n / (2 * grey.size)), np.float32) for n in counts)
        found, descriptors = self._finder.detectAndCompute(even, None)
        places = np.array([corner.pt for corner in found], dtype=np.float32)
        none = np.empty((0, 32), np.uint8)  # OpenCV gives None
        return FrameSignature(
            colour, light, places, np.asarray(descriptors, np.uint8) if found else none
        )

    def changes(self, look: FrameSignature | None) -> bool:
        """Takes the next frame as what was kept of it; says what calling says."""
        if look is None:
            return False
        last, self._last = self._last, look
        if last is None:
            return False
        colour = float(np.linalg.norm(last.colour - look.colour))
        light = float(np.linalg.norm(last.light - look.light))
        if colour + light < _EQUAL or len(last.places) < _ENOUGH:
            return False
        if len(look.places) < _ENOUGH:
            self._last = last
            return False
        score = _OFFSET + _COLOUR * colour + _LIGHT * light
        return score + _SHARED * math.sqrt(self._shared(last, look)) > 0

    def _shared(self, last: FrameSignature, look: FrameSignature) -> float:
        """Returns the share of corners that are in both frames and have moved alike."""
        before, after = last.places, look.places
        pairs = self._matcher.match(last.descriptors, look.descriptors)
        near = [one for one in pairs if one.distance < _NEAR]
        if len(near) < 4:  # two pairs of corners always agree on a similarity
            return 0.0
        cv2.setRNGSeed(_SEED)
        motion: Any
        motion, alike = cv2.estimateAffinePartial2D(
            before[[match.queryIdx for match in near]],
            after[[match.trainIdx for match in near]],
            ransacReprojThreshold=_TOLERANCE,
            maxIters=500,
        )
        return 0.0 if motion is None else int(alike.sum()) / min(len(before), len(after))


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small copy, (h, w, 3), averaged over pixels, of which large frames lend only some."""
    pixels = np.ascontiguousarray(image)
    for side, how in ((2 * _SIDE, cv2.INTER_LINEAR), (_SIDE, cv2.INTER_AREA)):
        scale = side / max(pixels.shape)
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        if scale < 1:
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)
    return pixels
