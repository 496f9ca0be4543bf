"""The losses of JPEG compression, in batches, on the device.

The steps of the standard (ITU-T T.81) as libjpeg, and so Pillow, does them by default: YCbCr, the
tables of its annex K scaled by the quality, blocks of 8 x 8, chroma at half the size or not. Only
what loses something is done; there are no bytes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.pixels.colour import FROM_YCC, TO_YCC

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)


def compress(pixels: Tensor, quality: Tensor, *, halved: bool = True) -> Tensor:
    """Returns pictures, (B, 3, H, W) float32 RGB in [0, 255], as JPEG compression leaves them.

    ``quality`` is (B,) 1 to 100, Pillow's; fractions are cut off. Chroma has half the size both
    ways (4:2:0, Pillow's default), or all of it.
    """
    height, width = pixels.shape[-2:]
    block = 16 if halved else 8
    edges = (0, -width % block, 0, -height % block)
    padded = functional.pad(pixels, edges, mode="replicate")
    forth, back, tables, _ = _constants(pixels.device)
    # Whole numbers, as libjpeg has them between its steps.
    ycc = (forth @ padded.flatten(2)).view_as(padded).round_()
    ycc[:, 0] -= 128
    steps = _steps(tables, quality)
    luma = _blocks(ycc[:, :1], steps[:, :1])
    chroma = ycc[:, 1:]
    if halved:
        # libjpeg rounds halves down and up in turns, on both ways.
        small = functional.avg_pool2d(chroma, 2)
        small = (small + _turns(small, 1 / 4, 2 / 4)).floor_()
        small = _blocks(small, steps[:, 1:].expand(-1, 2, -1, -1))
        # Half a pixel off, 3/4 and 1/4: libjpeg's "fancy upsampling".
        chroma = functional.interpolate(small, scale_factor=2.0, mode="bilinear")
        chroma = (chroma + _turns(chroma, 8 / 16, 7 / 16)).floor_()
    else:
        chroma = _blocks(chroma, steps[:, 1:].expand(-1, 2, -1, -1))
    ycc = torch.cat((luma, chroma), dim=1)
    ycc[:, 0] += 128
    rgb = (back @ ycc.flatten(2)).view_as(ycc)
    return rgb[..., :height, :width].round().clamp_(0, 255)


def _steps(tables: Tensor, quality: Tensor) -> Tensor:
    """Returns the divisors of coefficients, (B, 2, 8, 8), scaled as libjpeg does."""
    quality = quality.to(tables.device, non_blocking=True).floor()
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = ((tables * scale[:, None, None, None] + 50) / 100).floor()
    return steps.clamp(1, 255)


def _blocks(plane: Tensor, steps: Tensor) -> Tensor:
    """Transforms 8 x 8 blocks of (B, C, h, w), rounds their coefficients, transforms back."""
    cosines = _constants(plane.device)[3]
    batch, channels, height, width = plane.shape
    rows = (batch, channels * height // 8, 8, width)  # 8 rows of blocks beside each other
    coefficients = (cosines @ plane.reshape(rows)).view(-1, 8) @ cosines.T
    steps = steps[:, :, None, :, None]
    grid = coefficients.view(batch, channels, height // 8, 8, width // 8, 8)
    grid.div_(steps).round_().mul_(steps)
    pixels = cosines.T @ (coefficients @ cosines).view(rows)
    return pixels.round_().clamp_(-128, 127).view_as(plane)


def _turns(like: Tensor, first: float, second: float) -> Tensor:
    column = torch.arange(like.shape[-1], device=like.device)
    return first + (column % 2) * (second - first)


@lru_cache(maxsize=4)
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """To YCbCr and back, the tables (2, 8, 8), and the cosine transform (8, 8)."""
    step = torch.arange(8)
    cosines = torch.cos((2 * step + 1) * step[:, None] * math.pi / 16) / 2
    cosines[0] /= 2**0.5
    tables = torch.tensor((_LUMA, _CHROMA), dtype=torch.float32)
    both = torch.tensor(TO_YCC), torch.tensor(FROM_YCC)
    return both[0].to(device), both[1].to(device), tables.to(device), cosines.to(device)
