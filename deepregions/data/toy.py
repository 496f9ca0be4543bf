"""Example faces drawn by code: known landmarks, no photograph, nothing to download.

A head is a height field shaded by one light; skin, hair and brows get fine texture, and a simple
camera (blur, sharpening, noise) takes the picture. Detectors that train on these faces are toys.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]

_LEFT_HALF = (  # index: x, y, depth, in units of the distance between the outer eye corners
    (0, -0.80, 0.02, -0.72),
    (1, -0.79, 0.23, -0.69),
    (2, -0.76, 0.44, -0.62),
    (3, -0.71, 0.64, -0.52),
    (4, -0.63, 0.83, -0.40),
    (5, -0.50, 1.00, -0.27),
    (6, -0.34, 1.14, -0.16),
    (7, -0.17, 1.23, -0.09),
    (8, 0.00, 1.26, -0.06),
    (17, -0.66, -0.15, -0.22),
    (18, -0.56, -0.24, -0.10),
    (19, -0.42, -0.27, -0.03),
    (20, -0.27, -0.25, 0.02),
    (21, -0.13, -0.19, 0.05),
    (27, 0.00, -0.02, 0.06),
    (28, 0.00, 0.12, 0.15),
    (29, 0.00, 0.26, 0.24),
    (30, 0.00, 0.40, 0.32),
    (31, -0.16, 0.50, 0.05),
    (32, -0.08, 0.53, 0.12),
    (33, 0.00, 0.55, 0.15),
    (36, -0.50, 0.00, -0.17),
    (37, -0.41, -0.05, -0.10),
    (38, -0.31, -0.05, -0.07),
    (39, -0.21, 0.02, -0.09),
    (40, -0.31, 0.04, -0.07),
    (41, -0.41, 0.04, -0.10),
    (48, -0.31, 0.75, -0.05),
    (49, -0.20, 0.71, 0.04),
    (50, -0.08, 0.68, 0.09),
    (51, 0.00, 0.70, 0.10),
    (57, 0.00, 0.90, 0.09),
    (58, -0.09, 0.89, 0.08),
    (59, -0.20, 0.85, 0.04),
    (60, -0.27, 0.755, -0.03),
    (61, -0.09, 0.75, 0.07),
    (62, 0.00, 0.76, 0.08),
    (66, 0.00, 0.78, 0.08),
    (67, -0.09, 0.78, 0.07),
)
_MIRROR = {
    **{i: 16 - i for i in range(17)},
    **{17 + i: 26 - i for i in range(5)},
    **{31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},
    **{48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65},
}


@dataclass(frozen=True)
class Person:
    """What stays the same from one picture of somebody to the next.

    Attributes:
        shape: (68, 3) float32 landmarks of the head, facing forward, outer eye corners 1 apart.
        skin: (3,) float32 RGB reflectance, linear light; likewise ``lips``, ``hair``, ``iris``.
        hairline: Height of the hairline above the eyes, same unit.
        length: How far the hair falls below the eyes; negative is short hair.
        volume: How far the hair stands off the head.
        brow: Thickness of the brows.
        beard: Strength of a beard's shadow, 0 to 1.
        age: Strength of folds and creases, 0 to 1.
        seed: Seeds moles and the layout of the hair.
    """

    shape: Array
    skin: Array
    lips: Array
    hair: Array
    iris: Array
    hairline: float
    length: float
    volume: float
    brow: float
    beard: float
    age: float
    seed: int


def _mean_shape() -> Array:
    shape = np.zeros((68, 3), np.float32)
    for index, x, y, z in _LEFT_HALF:
        shape[index] = x, y, z
        if index in _MIRROR:
            shape[_MIRROR[index]] = -x, y, z
    return shape


def draw_person(rng: np.random.Generator) -> Person:
    """Returns somebody new: proportions, colours, hair."""
    shape = _mean_shape()
    eyes, nose, mouth = slice(36, 48), slice(27, 36), slice(48, 68)
    vary = lambda scale: float(np.clip(rng.normal(1, scale), 1 - 2.2 * scale, 1 + 2.2 * scale))  # noqa: E731
    shape[:17, 0] *= vary(0.05)
    shape[3:14, 0] *= vary(0.04)
    shape[5:12, 1] += rng.normal(0, 0.05)
    shape[17:27, 1] += rng.normal(0, 0.025)
    shape[nose, 0] *= vary(0.12)
    shape[nose, 1:] *= vary(0.06)
    shape[mouth, 0] *= vary(0.08)
    shape[mouth, 1] = 0.78 + (shape[mouth, 1] - 0.78) * vary(0.15) + rng.normal(0, 0.03)
    for middle in (-0.355, 0.355):
        side = shape[eyes, 0] * middle > 0
        part = shape[eyes][side]
        part[:, :2] = (part[:, :2] - (middle, 0)) * (1, 1) + (middle, 0)
        shape[eyes][side] = part
    tone = rng.uniform() ** 1.4
    light, dark = np.array((0.72, 0.47, 0.37)), np.array((0.13, 0.065, 0.04))
    skin = np.exp(np.log(light) * (1 - tone) + np.log(dark) * tone) * rng.normal(1, 0.04, 3)
    lips = skin * (0.82, 0.50, 0.52) * rng.normal(1, 0.06, 3)
    darkness = rng.uniform(0.0, 1.0) ** (0.5 + 2 * tone * 0 + 0.2)
    hair = (
        np.array((0.42, 0.30, 0.17)) * (1 - darkness) + np.array((0.018, 0.014, 0.012)) * darkness
    )
    if tone > 0.5:
        hair = np.array((0.016, 0.013, 0.012)) * rng.uniform(0.7, 2)
    elif rng.uniform() < 0.12:
        hair = np.array((0.45, 0.44, 0.42)) * rng.uniform(0.5, 1.1)
    irises = np.array(
        ((0.07, 0.03, 0.015), (0.12, 0.07, 0.03), (0.12, 0.18, 0.25), (0.10, 0.14, 0.08))
    )
    iris = irises[rng.choice(4, p=(0.55, 0.2, 0.15, 0.1)) if tone < 0.5 else 0]
    return Person(
        shape=shape,
        skin=skin.astype(np.float32),
        lips=lips.astype(np.float32),
        hair=hair.astype(np.float32),
        iris=iris.astype(np.float32),
        hairline=float(rng.uniform(0.42, 0.85)),
        length=float(
            rng.choice((-0.2, 0.2, 1.0, 1.7), p=(0.4, 0.2, 0.2, 0.2)) + rng.normal(0, 0.1)
        ),
        volume=float(rng.uniform(0.03, 0.25)),
        brow=float(rng.uniform(0.025, 0.055)),
        beard=float(max(0.0, rng.uniform(-1.2, 1))),
        age=float(rng.uniform()),
        seed=int(rng.integers(2**31)),
    )
