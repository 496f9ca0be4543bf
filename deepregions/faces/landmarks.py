"""Faces and their 68 landmarks: what a backend must do, and landmarks from files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepregions.errors import UnreadableError
from deepregions.types import NUM_LANDMARKS

_MAX_JSON = 16 << 20  # bytes; a face takes about 2 KB


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a frame, in its pixels; it may reach out of the frame."""

    box: NDArray[np.float32]  # (4,) x0, y0, x1, y1
    landmarks: NDArray[np.float32]  # (68, 2) in iBUG order
    score: float  # the finder's, higher is surer, on its own scale
    confidence: float | None = None  # of the landmarks, in [0, 1]; None where no backend says


Frames = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""Pictures of one size, (H, W, 3) uint8 RGB each: a list of them, or an array of equal ones."""


def largest_first(faces: Iterable[Face]) -> list[Face]:
    """Sorts faces by the area of their boxes."""
    return sorted(faces, key=lambda face: -float((face.box[2:] - face.box[:2]).prod()))


@dataclass(frozen=True)
class Place:
    """Where a frame is from, for backends that read landmarks from files; numbers begin at 0."""

    path: Path
    number: int = 0


class LandmarkDetector(Protocol):
    """Finds the faces of frames, and their landmarks."""

    @property
    def name(self) -> str:
        """What it is, such as ``"dlib68+yunet"``: landmarks, then the finder of faces."""

    @property
    def version(self) -> str:
        """The versions of its parts and models: equal versions give equal landmarks."""

    def __call__(self, frames: Frames, places: Sequence[Place] = ()) -> list[list[Face]]:
        """Returns each frame's faces, largest first; a frame that fails has none.

        The frames are of one size; only backends that read landmarks from files need their places.
        """


def read_landmarks(path: Path) -> NDArray[np.float32]:
    """Reads landmarks (F, 68, 2) from JSON: ``{"points": [[x, y], ...]}``, or a list of such.

    ``"order"``, if given, must be ``"iBUG-68"``; other fields are ignored.

    Raises:
        UnreadableError: Not there, no JSON, or not 68 finite points a face.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_JSON + 1)
        content = json.loads(text) if len(text) <= _MAX_JSON else None
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path}: no JSON: {error}", _EXPECTED) from error
    if content is None:
        raise UnreadableError(f"{path}: longer than {_MAX_JSON} bytes, or null", _EXPECTED)
    faces = content if isinstance(content, list) else [content]
    if not faces:
        raise UnreadableError(f"{path}: no face in it", _EXPECTED)
    return np.stack([_points(f"{path}: face {n}", one) for n, one in enumerate(faces, start=1)])


_EXPECTED = 'expected {"points": [[x, y], ... 68 of them]}, or a list of such'


def _points(where: str, face: Any) -> NDArray[np.float32]:
    if not isinstance(face, dict) or "points" not in face:
        raise UnreadableError(f'{where} has no "points"', _EXPECTED)
    if face.get("order", "iBUG-68") != "iBUG-68":
        raise UnreadableError(f"{where}: order {face['order']!r}", "only iBUG-68 is read")
    try:
        points = np.array(face["points"])
    except ValueError as error:  # lists of several lengths
        raise UnreadableError(f"{where}: points of several lengths", _EXPECTED) from error
    if points.shape != (NUM_LANDMARKS, 2) or points.dtype.kind not in "if":
        raise UnreadableError(f"{where}: not 68 pairs of numbers", _EXPECTED)
    if not (np.abs(points) < 1e6).all():  # also refuses NaN
        raise UnreadableError(f"{where}: points that are no pixels", _EXPECTED)
    return points.astype(np.float32)
