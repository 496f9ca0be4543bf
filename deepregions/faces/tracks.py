"""Who is who through a video: faces of successive frames linked by place, shape and looks.

Each live track and each face of the next frame get a score, the logarithm of how much likelier the
pair is one person than two: a sum of what place, size, the landmarks' shape and looks say. Faces go
to tracks so that the sum of scores is the largest possible (Hungarian method; Kuhn 1955); a face
without a score above 0 begins a track.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepregions.faces.landmarks import Face

_Vector = NDArray[np.float64]

# Place: how far one person moves, and how many boxes' areas a face may be in otherwise.
_REACH, _SETTLING = 0.35, 1.0  # box sides, after this many seconds nearly all of it
_BROAD, _FAR = 0.15, 3.0  # share of moves that are this many times as far
_FRAME = 30.0
_STEADY = 1.0  # seconds for which a movement is taken to go on
_GROWTH, _ANY_SIZE = 0.2, 0.6  # standard deviations of the logarithm of sizes
_SHAPE_SAME, _SHAPE_OTHER = 0.05, 0.25  # root mean square distance of shapes of radius 1
# The distance of looks at which two people are as likely as one, and the slope beyond; by logistic
# regression on pairs of the shared clips and photographs.
_LOOKS, _LOOKS_SLOPE = 0.31, 31.5
_LOOKS_MOST, _LOOKS_LEAST = 7.0, -5.0  # light may change, and two people may look the same
_LEAST = -4.0  # nats that place or size may bring
MAX_GAP, MAX_SECONDS = 3, 1.0
"""Successive frames, and time, in which a face may be missing without an end of its track."""
_LEARN = 0.3  # share of the newest face in a track's looks


@dataclass
class _Seen:
    """A face, as tracks compare it."""

    centre: _Vector
    side: float
    shape: _Vector | None
    looks: _Vector | None


@dataclass
class _Track:
    """What is kept of a live track: the same amount, however long it is."""

    number: int
    last: _Seen
    time: float
    missed: int = 0  # frames since
    velocity: _Vector | None = None  # pixels a second


class Tracker:
    """Follows people through a video, one frame after the other.

    A track ends where the shot changes, and where its face is missing in more than 3 successive
    frames and for more than 1 second: frames may be dense or sparse.
    """

    def __init__(self) -> None:
        self._live: list[_Track] = []
        self._begun = 0

    def update(
        self,
        faces: Sequence[Face],
        time: float,
        *,
        cut: bool = False,
        descriptors: Sequence[NDArray[np.float32] | None] | None = None,
    ) -> list[int]:
        """Takes the next frame, later than the last; returns the track of each face, each once.

        Tracks are 0, 1, ... in order of first appearance. With ``cut`` the shot has changed and
        nobody is carried over. ``descriptors`` are what
        :func:`~deepregions.faces.appearance.appearance` says of each face.
        """
        kept = [t for t in self._live if t.missed <= MAX_GAP or time - t.time <= MAX_SECONDS]
        self._live = [] if cut else kept
        looks = descriptors or [None] * len(faces)
        seen = [_seen(face, own) for face, own in zip(faces, looks, strict=True)]
        assigned = _assigned(self._live, seen, time)
        for track in self._live:
            track.missed += 1
        numbers = []
        for index, one in enumerate(seen):
            if index in assigned:
                track = self._live[assigned[index]]
                _follow(track, one, time)
            else:
                track = _Track(self._begun, one, time)
                self._begun += 1
                self._live.append(track)
            numbers.append(track.number)
        return numbers


def _seen(face: Face, looks: NDArray[np.float32] | None) -> _Seen:
    known = None if looks is None else looks.astype(np.float64)
    box, points = face.box.astype(np.float64), face.landmarks.astype(np.float64)
    if not np.isfinite(box).all():
        return _Seen(np.full(2, np.nan), math.nan, None, known)
    side = math.sqrt(max(float(np.prod(np.maximum(box[2:] - box[:2], 0))), 1.0))
    shape = None
    if np.isfinite(points).all():
        points = points - points.mean(axis=0)
        radius = float(np.sqrt((points**2).sum(axis=1).mean()))
        shape = points / radius if radius > 0.1 else None
    return _Seen((box[:2] + box[2:]) / 2, side, shape, known)


def _follow(track: _Track, one: _Seen, time: float) -> None:
    passed = time - track.time
    track.velocity = None
    if 0 < passed <= _STEADY:
        track.velocity = (one.centre - track.last.centre) / passed
    if one.looks is None:
        one.looks = track.last.looks
    elif track.last.looks is not None:
        one.looks = _LEARN * one.looks + (1 - _LEARN) * track.last.looks
    track.last, track.time, track.missed = one, time, 0


def _assigned(tracks: list[_Track], faces: list[_Seen], time: float) -> dict[int, int]:
    """Returns which track goes to which face: {face: track}, by their places in the lists."""
    if not tracks or not faces:
        return {}
    return pair(np.array([[_score(track, face, time) for track in tracks] for face in faces]))


def pair(scores: _Vector) -> dict[int, int]:
    """Returns a column for each row of (R, C) scores, each once, for the greatest sum above 0."""
    scores = np.where(scores > 0, scores, 0.0)
    by_row = {row: int(column) for row, column in enumerate(scores.argmax(1))}
    by_column = {column: int(row) for column, row in enumerate(scores.argmax(0))}
    pairs: Iterable[tuple[int, int]]
    for pairs in (by_row.items(), [(row, column) for column, row in by_column.items()]):
        paired = [(row, column) for row, column in pairs if scores[row, column] > 0]
        if all(len(set(each)) == len(paired) for each in zip(*paired, strict=True)):
            return dict(paired)  # nobody's best is another's, as nearly always
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - half a second

    pairs = zip(*linear_sum_assignment(scores, maximize=True), strict=True)
    return {int(row): int(column) for row, column in pairs if scores[row, column] > 0}


def _score(track: _Track, face: _Seen, time: float) -> float:
    """How much likelier a face is the track's than another person's, in nats."""
    passed = max(time - track.time, 0.0)
    last = track.last
    side = math.sqrt(last.side * face.side)
    moved = float(np.hypot(*(face.centre - last.centre)))
    if track.velocity is not None:
        ahead = last.centre + track.velocity * min(passed, _STEADY)
        moved = min(moved, float(np.hypot(*(face.centre - ahead))))
    score = _place(moved / side, passed) + _size(math.log(face.side / last.side), passed)
    if last.shape is not None and face.shape is not None:
        apart = math.sqrt(float(((last.shape - face.shape) ** 2).sum(axis=1).mean()))
        middle, half = (_SHAPE_OTHER + _SHAPE_SAME) / 2, (_SHAPE_OTHER - _SHAPE_SAME) / 2
        score += math.exp(-passed) * max(-1.0, min(1.0, (middle - apart) / half))
    if last.looks is not None and face.looks is not None:
        apart = float(np.linalg.norm(last.looks - face.looks))
        alike = _LOOKS_SLOPE * (_LOOKS - apart)
        score += max(_LOOKS_LEAST, min(_LOOKS_MOST, alike))
    return score


def _place(moved: float, passed: float) -> float:
    """Two Gaussians in the plane, one broad, against anywhere in the frame."""
    spread = _REACH**2 * (1 - math.exp(-passed / _SETTLING)) + 1e-3
    near, far = (
        math.exp(-(moved**2) / (2 * square)) / (2 * math.pi * square)
        for square in (spread, _FAR**2 * spread)
    )
    odds = _FRAME * ((1 - _BROAD) * near + _BROAD * far)
    return max(math.log(odds), _LEAST) if odds > 0 else _LEAST


def _size(growth: float, passed: float) -> float:
    spread = min(_GROWTH * math.sqrt(1 + passed), _ANY_SIZE)
    score = math.log(_ANY_SIZE / spread) - growth**2 / 2 * (spread**-2 - _ANY_SIZE**-2)
    return max(score, _LEAST)
