"""What came of an input: scores of faces, people and the file, and the pictures behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepregions.faces.landmarks import Face
from deepregions.faces.patches import crop_face
from deepregions.fusion.calibration import Calibration, LikelihoodRatio
from deepregions.fusion.pooling import Pooling, probability
from deepregions.media.provenance import Provenance
from deepregions.pipeline.words import Answer, answer, conclude
from deepregions.types import Cell, Region, Status

SCHEMA = "deepregions.detect"
VERSION = 3  # 2: people's rules, quality, sampling, warnings; 3: likelihood ratios

# Of several reasons for having no score, the first of these is the one that is told.
GRAVEST = (Status.ERROR, Status.LOW_QUALITY, Status.TOO_SMALL)
_REASONS = {
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
    """A face cut out of its frame, or a region canvas."""

    image: NDArray[np.uint8]  # (h, w, 3), the face's surroundings, or the canvas
    landmarks: NDArray[np.float32] | None  # (68, 2) in pixels of the image; None for a canvas
    scale: float = 1.0  # pixels of the image per pixel of the frame
    confidence: float | None = None
    crops: Mapping[tuple[Region, tuple[str, ...]], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def cut(cls, image: NDArray[np.uint8], face: Face) -> FacePatch | None:
        """Cuts a face out of its frame (H, W, 3); None where its landmarks are of no use."""
        found = crop_face(image, face)
        return None if found is None else cls(*found, confidence=face.confidence)


class _Scored:
    log_odds: float | None

    @property
    def score(self) -> float | None:
        """From 0 (looks genuine) to 1 (looks fake); None if there is none."""
        return probability(self.log_odds)


@dataclass(frozen=True)
class FaceResult(_Scored):
    """One face in one frame."""

    frame: int  # its number in order of display, from 0
    time: float  # seconds; 0 in a photograph
    track: int
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the frame
    status: Status
    log_odds: float | None  # fused; None unless the status is OK
    cells: Scores  # of every network
    reasons: tuple[str, ...] = ()  # why it, or a region of it, was not judged
    quality: Mapping[str, float | None] = field(default_factory=dict)  # as measured; None: unknown
    patch: FacePatch | None = field(default=None, compare=False, repr=False)  # of highest faces


@dataclass(frozen=True)
class Person(_Scored):
    """One person through an input: a track, a face that is followed from frame to frame."""

    track: int  # from 0
    start: float  # time of the first face, in seconds
    end: float  # of the last one
    faces: int  # found
    scored: int  # of these
    status: Status
    log_odds: float | None  # over the scored faces, by the rule
    evidence: LikelihoodRatio | None  # None without a score or a calibration
    rule: str
    cells: Scores  # of every network
    reasons: tuple[str, ...] = ()  # why faces or regions were not judged, the most frequent first

    @property
    def regions(self) -> dict[Region, dict[str, float | None]]:
        """By region, each detector's score in [0, 1]; None where it has no answer."""
        found: dict[Region, dict[str, float | None]] = {}
        for (detector, region), log_odds in self.cells.items():
            found.setdefault(region, {})[detector] = probability(log_odds)
        return found


@dataclass(frozen=True)
class Thumbnail:
    """A frame that was looked at, made small; ``scale`` is its pixels per pixel of the frame."""

    frame: int
    time: float
    jpeg: bytes
    size: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class Result(_Scored):
    """What came of one photograph or video (docs/python.md)."""

    input: str  # its path; for a picture in memory its file's, if known
    kind: str  # "image", "video" or "regions" (an image that is a region's canvas)
    status: Status
    reason: str = ""  # why there is no score, in one line
    log_odds: float | None = None  # over its people, by the rule; None unless the status is OK
    evidence: LikelihoodRatio | None = None  # None without a score or a calibration
    rule: str = ""
    frames: int = 0  # looked at
    media: Mapping[str, Any] = field(default_factory=dict)  # width, height, ...; empty: not opened
    provenance: Provenance | None = None  # no score depends on it; None: not opened
    sampling: Mapping[str, Any] = field(default_factory=dict)  # which frames, and how
    warnings: tuple[str, ...] = ()  # of how the score came about, the gravest first
    people: tuple[Person, ...] = ()
    faces: tuple[FaceResult, ...] = field(default=(), repr=False)  # by time, then by size
    strip: tuple[Thumbnail, ...] = field(default=(), repr=False)  # evenly over the frames
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what made it

    @property
    def answer(self) -> Answer:
        """What it says in words, the same wherever it is shown."""
        return answer(self)

    @property
    def conclusion(self) -> str:
        """What came of it, in one sentence: that of the command line and the page."""
        return self.answer.conclusion

    @property
    def above_threshold(self) -> bool | None:
        """Whether it is at or above the chosen threshold; None without one, or without a score."""
        return self._above(self.log_odds)

    def _above(self, log_odds: float | None) -> bool | None:
        point = self.facts.get("operating_point")
        return None if log_odds is None or point is None else log_odds >= point["threshold"]

    @property
    def coverage(self) -> float:
        """The share of the faces found that were judged; 0 if none was found."""
        judged = sum(face.log_odds is not None for face in self.faces)
        return judged / len(self.faces) if self.faces else 0.0

    @property
    def limits(self) -> str:
        """What the networks cannot do, as their bundle says; empty if it does not."""
        return str(self.facts.get("limits", ""))

    def to_dict(self) -> dict[str, Any]:
        """Returns the object that ``detect --json`` prints (``deepregions schema detect``)."""
        chosen = self.facts.get("operating_point") is not None
        told: dict[str, Any] = {"schema": SCHEMA, "version": VERSION, "input": self.input}
        told |= {"answer": asdict(self.answer), **_json(self), **self.facts}
        told |= {"above_threshold": self.above_threshold} if chosen else {}
        for person, written in zip(self.people, told["tracks"], strict=True):
            written["conclusion"] = conclude(person, self.facts)
            if chosen:
                written["above_threshold"] = self._above(person.log_odds)
        return told

    def to_html(self) -> str:
        """Returns the page that ``detect --out`` writes: one file that opens offline."""
        from deepregions.pipeline.report.page import render_page  # noqa: PLC0415 - it knows this

        return render_page(self)

    @property
    def source(self) -> Person | None:
        """The person whose score is the input's; None where that is a mean, or there is none."""
        if self.log_odds is None:
            return None
        return next((each for each in self.people if each.log_odds == self.log_odds), None)

    @property
    def top_person(self) -> Person | None:
        """The person to show first: whose score is the input's, or else the highest."""
        scored = [person for person in self.people if person.log_odds is not None]
        return self.source or max(scored, key=lambda each: each.log_odds or 0.0, default=None)

    @property
    def shown(self) -> dict[int, FaceResult]:
        """The faces that have pixels, by track: the highest one of each person with a score."""
        faces = {face.track: face for face in self.faces if face.patch is not None}
        return dict(sorted(faces.items()))

    @property
    def top_face(self) -> FaceResult | None:
        """The face of the highest person that has pixels."""
        return None if self.top_person is None else self.shown.get(self.top_person.track)


def summarise_input(
    path: str,
    kind: str,
    frames: int,
    faces: Sequence[FaceResult],
    rules: Pooling | None = None,
    *,
    calibration: Calibration | None = None,
    **facts: Any,
) -> Result:
    """Makes the result of an input whose frames could be read; ``facts`` are further attributes."""
    rules = rules or Pooling()
    by_track: dict[int, list[FaceResult]] = {}
    for face in faces:
        by_track.setdefault(face.track, []).append(face)
    people = tuple(
        _summarise_track(track, own, rules, calibration) for track, own in sorted(by_track.items())
    )
    log_odds = rules.over_tracks([(track.scored, track.log_odds) for track in people])
    status = _gravest(track.status for track in people) if log_odds is None else Status.OK
    reason = _REASONS[status]
    if log_odds is None and people:
        told = ", ".join(_most_common(track.reasons for track in people)[:3])
        reason += f": {told}" if told else ""
    return Result(
        input=path,
        kind=kind,
        status=status,
        reason=reason,
        frames=frames,
        log_odds=log_odds,
        rule=rules.track_rule,
        people=people,
        faces=tuple(faces),
        evidence=None if calibration is None else calibration.likelihood_ratio(log_odds),
        **facts,
    )


def _summarise_track(
    track: int, faces: Sequence[FaceResult], rules: Pooling, calibration: Calibration | None
) -> Person:
    fused = rules.over_faces(_known(face.log_odds for face in faces))
    return Person(
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
        evidence=None if calibration is None else calibration.likelihood_ratio(fused),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _most_common(reasons: Iterable[Iterable[str]]) -> list[str]:
    counts = Counter(reason for several in reasons for reason in several)
    return [reason for reason, _ in counts.most_common()]


def _gravest(statuses: Iterable[Status]) -> Status:
    found = set(statuses)
    return next((status for status in GRAVEST if status in found), Status.NO_FACE)


def _json(record: Result | Person | FaceResult) -> dict[str, Any]:
    """Writes a record's fields in their order, without pixels and facts."""
    written: dict[str, Any] = {}
    for each in fields(record):
        if each.name in _UNWRITTEN:
            continue
        value, name = getattr(record, each.name), _KEYS.get(each.name, each.name)
        if name == "log_odds":
            written |= score_json(value)
        elif name in _WRITTEN:
            written[name] = _WRITTEN[name](value)
        elif isinstance(value, tuple):
            nested = Person | FaceResult
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


_UNWRITTEN = {"patch", "strip", "facts"}
_KEYS = {"reason": "message", "evidence": "llr", "people": "tracks"}  # older than these names
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "status": str,
    "llr": _llr_json,
    "provenance": lambda found: None if found is None else found.to_dict(),
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
