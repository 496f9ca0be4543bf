"""A mean face, onto which others are aligned."""

from __future__ import annotations

import torch
from torch import Tensor

from deepregions.faces.regions import MIRROR

# Landmarks 17 to 67, in units of the distance of the outer eye corners, about their own middle:
# the mean of the shared photographs (FFHQ 0-599) after bringing each onto it, made symmetric.
# Those of a face's left half, and how the other half mirrors them.
_LEFT = {
    17: (-0.67, -0.47), 18: (-0.57, -0.56), 19: (-0.42, -0.60), 20: (-0.27, -0.58),
    21: (-0.13, -0.52), 27: (0.0, -0.35), 28: (0.0, -0.21), 29: (0.0, -0.08), 30: (0.0, 0.07),
    31: (-0.17, 0.16), 32: (-0.09, 0.19), 33: (0.0, 0.22), 36: (-0.50, -0.33), 37: (-0.41, -0.38),
    38: (-0.31, -0.37), 39: (-0.21, -0.31), 40: (-0.31, -0.29), 41: (-0.41, -0.29),
    48: (-0.33, 0.42), 49: (-0.21, 0.37), 50: (-0.09, 0.35), 51: (0.0, 0.37), 57: (0.0, 0.60),
    58: (-0.09, 0.59), 59: (-0.21, 0.54), 60: (-0.29, 0.42), 61: (-0.09, 0.41), 62: (0.0, 0.42),
    66: (0.0, 0.50), 67: (-0.09, 0.49),
}  # fmt: skip

INNER = slice(17, 68)
"""The landmarks that are aligned: without the jaw, as FWA does it."""

SPAN = 2.7  # side of an aligned picture, in the mean face's unit: a face, its hair and its chin
_LIFT = 0.1  # how far the middle of the inner landmarks is above the picture's, in the same unit


def mean_face(size: int) -> Tensor:
    """Returns the inner landmarks of the mean face in an aligned picture of a side, (51, 2)."""
    points = [_LEFT.get(i) or (-_LEFT[MIRROR[i]][0], _LEFT[MIRROR[i]][1]) for i in range(17, 68)]
    return (torch.tensor(points) - torch.tensor([0.0, _LIFT])) * size / SPAN + (size - 1) / 2
