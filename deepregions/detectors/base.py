"""What all detectors share: from crops to log-odds, training, and the figures of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from deepregions.detectors.precision import keep_depthwise_float32
from deepregions.errors import UsageError
from deepregions.metrics import VerificationMetrics
from deepregions.types import RegionBatch

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


class RegionDetector(LightningModule, ABC):
    """A network that judges one region of a face.

    A subclass builds its network, names its last part as :attr:`head`, and defines
    :meth:`network`. If its scores are not one pair per crop, it also overrides :meth:`log_odds`
    and :meth:`score_losses`. Scoring goes through :meth:`forward`, which is what is exported,
    training through the :meth:`scores` that it is made of.

    Args:
        size: Height and width of the crops.
        normalisation: What the network expects of colours.
        optimizer: Makes the optimizer of the parameters that it is given.
        lr_scheduler: Makes the scheduler of the optimizer; stepped once an epoch.
        settings: The subclass's own arguments that shape the network.

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
        # Only what rebuilds the network: a checkpoint then holds primitives only, and neither
        # loading nor resuming fetches ImageNet weights. The class is what LightningCLI asks for.
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        shared = {"_class_path": kind, "size": size, "normalisation": normalisation}
        self.save_hyperparameters(shared | settings)
        self.size = size
        mean, std = _MEAN_AND_STD[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._metrics = VerificationMetrics()

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
        """Returns the class scores of normalised crops.

        Args:
            x: (N, 3, S, S).

        Returns:
            (N, ..., 2) before any softmax; the second is fake.
        """

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
        """Returns the class scores of crops.

        Args:
            x: (N, 3, S, S) RGB in [0, 1].

        Returns:
            (N, ..., 2) float32, the second is fake.

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
        return {key: value for key, value in self.hparams.items() if key != "_class_path"}

    def on_fit_start(self) -> None:
        """Lays weights out as mixed precision likes them: a step takes 0.6 to 0.8 of the time."""
        keep_depthwise_float32(self)
        self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Makes the optimizer, and the scheduler if there is one."""
        optimizer = self._optimizer(self.trainable_parameters())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        return {  # the monitor is for ReduceLROnPlateau; others do not look at it
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"},
        }

    def training_step(self, batch: RegionBatch) -> Tensor:
        """Returns :meth:`training_loss`."""
        loss = self.training_loss(batch)
        self._log_loss("train", loss, batch)
        return loss

    def training_loss(self, batch: RegionBatch) -> Tensor:
        """Returns the mean loss of a batch's valid regions, 0 where there are none.

        The network sees valid regions only: others must not count in batch normalisation.
        """
        rows = batch.valid.flatten().nonzero()[:, 0]
        if len(rows):
            crops = batch.crops.flatten(0, 1).index_select(0, rows)
            return self.losses(crops, _labels(batch).flatten().index_select(0, rows)).mean()
        # 0, with gradients: processes that train together expect some from each.
        return 0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()

    def on_validation_epoch_start(self) -> None:
        """Forgets what an interrupted epoch, or the trial one before training, has left."""
        self._metrics.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: RegionBatch) -> None:
        """Scores a batch for the figures of the epoch."""
        self._evaluate("val", batch)

    def test_step(self, batch: RegionBatch) -> None:
        """Scores a batch for the figures of the epoch."""
        self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/frame_auc`` and its like."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs ``test/frame_auc`` and its like."""
        self._log_metrics("test")

    def predict_step(self, batch: RegionBatch) -> Tensor:
        """Returns the fake log-odds (B, R), NaN where a region is not valid."""
        logits = self(batch.crops.flatten(0, 1)).view_as(batch.valid)
        return torch.where(batch.valid, logits, torch.nan)

    def _evaluate(self, stage: str, batch: RegionBatch) -> None:
        scores, label = self.scores(batch.crops.flatten(0, 1)), _labels(batch)
        losses = self.score_losses(scores, label.flatten()).view_as(batch.valid)
        total = torch.where(batch.valid, losses, 0.0).sum()
        self._log_loss(stage, total / batch.valid.sum().clamp(min=1), batch)
        logits = self.log_odds(scores).view_as(batch.valid)
        regions = torch.arange(logits.shape[1], device=logits.device)
        # A face that is seen in several regions is several samples; one not valid is none.
        index = torch.where(batch.valid, batch.index[:, None] * len(regions) + regions, -1)
        method = torch.zeros_like(batch.label) if batch.method is None else batch.method
        video, method = (x[:, None].expand_as(index) for x in (batch.video, method))
        self._metrics.methods = batch.methods
        self._metrics.update(*(x.flatten() for x in (logits, label, video, index, method)))

    def _log_loss(self, stage: str, loss: Tensor, batch: RegionBatch) -> None:
        self.log(
            f"{stage}/loss",
            loss,
            prog_bar=True,
            batch_size=len(batch.label),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )

    def _log_metrics(self, stage: str) -> None:
        values = {f"{stage}/{name}": value for name, value in self._metrics.compute().items()}
        self._metrics.reset()
        self.log_dict(values, sync_dist=True)


def _labels(batch: RegionBatch) -> Tensor:
    """(B, R), of each region its own where that is known, else the face's."""
    if batch.region_label is not None:
        return batch.region_label
    return batch.label[:, None].expand_as(batch.valid)
