"""Faces to scores: quality gates, networks and fusion over batches of face patches."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from deepregions.devices import out_of_memory
from deepregions.errors import OutOfMemoryError
from deepregions.faces.gates import STATUSES, Judgement, judge, refusals
from deepregions.faces.gates import figures as figures_of
from deepregions.faces.landmarks import Face
from deepregions.faces.patches import crop_face, stack
from deepregions.faces.quality import Quality, measure
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.results import Cell
from deepregions.pipeline.top_faces import RegionCrop, to_bytes
from deepregions.system import CropSpec, System, SystemOutput
from deepregions.types import Region, Status

logger = logging.getLogger(__name__)

_BLACK = "nothing but black"
_NO_LANDMARKS = "no landmarks on the picture"


@dataclass(frozen=True)
class FacePatch:
    """A face on its way through, cut out of its frame.

    Attributes:
        face: Where it was found, in pixels of the frame.
        patch: (3, h, w) uint8, the face's surroundings; None where its landmarks are of no use.
        landmarks: (68, 2) in pixels of the patch.
        scale: Pixels of the patch per pixel of the frame.
    """

    face: Face
    patch: Tensor | None
    landmarks: Tensor
    scale: float

    @classmethod
    def cut(cls, image: Tensor, face: Face) -> FacePatch:
        """Cuts a face out of its frame (3, H, W)."""
        cut = crop_face(image, face)
        return cls(face, *(cut or (None, face.landmarks, 1.0)))


@dataclass(frozen=True)
class Score:
    """What came of one face; as in :class:`~deepregions.pipeline.results.FaceResult`."""

    status: Status
    log_odds: float | None
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...] = ()
    quality: Mapping[str, float | None] = field(default_factory=dict)


class _Measured(NamedTuple):
    quality: Quality
    judged: Judgement


class FaceScorer:
    """Scores faces, and says why where it does not.

    Args:
        system: The networks and their fusion; moved to ``device``.
        gates: What a face must be to be judged.
        device: Where the networks run.
    """

    def __init__(self, system: System, gates: Gates, device: torch.device) -> None:
        # Weights by pixel: 1.1 to 1.7 times as fast in float32 on a CPU, more in half precision.
        self.system = system.to(device).to(memory_format=torch.channels_last)
        self.gates = gates
        self.device = device
        self._most: int | None = None  # faces at once; known once memory was full

    @torch.inference_mode()
    def score(self, faces: Sequence[FacePatch]) -> list[Score]:
        """Scores faces of any sizes, at once; in halves from where memory does not suffice.

        Raises:
            OutOfMemoryError: It does not suffice for one face.
        """
        usable = [found for found in faces if found.patch is not None]
        scores = iter(self._fitting(usable))
        lost = Score(Status.LOW_QUALITY, None, self._cells(), (_NO_LANDMARKS,))
        return [lost if found.patch is None else next(scores) for found in faces]

    @torch.inference_mode()
    def score_canvas(self, image: Tensor, region: Region) -> Score:
        """Scores an image (3, H, W) uint8 that already is a region's canvas."""
        try:
            output = self.system.forward_segmented(image[None].to(self.device), region)
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if out_of_memory(error):
                raise _too_small() from error
            raise
        (score,) = self._rows(output)
        if score.status is Status.TOO_SMALL:
            return replace(score, status=Status.LOW_QUALITY, reasons=(_BLACK,))
        return score

    @torch.inference_mode()
    def crops(self, image: Tensor, landmarks: Tensor) -> tuple[RegionCrop, ...]:
        """Returns what the networks see of a face (3, h, w) uint8 with landmarks (68, 2)."""
        given = image[None].to(self.device), landmarks[None].to(self.device)
        return self._named(self.system.crops(*given)[0], self.system.regions)

    @torch.inference_mode()
    def canvas_crops(self, image: Tensor, region: Region) -> tuple[RegionCrop, ...]:
        """Returns what the networks for a region see of its canvas (3, H, W) uint8."""
        crops, _ = self.system.segmented_crops(image[None].to(self.device), region)
        return self._named(crops, (region,))

    def _named(self, crops: Sequence[Tensor], regions: Sequence[Region]) -> tuple[RegionCrop, ...]:
        by_cut, rows = self.system.by_cut(crops), self.system.rows
        users: dict[tuple[CropSpec, Region], list[str]] = {}
        for member, (row, _) in zip(self.system.members, self.system.cells, strict=True):
            users.setdefault((member.cut, member.region), []).append(rows[row])
        return tuple(
            RegionCrop(region, tuple(users[cut, region]), to_bytes(by_cut[cut, region][0]))
            for region in regions
            for cut in self.system.cuts
            if (cut, region) in users
        )

    def _fitting(self, faces: Sequence[FacePatch]) -> list[Score]:
        scores: list[Score] = []
        while len(scores) < len(faces):
            rest = faces[len(scores) :][: self._most]
            try:
                scores += self._scored(rest)
                continue
            except (RuntimeError, MemoryError, OutOfMemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Here, where the exception no longer holds what was computed.
            if len(rest) == 1:
                raise _too_small()
            if self._most is None:
                said = "deepregions: out of memory with %d faces at once: going on with %d or fewer"
                logger.warning(said, len(rest), len(rest) // 2)
            self._most = len(rest) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return scores

    def _scored(self, faces: Sequence[FacePatch]) -> list[Score]:
        patches = [found.patch for found in faces if found.patch is not None]
        landmarks = torch.stack([found.landmarks for found in faces])
        inputs = [each.to(self.device) for each in (*stack(patches), landmarks)]
        image, extent, landmarks = inputs
        measured = self._measure(faces, image, landmarks, extent)
        output = self.system(image, landmarks, extent, measured.judged.regions)
        return self._rows(output, measured)

    def _measure(
        self,
        faces: Sequence[FacePatch],
        image: Tensor,
        landmarks: Tensor,
        extent: Tensor,
    ) -> _Measured:
        unknown = float("nan")
        confidence = [found.face.confidence for found in faces]
        quality = measure(
            image,
            landmarks,
            scale=torch.tensor([found.scale for found in faces], device=self.device),
            extent=extent,
            confidence=torch.tensor(
                [unknown if each is None else each for each in confidence], device=self.device
            ),
        )
        return _Measured(quality, judge(quality, self.gates))

    def _rows(self, output: SystemOutput, measured: _Measured | None = None) -> list[Score]:
        """Reads the answers back from the device, once for the batch."""
        batch = len(output.fused)
        reasons: list[tuple[str, ...]] = [()] * batch
        qualities: list[dict[str, float | None]] = [{} for _ in range(batch)]
        statuses = [Status.OK] * batch
        if measured is not None:
            why = refusals(measured.quality, measured.judged, self.gates)
            reasons = [tuple(map(str, each)) for each in why]
            qualities = figures_of(measured.quality)
            statuses = [STATUSES[number] for number in measured.judged.status.tolist()]
        present = output.present.any(1).tolist()
        fused, logits, valid = (x.tolist() for x in (output.fused, output.logits, output.valid))
        rows = []
        for number in range(batch):
            cells = self._cells(logits[number], valid[number])
            status, log_odds = statuses[number], None
            if math.isfinite(fused[number]):
                status, log_odds = Status.OK, fused[number]
            elif present[number]:
                status = Status.ERROR
            elif status is Status.OK:  # what may be judged is not what these networks look at
                status = Status.LOW_QUALITY if reasons[number] else Status.TOO_SMALL
            rows.append(Score(status, log_odds, cells, reasons[number], qualities[number]))
        return rows

    def _cells(
        self, logits: list[list[float]] | None = None, valid: list[list[bool]] | None = None
    ) -> tuple[Cell, ...]:
        """Makes the cells of the networks there are, without answers where none are given."""
        cells = []
        for r, c in sorted(self.system.cells):
            known = logits is not None and valid is not None and valid[r][c]
            answer = logits[r][c] if logits is not None and known else None
            cells.append(Cell(self.system.rows[r], self.system.regions[c], answer))
        return tuple(cells)


def _too_small() -> OutOfMemoryError:
    return OutOfMemoryError(
        "memory does not suffice to score one face",
        "free some, or use fewer networks: --detector, --region",
    )
