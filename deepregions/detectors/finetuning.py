"""Fine-tuning: the head first, then the whole, which is the paper's way to train Xception."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from deepregions.detectors.base import RegionDetector
from deepregions.detectors.training import DetectorTraining
from deepregions.errors import UsageError


class HeadFirst(Callback):
    """Trains only a detector's head for some epochs, everything else frozen, then the whole.

    Frozen means no gradients, and evaluation mode, so that batch normalisation keeps its
    statistics. The optimizer holds all parameters from the start and passes over those without
    gradients. That, and that the stage follows from the epoch alone, is why this is not built on
    Lightning's ``BaseFinetuning``: schedulers work, a checkpoint of either stage resumes, and
    distributed training does not miss the parameters that come later.

    Args:
        epochs: How many epochs the head is trained alone.
        lr: Learning rate of the whole from then on; by default it stays what it is. Schedulers
            that compute it from its initial value override it.

    Raises:
        UsageError: The number of epochs or the rate is negative.
    """

    def __init__(self, epochs: int = 3, lr: float | None = None) -> None:
        super().__init__()
        if epochs < 0:
            raise UsageError(f"HeadFirst cannot train the head for {epochs} epochs")
        if lr is not None and lr < 0:
            raise UsageError(f"HeadFirst cannot train at a rate of {lr}")
        self.epochs = epochs
        self.lr = lr

    def setup(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        stage: str,
    ) -> None:
        """Freezes, before distributed training looks which parameters it has to exchange."""
        if stage == "fit":
            _require_grad(_detector(pl_module), whole=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the detector into the state that the epoch asks for."""
        detector = _detector(pl_module)
        if trainer.current_epoch < self.epochs:
            for child in detector.children():
                child.train(child is detector.head)
            return
        if not _require_grad(detector, whole=True):
            return
        detector.train()
        if isinstance(trainer.strategy, DDPStrategy):  # it exchanges only what it saw at its start
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()
        if self.lr is not None and trainer.current_epoch == self.epochs:
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr

    def on_fit_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
    ) -> None:
        """Leaves nothing frozen behind, also where training stopped early."""
        _require_grad(_detector(pl_module), whole=True)


def _detector(module: LightningModule) -> RegionDetector:
    if not isinstance(module, DetectorTraining):
        raise UsageError(f"HeadFirst trains detectors, not {type(module).__name__}")
    return module.detector


def _require_grad(detector: RegionDetector, *, whole: bool) -> bool:
    """Thaws the whole, or the head alone; returns whether that changed anything."""
    head: set[nn.Parameter] = set(detector.head.parameters())
    changed = False
    for parameter in detector.trainable_parameters():
        wanted = whole or parameter in head
        changed |= parameter.requires_grad != wanted
        parameter.requires_grad_(wanted)
    return changed
