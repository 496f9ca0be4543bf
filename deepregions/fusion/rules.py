"""Fusion rules: from the (detector x region) matrix of log-odds to one number per face."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from deepregions.errors import UsageError
from deepregions.types import Cell, Region

_WIDEST = 1024  # a stranger's file may ask for any


class Fusion(nn.Module, ABC):
    """Fuses the log-odds of a face's cells; subclasses say how in :meth:`fuse`.

    A trained fusion belongs to certain cells, by name, and takes matrices that hold them in their
    order; :meth:`bind` makes one for other matrices.

    Attributes:
        sha256: Digest of its file; empty before it is saved.

    Raises:
        UsageError: A cell is named twice.
    """

    rule: ClassVar[str]
    places: Tensor

    def __init__(self, cells: Iterable[Sequence[str]] = ()) -> None:
        super().__init__()
        self.cells: tuple[Cell, ...] = tuple((str(row), Region(r)) for row, r in cells)
        if len(set(self.cells)) < len(self.cells):
            raise UsageError("a fusion has a cell twice", named(self.cells))
        self.sha256 = ""
        self.register_buffer("places", torch.arange(len(self.cells)), persistent=False)

    def settings(self) -> dict[str, Any]:
        """Returns the arguments that build it again, JSON values only."""
        return {"cells": [[row, str(region)] for row, region in self.cells]}

    def bind(
        self, rows: Sequence[str], regions: Sequence[Region], there: Iterable[Cell] | None = None
    ) -> Self:
        """Returns a copy that takes matrices with these D rows and R columns.

        If ``there`` names the cells that have a network, these must be the fusion's and no others.

        Raises:
            UsageError: The cells differ; the message names those that do.
        """
        bound = copy.deepcopy(self)
        if not self.cells:
            return bound
        known = {(row, region) for row in rows for region in regions} if there is None else {*there}
        missing = [cell for cell in self.cells if cell not in known]
        extra = sorted(known - {*self.cells}) if there is not None else []
        if missing or extra:
            said = [f"without {named(missing)}"] if missing else []
            said += [f"with {named(extra)}, which it does not know"] if extra else []
            raise UsageError(
                f"the fusion is of other networks: here it is {' and '.join(said)}",
                "use it with the networks it was trained for, or train another",
            )
        places = [rows.index(row) * len(regions) + regions.index(r) for row, r in self.cells]
        bound.places = torch.tensor(places, device=self.places.device)
        return bound

    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Returns fake log-odds (B,) float32; NaN where none of the fusion's cells is valid.

        Of cells (B, D, R) that are not valid, logits may hold anything.
        """
        logits, valid = logits.flatten(1), valid.flatten(1)
        if self.cells:
            logits, valid = logits[:, self.places], valid[:, self.places]
        fused = self.fuse(torch.where(valid, logits.float(), 0.0), valid)
        return torch.where(valid.any(1), fused, torch.nan)

    @abstractmethod
    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Fuses (B, N) log-odds, 0 where not valid; where none is, the result is not looked at."""


class MeanFusion(Fusion):
    """The mean of the valid log-odds.

    Log-odds, not probabilities: three networks at 0.99 and one at 0.4 are not the same evidence
    as four at 0.84. Scales are left as they are: a detector whose log-odds lie within +-10
    outvotes one whose lie within +-1. Trained fusions put all on one scale first.
    """

    rule = "mean of log-odds"

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`Fusion.fuse`."""
        return logits.sum(1) / valid.float().sum(1)


class MaxFusion(Fusion):
    """The highest of the valid log-odds, on the scales that they have."""

    rule = "highest log-odds"

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`Fusion.fuse`."""
        return logits.masked_fill(~valid, -torch.inf).amax(1)


class TrainedFusion(Fusion):
    """A fusion that first puts the log-odds of all cells on one scale.

    Attributes:
        mean: (N,) what is subtracted from each cell's log-odds: their mean on the development
            part, halfway between the classes.
        std: (N,) what they are then divided by: their standard deviation there.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cells: Iterable[Sequence[str]]) -> None:
        super().__init__(cells)
        if not self.cells:
            raise UsageError("a trained fusion needs its cells", "name at least one")
        self.register_buffer("mean", torch.zeros(len(self.cells)))
        self.register_buffer("std", torch.ones(len(self.cells)))

    def scaled(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Returns (B, N) log-odds on one scale; 0, the middle, where not valid."""
        return torch.where(valid, (logits - self.mean) / self.std, 0.0)


class WeightedFusion(TrainedFusion):
    """A weighted mean of scaled log-odds over the valid cells.

    A cell that is not valid hands its weight to the others in proportion. ``scale`` and
    ``offset`` bring the mean back to log-odds; they do not change the order of faces.

    Attributes:
        weight: (N,) above 0, together 1.
    """

    rule = "weighted mean of scaled log-odds"
    weight: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, cells: Iterable[Sequence[str]]) -> None:
        super().__init__(cells)
        self.register_buffer("weight", torch.full((len(self.cells),), 1 / len(self.cells)))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`Fusion.fuse`."""
        mean = mean_of(self.scaled(logits, valid), self.weight * valid)
        return self.scale * mean + self.offset


class LogisticFusion(TrainedFusion):
    """Logistic regression on scaled log-odds.

    A cell that is not valid adds nothing: that a region cannot be seen is not taken for evidence.
    """

    rule = "logistic regression on scaled log-odds"
    weight: Tensor
    offset: Tensor

    def __init__(self, cells: Iterable[Sequence[str]]) -> None:
        super().__init__(cells)
        self.register_buffer("weight", torch.zeros(len(self.cells)))
        self.register_buffer("offset", torch.zeros(()))

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`Fusion.fuse`."""
        return self.scaled(logits, valid) @ self.weight + self.offset


class FusionHead(TrainedFusion):
    """Logistic regression, and a small network that corrects it.

    The network sees the scaled log-odds and which cells are valid, so that it may rely more on
    what is left where regions are missing, and on what cells say together. Its last layer begins
    as zero, so that the head begins as the logistic regression.

    Raises:
        UsageError: There is no cell, or another width.
    """

    rule = "learned head on scaled log-odds and their validity"

    def __init__(self, cells: Iterable[Sequence[str]], hidden: int = 16) -> None:
        super().__init__(cells)
        if not 1 <= hidden <= _WIDEST:
            raise UsageError(f"a head of width {hidden}", f"1 to {_WIDEST}")
        self.hidden = hidden
        count = len(self.cells)
        self.linear = nn.Linear(count, 1)
        self.network = nn.Sequential(
            nn.Linear(2 * count, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.last = nn.Linear(hidden, 1 + count)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def settings(self) -> dict[str, Any]:
        """See :meth:`Fusion.settings`."""
        return super().settings() | {"hidden": self.hidden}

    def fuse(self, logits: Tensor, valid: Tensor) -> Tensor:
        """See :meth:`Fusion.fuse`."""
        x = self.scaled(logits, valid)
        change = self.last(self.network(torch.cat([x, valid.to(x.dtype)], 1)))
        weight = self.linear.weight * (1 + change[:, 1:])
        fused: Tensor = (x * weight).sum(1) + self.linear.bias + change[:, 0]
        return fused


def mean_of(values: Tensor, weight: Tensor) -> Tensor:
    """Returns (B,) means over the second axis, weighted by weights that may all be zero."""
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1e-12)


def named(cells: Iterable[Cell]) -> str:
    """Returns cells in words, ``detector/region``."""
    return ", ".join(f"{row}/{region}" for row, region in cells)
