"""Mixed precision on CPUs: depthwise convolutions stay in float32, in which they are faster."""

from __future__ import annotations

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from deepregions.detectors.efficientnet_lite import SameConv2d


class _Float32:
    """Mixed into a convolution: autocast on a CPU does not reach it."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolves; under bfloat16 autocast on a CPU in float32, returning bfloat16."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return self._convolved(x)
        with torch.autocast("cpu", enabled=False):
            return self._convolved(x.float()).to(x.dtype)

    def _convolved(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x)  # type: ignore[misc]  # of the class it is mixed into
        return result


class DepthwiseConv2d(_Float32, nn.Conv2d):
    """torch's convolution, in float32 on CPUs."""


class DepthwiseLiteConv2d(_Float32, SameConv2d):
    """EfficientNet-Lite's convolution, in float32 on CPUs."""


class DepthwiseConv2dSame(_Float32, Conv2dSame):
    """timm's convolution with TensorFlow's padding, in float32 on CPUs."""


_KEPT: dict[type[nn.Module], type[nn.Conv2d]] = {
    nn.Conv2d: DepthwiseConv2d,
    SameConv2d: DepthwiseLiteConv2d,
    Conv2dSame: DepthwiseConv2dSame,
}


def keep_depthwise_float32(network: nn.Module) -> None:
    """Makes the depthwise convolutions of a network compute in float32 on CPUs.

    The backward pass of oneDNN's in bfloat16 takes several times as long. Parameters, their names,
    and what is computed without autocast stay the same.
    """
    for module in network.modules():
        if type(module) in _KEPT and isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = _KEPT[type(module)]


def suited_precision(precision: str, accelerator: str) -> str:
    """Returns the precision to train in: float32 for bfloat16 where a CPU would emulate it."""
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto" and not torch.accelerator.is_available()
    )
    emulated = on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "32-true" if emulated and precision.startswith("bf16") else precision
