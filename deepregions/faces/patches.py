"""Patches: the part of a picture around a face, small enough to keep and to batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepregions.faces.landmarks import Face

MARGIN = 0.5
MAX_SIZE = 512


def upright(image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Turns a picture (3, H, W) by quarters until the eyes of a face (68, 2) lie side by side."""
    across, down = (landmarks[42:48].mean(0) - landmarks[36:42].mean(0)).tolist()
    turns = round(math.atan2(down, across) / (math.pi / 2)) % 4
    for _ in range(turns):
        landmarks = torch.stack((landmarks[:, 1], image.shape[2] - 1 - landmarks[:, 0]), dim=1)
        image = image.rot90(1, (1, 2))
    return image, landmarks


def crop_face(
    image: Tensor, face: Face, margin: float = MARGIN, max_size: int = MAX_SIZE
) -> tuple[Tensor, Tensor, float] | None:
    """Cuts a face out with its surroundings, upright, and makes it smaller where it is large.

    One that lies on its side or stands on its head is turned by quarters.

    Args:
        image: (3, H, W) uint8 RGB.
        face: Its box and landmarks in pixels of ``image``.
        margin: What surrounds box and landmarks on each side, as a share of their width or height;
            less where the picture ends.
        max_size: The longest side in pixels.

    Returns:
        The crop (3, h, w) uint8, the landmarks (68, 2) in its pixels, which may be off it, and its
        pixels per pixel of ``image``; None if the face is off the picture or a landmark is not a
        number.
    """
    if not (face.landmarks.isfinite().all() and face.box.isfinite().all()):
        return None
    low = torch.minimum(face.box[:2], face.landmarks.amin(0))
    high = torch.maximum(face.box[2:], face.landmarks.amax(0))
    around = margin * (high - low)
    left, top = (low - around).floor().int().clamp(min=0).tolist()
    right, bottom = (high + around).ceil().int().tolist()
    crop = image[:, top : max(bottom + 1, 0), left : max(right + 1, 0)]
    if not crop.numel():
        return None
    crop, landmarks = upright(crop, face.landmarks - torch.tensor([left, top]).float())
    scale = min(1.0, max_size / max(crop.shape[1:]))
    return *smaller(crop, landmarks, scale), scale


def smaller(image: Tensor, landmarks: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Returns a picture (3, H, W) uint8 and landmarks on it at ``scale`` of its size, at most 1."""
    if scale == 1:
        return image, landmarks
    size = [max(1, round(side * scale)) for side in (image.shape[2], image.shape[1])]
    pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    small = np.array(pixels.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    ratio = torch.tensor([size[0] / image.shape[2], size[1] / image.shape[1]])
    # Pixel centres are at whole numbers, so the picture's corner, which stays, is at (-0.5, -0.5).
    return torch.from_numpy(small).permute(2, 0, 1), (landmarks + 0.5) * ratio - 0.5


def stack(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks B images (3, h, w) of any size, padded with black right and below.

    And returns each image's own width and height, (B, 2) int64.
    """
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, torch.tensor([(image.shape[2], image.shape[1]) for image in images])
