"""What came of an input, as data: the JSON that ``detect --json`` prints is made of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deepregions.types import Region, Status

SCHEMA = "deepregions.detect"
VERSION = 1
TRACK_RULE = "mean of log-odds over its faces"
INPUT_RULE = "highest track"

_MESSAGES = {
    Status.OK: "",
    Status.NO_FACE: "no face was found",
    Status.TOO_SMALL: "every face is too small, or out of the picture",
    Status.LOW_QUALITY: "no landmarks could be placed on a face",
    Status.ERROR: "the networks' answers are not finite numbers",
}


@dataclass(frozen=True)
class Cell:
    """One detector's answer on one region of one face.

    Attributes:
        detector: Its row's name.
        region: What it looked at.
        log_odds: Fake log-odds; None where it gave no answer (the region is not there to judge).
    """

    detector: str
    region: Region
    log_odds: float | None


@dataclass(frozen=True)
class FaceResult:
    """One face in one frame.

    Attributes:
        frame: The sampled frame's number, from 0.
        time: Its time in seconds; 0 in a photograph.
        track: Whose face it is, from 0, within the input.
        box: x0, y0, x1, y1 in pixels of the frame.
        status: ``OK``, or why there is no score.
        log_odds: Fused fake log-odds, None unless the status is OK.
        cells: Every (detector, region) that the bundles hold.
    """

    frame: int
    time: float
    track: int
    box: tuple[float, float, float, float]
    status: Status
    log_odds: float | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class TrackResult:
    """One person through an input.

    Attributes:
        track: Its number, from 0.
        start: Time of its first face, in seconds.
        end: Time of its last face.
        faces: How many faces it has.
        status: ``OK`` if one of them has a score.
        log_odds: The mean over its scored faces.
        cells: Likewise for every (detector, region).
    """

    track: int
    start: float
    end: float
    faces: int
    status: Status
    log_odds: float | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class InputResult:
    """What came of one input.

    Attributes:
        input: Its path, as given or found.
        kind: "image", "video" or "regions" (an image that already is a region's canvas).
        status: ``OK``, or why there is no score.
        message: One line for a person, empty when all went well.
        frames: How many frames were looked at.
        log_odds: Of the highest track; None unless the status is OK.
        tracks: By number.
        faces: By frame, then by size.
    """

    input: str
    kind: str
    status: Status
    message: str = ""
    frames: int = 0
    log_odds: float | None = None
    tracks: tuple[TrackResult, ...] = ()
    faces: tuple[FaceResult, ...] = ()

    @property
    def top_track(self) -> TrackResult | None:
        """The track that gives the input its score."""
        scored = [track for track in self.tracks if track.log_odds is not None]
        return max(scored, key=lambda track: track.log_odds or 0.0, default=None)


def probability(log_odds: float | None) -> float | None:
    """P(fake) in [0, 1] of log-odds."""
    if log_odds is None:
        return None
    return 0.5 * (1 + math.tanh(0.5 * log_odds))  # the logistic function, safe at any size


def summarise_tracks(faces: tuple[FaceResult, ...]) -> tuple[TrackResult, ...]:
    """Makes one result per track from its faces."""
    by_track: dict[int, list[FaceResult]] = {}
    for face in faces:
        by_track.setdefault(face.track, []).append(face)
    return tuple(_summarise(track, members) for track, members in sorted(by_track.items()))


def _summarise(track: int, faces: list[FaceResult]) -> TrackResult:
    fused = _mean([face.log_odds for face in faces])
    return TrackResult(
        track=track,
        start=min(face.time for face in faces),
        end=max(face.time for face in faces),
        faces=len(faces),
        status=faces[0].status if fused is None else Status.OK,
        log_odds=fused,
        cells=tuple(
            Cell(column[0].detector, column[0].region, _mean([cell.log_odds for cell in column]))
            for column in zip(*(face.cells for face in faces), strict=True)
        ),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def summarise_input(
    path: str, kind: str, frames: int, faces: tuple[FaceResult, ...]
) -> InputResult:
    """Makes the result of an input whose frames could be read."""
    tracks = summarise_tracks(faces)
    scored = [track.log_odds for track in tracks if track.log_odds is not None]
    status = tracks[0].status if tracks else Status.NO_FACE
    if scored:
        status = Status.OK
    return InputResult(
        input=path,
        kind=kind,
        status=status,
        message=_MESSAGES[status],
        frames=frames,
        log_odds=max(scored, default=None),
        tracks=tracks,
        faces=faces,
    )


def to_json(result: InputResult, facts: dict[str, Any]) -> dict[str, Any]:
    """Makes the JSON object of one input.

    Args:
        result: What came of it.
        facts: What it was made with: models, landmarks, versions (the same for all inputs).
    """
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "input": result.input,
        "kind": result.kind,
        "status": str(result.status),
        "message": result.message,
        **_score(result.log_odds),
        "rule": INPUT_RULE,
        "frames": result.frames,
        "tracks": [
            {
                "track": track.track,
                "start": round(track.start, 3),
                "end": round(track.end, 3),
                "faces": track.faces,
                "status": str(track.status),
                **_score(track.log_odds),
                "rule": TRACK_RULE,
                "cells": [_cell(cell) for cell in track.cells],
            }
            for track in result.tracks
        ],
        "faces": [_face(face) for face in result.faces],
        **facts,
    }


def _face(face: FaceResult) -> dict[str, Any]:
    return {
        "frame": face.frame,
        "time": round(face.time, 3),
        "track": face.track,
        "box": [round(value, 1) for value in face.box],
        "status": str(face.status),
        **_score(face.log_odds),
        "cells": [_cell(cell) for cell in face.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {"detector": cell.detector, "region": str(cell.region), **_score(cell.log_odds)}


def _score(log_odds: float | None) -> dict[str, float | None]:
    score = probability(log_odds)
    return {
        "score": None if score is None else round(score, 6),
        "log_odds": None if log_odds is None else round(log_odds, 6),
    }
