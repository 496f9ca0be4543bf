"""Networks as their authors run them, to measure ours against: the same answers, more steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepregions.detectors.base import RegionDetector
from deepregions.detectors.capsule import CAPSULES, Capsule, PrimaryCapsules, squash


class Branches(nn.Module):
    """Ten primary capsules one after another, as Capsule-Forensics' ``model_big.py`` has them.

    Args:
        joint: The same ten side by side; their weights are shared, not copied.
    """

    def __init__(self, joint: PrimaryCapsules) -> None:
        super().__init__()
        parts = [_split(layer) for layer in joint.children()]  # in the order of their use
        self.branches = nn.ModuleList(nn.ModuleList(layers) for layers in zip(*parts, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, capsules, 8) of a map (N, 256, H, W), as :class:`PrimaryCapsules` does."""
        return squash(torch.cat([_capsule(layers, x) for layers in self.branches], dim=1), dim=1)


def as_original(detector: RegionDetector) -> RegionDetector:
    """Makes a network compute as its original does, in place, and returns it.

    Xception and DSP-FWA do so already; Capsule's ten capsules become a loop.
    """
    if isinstance(detector, Capsule):
        joint = detector.capsules[0]
        if isinstance(joint, PrimaryCapsules):
            detector.capsules[0] = Branches(joint).train(joint.training)
    return detector


def _capsule(layers: nn.Module, x: Tensor) -> Tensor:
    """Returns (N, 1, 8), one capsule's answer."""
    conv1, bn1, conv2, bn2, conv3, bn3, conv4, bn4 = layers.children()
    x = bn2(conv2(bn1(conv1(x)).relu())).relu()
    x = torch.stack([x.mean((2, 3)), x.std((2, 3))], dim=1)
    answer: Tensor = bn4(conv4(bn3(conv3(x))))
    return answer


def _split(layer: nn.Module) -> list[nn.Module]:
    """Returns a layer of all capsules as a layer for each."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return [_convolution(layer, rows) for rows in _rows(layer.out_channels)]
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return [_normalisation(layer, rows) for rows in _rows(layer.num_features)]
    raise TypeError(f"{type(layer).__name__} is no layer of a primary capsule")


def _rows(channels: int) -> list[slice]:
    width = channels // CAPSULES
    return [slice(first, first + width) for first in range(0, channels, width)]


def _convolution(layer: nn.Conv1d | nn.Conv2d, rows: slice) -> nn.Module:
    weight = layer.weight[rows]
    made = type(layer)(
        weight.shape[1],
        len(weight),
        layer.kernel_size,  # type: ignore[arg-type]  # a tuple of its own kind's length
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        device="meta",
    )
    made.weight = nn.Parameter(weight.detach())
    if made.bias is not None and layer.bias is not None:
        made.bias = nn.Parameter(layer.bias[rows].detach())
    return made


def _normalisation(layer: nn.BatchNorm1d | nn.BatchNorm2d, rows: slice) -> nn.Module:
    made = type(layer)(rows.stop - rows.start, eps=layer.eps, momentum=layer.momentum)
    made.load_state_dict(
        {name: value[rows] if value.dim() else value for name, value in layer.state_dict().items()}
    )
    return made
