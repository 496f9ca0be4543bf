"""EfficientNet-Lite (Google, 2020), with timm's names of arrays: what the default networks are.

Ours, because timm and what it imports take longer to load than a photograph takes to be scored.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLIERS = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
    "tf_efficientnet_lite3": (1.2, 1.4),
    "tf_efficientnet_lite4": (1.4, 1.8),
}
"""Of width and of depth, by timm's names."""

# Of each stage: blocks, side of the windows, stride, channels.
_STAGES = (
    *((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80)),
    *((3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320)),
)
_STEM, _HEAD, _EXPANSION, _EPSILON = 32, 1280, 6, 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow: where it is odd, more at the far end."""

    def __init__(self, given: int, made: int, side: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(given, made, side, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, ceil(H/stride), ceil(W/stride)) of (N, C, H, W)."""
        side, stride = self.kernel_size[0], self.stride[0]
        down, across = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:])
        padding = (down // 2, across // 2)
        if down % 2 or across % 2:
            x = functional.pad(x, (padding[1], across - padding[1], padding[0], down - padding[0]))
            padding = (0, 0)
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


class NormAct(nn.BatchNorm2d):
    """Batch normalisation, and the activation after it."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns values in [0, 6] of the same shape."""
        return functional.relu6(super().forward(x), inplace=True)


class Residual(nn.Sequential):
    """Layers, to whose output their input is added."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns what has the shape of ``x``."""
        changed: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return changed + x


class EfficientNetLite(nn.Sequential):
    """EfficientNet-Lite without its classifier, as timm has it under the same name."""

    head_hidden_size = _HEAD

    def __init__(self, name: str) -> None:
        super().__init__()
        width, depth = MULTIPLIERS[name]
        self.conv_stem = SameConv2d(3, _STEM, 3, 2)
        self.bn1 = NormAct(_STEM, _EPSILON)
        given, stages = _STEM, []
        for number, (blocks, side, stride, channels) in enumerate(_STAGES):
            if 0 < number < len(_STAGES) - 1:
                blocks = math.ceil(blocks * depth)  # noqa: PLW2901
            made, layers = _rounded(channels * width), []
            for place in range(blocks):
                expansion = _EXPANSION if number else 1
                layers.append(_block(given, made, side, 1 if place else stride, expansion))
                given = made
            stages.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = SameConv2d(given, _HEAD, 1)
        self.bn2 = NormAct(_HEAD, _EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as TensorFlow starts it
                fan = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))

    def forward_features(self, x: Tensor) -> Tensor:
        """Returns the last map (N, 1280, ceil(S/32), ceil(S/32)) of (N, 3, S, S)."""
        features: Tensor = self(x)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = True) -> Tensor:  # noqa: ARG002
        """Returns the means (N, 1280) of a map."""
        return functional.adaptive_avg_pool2d(features, 1).flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Says which arrays are one stage, as timm does."""
        blocks = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": [(blocks, None), (r"conv_head|bn2", (99999,))]}

    @torch.no_grad()
    def fold(self) -> None:
        """Makes normalisation a part of the convolutions: this network then only scores."""
        for part in list(self.modules()):
            if not isinstance(part, nn.Sequential):
                continue
            for (_, layer), (name, norm) in pairwise(list(part.named_children())):
                if isinstance(layer, SameConv2d) and isinstance(norm, nn.BatchNorm2d):
                    mean, variance = (
                        norm.get_buffer(f"running_{x}").double() for x in ("mean", "var")
                    )
                    scale = norm.weight.double() * (variance + norm.eps).rsqrt()
                    weight = layer.weight.double() * scale[:, None, None, None]
                    bias = norm.bias.double() - mean * scale
                    layer.weight, layer.bias = (
                        nn.Parameter(each.float(), requires_grad=False) for each in (weight, bias)
                    )
                    acts = isinstance(norm, NormAct)
                    setattr(part, name, nn.ReLU6(inplace=True) if acts else nn.Identity())


def _block(given: int, made: int, side: int, stride: int, expansion: int) -> nn.Sequential:
    """Layers for each channel by itself between two that mix channels; of these one at least."""
    inner = given * expansion
    layers: dict[str, nn.Module] = {}
    if expansion > 1:
        layers = {"conv_pw": SameConv2d(given, inner, 1), "bn1": NormAct(inner, _EPSILON)}
    last, number = ("conv_pwl", 2) if layers else ("conv_pw", 1)
    layers["conv_dw"] = SameConv2d(inner, inner, side, stride, groups=inner)
    layers[f"bn{number}"] = NormAct(inner, _EPSILON)
    layers[last] = SameConv2d(inner, made, 1)
    layers[f"bn{number + 1}"] = nn.BatchNorm2d(made, _EPSILON)
    block = Residual() if stride == 1 and given == made else nn.Sequential()
    for name, layer in layers.items():
        block.add_module(name, layer)
    return block


def _rounded(channels: float, by: int = 8) -> int:
    """A multiple of 8 near by, at most a tenth less."""
    near = max(by, int(channels + by / 2) // by * by)
    return near + by * (near < 0.9 * channels)
