"""DSP-FWA: ResNet-50 with spatial pyramid pooling (Li and Lyu 2019, arXiv 1811.00656)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from deepregions.detectors.base import (
    Attention,
    LRSchedulerCallable,
    Normalisation,
    OptimizerCallable,
    RegionDetector,
)
from deepregions.errors import UsageError

LEVELS = (1, 2, 6)
_LEGACY_SIZES = "161-224, 353-448, 545-672, 737-896, 929-1024"  # of crops, by fits()
Mode = Literal["legacy", "adaptive"]


def pyramid_windows(side: int, bins: int, mode: Mode) -> list[tuple[int, int]]:
    """Returns where a pyramid level's windows start and end, half-open, on a side of a map.

    ``legacy`` windows, the original's, are ceil(side/bins) wide and floor(side/bins) apart, which
    can give more of them, or none, or leave the last pixels out; ``adaptive`` ones are those of
    ``torch.nn.AdaptiveMaxPool2d``.
    """
    if mode == "adaptive":
        return [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
    width, step = -(-side // bins), side // bins
    return [(i, i + width) for i in range(0, side - width + 1, step)] if step else []


def fits(size: int, mode: Mode) -> bool:
    """Returns whether crops of this size give the pyramid its 1, 4 and 36 windows."""
    side = -(-size // 32)  # five halvings, each rounded up
    return all(len(pyramid_windows(side, bins, mode)) == bins for bins in LEVELS)


class SpatialPyramid(nn.Module):
    """Max-pooling over grids of 1x1, 2x2 and 6x6 windows.

    The windows are slices, which export where adaptive pooling does not.
    """

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode: Mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 41 C) of (N, C, H, W): level by level, each as (C, row, column)."""
        return torch.cat([self._level(x, bins).flatten(1) for bins in LEVELS], dim=1)

    def _level(self, x: Tensor, bins: int) -> Tensor:
        for axis in (-2, -1):  # a maximum over a rectangle: over its columns, then its rows
            windows = pyramid_windows(x.shape[axis], bins, self.mode)
            slices = [x.narrow(axis, start, end - start) for start, end in windows]
            x = torch.cat([part.amax(axis, keepdim=True) for part in slices], dim=axis)
        return x


class DSPFWA(RegionDetector):
    """ResNet-50, a spatial pyramid over its last map, and two classes.

    Args:
        size: Height and width of the crops. The legacy pyramid takes only some.
        pyramid: ``legacy`` for the original's windows, ``adaptive`` for any size. At the
            original's 200 pixels they are the same.
        normalisation: What the network was given in training: ``caffe`` by DSP-FWA's authors.
        pretrained: Start from timm's ``resnet50.tv_in1k``, trained on ImageNet.
        backbone_file: Start from this file (safetensors or torch) of those weights, or from that
            of a bundle, instead.
        optimizer: Makes the optimizer of the parameters that it is given.
        lr_scheduler: Makes the scheduler of the optimizer; stepped once an epoch.

    Raises:
        UsageError: The size does not suit the pyramid, or the file is not there.
        UnreadableError: The file does not hold the weights of this network.
        AssetError: The pretrained weights cannot be fetched.
    """

    name = "dsp-fwa"

    def __init__(
        self,
        size: int = 200,
        *,
        pyramid: Mode = "legacy",
        normalisation: Normalisation = "imagenet",
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
            pyramid=pyramid,
        )
        if not fits(size, pyramid):
            raise UsageError(
                f"the legacy pyramid of DSPFWA does not fit crops of {size} pixels",
                f"it fits {_LEGACY_SIZES}; --model.init_args.pyramid adaptive fits any",
            )
        import timm  # noqa: PLC0415 - seconds

        self.backbone: nn.Module = timm.create_model("resnet50", num_classes=0, global_pool="")
        self.pyramid = SpatialPyramid(pyramid)
        self.classifier = nn.Linear(2048 * sum(bins**2 for bins in LEVELS), 2)
        if pretrained or backbone_file:
            from deepregions.detectors.pretrained import load_backbone  # noqa: PLC0415 - seconds

            load_backbone(self.backbone, "resnet50.tv_in1k", backbone_file)

    @property
    def head(self) -> nn.Module:
        """The fully connected layer."""
        return self.classifier

    @property
    def attention(self) -> Attention:
        """ResNet's last map, before the pyramid; every layer pads by half of its kernel."""
        return Attention(self.backbone.get_submodule("layer4"), 0, 32)

    def network(self, x: Tensor) -> Tensor:
        """Returns the class scores (N, 2) of (N, 3, S, S)."""
        scores: Tensor = self.classifier(self.pyramid(self.backbone(x)))
        return scores
