"""What came of an input: scores of faces, people and the file, and the pictures behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from torch import Tensor

from deepregions.faces.landmarks import Face
from deepregions.faces.patches import crop_face
from deepregions.fusion import Cell
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

Scores = Mapping[Cell, float | None]
"""Fake log-odds by (detector, region); None where there is no answer."""


@dataclass(frozen=True, eq=False)
class FacePatch:
    """A face cut out of its frame, or a region canvas.

    Attributes:
        image: (3, h, w) uint8, the face's surroundings, or the canvas.
        landmarks: (68, 2) in pixels of ``image``; None for a canvas.
        scale: Pixels of ``image`` per pixel of the frame.
        crops: What networks saw of it, (3, S, S) uint8, by region and by the rows of the networks
            that were given it.
    """

    image: Tensor
    landmarks: Tensor | None
    scale: float = 1.0
    confidence: float | None = None
    crops: Mapping[tuple[Region, tuple[str, ...]], Tensor] = field(default_factory=dict)

    @classmethod
    def cut(cls, image: Tensor, face: Face) -> FacePatch | None:
        """Cuts a face out of its frame (3, H, W); None where its landmarks are of no use."""
        found = crop_face(image, face)
        return None if found is None else cls(*found, confidence=face.confidence)


@dataclass(frozen=True)
class FaceResult:
    """One face in one frame.

    Attributes:
        frame: The frame's number in order of display, from 0.
        time: Its time in seconds; 0 in a photograph.
        box: x0, y0, x1, y1 in pixels of the frame.
        log_odds: Fused; None unless the status is OK.
        cells: Of every network.
        reasons: Why the face, or a region of it, was not judged: a few words each.
        quality: What was measured of it, by name; None where it is not known.
        patch: Its pixels, of the highest face of each track only.
    """

    frame: int
    time: float
    track: int
    box: tuple[float, float, float, float]
    status: Status
    log_odds: float | None
    cells: Scores
    reasons: tuple[str, ...] = ()
    quality: Mapping[str, float | None] = field(default_factory=dict)
    patch: FacePatch | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TrackResult:
    """One person through an input.

    Attributes:
        start: Time of its first face, in seconds; ``end`` is the last one's.
        faces: How many faces it has, ``scored`` of them with a score: then its status is ``OK``.
        log_odds: Over its scored faces, by ``rule``.
        llr: What its log-odds say, by the calibration; None if there is none.
        cells: Likewise of every network.
        reasons: Why faces or regions of it were not judged, the most frequent first.
    """

    track: int
    start: float
    end: float
    faces: int
    scored: int
    status: Status
    log_odds: float | None
    llr: LikelihoodRatio | None
    rule: str
    cells: Scores
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thumbnail:
    """A frame that was looked at, made small; ``scale`` is its pixels per pixel of the frame."""

    frame: int
    time: float
    jpeg: bytes
    size: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class InputResult:
    """What came of one input.

    Attributes:
        kind: "image", "video" or "regions" (an image that already is a region's canvas).
        message: One line for a person, empty when all went well.
        log_odds: Over its tracks, by ``rule``; None unless the status is OK.
        llr: What its log-odds say, by the calibration; None if there is none.
        frames: How many frames were looked at.
        media: What the file is: width, height, duration and so on; empty if it was not opened.
        sampling: Which frames were chosen, and how.
        faces: By time, then by size.
        strip: Frames evenly over those that were looked at, in order of time.
    """

    input: str
    kind: str
    status: Status
    message: str = ""
    log_odds: float | None = None
    llr: LikelihoodRatio | None = None
    rule: str = ""
    frames: int = 0
    media: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    tracks: tuple[TrackResult, ...] = ()
    faces: tuple[FaceResult, ...] = ()
    strip: tuple[Thumbnail, ...] = ()

    @property
    def top_track(self) -> TrackResult | None:
        """The track with the highest score."""
        scored = [track for track in self.tracks if track.log_odds is not None]
        return max(scored, key=lambda track: track.log_odds or 0.0, default=None)

    @property
    def shown(self) -> dict[int, FaceResult]:
        """The faces that have pixels, by track: its highest one, of each track with a score."""
        faces = {face.track: face for face in self.faces if face.patch is not None}
        return dict(sorted(faces.items()))

    @property
    def top_face(self) -> FaceResult | None:
        """The face of the highest track that has pixels."""
        return None if self.top_track is None else self.shown.get(self.top_track.track)


def probability(log_odds: float | None) -> float | None:
    """The score in [0, 1] of log-odds."""
    if log_odds is None:
        return None
    return 0.5 * (1 + math.tanh(0.5 * log_odds))  # the logistic function, safe at any size


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
    """Makes the result of an input whose frames could be read; ``facts`` are further attributes."""
    rules = rules or Pooling()
    by_track: dict[int, list[FaceResult]] = {}
    for face in faces:
        by_track.setdefault(face.track, []).append(face)
    tracks = tuple(
        _summarise_track(track, own, rules, calibration) for track, own in sorted(by_track.items())
    )
    log_odds = rules.over_tracks([(track.scored, track.log_odds) for track in tracks])
    status = _gravest(track.status for track in tracks) if log_odds is None else Status.OK
    message = _MESSAGES[status]
    if log_odds is None and tracks:
        told = ", ".join(_most_common(track.reasons for track in tracks)[:3])
        message += f": {told}" if told else ""
    return InputResult(
        input=path,
        kind=kind,
        status=status,
        message=message,
        frames=frames,
        log_odds=log_odds,
        rule=rules.track_rule,
        tracks=tracks,
        faces=tuple(faces),
        llr=None if calibration is None else calibration.likelihood_ratio(log_odds),
        **facts,
    )


def _summarise_track(
    track: int, faces: Sequence[FaceResult], rules: Pooling, calibration: Calibration | None
) -> TrackResult:
    fused = rules.over_faces(_known(face.log_odds for face in faces))
    return TrackResult(
        track=track,
        start=min(face.time for face in faces),
        end=max(face.time for face in faces),
        faces=len(faces),
        scored=sum(face.log_odds is not None for face in faces),
        status=_gravest(face.status for face in faces) if fused is None else Status.OK,
        log_odds=fused,
        rule=rules.frame_rule,
        cells={
            cell: rules.over_faces(_known(face.cells[cell] for face in faces))
            for cell in faces[0].cells
        },
        reasons=tuple(_most_common(face.reasons for face in faces)),
        llr=None if calibration is None else calibration.likelihood_ratio(fused),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _most_common(reasons: Iterable[Iterable[str]]) -> list[str]:
    counts = Counter(reason for several in reasons for reason in several)
    return [reason for reason, _ in counts.most_common()]


def _gravest(statuses: Iterable[Status]) -> Status:
    found = set(statuses)
    return next((status for status in GRAVEST if status in found), Status.NO_FACE)


def to_json(result: InputResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the JSON object of one input; ``deepregions schema detect`` says what is in it.

    ``facts`` are what it was made with: models, landmarks, versions (the same for all inputs).
    """
    return {"schema": SCHEMA, "version": VERSION, **_json(result), **facts}


def _json(record: InputResult | TrackResult | FaceResult) -> dict[str, Any]:
    """Writes a record's fields in their order, without pixels."""
    written: dict[str, Any] = {}
    names = (each.name for each in fields(record) if each.name not in {"patch", "strip"})
    for name in names:
        value = getattr(record, name)
        if name == "log_odds":
            written |= score_json(value)
        elif name in _WRITTEN:
            written[name] = _WRITTEN[name](value)
        elif isinstance(value, tuple):
            nested = TrackResult | FaceResult
            written[name] = [_json(one) if isinstance(one, nested) else one for one in value]
        else:
            written[name] = value
    return written


def _cells_json(cells: Scores) -> list[dict[str, Any]]:
    return [
        {"detector": detector, "region": str(region), **score_json(log_odds)}
        for (detector, region), log_odds in cells.items()
    ]


def _llr_json(ratio: LikelihoodRatio | None) -> dict[str, Any] | None:
    if ratio is None:
        return None
    return {
        "log10": round(ratio.log10, 6),
        "log10_bounds": [round(bound, 6) for bound in ratio.bounds_log10],
        "ln": round(ratio.ln, 6),
        "limited": ratio.limited,
        "verbal": ratio.verbal,
    }


_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "status": str,
    "llr": _llr_json,
    "cells": _cells_json,
    "time": partial(round, ndigits=3),
    "start": partial(round, ndigits=3),
    "end": partial(round, ndigits=3),
    "box": lambda box: [round(value, 1) for value in box],
    "quality": lambda known: {name: rounded(value, 3) for name, value in known.items()},
}


def score_json(log_odds: float | None) -> dict[str, float | None]:
    """Returns a score and its log-odds as JSON has them."""
    return {"score": rounded(probability(log_odds)), "log_odds": rounded(log_odds)}


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Rounds what is known."""
    return None if value is None else round(value, digits)
