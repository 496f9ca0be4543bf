"""Colour changes by one matrix per face, and transfer of one picture's colours to another.

Convention:
    Pixels are (B, 3, H, W) float32 RGB in [0, 255]. A colour change is a linear part (B, 3, 3) and
    an offset (B, 3): ``linear @ rgb + offset``, clamped to [0, 255].
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of R, G and B, as in JPEG

# To Y, Cb and Cr (JPEG's, without the shift that makes Cb and Cr positive), and back.
TO_YCC = ((*LUMA,), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FROM_YCC = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))

_STRIDE = 4  # moments are taken of every 4th pixel both ways
_NOISE = 5.0  # deviations below this are noise: no more than this is stretched
_GAIN = 1.7  # colours are not stretched or flattened by more


def recolour(pixels: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Applies a colour change to each picture."""
    changed = torch.baddbmm(offset[..., None], linear, pixels.flatten(2))
    return changed.view_as(pixels).clamp_(0, 255)


def saturation(factor: Tensor) -> Tensor:
    """Returns matrices (B, 3, 3) that scale saturation by a factor at equal luma."""
    grey = torch.tensor(LUMA).expand(3, 3)
    return grey + factor[:, None, None] * (torch.eye(3) - grey)


def transfer(source: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the colour change that gives one picture another's colours within a mask.

    Mean and deviation of each channel, as Reinhard et al. 2001, but in YCbCr, which is linear in
    RGB, so that it is a single matrix. The mask is (B, 1, H, W).
    """
    weight = mask[..., ::_STRIDE, ::_STRIDE].flatten(2)
    weight = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
    forth, back = (
        torch.tensor(rows).to(source.device, non_blocking=True) for rows in (TO_YCC, FROM_YCC)
    )
    mean, spread = _moments(source, weight, forth)
    wanted, wanted_spread = _moments(target, weight, forth)
    gain = (wanted_spread / spread).clamp(1 / _GAIN, _GAIN)
    offset = (wanted - gain * mean) @ back.mT
    return back @ (gain[..., None] * forth), offset


def _moments(pixels: Tensor, weight: Tensor, forth: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of Y, Cb and Cr, each (B, 3)."""
    some = forth @ pixels[..., ::_STRIDE, ::_STRIDE].flatten(2)
    mean = (some * weight).sum(-1)
    variance = ((some - mean[..., None]).square() * weight).sum(-1)
    return mean, (variance + _NOISE**2).sqrt()
