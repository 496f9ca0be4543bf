"""What was measured of faces, what of them may be judged, and in words why the rest may not.

A region that fails a gate is invalid: it gets no score, rather than a guess. Nothing here needs
torch: :mod:`~deepregions.faces.quality` measures and :mod:`~deepregions.faces.gates` judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepregions.faces.thresholds import MIN_INSIDE, Gates
from deepregions.types import REGIONS, Region, Status

Array = TypeVar("Array")  # a tensor on the faces' device, or a NumPy array
_Other = TypeVar("_Other")

MAX_MISFIT = 0.1
"""Landmarks farther than this from a turned mean face, in widths of it, are not a face's."""

DOUBTFUL_YAW, DOUBTFUL_MISFIT = 10.0, 0.034
"""Without a confidence, landmarks of a head turned farther are not certain beyond this misfit."""

CHECKS = (
    "landmarks are not a face's",
    "facial points could not be located reliably",
    "too small",
    "turned away",
    "out of the frame",
    "too dark",
    "overexposed",
    "blurred",
)
"""Reasons why a region is not judged, in the order of :attr:`Judgement.failed`."""

STATUSES = (Status.OK, Status.TOO_SMALL, Status.LOW_QUALITY)
"""What the numbers of :attr:`Judgement.status` stand for."""

_WHOLE = (Region.ENTIRE, Region.REST)  # seen from one side, they still are mostly in view


def most_yaw(region: Region, gates: Gates) -> float:
    """Returns how far a head may be turned aside for a region to be judged, in degrees."""
    return gates.max_yaw_whole if region in _WHOLE else gates.max_yaw


@dataclass(frozen=True)
class Quality(Generic[Array]):
    """What was measured of B faces; every field is an array of one kind.

    Of regions, in the order of ``REGIONS``, it is (B, 5).
    """

    size: Array  # (B,) the face's width in pixels of its frame, as seen from the front
    yaw: Array  # (B,) degrees; see pose.Pose
    pitch: Array
    roll: Array
    misfit: Array  # (B,) how far landmarks are from a face's, in widths of it
    confidence: Array  # (B,) the landmarks', in [0, 1]; NaN where the backend gives none
    finite: Array  # (B,) bool, whether the landmarks are numbers
    inside: Array  # share inside the image
    light: Array  # mean grey value, in [0, 1]
    dark: Array  # share that is (nearly) black
    bright: Array  # share that is (nearly) white
    sharpness: Array  # see quality.py

    def map(self, change: Callable[[Array], _Other]) -> Quality[_Other]:
        """Returns it with each field changed, as to read it back from the device."""
        return Quality(*(change(getattr(self, one.name)) for one in fields(self)))


@dataclass(frozen=True)
class Judgement(Generic[Array]):
    """What may be judged of B faces; every field is an array of one kind."""

    regions: Array  # (B, 5) bool, in the order of REGIONS; the cropper must agree
    status: Array  # (B,) int64, of STATUSES: OK if any region may be judged
    failed: Array  # (B, 5, C) bool: which of CHECKS each region failed

    def map(self, change: Callable[[Array], _Other]) -> Judgement[_Other]:
        """Returns it with each field changed, as to read it back from the device."""
        return Judgement(*(change(getattr(self, one.name)) for one in fields(self)))


HostQuality = Quality[NDArray[Any]]
HostJudgement = Judgement[NDArray[Any]]


class Refusal(NamedTuple):
    """Why regions of a face are not judged: one of ``CHECKS``, and its figure and gate in words."""

    regions: tuple[Region, ...]
    why: str
    detail: str

    def __str__(self) -> str:
        """A few words that are equal for equal reasons: ``"too dark (nose)"``."""
        part = len(self.regions) < len(REGIONS)
        return f"{self.why} ({', '.join(self.regions)})" if part else self.why


def figures(quality: HostQuality) -> list[dict[str, float | None]]:
    """Lists the measurements of each face (of regions, the entire one's) by name; or None."""
    names = [one.name for one in fields(quality) if one.name != "finite"]
    values = [getattr(quality, name) for name in names]
    columns = [value[:, 0] if value.ndim == 2 else value for value in values]
    rows = np.stack([column.astype(np.float64) for column in columns], axis=1).tolist()
    return [
        {name: v if math.isfinite(v) else None for name, v in zip(names, row, strict=True)}
        for row in rows
    ]


def refusals(
    quality: HostQuality, judged: HostJudgement, gates: Gates
) -> list[tuple[Refusal, ...]]:
    """Says in words which regions are not judged, and why; of no face's landmarks, that alone."""
    failed = judged.failed.transpose(0, 2, 1).tolist()  # (B, C, 5)
    values = {one.name: getattr(quality, one.name).tolist() for one in fields(quality)}
    found: list[tuple[Refusal, ...]] = []
    for face, checks in enumerate(failed):
        own = {name: column[face] for name, column in values.items()}
        reasons = []
        for why, row in zip(CHECKS, checks, strict=True):
            if places := [place for place, fails in enumerate(row) if fails]:
                regions = tuple(REGIONS[place] for place in places)
                reasons.append(Refusal(regions, why, _details(own, places, gates)[why]))
        found.append(tuple(reasons[:1] if reasons and reasons[0].why == CHECKS[0] else reasons))
    return found


def _details(own: dict[str, Any], places: list[int], gates: Gates) -> dict[str, str]:
    """A face's figures with their gates: of several regions, those of the worst."""
    yaw, pitch, roll = (round(own[name]) for name in ("yaw", "pitch", "roll"))
    limit = min(most_yaw(REGIONS[place], gates) for place in places)
    inside, dark, bright = (
        [own[name][place] for place in places] for name in ("inside", "dark", "bright")
    )
    doubt = f"confidence {own['confidence']:.2f}, at least {gates.min_confidence:g}"
    if math.isnan(own["confidence"]):
        off = f"{own['misfit']:.3f} widths off the mean face"
        doubt = f"no confidence, and {off}, at most {DOUBTFUL_MISFIT:g}"
    return {
        "landmarks are not a face's": f"{own['misfit']:.2f} widths off the mean face",
        "facial points could not be located reliably": doubt,
        "too small": f"{own['size']:.0f} pixels wide, at least {gates.min_size:g}",
        "turned away": f"yaw {yaw}, pitch {pitch}, roll {roll} degrees, "
        f"at most {limit:g}, {gates.max_pitch:g}, {gates.max_roll:g}",
        "out of the frame": f"{min(inside):.0%} of it inside, at least {MIN_INSIDE:.0%}",
        "too dark": f"{max(dark):.0%} black, at most {gates.max_dark:.0%}",
        "overexposed": f"{max(bright):.0%} white, at most {gates.max_bright:.0%}",
        "blurred": f"sharpness {own['sharpness'][0]:.2f}, at least {gates.min_sharpness:g}",
    }
