"""Detectors and their fusion as one module: face pixels and landmarks in, log-odds out."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepregions.detectors import RegionDetector
from deepregions.errors import UsageError
from deepregions.faces.cropping import RegionCropper, resize
from deepregions.fusion.rules import Fusion, MeanFusion
from deepregions.types import REGIONS, Cell, CropSpec, Layout, Region, Resample


@dataclass
class TrainedNetwork:
    """A detector trained for a region."""

    detector: RegionDetector  # in eval mode
    region: Region
    database: str  # that it was trained on
    layout: Layout  # as RegionCropper takes it
    training: dict[str, Any]  # facts, JSON values only (store, splits, figures)
    sha256: str = ""  # of its weights file; empty before it is saved
    resample: Resample = "bilinear"  # as RegionCropper takes it

    @property
    def cut(self) -> CropSpec:
        """How its crops are made."""
        return CropSpec(self.detector.size, self.layout, self.resample)

    @property
    def name(self) -> str:
        """``<detector>_<region>.<database>``."""
        return f"{self.detector.name}_{self.region}.{self.database}"


class SystemOutput(NamedTuple):
    """Scores of B faces by D detectors on R regions."""

    logits: Tensor
    """(B, D, R) float32 fake log-odds; 0 where not valid."""
    valid: Tensor
    """(B, D, R) bool: the region is there, a network for it exists, and its answer is finite."""
    present: Tensor
    """(B, R) bool: the region is there to be judged, and may be."""
    fused: Tensor
    """(B,) float32 fake log-odds; NaN where nothing is valid."""


class System(nn.Module):
    """All members side by side; without a fusion, their answers become their mean.

    ``rows`` are D names, the detector, with the database where a detector was trained on several;
    ``regions`` are R of them. Two members for one cell, or a fusion for others, are refused.

    Raises:
        UsageError: No member, or two for the same detector, region and database; or the fusion is
            for others.
    """

    def __init__(self, members: Sequence[TrainedNetwork], fusion: Fusion | None = None) -> None:
        super().__init__()
        if not members:
            raise UsageError("there is no network to score with", "pass at least one --bundle")
        self.members = tuple(members)
        self.rows, self.regions, names = matrix_of(members)
        self.cells = [(self.rows.index(row), self.regions.index(r)) for row, r in names]
        self.detectors = nn.ModuleList(member.detector for member in members)
        wanted = {(member.cut, member.region) for member in members}
        self.cuts = {
            cut: tuple(region for region in self.regions if (cut, region) in wanted)
            for cut in sorted({cut for cut, _ in wanted})
        }
        self.croppers = nn.ModuleList(
            RegionCropper(cut.size, regions, cut.layout, cut.resample)
            for cut, regions in self.cuts.items()
        )
        own = copy.deepcopy(fusion or MeanFusion())  # it belongs to this matrix from here on
        self.fusion = own.bind(self.rows, self.regions, names)
        self.eval()

    def network_facts(self) -> list[dict[str, Any]]:
        """Returns what results and exported files say of each network, as JSON values."""
        return [
            {
                "name": member.name,
                "detector": self.rows[row],
                "region": str(member.region),
                "database": member.database,
                "sha256": member.sha256,
                "landmarks": member.training.get("landmarks"),
            }
            for member, (row, _) in zip(self.members, self.cells, strict=True)
        ]

    def forward(
        self,
        image: Tensor,
        landmarks: Tensor,
        extent: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> SystemOutput:
        """Scores faces: :meth:`crops`, then :meth:`score`, of what these take."""
        return self.score(*self.crops(image, landmarks, extent, allowed))

    def crops(
        self,
        image: Tensor,
        landmarks: Tensor,
        extent: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Makes what the networks look at.

        Args:
            image: (B, 3, H, W) uint8 RGB.
            landmarks: (B, 68, 2) float32 pixels of ``image``.
            extent: (B, 2) width and height of each picture without its padding; all by default.
            allowed: (B, 5) bool, in the order of :data:`~deepregions.types.REGIONS`: which regions
                may be judged (quality gates say so); all by default.

        Returns:
            For each of :attr:`cuts`, crops (B, R of the cut, 3, S, S) float32 in [0, 1]; and
            which of :attr:`regions` are there to be judged, (B, R) bool.
        """
        made = [cropper(image, landmarks, extent) for cropper in self.croppers]
        there = {r: each for (_, r), each in self.by_cut([valid for _, valid in made]).items()}
        present = torch.stack([there[r] for r in self.regions], 1)
        if allowed is not None:
            present &= torch.stack([allowed[:, REGIONS.index(r)] for r in self.regions], 1)
        return [crops for crops, _ in made], present

    def by_cut(self, crops: Sequence[Tensor]) -> dict[tuple[CropSpec, Region], Tensor]:
        """Names the crops that :meth:`crops` makes: (B, 3, S, S) by how and where they were cut."""
        return {
            (cut, region): pixels[:, number]
            for (cut, regions), pixels in zip(self.cuts.items(), crops, strict=True)
            for number, region in enumerate(regions)
        }

    def forward_segmented(self, canvas: Tensor, region: Region) -> SystemOutput:
        """Scores images (B, 3, H, W) uint8 RGB that are a region's canvas, black outside it."""
        return self.score(*self.segmented_crops(canvas, region))

    def segmented_crops(self, canvas: Tensor, region: Region) -> tuple[list[Tensor], Tensor]:
        """As :meth:`crops`, of a region's canvas: all other regions are black and not there."""
        crops = []
        for cut, regions in self.cuts.items():
            resized = resize(canvas, cut.size, cut.resample)[:, None]
            own = torch.tensor([each == region for each in regions], device=canvas.device)
            crops.append(torch.where(own[:, None, None, None], resized, 0.0))
        there = canvas.flatten(1).amax(1) > 0
        own = torch.tensor([each == region for each in self.regions], device=canvas.device)
        return crops, there[:, None] & own

    def score(self, crops: Sequence[Tensor], present: Tensor) -> SystemOutput:
        """Scores what :meth:`crops` makes; ``present`` (B, R): what is there and may be judged."""
        given = self.by_cut(crops)
        shape = (present.shape[0], len(self.rows), len(self.regions))  # len() would be a constant
        logits = torch.zeros(shape, device=present.device)
        valid = torch.zeros(shape, dtype=torch.bool, device=present.device)
        for member, detector, (row, column) in zip(
            self.members, self.detectors, self.cells, strict=True
        ):
            answer = detector(given[member.cut, member.region]).float()
            fine = present[:, column] & answer.isfinite()
            logits[:, row, column] = torch.where(fine, answer, 0.0)
            valid[:, row, column] = fine
        return SystemOutput(logits, valid, present, self.fusion(logits, valid))


def matrix_of(
    members: Sequence[TrainedNetwork],
) -> tuple[tuple[str, ...], tuple[Region, ...], list[Cell]]:
    """Returns the rows and columns of the matrix of scores, and each network's cell, by name.

    Raises:
        UsageError: Two networks have one cell.
    """
    trained: dict[str, dict[str, None]] = {}
    for member in members:
        trained.setdefault(member.detector.name, {})[member.database] = None
    rows = {
        (name, database): name if len(databases) == 1 else f"{name}.{database}"
        for name, databases in trained.items()
        for database in databases
    }
    cells: list[Cell] = []
    for member in members:
        cell = (rows[member.detector.name, member.database], member.region)
        if cell in cells:
            raise UsageError(f"two bundles hold {member.name}", "pass only one of them")
        cells.append(cell)
    present = {region for _, region in cells}
    return tuple(rows.values()), tuple(region for region in REGIONS if region in present), cells
