"""Fusions found on the development part of a table of scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from deepregions.errors import UsageError
from deepregions.fusion.head import Batch, FusionHead, fit_head
from deepregions.fusion.optimize import minimum
from deepregions.fusion.rules import (
    Cell,
    Fusion,
    LogisticFusion,
    MaxFusion,
    MeanFusion,
    TrainedFusion,
    WeightedFusion,
    mean_of,
    named,
)
from deepregions.fusion.score_table import ScoreTable, judged
from deepregions.people import deal_folds
from deepregions.types import REGIONS

Strings = npt.NDArray[np.object_]
Bools = npt.NDArray[np.bool_]
Kind = Literal["mean", "max", "weighted", "logistic", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LEAST = 1e-3  # of a weight: a face on which only that cell has an answer must get one
_FOLDS = 4  # one of them tells the learned head when to stop


@dataclass(frozen=True, eq=False)
class TrainingScores:
    """What a fusion learns from: n faces with N cells.

    Attributes:
        cells: N names.
        logits: (n, N) float64, 0 where not valid.
        valid: (n, N) bool.
        label: (n,) float64, 1 is fake.
        weight: (n,) float64; together 1, each class half, and in it each video the same.
        videos: How many videos there are.
        fold: (n,) int64, parts that share no people, for what a fusion is chosen by; None where
            there is too little to part.
    """

    cells: tuple[Cell, ...]
    logits: Tensor
    valid: Tensor
    label: Tensor
    weight: Tensor
    videos: int
    fold: Tensor | None

    def select(self, faces: Tensor) -> TrainingScores:
        """Returns some faces, with both classes again one half each."""
        label, weight = self.label[faces], self.weight[faces].clone()
        for which in (label == 0, label == 1):
            weight[which] *= 0.5 / weight[which].sum()
        parts = self.logits[faces], self.valid[faces], label, weight
        return TrainingScores(self.cells, *parts, self.videos, None)


def train_fusion(
    kind: Kind,
    table: ScoreTable,
    *,
    detectors: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    l2: float = 1.0,
    seed: int = 0,
) -> Fusion:
    """Finds a fusion on the development part.

    The order of faces, detectors and regions in the table does not matter. Classes weigh the
    same, and in a class each video, however many faces it has; faces without any answer are left
    out.

    Args:
        kind: ``mean`` and ``max`` have nothing to find; ``weighted``, ``logistic`` and ``head``
            minimise the cross-entropy.
        table: Scores of faces that the networks were not trained on.
        detectors: Only these: rows of the table, or detectors, which may have several rows.
        regions: Only these.
        l2: Of ``weighted`` and ``logistic``: the penalty on the weights of scaled log-odds is
            ``l2 / (2 * videos) * |w|^2`` beside the mean loss, which for one face a video is
            scikit-learn's ``C = 1 / l2``.
        seed: Of the learned head.

    Raises:
        UsageError: There are no such cells, no faces, one class only, faces of the training part,
            or a cell without any answer.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no fusion {kind!r}", f"one of {', '.join(KINDS)}")
    if not len(table):
        raise UsageError("there are no faces of a development part to learn from", "split val")
    sample = _sample(table, chosen_cells(table, detectors, regions))
    if kind == "mean":
        return MeanFusion(sample.cells).eval()
    if kind == "max":
        return MaxFusion(sample.cells).eval()
    if kind == "weighted":
        return _weighted(sample, l2).eval()
    if kind == "logistic":
        return _logistic(sample, l2).eval()
    return _head(sample, l2, seed).eval()


def chosen_cells(
    table: ScoreTable, detectors: Sequence[str] | None = None, regions: Sequence[str] | None = None
) -> tuple[Cell, ...]:
    """Returns the cells of a table that are wanted, in an order that does not depend on it.

    Raises:
        UsageError: There is no such detector or region, or no cell.
    """
    if not table.cells:
        raise UsageError(f"none of the {len(table)} faces of the development part has a score")
    rows = {row.detector for row in table.rows} | {*table.detectors}
    for what, wanted, known in (
        ("detector", detectors, rows),
        ("region", regions, {*map(str, table.regions)}),
    ):
        unknown = [name for name in wanted or () if str(name) not in known]
        if unknown:
            hint = f"there are: {', '.join(sorted(known))}"
            raise UsageError(f"the scores have no {what} {unknown[0]!r}", hint)
    cells = [
        (table.detectors[d], table.regions[r])
        for d, r in table.cells
        if detectors is None or {table.detectors[d], table.rows[d].detector} & {*detectors}
        if regions is None or table.regions[r] in {*map(str, regions)}
    ]
    if not cells:
        raise UsageError("no network of the scores is wanted", "other detectors or regions")
    return tuple(sorted(cells, key=lambda cell: (cell[0], REGIONS.index(cell[1]))))


def fuse_table(fusion: Fusion, table: ScoreTable) -> npt.NDArray[np.float64]:
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
    logits, label, video = logits[kept], table.fake[kept], table.video[kept]
    silent = [cell for number, cell in enumerate(cells) if np.isnan(logits[:, number]).all()]
    if silent:
        raise UsageError(
            f"no face of the development part has a score of {named(silent)}",
            "leave these networks out: detectors, regions",
        )
    if label.all() or not label.any():
        only, other = ("fake", "genuine") if label.all() else ("genuine", "fake")
        raise UsageError(
            f"all faces of the development part that have a score are {only}",
            f"a fusion needs {other} ones too",
        )
    order = np.lexsort((*logits.T, table.key[kept].astype(str)))  # sums do not depend on it then
    logits, label, video = logits[order], label[order], video[order]
    weight, videos = _weights(video, label)
    fold = _folds(video, label, table.identities[kept][order])
    valid = ~np.isnan(logits)
    return TrainingScores(
        cells,
        torch.from_numpy(np.where(valid, logits, 0.0)),
        torch.from_numpy(valid),
        torch.from_numpy(label.astype(np.float64)),
        torch.from_numpy(weight),
        videos,
        None if fold is None else torch.from_numpy(fold),
    )


def _folds(video: Strings, fake: Bools, identities: Strings) -> npt.NDArray[np.int64] | None:
    """Returns (n,) folds of faces, or None where there are too few videos."""
    _, first, unit = np.unique(video.astype(str), return_index=True, return_inverse=True)
    try:
        return deal_folds(fake[first], identities[first], _FOLDS).number[unit]
    except UsageError:
        return None


def _weights(video: Strings, fake: Bools) -> tuple[npt.NDArray[np.float64], int]:
    _, unit = np.unique(video.astype(str), return_inverse=True)
    unit = 2 * unit + fake
    weight = 1 / np.bincount(unit)[unit]
    for which in (fake, ~fake):
        weight[which] *= 0.5 / weight[which].sum()
    return weight, len(np.unique(unit))


def _scale(fusion: TrainedFusion, sample: TrainingScores) -> Tensor:
    """Sets a fusion's means and deviations, and returns the sample on its scale."""
    weight = sample.weight[:, None] * sample.valid
    total = weight.sum(0)
    mean = (weight * sample.logits).sum(0) / total
    std = ((weight * (sample.logits - mean) ** 2).sum(0) / total).sqrt()
    std = torch.where(std > 1e-6, std, 1.0)  # a network that says the same of all
    fusion.mean.copy_(mean)
    fusion.std.copy_(std)
    return torch.where(sample.valid, (sample.logits - mean) / std, 0.0)


def _loss(odds: Tensor, sample: TrainingScores) -> Tensor:
    return (sample.weight * cross_entropy(odds, sample.label, reduction="none")).sum()


def _logistic(sample: TrainingScores, l2: float) -> LogisticFusion:
    fusion = LogisticFusion(sample.cells)
    x = _scale(fusion, sample)
    penalty = l2 / (2 * sample.videos)

    def objective(values: Tensor) -> Tensor:
        odds = x @ values[:-1] + values[-1]
        return _loss(odds, sample) + penalty * values[:-1].square().sum()

    found = minimum(objective, [0.0] * (x.shape[1] + 1))
    fusion.weight.copy_(found[:-1])
    fusion.offset.copy_(found[-1])
    return fusion


def _weighted(sample: TrainingScores, l2: float) -> WeightedFusion:
    """Weights times scale are what is searched, so that both come out of one search."""
    fusion = WeightedFusion(sample.cells)
    x = _scale(fusion, sample)
    count = x.shape[1]
    penalty = l2 / (2 * sample.videos)

    def objective(values: Tensor) -> Tensor:
        weight = values[:-1]
        odds = weight.sum() * mean_of(x, weight * sample.valid) + values[-1]
        return _loss(odds, sample) + penalty * weight.square().sum()

    least = [_LEAST / count] * count + [-math.inf]
    found = minimum(objective, [1.0 / count] * count + [0.0], least)
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
            trial = FusionHead(sample.cells)
            trial.start_from(_logistic(rest, l2))
            epochs = fit_head(trial, _columns(rest), held=_columns(held))
        head = FusionHead(sample.cells)
        head.start_from(_logistic(sample, l2))
        fit_head(head, _columns(sample), epochs=epochs)
    return head


def _columns(sample: TrainingScores) -> Batch:
    weight = sample.weight * len(sample.weight)
    return sample.logits.float(), sample.valid, sample.label.float(), weight.float()
