"""Scores photographs, videos and region canvases with a system of detectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from deepregions.analysis.evidence import Analysis, Evidence
from deepregions.analysis.results import Cell, FaceResult, InputResult, summarise_input
from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.landmarks import Face, LandmarkDetector
from deepregions.faces.patches import crop_face, stack
from deepregions.faces.tracks import link
from deepregions.media import frame_batches, is_video
from deepregions.media.images import read_image
from deepregions.system import System, SystemOutput
from deepregions.types import Region, Status

_WHOLE_TRACK = 0


@dataclass
class _Found:
    """A face on its way through: where it was found, and what to cut regions from."""

    frame: int
    time: float
    face: Face
    patch: Tensor | None
    landmarks: Tensor


@dataclass
class _Scored:
    """A face with its scores, before it is known whose it is."""

    found: _Found
    status: Status
    log_odds: float | None
    cells: tuple[Cell, ...]


_Row = tuple[Status, float | None, tuple[Cell, ...]]


class Analyser:
    """Takes one input at a time the whole way.

    Args:
        system: The networks and their fusion; moved to ``device``.
        find: Finds faces and landmarks; not needed for region canvases.
        device: Where the networks run.
        frames_per_video: How many frames of a video are looked at, evenly in time.
        batch_size: How many faces are scored at once.
    """

    def __init__(
        self,
        system: System,
        find: LandmarkDetector | None,
        *,
        device: torch.device,
        frames_per_video: int = 32,
        batch_size: int = 16,
    ) -> None:
        self.system = system.to(device)
        self.find = find
        self.device = device
        self.frames_per_video = frames_per_video
        self.batch_size = batch_size

    def analyse(self, path: Path) -> Analysis:
        """Scores a photograph or a video. What cannot be read is a status, not an exception."""
        kind = "video" if is_video(path) else "image"
        try:
            return self._analyse(path, kind)
        except (UnreadableError, UnsupportedError) as error:
            return _unscored(path, kind, error)

    def analyse_canvas(self, path: Path, region: Region) -> Analysis:
        """Scores an image that already is a region's canvas, black outside the region.

        The original's sample images are such canvases.
        """
        try:
            image = read_image(path)
        except (UnreadableError, UnsupportedError) as error:
            return _unscored(path, "regions", error)
        with torch.inference_mode():
            output = self.system.forward_segmented(image[None].to(self.device), region)
        status, log_odds, cells = next(_rows(self.system, output))
        height, width = image.shape[-2:]
        box = (0.0, 0.0, float(width), float(height))
        face = FaceResult(0, 0.0, _WHOLE_TRACK, box, status, log_odds, cells)
        result = summarise_input(str(path), "regions", 1, (face,))
        return Analysis(result, (Evidence(image, None, face),) if log_odds is not None else ())

    def _analyse(self, path: Path, kind: str) -> Analysis:
        per_frame: list[list[Face]] = []
        scored = [
            one
            for batch in _batched(self._faces(path, per_frame), self.batch_size)
            for one in self._score(batch)
        ]
        tracks = [number for numbers in link(per_frame) for number in numbers]
        faces = tuple(_face(one, track) for one, track in zip(scored, tracks, strict=True))
        result = summarise_input(str(path), kind, len(per_frame), faces)
        return Analysis(result, _evidence(result, scored))

    def _faces(self, path: Path, per_frame: list[list[Face]]) -> Iterator[_Found]:
        """Finds faces; ``per_frame`` receives them all, for the tracks."""
        if self.find is None:
            raise ValueError("this analyser was made without a landmark detector")
        for batch in frame_batches(path, self.frames_per_video):
            found = self.find(torch.stack([frame.image for frame in batch]))
            for frame, faces in zip(batch, found, strict=True):
                number = len(per_frame)
                per_frame.append(faces)
                for face in faces:
                    cut = crop_face(frame.image, face)
                    patch, landmarks = (cut[0], cut[1]) if cut else (None, face.landmarks)
                    yield _Found(number, frame.time, face, patch, landmarks)

    def _score(self, batch: list[_Found]) -> Iterator[_Scored]:
        patches = [found.patch for found in batch if found.patch is not None]
        rows: Iterator[_Row] = iter(())
        if patches:
            landmarks = [found.landmarks for found in batch if found.patch is not None]
            with torch.inference_mode():
                output = self.system(
                    stack(patches).to(self.device), torch.stack(landmarks).to(self.device)
                )
            rows = _rows(self.system, output)
        unusable = (Status.LOW_QUALITY, None, _cells(self.system))
        for found in batch:
            yield _Scored(found, *(unusable if found.patch is None else next(rows)))


def _unscored(path: Path, kind: str, error: UnreadableError | UnsupportedError) -> Analysis:
    unsupported = isinstance(error, UnsupportedError)
    status = Status.UNSUPPORTED if unsupported else Status.UNREADABLE
    return Analysis(InputResult(str(path), kind, status, str(error)))


def _cells(
    system: System, logits: list[list[float]] | None = None, valid: list[list[bool]] | None = None
) -> tuple[Cell, ...]:
    """Makes the cells of the networks there are, without answers where none are given."""
    cells = []
    for r, c in sorted(system.cells):
        known = logits is not None and valid is not None and valid[r][c]
        answer = logits[r][c] if logits is not None and known else None
        cells.append(Cell(system.rows[r], system.regions[c], answer))
    return tuple(cells)


def _rows(system: System, output: SystemOutput) -> Iterator[_Row]:
    present = output.present.any(1).cpu().tolist()
    faces = zip(output.logits.cpu().tolist(), output.valid.cpu().tolist(), strict=True)
    fused = output.fused.cpu().tolist()
    for number, (logits, valid) in enumerate(faces):
        cells = _cells(system, logits, valid)
        if any(cell.log_odds is not None for cell in cells):
            yield Status.OK, fused[number], cells
        else:  # nothing to judge, or a network whose answer is no number
            yield Status.ERROR if present[number] else Status.TOO_SMALL, None, cells


def _face(one: _Scored, track: int) -> FaceResult:
    x0, y0, x1, y1 = one.found.face.box.tolist()
    return FaceResult(
        frame=one.found.frame,
        time=one.found.time,
        track=track,
        box=(x0, y0, x1, y1),
        status=one.status,
        log_odds=one.log_odds,
        cells=one.cells,
    )


def _evidence(result: InputResult, scored: list[_Scored]) -> tuple[Evidence, ...]:
    """Picks the highest face of each track that has a score."""
    top: dict[int, tuple[float, int]] = {}
    for number, face in enumerate(result.faces):
        if face.log_odds is not None:
            best = top.get(face.track)
            if best is None or face.log_odds > best[0]:
                top[face.track] = (face.log_odds, number)
    return tuple(
        Evidence(found.patch, found.landmarks, result.faces[number])
        for _, (_, number) in sorted(top.items())
        if (found := scored[number].found).patch is not None
    )


def _batched(found: Iterable[_Found], size: int) -> Iterator[list[_Found]]:
    iterator = iter(found)
    while batch := list(islice(iterator, size)):
        yield batch
