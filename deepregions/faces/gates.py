"""Gates: which regions of a face may be judged, by what was measured of it, and why not others.

A region that fails a gate is invalid: it gets no score, rather than a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepregions.faces.cropping import MIN_INSIDE
from deepregions.faces.quality import Quality
from deepregions.faces.thresholds import Gates
from deepregions.types import REGIONS, Region, Status

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


@dataclass(frozen=True)
class Judgement:
    """What may be judged of B faces; tensors on the faces' device.

    Attributes:
        regions: (B, 5) bool, in the order of ``REGIONS``; the cropper must agree.
        status: (B,) int64, an index into ``STATUSES``: ``OK`` if any region may be judged, else
            ``TOO_SMALL`` if that is so, else ``LOW_QUALITY``.
        failed: (B, 5, C) bool: which of ``CHECKS`` each region failed.
    """

    regions: Tensor
    status: Tensor
    failed: Tensor


class Refusal(NamedTuple):
    """Why regions of a face are not judged: one of ``CHECKS``, and its figure and gate in words."""

    regions: tuple[Region, ...]
    why: str
    detail: str

    def __str__(self) -> str:
        """A few words that are equal for equal reasons: ``"too dark (nose)"``."""
        part = len(self.regions) < len(REGIONS)
        return f"{self.why} ({', '.join(self.regions)})" if part else self.why


def judge(quality: Quality, gates: Gates) -> Judgement:
    """Applies the gates, on the faces' device and without waiting for it."""
    yaw = quality.yaw.abs()
    limits = [gates.max_yaw_whole if one in _WHOLE else gates.max_yaw for one in REGIONS]
    aside = (quality.pitch.abs() > gates.max_pitch) | (quality.roll.abs() > gates.max_roll)
    unsure = quality.confidence.isnan() & (yaw > DOUBTFUL_YAW)
    checks = (  # of the face, (B,), or of each region, (B, 5)
        ~(quality.finite & (quality.misfit <= MAX_MISFIT)),
        (quality.confidence < gates.min_confidence) | (unsure & (quality.misfit > DOUBTFUL_MISFIT)),
        ~(quality.size >= gates.min_size),
        torch.stack([(yaw > limit) | aside for limit in limits], dim=1),
        quality.inside < MIN_INSIDE,
        quality.dark > gates.max_dark,
        quality.bright > gates.max_bright,
        # Of the whole face: a region that is less sharp than its face may have been forged.
        ~(quality.sharpness[:, 0] >= gates.min_sharpness),
    )
    whole = [one if one.ndim == 2 else one[:, None].expand(-1, len(REGIONS)) for one in checks]
    failed = torch.stack(whole, dim=2)
    regions = ~failed.any(dim=2)
    small = failed[:, 0, CHECKS.index("too small")].long()
    return Judgement(regions, torch.where(regions.any(dim=1), 0, 2 - small), failed)


def figures(quality: Quality) -> list[dict[str, float | None]]:
    """Lists the measurements of each face by name; waits for the device.

    Figures of regions are those of the entire face. What is unknown is None.
    """
    names = [one.name for one in fields(quality) if one.name != "finite"]
    values = [getattr(quality, name) for name in names]
    columns = [value[:, 0] if value.ndim == 2 else value for value in values]
    rows = torch.stack([column.double() for column in columns], dim=1).tolist()
    return [
        {name: v if math.isfinite(v) else None for name, v in zip(names, row, strict=True)}
        for row in rows
    ]


def refusals(quality: Quality, judged: Judgement, gates: Gates) -> list[tuple[Refusal, ...]]:
    """Says in words which regions of each face are not judged, and why; waits for the device.

    If the landmarks are not a face's, that is the only reason given.
    """
    failed = judged.failed.transpose(1, 2).tolist()  # (B, C, 5)
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
    limit = min(gates.max_yaw_whole if REGIONS[p] in _WHOLE else gates.max_yaw for p in places)
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
