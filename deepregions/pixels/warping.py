"""Similarity transforms between point sets, and warps of pictures by matrices.

Convention:
    Points are (B, N, 2) float32 xy pixels, the centre of the top left pixel at (0, 0). Matrices
    are (B, 2, 3) and take (x, y, 1) of one picture to (x, y) of another.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Returns the rotation, scale and shift of points onto others with least squared error.

    Umeyama 1991, for two dimensions and without reflection: a division of complex numbers. Matrices
    (B, 2, 3) from source to target are finite, also where all source points are one.
    """
    origin, goal = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - origin, target - goal
    across = (a * b).sum((-2, -1))
    turn = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(-1)
    size = a.square().sum((-2, -1)).clamp(min=1e-6)
    real, imaginary = across / size, turn / size
    linear = torch.stack((real, -imaginary, imaginary, real), dim=-1).view(-1, 2, 2)
    return torch.cat((linear, (goal - origin @ linear.mT).mT), dim=-1)


def inverse(matrix: Tensor) -> Tensor:
    """Returns the inverse of (B, 2, 3) similarities; finite, also of what has none."""
    linear = matrix[..., :2]
    size = torch.linalg.vector_norm(linear, dim=(-2, -1), keepdim=True).square() / 2
    back = linear.mT / size.clamp(min=1e-6)
    return torch.cat((back, -back @ matrix[..., 2:]), dim=-1)


def moved(points: Tensor, matrix: Tensor) -> Tensor:
    """Returns points (B, N, 2) under matrices (B, 2, 3)."""
    return points @ matrix[..., :2].mT + matrix[..., 2:].mT


def warp(image: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Samples pictures (B, C, H, W) float32 bilinearly to (height, width); edges continue outwards.

    The matrix (B, 2, 3) is from the result's pixels to the image's.
    """
    y, x = (torch.arange(side, device=image.device, dtype=image.dtype) for side in size)
    grid = image.new_empty(len(image), *size, 2)
    for axis in (0, 1):
        scale = 2 / max(image.shape[3 - axis] - 1, 1)
        across, down, offset = (scale * matrix[:, axis, :, None, None]).unbind(1)
        torch.add(across * x, down * y[:, None] + (offset - 1), out=grid[..., axis])
    return sample(image, grid)


def sample(image: Tensor, grid: Tensor) -> Tensor:
    """Samples pictures as :func:`warp`, at points (B, h, w, 2) with the edges at -1 and 1."""
    return functional.grid_sample(image, grid, "bilinear", "border", align_corners=True)
