"""Xception (Chollet 2017, arXiv 1610.02357), as Keras computes it, or as Cadene's port does."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepregions.detectors.base import (
    Attention,
    LRSchedulerCallable,
    Normalisation,
    OptimizerCallable,
    RegionDetector,
)
from deepregions.errors import UsageError

Padding = Literal["same", "symmetric"]


class SamePool(nn.Module):
    """Max-pooling 3x3 with stride 2 and TensorFlow's "SAME" padding.

    An odd side is padded by one pixel at both ends, an even side at its far end only, which is
    what rounding the output's size up amounts to.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, ceil(H/2), ceil(W/2)) of (N, C, H, W)."""
        height, width = x.shape[-2:]
        return functional.max_pool2d(x, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)


class Xception(RegionDetector):
    """Xception with two classes, on crops in [0, 1] as they are (the paper, section 3.2).

    Batch normalisation has the epsilon and momentum of Keras, and pooling pads as TensorFlow, so
    that a model trained in Keras gives the same scores here, at any size. Models trained on
    Cadene's port, as FaceForensics++'s and DeepfakeBench's, need ``bn_eps=1e-5`` and
    ``padding="symmetric"``.

    Args:
        size: Height and width of the crops, at least 7.
        bn_momentum: Weight of the newest batch in batch normalisation's running statistics;
            Keras writes 0.01 as ``momentum=0.99``. Short trainings from scratch need more.
        bn_eps: Batch normalisation's epsilon.
        padding: ``same``: pooling pads as TensorFlow; ``symmetric``: by one pixel everywhere, as
            torch does. At the original's 200 pixels they are the same.
        normalisation: What the network expects of colours.
        pretrained: Start from timm's ``legacy_xception.tf_in1k``, trained on ImageNet.
        backbone_file: Start from this file (safetensors or torch) of those weights, or from that
            of a bundle, instead.
        optimizer: Makes the optimizer of the parameters that it is given.
        lr_scheduler: Makes the scheduler of the optimizer; stepped once an epoch.

    Raises:
        UsageError: The size is too small, no such padding, or the file is not there.
        UnreadableError: The file does not hold the weights of this network.
        AssetError: The pretrained weights cannot be fetched.
    """

    name = "xception"
    minimum_size = 7

    def __init__(
        self,
        size: int = 200,
        *,
        bn_momentum: float = 0.01,
        bn_eps: float = 1e-3,
        padding: Padding = "same",
        normalisation: Normalisation = "unit",
        pretrained: bool = False,
        backbone_file: str | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            size=size,
            normalisation=normalisation,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            bn_momentum=bn_momentum,
            bn_eps=bn_eps,
            padding=padding,
        )
        if padding not in get_args(Padding):
            raise UsageError(f"unknown padding {padding!r}", "same or symmetric")
        import timm  # noqa: PLC0415 - seconds

        self.backbone: nn.Module = timm.create_model("legacy_xception", num_classes=0)
        for name, module in list(self.backbone.named_modules()):
            if isinstance(module, nn.MaxPool2d) and padding == "same":
                self.backbone.set_submodule(name, SamePool())
            elif isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = bn_eps, bn_momentum
            elif isinstance(module, nn.Conv2d):
                # Maps keep their scale. In timm's start they fade, and from scratch the running
                # statistics need thousands of steps to come down to them.
                pointwise = module.kernel_size == (1, 1)
                nn.init.kaiming_normal_(
                    module.weight, nonlinearity="linear" if pointwise else "relu"
                )
        self.classifier = nn.Linear(2048, 2)
        if pretrained or backbone_file:
            from deepregions.detectors.pretrained import load_backbone  # noqa: PLC0415 - seconds

            load_backbone(self.backbone, "legacy_xception.tf_in1k", backbone_file)

    @property
    def head(self) -> nn.Module:
        """The fully connected layer."""
        return self.classifier

    @property
    def attention(self) -> Attention:
        """The last convolution's output, after its activation."""
        first, step, side = 1.0, 2, (self.size - 3) // 2 + 1  # two convolutions without padding
        first, side = first + step, side - 2
        for _ in range(4):
            if self._settings["padding"] == "same" and side % 2 == 0:
                # Padded at the far end only (SamePool): the pool's windows are centred on the
                # second of two pixels, while the shortcut beside it takes the first.
                first += step / 2
            step, side = 2 * step, -(-side // 2)
        return Attention(self.backbone.get_submodule("act4"), first, step)

    def network(self, x: Tensor) -> Tensor:
        """Returns the class scores (N, 2) of (N, 3, S, S)."""
        scores: Tensor = self.classifier(self.backbone(x))
        return scores
