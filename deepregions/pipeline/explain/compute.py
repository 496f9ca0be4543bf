"""Why a face has its score: where each network looked, and what each of them adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deepregions.faces.patches import stack
from deepregions.pipeline.explain.gradcam import Heat, Towards, heats, heats_segmented
from deepregions.pipeline.explain.shapley import Shares, shapley
from deepregions.pipeline.results import FaceResult, InputResult, rounded, score_json
from deepregions.system import System
from deepregions.types import Region

SCHEMA = "deepregions.explain"
VERSION = 1


@dataclass(frozen=True, eq=False)
class CellExplanation:
    """One network on one face.

    Attributes:
        heat: Where it looked, of this face only, on the CPU; of no meaning without an answer.
        log_odds: Its fake log-odds; None where it gave no answer.
        share: What it adds to the fused log-odds; None where it gave no answer.
        inside: The share of its heat that lies inside the region; None where there is no heat.
        area: The region's share of the crop: that of heat which does not know of it.
        empty: There is an answer but no heat: nothing in the map speaks for this side.
    """

    heat: Heat
    log_odds: float | None
    share: float | None
    inside: float | None
    area: float
    empty: bool

    @property
    def detector(self) -> str:
        """Its row's name."""
        return self.heat.row

    @property
    def region(self) -> Region:
        """What it looked at."""
        return self.heat.region


@dataclass(frozen=True, eq=False)
class FaceExplanation:
    """One face.

    Attributes:
        face: Its scores and pixels.
        cells: Every network that has looked at it or could have.
        total: Its fused log-odds, the sum of what the networks add.
        by_detector: What each detector that has an answer adds.
        by_region: What each region that has an answer adds.
        towards: What the heat speaks for.
    """

    face: FaceResult
    cells: tuple[CellExplanation, ...]
    total: float
    by_detector: Mapping[str, float]
    by_region: Mapping[str, float]
    towards: Towards


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

    def explain(self, result: InputResult) -> Iterator[FaceExplanation]:
        """Yields the explanation of each track's highest face, in their order.

        Raises:
            UsageError: There are too many networks, or one does not name its map.
            BundleError: The fusion cannot do without some of the regions.
        """
        faces = list(result.shown.values())
        for first in range(0, len(faces), self.batch_size):
            batch = faces[first : first + self.batch_size]
            found = self._heats(batch)
            for number, face in enumerate(batch):
                yield self._explanation(face, [heat.of(number) for heat in found])

    def _heats(self, faces: Sequence[FaceResult]) -> Sequence[Heat]:
        """Where the networks looked on faces, or on the one region canvas of an input."""
        patches = [face.patch for face in faces if face.patch is not None]
        image, extent = stack([patch.image for patch in patches])
        image = image.to(self.device)
        landmarks = [patch.landmarks for patch in patches if patch.landmarks is not None]
        if not landmarks:
            regions = [r for (_, r), log_odds in faces[0].cells.items() if log_odds is not None]
            return heats_segmented(self.system, image, regions[0], towards=self.towards)
        return heats(
            self.system,
            image,
            torch.stack(landmarks).to(self.device),
            extent.to(self.device),
            towards=self.towards,
            batch_size=self.batch_size,
        )

    def _explanation(self, face: FaceResult, found: Sequence[Heat]) -> FaceExplanation:
        rows, regions = self.system.rows, self.system.regions
        shares = self._shares(face)
        cells = []
        for heat in found:
            place = rows.index(heat.row), regions.index(heat.region)
            cells.append((place, _explained(heat, face, float(shares.cells[place]))))
        return FaceExplanation(
            face,
            tuple(cell for _, cell in sorted(cells, key=lambda pair: pair[0])),
            shares.total,
            _known(rows, shares.by_detector.tolist()),
            _known(list(map(str, regions)), shares.by_region.tolist()),
            self.towards,
        )

    def _shares(self, face: FaceResult) -> Shares:
        rows, regions = self.system.rows, self.system.regions
        logits = torch.full((len(rows), len(regions)), torch.nan)
        for (detector, region), log_odds in face.cells.items():
            if log_odds is not None:
                logits[rows.index(detector), regions.index(region)] = log_odds
        logits = logits.to(self.device)
        return shapley(self.system.fusion, logits, ~logits.isnan())


def _explained(heat: Heat, face: FaceResult, share: float) -> CellExplanation:
    log_odds = face.cells[heat.row, heat.region]
    inside, area, empty = float(heat.inside()), float(heat.mask.float().mean()), bool(heat.empty)
    if log_odds is None:
        return CellExplanation(heat, None, None, None, area, empty=False)
    return CellExplanation(
        heat, log_odds, share, None if math.isnan(inside) else inside, area, empty
    )


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
        **score_json(result.log_odds),
        "rule": result.rule,
        "warnings": list(result.warnings),
        "towards": faces[0].towards if faces else None,
        "faces": [_face_json(each) for each in faces],
        **facts,
    }


def _face_json(explanation: FaceExplanation) -> dict[str, Any]:
    face = explanation.face
    return {
        "track": face.track,
        "frame": face.frame,
        "time": round(face.time, 3),
        "box": [round(value, 1) for value in face.box],
        **score_json(face.log_odds),
        "cells": [
            {
                "detector": cell.detector,
                "region": str(cell.region),
                **score_json(cell.log_odds),
                "shapley": rounded(cell.share),
                "inside": rounded(cell.inside),
                "area": rounded(cell.area),
                "empty": cell.empty,
            }
            for cell in explanation.cells
        ],
        "by_region": {name: rounded(value) for name, value in explanation.by_region.items()},
        "by_detector": {name: rounded(value) for name, value in explanation.by_detector.items()},
    }


def _known(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    pairs = zip(names, values, strict=True)
    return {name: value for name, value in pairs if not math.isnan(value)}
