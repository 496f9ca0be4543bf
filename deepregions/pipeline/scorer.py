"""Scoring batches of faces, whatever runs the networks: memory that does not suffice, and words."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepregions.devices import out_of_memory
from deepregions.errors import OutOfMemoryError, UsageError
from deepregions.faces.judgement import STATUSES, HostJudgement, HostQuality, figures, refusals
from deepregions.faces.patches import without_margin
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.results import FacePatch, FaceResult, Scores
from deepregions.pixels.pictures import padded
from deepregions.types import CropSpec, Region, Status

logger = logging.getLogger(__name__)

_BLACK = "nothing but black"
_NO_LANDMARKS = "no landmarks on the picture"
_TOO_LITTLE_MEMORY = (
    "memory does not suffice to score one face",
    "free some, or use fewer networks: --detector, --region",
)

Seen = Mapping[tuple[Region, tuple[str, ...]], NDArray[np.uint8]]
"""What networks saw of B faces, (B, S, S, 3), by region and by the rows of these networks."""


class Answers(NamedTuple):
    """What networks said of B faces, on the host; see :class:`~deepregions.system.SystemOutput`."""

    logits: NDArray[np.float32]
    valid: NDArray[np.bool_]
    present: NDArray[np.bool_]
    fused: NDArray[np.float32]
    quality: HostQuality | None = None
    judged: HostJudgement | None = None
    seen: Seen | None = None


class PatchScorer(ABC):
    """Scores faces that pass the gates by networks at ``cells``, and says why others have none."""

    rows: Sequence[str]
    regions: Sequence[Region]
    cells: Sequence[tuple[int, int]]

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self._most: int | None = None  # faces at once; known once memory was full

    @abstractmethod
    def answer(self, faces: Sequence[FacePatch], *, pictures: bool) -> Answers:
        """Runs the networks on faces that have landmarks."""

    def answer_canvas(self, image: NDArray[np.uint8], region: Region) -> Answers:  # noqa: ARG002
        """Runs the networks of a region on an image (H, W, 3) that already is its canvas."""
        said = f"an exported file does not score canvases of {region}"
        raise UsageError(said, "give the folder of the bundle that it was made of")

    @abstractmethod
    def with_crops(self, face: FacePatch, region: Region = Region.ENTIRE) -> FacePatch:
        """Returns a face, or the canvas of a region, with what the networks see of it."""

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

    def score_canvas(self, image: NDArray[np.uint8], region: Region) -> FaceResult:
        """Scores an image (H, W, 3) uint8 that already is a region's canvas."""
        try:
            answers = self.answer_canvas(image, region)
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if out_of_memory(error):
                raise OutOfMemoryError(*_TOO_LITTLE_MEMORY) from error
            raise
        (score,) = self._results(answers)
        if score.status is Status.TOO_SMALL:
            return replace(score, status=Status.LOW_QUALITY, reasons=(_BLACK,))
        return score

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
            self.free()
        return scores

    def free(self) -> None:  # noqa: B027 - a runtime may keep what it needs
        """Gives memory back that was kept for later; called where it did not suffice."""

    def _scored(self, faces: Sequence[FacePatch], pictures: bool) -> list[FaceResult]:
        answers = self.answer(faces, pictures=pictures)
        scores = self._results(answers)
        if answers.seen is None:
            return scores
        patches = with_seen(faces, answers.seen)
        return [
            score if score.log_odds is None else replace(score, patch=patch)
            for score, patch in zip(scores, patches, strict=True)
        ]

    def _results(self, answers: Answers) -> list[FaceResult]:
        batch = len(answers.present)
        reasons: list[tuple[str, ...]] = [()] * batch
        measured: list[dict[str, float | None]] = [{} for _ in range(batch)]
        statuses = [Status.OK] * batch
        if answers.quality is not None and answers.judged is not None:
            why = refusals(answers.quality, answers.judged, self.gates)
            reasons = [tuple(map(str, each)) for each in why]
            measured = figures(answers.quality)
            statuses = [STATUSES[number] for number in answers.judged.status.tolist()]
        present = [any(own) for own in answers.present.tolist()]
        fused, logits, valid = (x.tolist() for x in (answers.fused, answers.logits, answers.valid))
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
        return {
            (self.rows[row], self.regions[column]): (row, column)
            for row, column in sorted(self.cells)
        }


def face_inputs(faces: Sequence[FacePatch], cuts: Iterable[CropSpec]) -> dict[str, NDArray[Any]]:
    """Returns B faces that have landmarks as networks that cut so want them.

    ``image`` (B, 3, H, W) uint8, ``landmarks`` (B, 68, 2), ``extent`` (B, 2) width and height of
    each picture without its padding, ``scale`` (B,), and ``confidence`` (B,), NaN where unknown.
    """
    context = any(cut.layout == "context" for cut in cuts)
    marked = [(face.image, face.landmarks) for face in faces if face.landmarks is not None]
    cut, landmarks = zip(*(without_margin(*one, context=context) for one in marked), strict=True)
    image, extent = padded(cut)
    known = [math.nan if face.confidence is None else face.confidence for face in faces]
    return {
        "image": image,
        "landmarks": np.stack(landmarks),
        "extent": extent,
        "scale": np.array([face.scale for face in faces], np.float32),
        "confidence": np.array(known, np.float32),
    }


def with_seen(faces: Sequence[FacePatch], seen: Seen) -> list[FacePatch]:
    """Returns faces with what networks saw of each."""
    return [
        replace(face, crops={of: pixels[number].copy() for of, pixels in seen.items()})
        for number, face in enumerate(faces)
    ]


def _result(
    status: Status,
    log_odds: float | None,
    cells: Scores,
    reasons: tuple[str, ...],
    quality: Mapping[str, float | None],
) -> FaceResult:
    return FaceResult(0, 0.0, 0, (0.0, 0.0, 0.0, 0.0), status, log_odds, cells, reasons, quality)
