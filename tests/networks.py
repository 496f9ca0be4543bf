"""Small networks and faces that several tests score with."""

from typing import TypeVar

import torch
from torch import Tensor

from deepregions.detectors import DSPFWA, RegionDetector, Xception
from deepregions.system import Member
from deepregions.types import Region

SIZE = 64

Detector = TypeVar("Detector", bound=RegionDetector)


def landmarks(batch: int = 1, *, centre: float = 100.0, scale: float = 60.0) -> Tensor:
    """(B, 68, 2) of an upright, symmetric face about 2 * ``scale`` px wide."""
    jaw = torch.linspace(torch.pi, 0, 17)
    points = [torch.stack([jaw.cos(), 0.1 + 1.05 * jaw.sin()], 1)]

    def line(x0: float, x1: float, y0: float, y1: float, count: int) -> Tensor:
        return torch.stack([torch.linspace(x0, x1, count), torch.linspace(y0, y1, count)], 1)

    def ring(x: float, y: float, w: float, h: float, count: int) -> Tensor:
        angle = torch.pi + torch.arange(count) * 2 * torch.pi / count
        return torch.stack([x + w * angle.cos(), y + h * angle.sin()], 1)

    points += [line(-0.75, -0.2, -0.4, -0.4, 5), line(0.2, 0.75, -0.4, -0.4, 5)]
    points += [line(0, 0, -0.2, 0.25, 4), line(-0.2, 0.2, 0.33, 0.33, 5)]
    points += [ring(-0.45, -0.18, 0.16, 0.07, 6), ring(0.45, -0.18, 0.16, 0.07, 6)]
    points += [ring(0, 0.65, 0.35, 0.15, 12), ring(0, 0.65, 0.28, 0.06, 8)]
    return (centre + scale * torch.cat(points)).expand(batch, -1, -1).clone()


def picture(height: int = 200, width: int = 200, *, seed: int = 0) -> Tensor:
    """(3, H, W) uint8 noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def xception(bias: float | None = None) -> Xception:
    """A small Xception; with a bias, it gives these log-odds whatever it sees."""
    return _constant(Xception(size=SIZE), bias)


def dsp_fwa(bias: float | None = None) -> DSPFWA:
    """A small DSP-FWA, likewise."""
    return _constant(DSPFWA(size=SIZE, pyramid="adaptive"), bias)


def _constant(detector: Detector, bias: float | None) -> Detector:
    if bias is not None:
        with torch.no_grad():
            last = [module for module in detector.modules() if isinstance(module, torch.nn.Linear)]
            last[-1].weight.zero_()
            last[-1].bias.copy_(torch.tensor([0.0, bias]))
    return detector.eval()


def member(
    detector: RegionDetector, region: Region = Region.ENTIRE, database: str = "made"
) -> Member:
    return Member(detector, region, database, "masked", {"note": "made by a test"})
