"""Faces to scores: quality gates, networks and fusion over batches of face patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepregions.devices import out_of_memory
from deepregions.errors import OutOfMemoryError
from deepregions.faces.gates import STATUSES, Judgement, figures, judge, refusals
from deepregions.faces.quality import Quality, measure
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.results import FacePatch, FaceResult, Scores
from deepregions.pixels.tensors import as_tensor, stack
from deepregions.system import System, SystemOutput
from deepregions.types import Region, Status

logger = logging.getLogger(__name__)

_BLACK = "nothing but black"
_NO_LANDMARKS = "no landmarks on the picture"
_TOO_LITTLE_MEMORY = (
    "memory does not suffice to score one face",
    "free some, or use fewer networks: --detector, --region",
)


class FaceScorer:
    """Scores faces that pass the gates, and says why others have no score."""

    def __init__(self, system: System, gates: Gates, device: torch.device) -> None:
        if device.type == "cpu":  # on a GPU this gains little; members stay as they are, on the CPU
            system.detectors = nn.ModuleList(each.detector.folded() for each in system.members)
        # Weights by pixel: 1.1 to 1.7 times as fast in float32 on a CPU, more in half precision.
        self.system = system.to(device).to(memory_format=torch.channels_last)
        self.gates = gates
        self.device = device
        self._most: int | None = None  # faces at once; known once memory was full

    @torch.inference_mode()
    def score(
        self, faces: Sequence[FacePatch | None], *, pictures: bool = False
    ) -> list[FaceResult]:
        """Scores faces of any sizes, at once; in halves from where memory does not suffice.

        A face is None where its landmarks are of no use. Results lack their place in the input;
        with ``pictures``, those with a score have their pixels, and what the networks saw of them.

        Raises:
            OutOfMemoryError: It does not suffice for one face.
        """
        scores = iter(self._fitting([face for face in faces if face is not None], pictures))
        unknown = dict.fromkeys(self._cells())
        lost = _result(Status.LOW_QUALITY, None, unknown, (_NO_LANDMARKS,), {})
        return [lost if face is None else next(scores) for face in faces]

    @torch.inference_mode()
    def score_canvas(self, image: NDArray[np.uint8], region: Region) -> FaceResult:
        """Scores an image (H, W, 3) uint8 that already is a region's canvas."""
        try:
            output = self.system.forward_segmented(as_tensor(image)[None].to(self.device), region)
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if out_of_memory(error):
                raise OutOfMemoryError(*_TOO_LITTLE_MEMORY) from error
            raise
        (score,) = self._results(output)
        if score.status is Status.TOO_SMALL:
            return replace(score, status=Status.LOW_QUALITY, reasons=(_BLACK,))
        return score

    @torch.inference_mode()
    def with_crops(self, face: FacePatch, region: Region = Region.ENTIRE) -> FacePatch:
        """Returns a face, or the canvas of a region, with what the networks see of it."""
        image = as_tensor(face.image)[None].to(self.device)
        if face.landmarks is None:
            regions: Sequence[Region] = (region,)
            crops, _ = self.system.segmented_crops(image, region)
        else:
            regions = self.system.regions
            landmarks = torch.from_numpy(face.landmarks)[None].to(self.device)
            crops, _ = self.system.crops(image, landmarks)
        return self._seen([face], crops, regions)[0]

    def _seen(
        self, faces: Sequence[FacePatch], crops: Sequence[Tensor], regions: Sequence[Region]
    ) -> list[FacePatch]:
        """Returns faces with their crops, of what the system makes of all together."""
        by_cut = self.system.by_cut(crops)
        seen = {}
        for each in regions:
            for cut in self.system.cuts:
                users = tuple(
                    self.system.rows[row]
                    for member, (row, _) in zip(self.system.members, self.system.cells, strict=True)
                    if (member.cut, member.region) == (cut, each)
                )
                if users:
                    pixels = (by_cut[cut, each].clamp(0, 1) * 255).round().to(torch.uint8)
                    seen[each, users] = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return [
            replace(face, crops={of: pixels[n].copy() for of, pixels in seen.items()})
            for n, face in enumerate(faces)
        ]

    def _fitting(self, faces: Sequence[FacePatch], pictures: bool) -> list[FaceResult]:
        scores: list[FaceResult] = []
        while len(scores) < len(faces):
            rest = faces[len(scores) :][: self._most]
            try:
                scores += self._scored(rest, pictures)
                continue
            except (RuntimeError, MemoryError, OutOfMemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Here, where the exception no longer holds what was computed.
            if len(rest) == 1:
                raise OutOfMemoryError(*_TOO_LITTLE_MEMORY)
            if self._most is None:
                said = "deepregions: out of memory with %d faces at once: going on with %d or fewer"
                logger.warning(said, len(rest), len(rest) // 2)
            self._most = len(rest) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return scores

    def _scored(self, faces: Sequence[FacePatch], pictures: bool) -> list[FaceResult]:
        known = [math.nan if face.confidence is None else face.confidence for face in faces]
        landmarks = np.stack([f.landmarks for f in faces if f.landmarks is not None])
        image, extent, points, scale, confidence = (
            each.to(self.device)
            for each in (
                *stack([as_tensor(face.image) for face in faces]),
                torch.from_numpy(landmarks),
                torch.tensor([face.scale for face in faces]),
                torch.tensor(known),
            )
        )
        quality = measure(image, points, scale=scale, extent=extent, confidence=confidence)
        judged = judge(quality, self.gates)
        crops, present = self.system.crops(image, points, extent, judged.regions)
        scores = self._results(self.system.score(crops, present), quality, judged)
        if not pictures:
            return scores
        patches = self._seen(faces, crops, self.system.regions)
        return [
            score if score.log_odds is None else replace(score, patch=patch)
            for score, patch in zip(scores, patches, strict=True)
        ]

    def _results(
        self, output: SystemOutput, quality: Quality | None = None, judged: Judgement | None = None
    ) -> list[FaceResult]:
        """Reads the answers back from the device, once for the batch."""
        batch = len(output.fused)
        reasons: list[tuple[str, ...]] = [()] * batch
        measured: list[dict[str, float | None]] = [{} for _ in range(batch)]
        statuses = [Status.OK] * batch
        if quality is not None and judged is not None:
            why = refusals(quality, judged, self.gates)
            reasons = [tuple(map(str, each)) for each in why]
            measured = figures(quality)
            statuses = [STATUSES[number] for number in judged.status.tolist()]
        present = output.present.any(1).tolist()
        fused, logits, valid = (x.tolist() for x in (output.fused, output.logits, output.valid))
        found = []
        for n in range(batch):
            cells = {
                cell: logits[n][row][column] if valid[n][row][column] else None
                for cell, (row, column) in self._cells().items()
            }
            status, log_odds = statuses[n], None
            if math.isfinite(fused[n]):
                status, log_odds = Status.OK, fused[n]
            elif present[n]:
                status = Status.ERROR
            elif status is Status.OK:  # what may be judged is not what these networks look at
                status = Status.LOW_QUALITY if reasons[n] else Status.TOO_SMALL
            found.append(_result(status, log_odds, cells, reasons[n], measured[n]))
        return found

    def _cells(self) -> dict[tuple[str, Region], tuple[int, int]]:
        """Returns the cells of the networks there are, with their places in the matrix."""
        return {
            (self.system.rows[row], self.system.regions[column]): (row, column)
            for row, column in sorted(self.system.cells)
        }


def _result(
    status: Status,
    log_odds: float | None,
    cells: Scores,
    reasons: tuple[str, ...],
    quality: Mapping[str, float | None],
) -> FaceResult:
    """A face whose place in the input its caller knows."""
    return FaceResult(0, 0.0, 0, (0.0, 0.0, 0.0, 0.0), status, log_odds, cells, reasons, quality)
