"""Fusions trained on the development part of a table of scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from deepregions.errors import UsageError
from deepregions.fusion.fitting import balanced, cross_entropy, logistic_regression, minimum
from deepregions.fusion.rules import (
    Fusion,
    FusionHead,
    LogisticFusion,
    MaxFusion,
    MeanFusion,
    TrainedFusion,
    WeightedFusion,
    mean_of,
    named,
)
from deepregions.fusion.score_table import ScoreTable, judged
from deepregions.people import Numbers, deal_folds
from deepregions.roc import Bools, Floats
from deepregions.types import REGIONS, Cell

Kind = Literal["mean", "max", "weighted", "logistic", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LEAST = 1e-3  # of a weight: a face on which only that cell has an answer must get one
_FOLDS = 4  # one of them tells the head when to stop
_EPOCHS, _BATCH = 40, 512
_HIDDEN_CELLS = 0.2  # share of cells that the head does not see in training
_RATE, _DECAY = 5e-3, 0.3


@dataclass(frozen=True, eq=False)
class TrainingScores:
    """What a fusion learns from: n faces with N cells.

    Attributes:
        logits: (n, N), 0 where not valid.
        valid: (n, N).
        fake: (n,).
        weight: (n,) together 1, each class half, and in it each video the same.
        fold: (n,) parts that share no people; None where there is too little to part.
    """

    cells: tuple[Cell, ...]
    logits: Floats
    valid: Bools
    fake: Bools
    weight: Floats
    videos: int
    fold: Numbers | None = None

    def select(self, faces: Bools) -> TrainingScores:
        """Returns some faces, of which each class again weighs one half."""
        fake = self.fake[faces]
        weight = balanced(fake, self.weight[faces])
        return TrainingScores(
            self.cells, self.logits[faces], self.valid[faces], fake, weight, self.videos
        )


def train_fusion(
    kind: Kind,
    table: ScoreTable,
    *,
    cells: Iterable[Cell] | None = None,
    l2: float = 1.0,
    seed: int = 0,
) -> Fusion:
    """Trains a fusion on the development part.

    Classes weigh the same, and in a class each video, however many faces it has; faces without
    any answer are left out. The order of faces, detectors and regions does not matter.

    Args:
        kind: ``mean`` and ``max`` have nothing to find; ``weighted``, ``logistic`` and ``head``
            minimise the cross-entropy.
        table: Scores of faces that the networks were not trained on.
        cells: Only these; all at which there is a network by default.
        l2: For ``weighted`` and ``logistic``: the penalty on the weights of scaled log-odds is
            ``l2 / (2 * videos) * |w|^2`` beside the mean loss, which for one face a video is
            scikit-learn's ``C = 1 / l2``.
        seed: Random seed of the learned head.

    Raises:
        UsageError: There are no such cells, no faces, one class only, faces of the training part,
            or a cell without any answer.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no fusion {kind!r}", f"one of {', '.join(KINDS)}")
    if not len(table):
        raise UsageError("there are no faces of a development part to learn from", "split val")
    sample = _sample(table, _chosen_cells(table, cells))
    fusion: Fusion
    match kind:
        case "mean":
            fusion = MeanFusion(sample.cells)
        case "max":
            fusion = MaxFusion(sample.cells)
        case "weighted":
            fusion = _weighted(sample, l2)
        case "logistic":
            fusion = _logistic(sample, l2)
        case "head":
            fusion = _head(sample, l2, seed)
    return fusion.eval()


def _chosen_cells(table: ScoreTable, wanted: Iterable[Cell] | None) -> tuple[Cell, ...]:
    """The cells of a table that are wanted, in an order that does not depend on the table's."""
    there = [(table.detectors[d], table.regions[r]) for d, r in table.cells]
    if not there:
        raise UsageError(f"none of the {len(table)} faces of the development part has a score")
    chosen = {*there} if wanted is None else {*wanted}
    if unknown := chosen - {*there}:
        raise UsageError(
            f"the scores have no {named(sorted(unknown))}", f"there are: {named(there)}"
        )
    return tuple(sorted(chosen, key=lambda cell: (cell[0], REGIONS.index(cell[1]))))


def fuse_table(fusion: Fusion, table: ScoreTable) -> Floats:
    """Returns (N,) fused log-odds of the faces of a table, NaN where there are none.

    Raises:
        UsageError: The table lacks a cell of the fusion.
    """
    fusion = fusion.bind(table.detectors, table.regions)
    with torch.inference_mode():
        logits = torch.from_numpy(table.log_odds).float()
        fused = fusion(logits, torch.from_numpy(table.valid)).double().numpy()
    return np.where(judged(table.status), fused, np.nan)


def _sample(table: ScoreTable, cells: tuple[Cell, ...]) -> TrainingScores:
    if (table.split == "train").any():
        raise UsageError(
            "a fusion is not trained on scores of the training part, which its networks know",
            "give those of the development part, split val",
        )
    places = [(table.detectors.index(row), table.regions.index(r)) for row, r in cells]
    logits = np.stack([table.log_odds[:, d, r] for d, r in places], 1)
    kept = judged(table.status) & ~np.isnan(logits).all(1)
    if not kept.any():
        raise UsageError(
            f"none of the {len(table)} faces of the development part has a score", named(cells)
        )
    logits, fake = logits[kept], table.fake[kept]
    silent = [cells[number] for number in np.flatnonzero(np.isnan(logits).all(0))]
    if silent:
        raise UsageError(
            f"no face of the development part has a score of {named(silent)}",
            "leave these networks out: detectors, regions",
        )
    if fake.all() or not fake.any():
        only, other = ("fake", "genuine") if fake.all() else ("genuine", "fake")
        raise UsageError(
            f"all faces of the development part that have a score are {only}",
            f"a fusion needs {other} ones too",
        )
    order = np.lexsort((*logits.T, table.key[kept].astype(str)))  # sums do not depend on it then
    logits, fake = logits[order], fake[order]
    names, identities = table.video[kept][order].astype(str), table.identities[kept][order]
    _, first, video = np.unique(names, return_index=True, return_inverse=True)
    try:
        fold = deal_folds(fake[first], identities[first], _FOLDS).number[video]
    except UsageError:  # too few videos
        fold = None
    unit = 2 * video + fake
    return TrainingScores(
        cells,
        np.nan_to_num(logits),
        ~np.isnan(logits),
        fake,
        weight=balanced(fake, 1 / np.bincount(unit)[unit]),
        videos=len(np.unique(unit)),
        fold=fold,
    )


def _scale(fusion: TrainedFusion, sample: TrainingScores) -> Floats:
    """Sets a fusion's means and deviations, and returns the sample on its scale."""
    weight = sample.weight[:, None] * sample.valid
    total = weight.sum(0)
    mean = (weight * sample.logits).sum(0) / total
    std = np.sqrt((weight * (sample.logits - mean) ** 2).sum(0) / total)
    std = np.where(std > 1e-6, std, 1.0)  # a network that says the same of all
    fusion.mean.copy_(torch.from_numpy(mean))
    fusion.std.copy_(torch.from_numpy(std))
    return np.where(sample.valid, (sample.logits - mean) / std, 0.0)


def _logistic(sample: TrainingScores, l2: float) -> LogisticFusion:
    fusion = LogisticFusion(sample.cells)
    x = _scale(fusion, sample)
    penalty = l2 / (2 * sample.videos)
    weight, offset = logistic_regression(x, sample.fake, sample.weight, penalty)
    fusion.weight.copy_(torch.from_numpy(weight))
    fusion.offset.fill_(offset)
    return fusion


def _weighted(sample: TrainingScores, l2: float) -> WeightedFusion:
    """Searches weights times scale, so that both come out of one search."""
    fusion = WeightedFusion(sample.cells)
    x, valid = torch.from_numpy(_scale(fusion, sample)), torch.from_numpy(sample.valid)
    count = x.shape[1]
    penalty = l2 / (2 * sample.videos)

    def objective(values: Tensor) -> Tensor:
        weight = values[:-1]
        odds = weight.sum() * mean_of(x, weight * valid) + values[-1]
        return cross_entropy(odds, sample.fake, sample.weight) + penalty * weight.square().sum()

    start = np.append(np.full(count, 1 / count), 0.0)
    least = np.append(np.full(count, _LEAST / count), -np.inf)
    found = torch.from_numpy(minimum(objective, start, least))
    scale = found[:-1].sum()
    fusion.weight.copy_(found[:-1] / scale)
    fusion.scale.copy_(scale)
    fusion.offset.copy_(found[-1])
    return fusion


def _head(sample: TrainingScores, l2: float, seed: int) -> FusionHead:
    """Trains without one fold to see after how many epochs it is best, then on all for as many.

    Where it does not get better than logistic regression on that fold, it stays what it begins
    as: that.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        epochs = 0
        if sample.fold is not None:
            rest, held = sample.select(sample.fold != 0), sample.select(sample.fold == 0)
            epochs = _train(_begun(rest, l2), rest, _EPOCHS, held)
        head = _begun(sample, l2)
        _train(head, sample, epochs)
    return head


def _begun(sample: TrainingScores, l2: float) -> FusionHead:
    """Returns a head that still is the logistic regression."""
    head, fusion = FusionHead(sample.cells), _logistic(sample, l2)
    with torch.no_grad():
        head.mean.copy_(fusion.mean)
        head.std.copy_(fusion.std)
        head.linear.weight.copy_(fusion.weight[None])
        head.linear.bias.copy_(fusion.offset[None])
    return head


def _train(
    head: FusionHead, sample: TrainingScores, epochs: int, held: TrainingScores | None = None
) -> int:
    """Trains a head with cells hidden at random, and decay on all that its network adds.

    Returns:
        The number of epochs after which the loss on held faces is lowest, as they are and with
        cells hidden together, of those after which faces as they are do not fare worse than at
        the start.
    """
    best, masks, faces = 0, [], _tensors(sample)
    if held is not None:
        others = _tensors(held)
        masks = [others[1], *(_hidden(others[1]) for _ in range(4))]

    @torch.no_grad()
    def losses() -> tuple[float, float]:
        whole, *rest = (float(_head_loss(head, *others, mask)) for mask in masks)
        return whole, whole + sum(rest) / len(rest)

    first, lowest = losses() if masks else (0.0, 0.0)
    added = [*head.network.parameters(), *head.last.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": added, "weight_decay": _DECAY},
            {"params": [*head.linear.parameters()], "weight_decay": 0.0, "lr": _RATE / 10},
        ],
        lr=_RATE,
        betas=(0.9, 0.99),
    )
    batches = BatchSampler(RandomSampler(faces[0]), _BATCH, drop_last=False)
    loader = DataLoader(TensorDataset(*faces), batch_size=None, sampler=batches)
    for epoch in range(1, epochs + 1):
        for logits, valid, label, weight in loader:
            optimizer.zero_grad()
            loss = _head_loss(head, logits, valid, label, weight, _hidden(valid))
            loss.backward()  # type: ignore[no-untyped-call]  # as all of torch's
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
        if masks:
            whole, both = losses()
            if whole <= first and both < lowest:
                best, lowest = epoch, both
    return best


def _head_loss(
    head: FusionHead, logits: Tensor, _valid: Tensor, label: Tensor, weight: Tensor, seen: Tensor
) -> Tensor:
    odds = head.fuse(torch.where(seen, logits, 0.0), seen)
    return (weight * binary_cross_entropy_with_logits(odds, label, reduction="none")).mean()


def _hidden(valid: Tensor) -> Tensor:
    """Returns (B, N), valid with cells hidden at random, but never all of a face."""
    kept = valid & (torch.rand(valid.shape) >= _HIDDEN_CELLS)
    return torch.where(kept.any(1, keepdim=True), kept, valid)


def _tensors(sample: TrainingScores) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns log-odds, validity, labels and weights of mean 1, as the head is trained on them."""
    weight = torch.from_numpy(sample.weight * len(sample.weight)).float()
    logits, valid = torch.from_numpy(sample.logits).float(), torch.from_numpy(sample.valid)
    return logits, valid, torch.from_numpy(sample.fake).float(), weight
