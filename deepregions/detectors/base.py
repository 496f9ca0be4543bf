"""What all detectors share: from crops to log-odds and losses; ``training.py`` trains them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deepregions.errors import UsageError

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]

Normalisation = Literal["unit", "centred", "imagenet", "clip", "caffe"]
"""What a network expects of colours in [0, 1]: as they are; in [-1, 1]; ImageNet's mean and
deviation, as torchvision's; the mean and deviation of CLIP's pictures; ImageNet's mean subtracted
in [0, 255], as Caffe's."""

_MEAN_AND_STD: dict[Normalisation, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "centred": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}


class Attention(NamedTuple):
    """The map in a network that shows where it looks, and where on a crop its cells are.

    How the layers before pad decides which pixel a cell is centred on.
    """

    layer: nn.Module
    """Its output is the map, (N, C, h, w)."""
    first: float
    """The pixel of the crop that the first cell is centred on, in x as in y."""
    step: float
    """Pixels from one cell to the next."""


class RegionDetector(nn.Module, ABC):
    """A network that judges one region of a face.

    A subclass builds its network, names its last part as :attr:`head`, and defines
    :meth:`network`. If its scores are not one pair per crop, it also overrides :meth:`log_odds`
    and :meth:`score_losses`. Scoring goes through :meth:`forward`, which is what is exported,
    training through the :meth:`scores` that it is made of. It is no LightningModule, as importing
    Lightning takes longer than scoring a photograph; :class:`DetectorTraining` makes it one.

    Attributes:
        name: What tables, bundles and file names call the detector.
        mean: (1, 3, 1, 1) buffer, subtracted from colours R, G, B in [0, 1].
        std: (1, 3, 1, 1) buffer, by which they are then divided.

    Raises:
        UsageError: The size is below :attr:`minimum_size`, or no such normalisation.
    """

    name: str
    minimum_size: ClassVar[int] = 1
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        size: int,
        normalisation: Normalisation,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        **settings: bool | float | str,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if size < self.minimum_size:
            raise UsageError(
                f"{name} cannot judge crops of {size} pixels",
                f"it needs at least {self.minimum_size}",
            )
        if normalisation not in get_args(Normalisation):
            known = ", ".join(get_args(Normalisation))
            raise UsageError(f"unknown normalisation {normalisation!r}", f"one of {known}")
        shared: dict[str, bool | float | str] = {"size": size, "normalisation": normalisation}
        self._settings = shared | settings
        self.size = size
        mean, std = _MEAN_AND_STD[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """The last part, a direct child, that is trained first when the rest is pretrained."""

    @property
    def attention(self) -> Attention:
        """The map that Grad-CAM looks at: the last one that still shows where things are.

        Raises:
            UsageError: The detector does not name one.
        """
        raise UsageError(
            f"{type(self).__name__} does not say which of its maps shows where it looks",
            "give it the property attention",
        )

    @abstractmethod
    def network(self, x: Tensor) -> Tensor:
        """Returns the scores (N, ..., 2), fake second, of normalised crops (N, 3, S, S)."""

    def folded(self) -> RegionDetector:
        """Returns a detector that scores the same, faster, and cannot be trained; maybe itself."""
        return self

    def log_odds(self, scores: Tensor) -> Tensor:
        """Returns the fake log-odds (N,) of class scores."""
        return scores[:, 1] - scores[:, 0]

    def score_losses(self, scores: Tensor, label: Tensor) -> Tensor:
        """Returns the loss (N,) of class scores; here the cross entropy."""
        logits = self.log_odds(scores)
        target = label.to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns what training may change, whether or not it is frozen at the moment."""
        return list(self.parameters())

    def scores(self, x: Tensor) -> Tensor:
        """Returns the class scores (N, ..., 2) float32 of RGB crops (N, 3, S, S) in [0, 1].

        Raises:
            UsageError: The crops are of another size than the detector was made for.
        """
        if tuple(x.shape[-2:]) != (self.size, self.size):
            raise UsageError(
                f"crops of {x.shape[-1]}x{x.shape[-2]} pixels for a detector of {self.size}",
                "give the data and the detector the same size",
            )
        return self.network((x - self.mean) / self.std).float()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the fake log-odds (N,) float32 of crops (N, 3, S, S) in [0, 1]."""
        return self.log_odds(self.scores(x))

    def losses(self, x: Tensor, label: Tensor) -> Tensor:
        """Returns the loss (N,) of crops (N, 3, S, S) in [0, 1] with labels (N,), 1 is fake."""
        return self.score_losses(self.scores(x), label)

    def settings(self) -> dict[str, bool | float | str]:
        """Returns the arguments with which the class makes this network again, untrained."""
        return dict(self._settings)
