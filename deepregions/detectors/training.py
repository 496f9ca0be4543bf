"""Training a detector with Lightning, and the figures of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from deepregions.detectors.base import RegionDetector
from deepregions.detectors.efficientnet_lite import SameConv2d
from deepregions.errors import UsageError
from deepregions.metrics import VerificationMetrics
from deepregions.types import RegionBatch

_PREFIX = "detector."


class DetectorTraining(LightningModule):
    """A detector as Lightning trains it; it is changed in place."""

    def __init__(self, detector: RegionDetector) -> None:
        super().__init__()
        # Only what rebuilds the network: a checkpoint then holds primitives only, and neither
        # loading nor resuming fetches ImageNet weights. The class is what LightningCLI asks for.
        kind = type(detector)
        path = {"_class_path": f"{kind.__module__}.{kind.__qualname__}"}
        self.save_hyperparameters(path | detector.settings())
        self.detector = detector
        self.metrics = VerificationMetrics()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes checkpoints from when a detector was a LightningModule itself.

        Raises:
            UsageError: Another part of the network was trained.
        """
        state = checkpoint["state_dict"]
        if not any(name.startswith(_PREFIX) for name in state):
            checkpoint["state_dict"] = {_PREFIX + name: value for name, value in state.items()}
        states = checkpoint.get("optimizer_states", [])
        groups = [g for each in states for g in each["param_groups"]]
        trained, now = sum(len(g["params"]) for g in groups), self.detector.trainable_parameters()
        if groups and trained != len(now):
            raise UsageError(
                f"the checkpoint's run trained {trained} arrays, this one would train {len(now)}",
                "give the run's own options again, such as frozen_stages: its config.yaml has them",
            )

    def on_fit_start(self) -> None:
        """Lays weights out as mixed precision likes them: a step takes 0.6 to 0.8 of the time."""
        keep_depthwise_float32(self)
        self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Makes the optimizer, and the scheduler if there is one."""
        optimizer = self.detector.optimizer(self.detector.trainable_parameters())
        if self.detector.lr_scheduler is None:
            return optimizer
        scheduler = self.detector.lr_scheduler(optimizer)
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
            return self.detector.losses(
                crops, _labels(batch).flatten().index_select(0, rows)
            ).mean()
        # 0, with gradients: processes that train together expect some from each.
        return 0 * torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum()

    def on_validation_epoch_start(self) -> None:
        """Forgets what an interrupted epoch, or the trial one before training, has left."""
        self.metrics.reset()

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
        logits = self.detector(batch.crops.flatten(0, 1)).view_as(batch.valid)
        return torch.where(batch.valid, logits, torch.nan)

    def _evaluate(self, stage: str, batch: RegionBatch) -> None:
        scores, label = self.detector.scores(batch.crops.flatten(0, 1)), _labels(batch)
        losses = self.detector.score_losses(scores, label.flatten()).view_as(batch.valid)
        total = torch.where(batch.valid, losses, 0.0).sum()
        self._log_loss(stage, total / batch.valid.sum().clamp(min=1), batch)
        logits = self.detector.log_odds(scores).view_as(batch.valid)
        regions = torch.arange(logits.shape[1], device=logits.device)
        # A face that is seen in several regions is several samples; one not valid is none.
        index = torch.where(batch.valid, batch.index[:, None] * len(regions) + regions, -1)
        method = torch.zeros_like(batch.label) if batch.method is None else batch.method
        video, method = (x[:, None].expand_as(index) for x in (batch.video, method))
        self.metrics.methods = batch.methods
        self.metrics.update(*(x.flatten() for x in (logits, label, video, index, method)))

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
        values = {f"{stage}/{name}": value for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        self.log_dict(values, sync_dist=True)


def _labels(batch: RegionBatch) -> Tensor:
    """(B, R), of each region its own where that is known, else the face's."""
    if batch.region_label is not None:
        return batch.region_label
    return batch.label[:, None].expand_as(batch.valid)


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
