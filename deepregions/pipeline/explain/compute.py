"""Why a face has its score: where each network looked, and what each of them adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deepregions.faces.patches import stack
from deepregions.pipeline.explain.gradcam import Heat, Towards, heats, heats_segmented
from deepregions.pipeline.explain.shapley import Shares, shapley
from deepregions.pipeline.results import Cell, FaceResult, InputResult, probability
from deepregions.pipeline.top_faces import Evidence
from deepregions.system import System
from deepregions.types import Region

SCHEMA = "deepregions.explain"
VERSION = 1


@dataclass(frozen=True, eq=False)
class CellExplanation:
    """One network on one face.

    Attributes:
        detector: Its row's name.
        region: What it looked at.
        log_odds: Its fake log-odds; None where it gave no answer.
        share: What it adds to the fused log-odds; None where it gave no answer.
        inside: The share of its heat that lies inside the region; None where there is no heat.
        crop: (3, S, S) float32 in [0, 1], what it saw.
        mask: (S, S) bool, where on it the region is.
        heat: (S, S) float32 over the crop; None where it gave no answer.
        on_face: (H, W) float32, the same over the face's picture.
    """

    detector: str
    region: Region
    log_odds: float | None
    share: float | None
    inside: float | None
    crop: Tensor
    mask: Tensor
    heat: Tensor | None
    on_face: Tensor | None

    @property
    def area(self) -> float:
        """The region's share of the crop: that of heat which does not know of it."""
        return float(self.mask.float().mean())

    @property
    def empty(self) -> bool:
        """Whether there is an answer but no heat: nothing in the map speaks for this side."""
        return self.heat is not None and not bool(self.heat.any())


@dataclass(frozen=True, eq=False)
class FaceExplanation:
    """One face.

    Attributes:
        evidence: The face, its picture and scores.
        cells: Every network that has looked at it or could have.
        shares: What its fused log-odds is made of.
        detectors: The rows of ``shares``.
        regions: The columns of ``shares``.
        towards: What the heat speaks for.
    """

    evidence: Evidence
    cells: tuple[CellExplanation, ...]
    shares: Shares
    detectors: tuple[str, ...]
    regions: tuple[Region, ...]
    towards: Towards

    @property
    def by_detector(self) -> dict[str, float]:
        """What each detector that has an answer adds."""
        return _known(self.detectors, self.shares.by_detector.tolist())

    @property
    def by_region(self) -> dict[str, float]:
        """What each region that has an answer adds."""
        return _known([str(region) for region in self.regions], self.shares.by_region.tolist())


class Explainer:
    """Explains faces that a system has scored.

    Args:
        system: The networks and their fusion.
        device: Where they are.
        towards: What heat speaks for.
        batch_size: How many faces are looked at at once.
    """

    def __init__(
        self,
        system: System,
        device: torch.device,
        *,
        towards: Towards = "fake",
        batch_size: int = 16,
    ) -> None:
        self.system = system
        self.device = device
        self.towards: Towards = towards
        self.batch_size = batch_size

    def explain(self, evidence: Sequence[Evidence]) -> Iterator[FaceExplanation]:
        """Yields the explanation of each face, in their order.

        Raises:
            UsageError: There are too many networks, or one does not name its map.
            BundleError: The fusion cannot do without some of the regions.
        """
        for first in range(0, len(evidence), self.batch_size):
            batch = evidence[first : first + self.batch_size]
            faces = [each for each in batch if each.landmarks is not None]
            found = self._faces(faces) if faces else ()
            rows = iter(range(len(faces)))
            for each in batch:
                if each.landmarks is not None:
                    yield self._explanation(each, found, next(rows))
                else:
                    yield self._explanation(each, self._canvas(each), 0)

    def _faces(self, evidence: Sequence[Evidence]) -> tuple[Heat, ...]:
        image, extent = stack([each.image for each in evidence])
        landmarks = [each.landmarks for each in evidence if each.landmarks is not None]
        return heats(
            self.system,
            image.to(self.device),
            torch.stack(landmarks).to(self.device),
            extent.to(self.device),
            towards=self.towards,
            batch_size=self.batch_size,
        )

    def _canvas(self, evidence: Evidence) -> tuple[Heat, ...]:
        scored = [cell.region for cell in evidence.face.cells if cell.log_odds is not None]
        if not scored:
            return ()
        image = evidence.image[None].to(self.device)
        return heats_segmented(self.system, image, scored[0], towards=self.towards)

    def _explanation(self, evidence: Evidence, found: Sequence[Heat], row: int) -> FaceExplanation:
        answers = {(cell.detector, cell.region): cell for cell in evidence.face.cells}
        shares = self._shares(answers)
        cells = []
        for heat in found:
            cell = answers[heat.row, heat.region]
            place = self.system.rows.index(heat.row), self.system.regions.index(heat.region)
            cells.append(_cell(cell, heat, row, float(shares.cells[place]), evidence))
        cells.sort(key=lambda cell: self._order(cell.detector, cell.region))
        return FaceExplanation(
            evidence, tuple(cells), shares, self.system.rows, self.system.regions, self.towards
        )

    def _order(self, detector: str, region: Region) -> tuple[int, int]:
        return self.system.rows.index(detector), self.system.regions.index(region)

    def _shares(self, answers: Mapping[tuple[str, Region], Cell]) -> Shares:
        shape = len(self.system.rows), len(self.system.regions)
        logits = torch.full(shape, torch.nan)
        for (detector, region), cell in answers.items():
            if cell.log_odds is not None:
                logits[self._order(detector, region)] = cell.log_odds
        logits = logits.to(self.device)
        return shapley(self.system.fusion, logits, ~logits.isnan())


def _cell(cell: Cell, heat: Heat, row: int, share: float, evidence: Evidence) -> CellExplanation:
    crop, mask = heat.crops[row].cpu(), heat.mask[row].cpu()
    kind = partial(CellExplanation, cell.detector, cell.region, cell.log_odds)
    if cell.log_odds is None:
        return kind(None, None, crop, mask, None, None)
    height, width = evidence.image.shape[-2:]
    one = heat.of(row)
    inside = float(one.inside())
    on_crop, on_face = one.on_crop()[0].cpu(), one.on_picture(width, height)[0].cpu()
    return kind(share, None if math.isnan(inside) else inside, crop, mask, on_crop, on_face)


def to_json(
    result: InputResult, faces: Sequence[FaceExplanation], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Makes the JSON object of one input: the explanation of its tracks' highest faces.

    Args:
        result: What came of the input.
        faces: Of each track that has a score.
        facts: What it was made with, as in :func:`deepregions.pipeline.results.to_json`.
    """
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "input": result.input,
        "kind": result.kind,
        "status": str(result.status),
        "message": result.message,
        **_score(result.log_odds),
        "rule": result.rule,
        "warnings": list(result.warnings),
        "towards": faces[0].towards if faces else None,
        "faces": [_face(each) for each in faces],
        **facts,
    }


def _face(explanation: FaceExplanation) -> dict[str, Any]:
    face: FaceResult = explanation.evidence.face
    return {
        "track": face.track,
        "frame": face.frame,
        "time": round(face.time, 3),
        "box": [round(value, 1) for value in face.box],
        **_score(face.log_odds),
        "cells": [
            {
                "detector": cell.detector,
                "region": str(cell.region),
                **_score(cell.log_odds),
                "shapley": _rounded(cell.share),
                "inside": _rounded(cell.inside),
                "area": _rounded(cell.area),
                "empty": cell.empty,
            }
            for cell in explanation.cells
        ],
        "by_region": {name: _rounded(value) for name, value in explanation.by_region.items()},
        "by_detector": {name: _rounded(value) for name, value in explanation.by_detector.items()},
    }


def _score(log_odds: float | None) -> dict[str, float | None]:
    return {"score": _rounded(probability(log_odds)), "log_odds": _rounded(log_odds)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _known(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if not math.isnan(value)}
