"""Heat over pictures: grey below, colours where there is heat."""

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional

from deepregions.pipeline.report.drawing import to_picture
from deepregions.pixels.tensors import as_array

_MAP = colormaps["plasma"]
_OPAQUE = 0.7  # of the hottest place
_FULL = 0.5  # share of the hottest from which on heat is as opaque as it gets
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


def overlay(picture: Tensor, heat: Tensor) -> Tensor:
    """Lays heat (H, W) over a picture (3, H, W), uint8 or floating point in [0, 1].

    The colours go from 0 to this heat's own highest value; without heat the picture is grey.
    """
    pixels = picture.cpu().float() / (1 if picture.is_floating_point() else 255)
    grey = (pixels * torch.tensor(_GREY)[:, None, None]).sum(0)
    level = heat.cpu().float()
    level = level / level.amax().clamp(min=torch.finfo(torch.float32).tiny)
    colours = torch.from_numpy(_MAP(level.numpy())[..., :3].astype(np.float32)).permute(2, 0, 1)
    opacity = _OPAQUE * (level / _FULL).clamp(0, 1)
    mixed = torch.lerp(grey.expand_as(colours), colours, opacity)
    return (mixed.clamp(0, 1) * 255).round().to(torch.uint8)


def tile(crop: Tensor, heat: Tensor, mask: Tensor, side: int) -> Tensor:
    """Draws a crop (3, S, S) with heat (S, S) and the outline of a mask: (3, side, side) uint8."""
    smooth = torch.cat([crop.cpu(), heat.cpu()[None]])[None]
    scaled = functional.interpolate(smooth, (side, side), mode="bilinear")[0]
    region = functional.interpolate(mask.cpu()[None, None].float(), (side, side), mode="bilinear")
    return outlined(overlay(scaled[:3], scaled[3]), region[0, 0] >= 0.5)


def outlined(picture: Tensor, mask: Tensor) -> Tensor:
    """Draws a mask's outline on a picture, two pixels wide, white with black outside."""
    region = mask.cpu()[None, None].float()
    outside, inside = (
        functional.max_pool2d(sign * region, 3, 1, 1)[0, 0] * sign for sign in (1, -1)
    )
    lined = torch.where((outside > region[0, 0]), 0, picture)
    return torch.where(inside < region[0, 0], 255, lined).to(torch.uint8)


def legend(width: int, height: int) -> Image.Image:
    """The colours from no heat, as it lies over middle grey, to the most."""
    ramp = torch.linspace(0, 1, width).expand(height, -1)
    return to_picture(as_array(overlay(torch.full((3, height, width), 0.5), ramp)))
