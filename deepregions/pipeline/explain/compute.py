"""Computes why a face has its score: where each network looked, and what each of them adds."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from deepregions.pipeline.explain.gradcam import Heat, Towards, heats, heats_segmented
from deepregions.pipeline.explain.shapley import Floats, shapley
from deepregions.pipeline.results import FaceResult, Result, rounded, score_json
from deepregions.pixels.tensors import as_tensor, stack
from deepregions.system import System
from deepregions.types import REGIONS, Region

SCHEMA = "deepregions.explain"
VERSION = 1


@dataclass(frozen=True, eq=False)
class CellExplanation:
    """One network on one face; None stands for what it has no answer for."""

    heat: Heat  # of this face only, on the CPU; of no meaning without an answer
    log_odds: float | None
    share: float | None  # what it adds to the fused log-odds
    inside: float | None  # share of the heat in the region; None where there is none
    area: float  # the region's share of the crop
    empty: bool  # nothing in the map speaks for this side

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
    """One face: every network that has looked at it or could have; ``total`` is its log-odds."""

    face: FaceResult
    cells: tuple[CellExplanation, ...]
    total: float
    towards: Towards

    @property
    def by_detector(self) -> dict[str, float]:
        """What each detector that has an answer adds."""
        return _sums((cell.detector, cell.share) for cell in self.cells)

    @property
    def by_region(self) -> dict[str, float]:
        """What each region that has an answer adds."""
        cells = sorted(self.cells, key=lambda cell: REGIONS.index(cell.region))
        return _sums((str(cell.region), cell.share) for cell in cells)


def explain_faces(
    result: Result, system: System, *, towards: Towards = "fake", batch_size: int = 16
) -> Iterator[FaceExplanation]:
    """Yields the explanation of each track's highest face, in their order.

    The result has these faces' pixels; ``towards`` is what heat speaks for.

    Raises:
        UsageError: There are too many networks, or one does not name its map.
        BundleError: The fusion cannot do without some of the regions.
    """
    faces = list(result.shown.values())
    for first in range(0, len(faces), batch_size):
        batch = faces[first : first + batch_size]
        found = _heats(batch, system, towards, batch_size)
        for number, face in enumerate(batch):
            shares, total = _shares(face, system)
            by_place = {
                (system.rows.index(heat.row), system.regions.index(heat.region)): heat.of(number)
                for heat in found
            }
            cells = (
                _explained(heat, face, float(shares[place]))
                for place, heat in sorted(by_place.items(), key=lambda pair: pair[0])
            )
            yield FaceExplanation(face, tuple(cells), total, towards)


def _heats(
    faces: Sequence[FaceResult], system: System, towards: Towards, batch_size: int
) -> Sequence[Heat]:
    device = next(system.parameters()).device
    patches = [face.patch for face in faces if face.patch is not None]
    image, extent = (each.to(device) for each in stack([as_tensor(p.image) for p in patches]))
    landmarks = [
        torch.from_numpy(patch.landmarks) for patch in patches if patch.landmarks is not None
    ]
    if landmarks:
        points = torch.stack(landmarks).to(device)
        return heats(system, image, points, extent, towards=towards, batch_size=batch_size)
    region = next(r for (_, r), log_odds in faces[0].cells.items() if log_odds is not None)
    return heats_segmented(system, image, region, towards=towards)


def _shares(face: FaceResult, system: System) -> tuple[Floats, float]:
    logits = torch.full((len(system.rows), len(system.regions)), torch.nan)
    for (detector, region), log_odds in face.cells.items():
        if log_odds is not None:
            logits[system.rows.index(detector), system.regions.index(region)] = log_odds
    logits = logits.to(next(system.parameters()).device)
    return shapley(system.fusion, logits, ~logits.isnan())


def _explained(heat: Heat, face: FaceResult, share: float) -> CellExplanation:
    log_odds, area = face.cells[heat.row, heat.region], float(heat.mask.float().mean())
    if log_odds is None:
        return CellExplanation(heat, None, None, None, area, empty=False)
    inside, empty = float(heat.inside()), bool(heat.empty)
    return CellExplanation(
        heat, log_odds, share, None if math.isnan(inside) else inside, area, empty
    )


def to_json(result: Result, faces: Sequence[FaceExplanation]) -> dict[str, Any]:
    """Makes the JSON object of one input: the explanation of its tracks' highest faces."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "input": result.input,
        "answer": asdict(result.answer),
        "kind": result.kind,
        "status": str(result.status),
        "message": result.reason,
        **score_json(result.log_odds),
        "rule": result.rule,
        "warnings": list(result.warnings),
        "towards": faces[0].towards if faces else None,
        "faces": [_face_json(each) for each in faces],
        **result.facts,
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


def _sums(shares: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, share in shares:
        if share is not None:
            sums[name] = sums.get(name, 0.0) + share
    return sums
