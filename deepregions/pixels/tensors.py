"""Between pictures as arrays, (H, W, 3), and as what networks take: tensors, (3, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepregions.pixels.pictures import padded


def as_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Returns (H, W, 3) pixels as a (3, H, W) tensor, which shares their memory if it may."""
    if not pixels.flags.writeable or min(pixels.strides) < 0:
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def as_array(image: Tensor) -> NDArray[np.uint8]:
    """Returns a (3, H, W) uint8 tensor as (H, W, 3) pixels, one after the other in memory."""
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def stack(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks B images (3, h, w) of any size, padded with black right and below.

    And returns each image's own width and height, (B, 2) int64.
    """
    batch, extent = padded([image.permute(1, 2, 0).numpy() for image in images])
    return torch.from_numpy(batch), torch.from_numpy(extent)
