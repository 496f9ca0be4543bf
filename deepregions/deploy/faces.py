"""Faces on which exported files and runtimes are compared: one portrait, in many conditions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepregions.errors import ExportError, require
from deepregions.faces.backends import landmark_detector

_PORTRAIT = (slice(0, 320), slice(60, 380))  # of scikit-image's astronaut: head and shoulders
_TINY = 12 / 150  # of the portrait: a face of some 12 pixels


def conditions() -> Iterator[tuple[Tensor, Tensor]]:
    """Yields batches of faces with landmarks: several sizes, and bad ones among them.

    Yields:
        Image (B, 3, H, W) uint8 and landmarks (B, 68, 2) float32 pixels: the portrait by itself;
        a batch of it, mirrored, darker and noisy; one of a face cut by the border, one too small
        to judge and one whose landmarks are not numbers; and the portrait in a large picture.

    Raises:
        MissingExtraError: scikit-image, whose portrait it is, is not installed.
        AssetError: dlib's landmarks are not to be had.
    """
    image, points = portrait()
    yield image[None], points[None]
    noise = torch.randint(-40, 41, image.shape, generator=torch.Generator().manual_seed(0))
    noisy = (image.int() + noise).clamp(0, 255).to(torch.uint8)
    half, half_points = _scaled(torch.stack((image, image // 3, noisy)), points, 0.6)
    yield half, half_points.expand(3, -1, -1).clone()
    cut = torch.zeros_like(image)
    middle = int(points[:, 0].mean())
    cut[:, :, : image.shape[2] - middle] = image[:, :, middle:]
    tiny, tiny_points = _scaled(image[None], points, _TINY)
    corner = torch.zeros_like(image)
    corner[:, : tiny.shape[2], : tiny.shape[3]] = tiny[0]
    moved = points - torch.tensor([float(middle), 0.0])
    lost = torch.full_like(points, torch.nan)
    yield (
        torch.stack((image, cut, corner, image)),
        torch.stack((points, moved, tiny_points, lost)),
    )
    large, large_points = _scaled(image[None], points, 1.7)
    yield functional.pad(large, (30, 200, 90, 10)), large_points[None] + torch.tensor([30.0, 90.0])


def portrait() -> tuple[Tensor, Tensor]:
    """Returns a photograph (3, H, W) uint8, and its face's landmarks (68, 2), by dlib.

    Raises:
        MissingExtraError: scikit-image is not installed.
        ExportError: No face is found, which must not be.
    """
    pixels = require("skimage.data", "onnxruntime").astronaut()[_PORTRAIT]
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()
    found = landmark_detector("dlib-hog")(image[None])[0]
    if not found:
        raise ExportError("no face is found on scikit-image's portrait", "deepregions doctor")
    return image, found[0].landmarks


def _scaled(images: Tensor, points: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Makes images (B, 3, H, W) larger or smaller, with landmarks (68, 2)."""
    size = [round(side * factor) for side in images.shape[2:]]
    scaled = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    ratio = torch.tensor([size[1] / images.shape[3], size[0] / images.shape[2]])
    return scaled.round().clamp(0, 255).to(torch.uint8), (points + 0.5) * ratio - 0.5
