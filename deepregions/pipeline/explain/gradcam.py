"""Where networks look: Grad-CAM of each detector on each region, on the crop and on the face.

Grad-CAM (Selvaraju et al. 2017), computed by Captum on the last map that still shows where things
are (:attr:`RegionDetector.attention`). What is left where negative values are cut off speaks for
fake: exact shares of the log-odds, but for a constant, of a network that averages its last map
before a linear layer (Xception), else a first-order estimate. Between the centres of a map's few
cells heat is interpolated; beyond the outer ones it stays what it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from captum.attr import LayerGradCam
from torch import Tensor

from deepregions.detectors import RegionDetector
from deepregions.faces.cropping import RegionCropper, full_extent
from deepregions.pipeline.explain.shapley import evaluating
from deepregions.system import System
from deepregions.types import CropSpec, Region

_NOISE = 1e-6  # of the sum of what cancels out: some roundings of float32

Towards = Literal["fake", "genuine"]
"""What the heat speaks for; ``genuine`` is what Grad-CAM's paper calls counterfactual."""


@dataclass(frozen=True, eq=False)
class Heat:
    """Where one network looks on B faces."""

    row: str
    region: Region
    crops: Tensor  # (B, 3, S, S) float32 in [0, 1], what it saw
    maps: Tensor  # (B, h, w) float32, 0 or more; all 0: it says nothing for this side
    first: float  # pixel of the crop that the first cell is centred on
    step: float  # pixels to the next cell
    box: Tensor  # (B, 4) int64, what of the picture was stretched to the crop
    mask: Tensor  # (B, S, S) bool, where on the crop the region is

    @property
    def empty(self) -> Tensor:
        """(B,) bool, where there is no heat at all."""
        return self.maps.flatten(1).amax(1) <= 0

    def of(self, face: int) -> Heat:
        """Returns the heat of one face, as a batch of one, on the CPU."""
        one = slice(face, face + 1)
        names = ("crops", "maps", "box", "mask")
        return replace(self, **{name: getattr(self, name)[one].cpu() for name in names})

    def on_crop(self) -> Tensor:
        """Returns the heat over the crop, (B, S, S) float32."""
        size = self.crops.shape[-1]
        pixel = torch.arange(size, device=self.maps.device).expand(len(self.maps), -1)
        return self._at(pixel, pixel)

    def on_picture(self, width: int, height: int) -> Tensor:
        """Returns the heat over the whole picture, (B, height, width); 0 outside the crops' box."""
        size = self.crops.shape[-1]
        low, side = self.box[:, None, :2], (self.box[:, 2:] - self.box[:, :2])[:, None]
        place, there = [], []
        for axis, length in enumerate((width, height)):
            pixel = torch.arange(length, device=self.maps.device) - low[..., axis]
            place.append((pixel + 0.5) * (size / side[..., axis]) - 0.5)
            there.append((pixel >= 0) & (pixel < side[..., axis]))
        return self._at(*place) * there[1][:, :, None] * there[0][:, None, :]

    def inside(self) -> Tensor:
        """Returns the share (B,) of heat on the crop that is in the region; NaN without heat."""
        return share(self.on_crop(), self.mask)

    def _at(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, X), (B, Y) pixels of the crop -> (B, Y, X), interpolated between the cells."""
        weights = []
        for pixel, count in ((x, self.maps.shape[-1]), (y, self.maps.shape[-2])):
            place = ((pixel - self.first) / self.step).clamp(0, count - 1)
            cell = torch.arange(count, device=place.device)
            weights.append((1 - (place[..., None] - cell).abs()).clamp(min=0))
        return weights[1] @ self.maps @ weights[0].mT


def share(heat: Tensor, mask: Tensor) -> Tensor:
    """The share of heat (B, H, W) that lies on a mask: (B,) in [0, 1], NaN where there is none."""
    return torch.where(mask, heat, 0.0).sum((1, 2)) / heat.sum((1, 2))


def grad_cam(
    detector: RegionDetector, crops: Tensor, *, towards: Towards = "fake", batch_size: int = 16
) -> Tensor:
    """Computes where a detector looks at crops (N, 3, S, S) in [0, 1], on its device.

    It works under ``inference_mode`` and on frozen networks, which are asked in evaluation mode;
    they are left as they were, without gradients or hooks.

    Returns:
        (N, h, w) float32, 0 or more, in the unit of log-odds over the map's number of cells. 0
        everywhere if the network's answer is not finite.

    Raises:
        UsageError: The detector does not name a map, or the crops are of another size.
    """
    gradients = LayerGradCam(detector, detector.attention.layer)
    found = []
    cudnn = torch.backends.cudnn.flags(benchmark=False, deterministic=True)
    with torch.inference_mode(False), torch.enable_grad(), evaluating(detector), cudnn:
        for part in torch.split(crops.detach(), batch_size):
            # Cloned: autograd does not take what was made in inference mode.
            terms: Tensor = gradients.attribute(part.clone(), attr_dim_summation=False)
            terms = terms.detach().float()
            total = terms.sum(1)
            # Where channels cancel out, what is left of rounding is no heat.
            found.append(torch.where(total.abs() > _NOISE * terms.abs().sum(1), total, 0.0))
    heat = torch.cat(found).nan_to_num(0.0, 0.0, 0.0)
    return (heat if towards == "fake" else -heat).clamp(min=0)


def heats(
    system: System,
    image: Tensor,
    landmarks: Tensor,
    extent: Tensor | None = None,
    *,
    towards: Towards = "fake",
    batch_size: int = 16,
) -> tuple[Heat, ...]:
    """Computes where each network of a system looks, in the order of :attr:`System.members`.

    Of regions that are not there to be judged, too. ``extent`` (B, 2) is width and height of each
    picture (B, 3, H, W) uint8 RGB without its padding.

    Raises:
        UsageError: A detector does not name its map.
    """
    extent = full_extent(image) if extent is None else extent
    crops = system.by_cut(system.crops(image, landmarks, extent)[0])
    croppers = cast("Sequence[RegionCropper]", system.croppers)
    boxes = system.by_cut([each.boxes(landmarks) for each in croppers])
    masks = system.by_cut([each.masks(landmarks, extent) for each in croppers])
    seen = {place: (crops[place], boxes[place], masks[place]) for place in crops}
    return _heats(system, seen, towards, batch_size)


def heats_segmented(
    system: System, canvas: Tensor, region: Region, *, towards: Towards = "fake"
) -> tuple[Heat, ...]:
    """As :func:`heats`, of images that already are a region's canvas: by its networks only."""
    height, width = canvas.shape[-2:]
    box = torch.tensor([0, 0, width, height], device=canvas.device).expand(len(canvas), -1)
    crops = system.by_cut(system.segmented_crops(canvas, region)[0])
    seen = {place: (x, box, x.amax(1) > 0) for place, x in crops.items() if place[1] is region}
    return _heats(system, seen, towards)


def _heats(
    system: System,
    seen: Mapping[tuple[CropSpec, Region], tuple[Tensor, Tensor, Tensor]],
    towards: Towards,
    batch_size: int = 16,
) -> tuple[Heat, ...]:
    found = []
    for member, (row, _) in zip(system.members, system.cells, strict=True):
        if (member.cut, member.region) in seen:
            crops, box, mask = seen[member.cut, member.region]
            maps = grad_cam(member.detector, crops, towards=towards, batch_size=batch_size)
            _, first, step = member.detector.attention
            name = system.rows[row]
            found.append(Heat(name, member.region, crops, maps, first, step, box, mask))
    return tuple(found)
