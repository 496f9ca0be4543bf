"""Which way a head is turned: a weak-perspective fit of 68 landmarks to a mean face.

The 2 x 3 matrix that takes the mean face nearest to the landmarks (least squares) is linear in
them; the nearest scaled rotation to it (its polar factor) is the pose. The head's axes are x to the
image's right, y down, z away from the camera; a head that looks into the camera is at 0, 0, 0.
Rotations are about the head's own axes, yaw first.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

# x, y, z of the points in hundredths of the face's width (points 0 to 16), around their mean.
# Measured on dlib's landmarks of 690 shared photographs and their mirror images by factorisation
# (Tomasi and Kanade, IJCV 1992) with weak perspective: `benchmarks/face_shape.py` does it again.
# The outer eye corners are 0.60 of the width apart (anthropometry: 0.61, of about 89 mm and 145).
_MEAN_SHAPE = """
    -50 -24 46  -50 -11 43  -48 1 42  -46 14 40  -41 26 35
    -33 36 26  -23 44 16  -12 51 6  0 53 3  12 51 6
    23 44 16  33 36 26  41 26 35  46 14 40  48 1 42
    50 -11 43  50 -24 46  -41 -34 9  -34 -40 0  -26 -42 -8
    -16 -41 -14  -8 -38 -18  8 -38 -18  16 -41 -14  26 -42 -8
    34 -40 0  41 -34 9  0 -27 -19  0 -19 -24  0 -11 -30
    0 -3 -36  -10 3 -19  -5 5 -22  0 6 -24  5 5 -22
    10 3 -19  -30 -26 2  -25 -29 -2  -19 -29 -3  -13 -25 -3
    -19 -24 -3  -25 -24 -2  13 -25 -3  19 -29 -3  25 -29 -2
    30 -26 2  25 -24 -2  19 -24 -3  -20 18 2  -13 16 -10
    -5 14 -17  0 15 -18  5 14 -17  13 16 -10  20 18 2
    13 25 -7  6 28 -13  0 29 -14  -6 28 -13  -13 25 -7
    -17 19 0  -5 18 -16  0 19 -17  5 18 -16  17 19 0
    5 22 -14  0 23 -15  -5 22 -14
"""


class Pose(NamedTuple):
    """How B heads lie in their images, each (B,) float32; angles in degrees."""

    yaw: Tensor  # positive where the nose points to the image's right
    pitch: Tensor  # positive where the nose points up
    roll: Tensor  # clockwise on the screen
    width: Tensor  # of the jaw, from ear to ear, in pixels, as it would be seen from the front
    misfit: Tensor  # root mean square distance from the turned mean face, in widths


def mean_shape(device: torch.device | str = "cpu") -> Tensor:
    """Returns the mean face, (68, 3) float32: x right, y down, z away, its width being 1."""
    numbers = [float(number) / 100 for number in _MEAN_SHAPE.split()]
    shape = torch.tensor(numbers, device=device).view(-1, 3)
    return shape - shape.mean(dim=0)


def head_pose(landmarks: Tensor) -> Pose:
    """Fits the mean face to landmarks (B, 68, 2), finite; where all are one point, all is 0."""
    shape, inverse = _fitting(landmarks.device)
    points = landmarks.float() - landmarks.float().mean(dim=1, keepdim=True)
    affine = points.transpose(1, 2) @ inverse  # (B, 2, 3)
    # The polar factor of A is (A A')^-1/2 A, and a 2 x 2 matrix has its square root in closed form.
    gram = affine @ affine.transpose(1, 2)
    a, b, c = gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]
    area = (a * c - b * b).clamp(min=0).sqrt()  # product of the two singular values
    trace = (a + c + 2 * area).clamp(min=1e-12).sqrt()  # their sum
    root = torch.stack((c + area, -b, -b, a + area), dim=1).view(-1, 2, 2)
    rows = root @ affine / (area * trace).clamp(min=1e-12)[:, None, None]
    width = trace / 2
    turned = width[:, None, None] * (shape @ rows.transpose(1, 2))
    misfit = (points - turned).square().sum(dim=2).mean(dim=1).sqrt() / width.clamp(min=1e-6)
    right, down = rows[:, 0], rows[:, 1]
    away = torch.linalg.cross(right, down)
    return Pose(
        torch.rad2deg(torch.atan2(away[:, 0], away[:, 2])),
        torch.rad2deg(torch.asin((-away[:, 1]).clamp(-1, 1))),
        torch.rad2deg(torch.atan2(-right[:, 1], down[:, 1])),
        width,
        misfit,
    )


@cache
def _fitting(device: torch.device) -> tuple[Tensor, Tensor]:
    """The mean face and its pseudo-inverse, (68, 3) both, copied to a device once."""
    shape = mean_shape()
    inverse = shape @ torch.linalg.inv(shape.T @ shape)
    return shape.to(device), inverse.to(device)
