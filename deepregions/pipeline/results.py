"""What came of an input, as data: the JSON that ``detect --json`` prints is made of these."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepregions.fusion.calibration import Calibration, LikelihoodRatio
from deepregions.fusion.pooling import Pooling
from deepregions.types import Region, Status

SCHEMA = "deepregions.detect"
VERSION = 3  # 2: people's rules, quality, sampling, warnings; 3: likelihood ratios

# Of several reasons for having no score, the first of these is the one that is told.
GRAVEST = (Status.ERROR, Status.LOW_QUALITY, Status.TOO_SMALL)
_MESSAGES = {
    Status.OK: "",
    Status.NO_FACE: "no face was found",
    Status.TOO_SMALL: "every face is too small to be judged",
    Status.LOW_QUALITY: "no face can be judged",
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
        frame: The frame's number in the video, in order of display, from 0.
        time: Its time in seconds; 0 in a photograph.
        track: Whose face it is, from 0, within the input.
        box: x0, y0, x1, y1 in pixels of the frame.
        status: ``OK``, or why there is no score.
        log_odds: Fused fake log-odds, None unless the status is OK.
        cells: Every (detector, region) that the bundles hold.
        reasons: Why the face, or a region of it, was not judged: a few words each.
        quality: What was measured of it, by name; None where it is not known.
    """

    frame: int
    time: float
    track: int
    box: tuple[float, float, float, float]
    status: Status
    log_odds: float | None
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...] = ()
    quality: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackResult:
    """One person through an input.

    Attributes:
        track: Its number, from 0.
        start: Time of its first face, in seconds.
        end: Time of its last face.
        faces: How many faces it has.
        scored: How many of them have a score.
        status: ``OK`` if one of them has a score.
        log_odds: Over its scored faces, by ``rule``.
        rule: How, in words.
        cells: Likewise for every (detector, region).
        reasons: Why faces or regions of it were not judged, the most frequent first.
        llr: What its log-odds say, by the calibration; None if there is none.
    """

    track: int
    start: float
    end: float
    faces: int
    scored: int
    status: Status
    log_odds: float | None
    rule: str
    cells: tuple[Cell, ...]
    reasons: tuple[str, ...] = ()
    llr: LikelihoodRatio | None = None


@dataclass(frozen=True)
class InputResult:
    """What came of one input.

    Attributes:
        input: Its path, as given or found.
        kind: "image", "video" or "regions" (an image that already is a region's canvas).
        status: ``OK``, or why there is no score.
        message: One line for a person, empty when all went well.
        frames: How many frames were looked at.
        log_odds: Over its tracks, by ``rule``; None unless the status is OK.
        rule: How, in words.
        tracks: By number.
        faces: By time, then by size.
        media: What the file is: width, height, duration and so on; empty if it was not opened.
        sampling: Which frames were chosen, and how.
        warnings: What a reader of the score should know.
        llr: What its log-odds say, by the calibration; None if there is none.
    """

    input: str
    kind: str
    status: Status
    message: str = ""
    frames: int = 0
    log_odds: float | None = None
    rule: str = ""
    tracks: tuple[TrackResult, ...] = ()
    faces: tuple[FaceResult, ...] = ()
    media: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    llr: LikelihoodRatio | None = None

    @property
    def top_track(self) -> TrackResult | None:
        """The track with the highest score."""
        scored = [track for track in self.tracks if track.log_odds is not None]
        return max(scored, key=lambda track: track.log_odds or 0.0, default=None)


def probability(log_odds: float | None) -> float | None:
    """P(fake) in [0, 1] of log-odds."""
    if log_odds is None:
        return None
    return 0.5 * (1 + math.tanh(0.5 * log_odds))  # the logistic function, safe at any size


def summarise_tracks(
    faces: Sequence[FaceResult],
    rules: Pooling | None = None,
    calibration: Calibration | None = None,
) -> tuple[TrackResult, ...]:
    """Makes one result per track from its faces; calibrated is what its faces give together."""
    by_track: dict[int, list[FaceResult]] = {}
    for face in faces:
        by_track.setdefault(face.track, []).append(face)
    chosen = rules or Pooling()
    return tuple(
        _summarise(track, own, chosen, calibration) for track, own in sorted(by_track.items())
    )


def _summarise(
    track: int, faces: Sequence[FaceResult], rules: Pooling, calibration: Calibration | None
) -> TrackResult:
    fused = rules.over_faces(_known(face.log_odds for face in faces))
    reasons = Counter(reason for face in faces for reason in face.reasons)
    columns = zip(*(face.cells for face in faces), strict=True)
    return TrackResult(
        track=track,
        start=min(face.time for face in faces),
        end=max(face.time for face in faces),
        faces=len(faces),
        scored=sum(face.log_odds is not None for face in faces),
        status=_gravest(face.status for face in faces) if fused is None else Status.OK,
        log_odds=fused,
        rule=rules.frame_rule,
        cells=tuple(
            Cell(
                column[0].detector,
                column[0].region,
                rules.over_faces(_known(cell.log_odds for cell in column)),
            )
            for column in columns
        ),
        reasons=tuple(reason for reason, _ in reasons.most_common()),
        llr=None if calibration is None else calibration.likelihood_ratio(fused),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gravest(statuses: Iterable[Status]) -> Status:
    found = set(statuses)
    return next((status for status in GRAVEST if status in found), Status.NO_FACE)


def summarise_input(
    path: str,
    kind: str,
    frames: int,
    faces: Sequence[FaceResult],
    rules: Pooling | None = None,
    *,
    calibration: Calibration | None = None,
    **facts: Any,
) -> InputResult:
    """Makes the result of an input whose frames could be read.

    Args:
        path: The input.
        kind: What it is.
        frames: How many frames were looked at.
        faces: All that were found in them.
        rules: How scores become one.
        calibration: What the log-odds of tracks, and of the input, say.
        facts: Further attributes of the result.
    """
    chosen = rules or Pooling()
    tracks = summarise_tracks(faces, chosen, calibration)
    log_odds = chosen.over_tracks([(track.scored, track.log_odds) for track in tracks])
    status = _gravest(track.status for track in tracks) if log_odds is None else Status.OK
    message = _MESSAGES[status]
    if log_odds is None and tracks:
        reasons = Counter(reason for track in tracks for reason in track.reasons)
        told = ", ".join(reason for reason, _ in reasons.most_common(3))
        message += f": {told}" if told else ""
    return InputResult(
        input=path,
        kind=kind,
        status=status,
        message=message,
        frames=frames,
        log_odds=log_odds,
        rule=chosen.track_rule,
        tracks=tracks,
        faces=tuple(faces),
        llr=None if calibration is None else calibration.likelihood_ratio(log_odds),
        **facts,
    )


def to_json(result: InputResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the JSON object of one input; ``deepregions schema detect`` says what is in it.

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
        "llr": _llr(result.llr),
        "rule": result.rule,
        "frames": result.frames,
        "media": dict(result.media),
        "sampling": dict(result.sampling),
        "warnings": list(result.warnings),
        "tracks": [_track(track) for track in result.tracks],
        "faces": [_face(face) for face in result.faces],
        **facts,
    }


def _track(track: TrackResult) -> dict[str, Any]:
    return {
        "track": track.track,
        "start": round(track.start, 3),
        "end": round(track.end, 3),
        "faces": track.faces,
        "scored": track.scored,
        "status": str(track.status),
        **_score(track.log_odds),
        "llr": _llr(track.llr),
        "rule": track.rule,
        "cells": [_cell(cell) for cell in track.cells],
        "reasons": list(track.reasons),
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
        "reasons": list(face.reasons),
        "quality": {
            name: None if value is None else round(value, 3) for name, value in face.quality.items()
        },
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {"detector": cell.detector, "region": str(cell.region), **_score(cell.log_odds)}


def _llr(ratio: LikelihoodRatio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    return {
        "log10": round(ratio.log10, 6),
        "log10_bounds": [round(bound, 6) for bound in ratio.bounds_log10],
        "ln": round(ratio.ln, 6),
        "limited": ratio.limited,
        "verbal": ratio.verbal,
    }


def _score(log_odds: float | None) -> dict[str, float | None]:
    score = probability(log_odds)
    return {
        "score": None if score is None else round(score, 6),
        "log_odds": None if log_odds is None else round(log_odds, 6),
    }
