"""Pictures as tensors, (3, H, W), and as arrays, (H, W, 3); batches of them, and their chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepregions.pixels.pictures import padded

_ON_A_CPU = 4  # pictures that fit its caches; a few megabytes in work


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


def chunks(first: int, end: int, device: torch.device) -> list[slice]:
    """Splits rows into chunks to process at a time; on a GPU there is one chunk."""
    step = _ON_A_CPU if device.type == "cpu" else max(end - first, 1)
    return [slice(start, min(end, start + step)) for start in range(first, end, step)]


def put(whole: Tensor, rows: Tensor, part: Tensor) -> None:
    """Copies pictures (N, ...) into some rows (N,) of a batch (B, ...), eight bytes at a time."""
    if part.dtype == torch.uint8 and part.shape[-1] % 8 == 0 and part.is_contiguous():
        whole, part = whole.view(torch.int64), part.view(torch.int64)
    whole.index_copy_(0, rows, part)
