"""What each network's answer adds to a face's fused score: exact Shapley values.

The players are the cells (detector, region) that have an answer; a coalition of them is worth the
fused log-odds with all other cells missing, the empty one 0 (Shapley 1953; Lundberg and Lee,
NeurIPS 2017). So the values add up to the fused log-odds; a constant that a fusion adds is shared
among all cells.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepregions.errors import BundleError, UsageError

MOST = 20
"""Cells at most: each one more doubles the work. 15 are three detectors on five regions."""

_AT_ONCE = 1 << 13  # coalitions; few enough that a fusion's temporary arrays stay in a few MB

Floats = npt.NDArray[np.float64]


def shapley(fusion: nn.Module, logits: Tensor, valid: Tensor) -> tuple[Floats, float]:
    """Takes the fused score of a face apart.

    ``fusion`` makes log-odds (B,) of logits and valid (B, D, R); it is asked 2^n times for n cells,
    in batches. ``logits`` (D, R) are on its device, and anything where not ``valid`` (D, R).

    Returns:
        (D, R) float64, what each cell adds, NaN where it is not valid; and the fused log-odds,
            their
        sum but for rounding. All NaN where the fusion has no answer, as without any cell.

    Raises:
        UsageError: More than :data:`MOST` cells are valid.
        BundleError: The fusion's answer to a set of valid cells is infinite.
    """
    players = valid.flatten().nonzero()[:, 0]
    count = len(players)
    cells = np.full(valid.numel(), np.nan)
    check_count(count)
    worth = _worths(fusion, logits, valid, players)
    total = float(worth[-1]) if count else math.nan
    if not math.isnan(total):
        cells[players.cpu().numpy()] = _values(np.nan_to_num(worth, nan=0.0), count)
    return cells.reshape(valid.shape), total


def check_count(cells: int) -> None:
    """Raises a UsageError where there are too many cells to be taken apart."""
    if cells > MOST:
        raise UsageError(
            f"the score of {cells} networks cannot be taken apart: {MOST} at most",
            "choose among them with --detector, --region or --database",
        )


@torch.inference_mode()
def _worths(fusion: nn.Module, logits: Tensor, valid: Tensor, players: Tensor) -> Floats:
    """(2^n,) of each coalition; player i is in coalition c if bit i of c is set."""
    total = 1 << len(players)
    bits = torch.arange(len(players), device=valid.device)
    kept = torch.where(valid, logits, 0.0)
    found = []
    with evaluating(fusion):
        for first in range(0, total, _AT_ONCE):
            numbers = torch.arange(first, min(first + _AT_ONCE, total), device=valid.device)
            present = torch.zeros_like(valid.flatten().expand(len(numbers), -1))
            present[:, players] = (numbers[:, None] >> bits & 1).bool()
            table = kept.expand(len(numbers), *kept.shape)
            found.append(fusion(table, present.view(table.shape)).double().cpu())
    worth: Floats = torch.cat(found).numpy()
    if np.isinf(worth).any():
        raise BundleError(
            "the fusion's answer without some of the regions is infinite",
            "train it again, with faces of which regions are missing",
        )
    return worth


def _values(worth: Floats, count: int) -> Floats:
    """(n,) Shapley values: the mean of what a player adds, over sizes and then over coalitions."""
    size = sum((np.arange(1 << count) >> bit) & 1 for bit in range(count))
    share = np.array([1 / (count * math.comb(count - 1, s)) for s in range(count)])
    values = np.empty(count)
    for player in range(count):
        pairs = worth.reshape(-1, 2, 1 << player)  # without and with the player
        without = np.asarray(size).reshape(-1, 2, 1 << player)[:, 0]
        values[player] = ((pairs[:, 1] - pairs[:, 0]) * share[without]).sum()
    return values


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and each of its parts back into the mode it was in."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
