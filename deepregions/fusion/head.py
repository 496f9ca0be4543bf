"""The learned fusion head: a small network over scores and their validity."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from deepregions.errors import UsageError
from deepregions.fusion.rules import LogisticFusion, TrainedFusion

_EPOCHS, _BATCH = 40, 512
_WIDEST = 1024  # a stranger's file may ask for any

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""(B, N) log-odds, 0 where not valid; (B, N) valid; (B,) 1 is fake; (B,) weights, of mean 1."""


class FusionHead(TrainedFusion, LightningModule):
    """Logistic regression, and a small network that corrects it.

    The network sees the scaled log-odds and which cells are valid, so that it may rely more on
    what is left where regions are missing, and on what cells say together. It begins as the
    logistic regression exactly (its last layer is zero), and is trained with cells hidden at
    random, with decay on all that the network adds.

    Args:
        cells: Which cells, N.
        hidden: Width of the network, 1024 at most.
        drop: The share of cells that are hidden in training.
        lr: Learning rate of AdamW.
        decay: Weight decay of the network, decoupled.

    Raises:
        UsageError: There is no cell, or another width.
    """

    rule = "learned head on scaled log-odds and their validity"

    def __init__(
        self,
        cells: Iterable[Sequence[str]],
        hidden: int = 16,
        drop: float = 0.2,
        lr: float = 5e-3,
        decay: float = 0.3,
    ) -> None:
        super().__init__(cells)
        if not 1 <= hidden <= _WIDEST:
            raise UsageError(f"a head of width {hidden}", f"1 to {_WIDEST}")
        self.hidden, self.drop, self.lr, self.decay = hidden, drop, lr, decay
        count = len(self.cells)
        self.linear = nn.Linear(count, 1)
        self.network = nn.Sequential(
            nn.Linear(2 * count, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.last = nn.Linear(hidden, 1 + count)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def settings(self) -> dict[str, Any]:
        """See :meth:`deepregions.fusion.Fusion.settings`."""
        return super().settings() | {"hidden": self.hidden}

    def start_from(self, fusion: LogisticFusion) -> None:
        """Begins as a logistic regression over the same cells."""
        with torch.no_grad():
            self.mean.copy_(fusion.mean)
            self.std.copy_(fusion.std)
            self.linear.weight.copy_(fusion.weight[None])
            self.linear.bias.copy_(fusion.offset[None])

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`deepregions.fusion.Fusion.fuse`."""
        x = self.scaled(logits, valid)
        seen = self.network(torch.cat([x, valid.to(x.dtype)], 1))
        change = self.last(seen)
        weight = self.linear.weight * (1 + change[:, 1:])
        fused: Tensor = (x * weight).sum(1) + self.linear.bias + change[:, 0]
        return fused

    def training_step(self, batch: Batch, _number: int) -> Tensor:
        """Binary cross-entropy of faces with cells hidden at random, never all that there are."""
        logits, valid, label, weight = batch
        kept = self.masked(valid)
        odds = self.fuse(torch.where(kept, logits, 0.0), kept)
        loss: Tensor = (weight * cross_entropy(odds, label, reduction="none")).mean()
        return loss

    def masked(self, valid: Tensor) -> Tensor:
        """Returns (B, N), valid with cells hidden at random, but never all of a face."""
        kept = valid & (torch.rand(valid.shape, device=valid.device) >= self.drop)
        return torch.where(kept.any(1, keepdim=True), kept, valid)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; the linear part is free, as it is a good start already."""
        added = [*self.network.parameters(), *self.last.parameters()]
        groups = [
            {"params": added, "weight_decay": self.decay},
            {"params": [*self.linear.parameters()], "weight_decay": 0.0, "lr": self.lr / 10},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.99), eps=1e-8)


class _Watch(Callback):
    """Measures held-out faces after each epoch, as they are and with cells hidden.

    Attributes:
        best: The number of epochs after which both together are lowest, of those after which
            faces as they are do not fare worse than at the start.
    """

    def __init__(self, head: FusionHead, held: Batch) -> None:
        self._held = held
        self._masks = torch.stack([head.masked(held[1]) for _ in range(4)])
        self.best = 0
        self._epochs = 0
        self._first, self._lowest = self._losses(head)

    def on_train_epoch_end(self, _trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures."""
        self._epochs += 1
        whole, both = self._losses(pl_module)
        if whole <= self._first and both < self._lowest:
            self.best, self._lowest = self._epochs, both

    @torch.no_grad()
    def _losses(self, head: Any) -> tuple[float, float]:
        logits, valid, label, weight = self._held

        def loss(seen: Tensor) -> float:
            odds = head.fuse(torch.where(seen, logits, 0.0), seen)
            return float((weight * cross_entropy(odds, label, reduction="none")).mean())

        whole = loss(valid)
        return whole, whole + sum(loss(mask) for mask in self._masks) / len(self._masks)


def fit_head(
    head: FusionHead, faces: Batch, *, epochs: int = _EPOCHS, held: Batch | None = None
) -> int:
    """Trains a head.

    Args:
        head: Begun as it should begin.
        faces: All there are.
        epochs: How often each is seen.
        held: Others, to see when it is best.

    Returns:
        After how many epochs it did best on the others; 0 without any.
    """
    if epochs == 0:
        return 0
    watch = None if held is None else _Watch(head, held)
    loader = DataLoader(TensorDataset(*faces), _BATCH, shuffle=True)
    with _quiet():
        Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=False,
            callbacks=[] if watch is None else [watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
        ).fit(head, loader)
    head.trainer = None  # what was trained goes on alone
    return 0 if watch is None else watch.best


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's remarks on devices and workers out of a small training."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
