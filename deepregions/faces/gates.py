"""Which regions of a face may be judged, by what was measured of it, and why others may not.

A region that fails a gate is invalid: it gets no score, rather than a guess. No gate can see a hand
before the mouth or hair before an eye as such; only the landmarks' confidence falls, and with it
the whole face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from deepregions.faces.cropping import MIN_INSIDE
from deepregions.faces.quality import Quality
from deepregions.types import REGIONS, Region, Status

MAX_MISFIT = 0.1
"""Landmarks farther than this from a turned mean face, in widths of it, are not a face's: on the
702 shared photographs they are within 0.064, and 68 random points are at 1.6 and more."""

DOUBTFUL_YAW, DOUBTFUL_MISFIT = 10.0, 0.034
"""Where a backend gives no confidence, landmarks of a head turned by more degrees are not certain
if they are farther from a turned mean face. With dlib and HOG, 87 % of the near-profile DFDC clip's
frames fail, 10 % of the shared photographs, and no frame of the other clips."""

CHECKS = (
    "landmarks are not a face's",
    "landmarks are not certain",
    "too small",
    "turned away",
    "out of the frame",
    "too dark",
    "overexposed",
    "blurred",
)
"""What can keep a region from being judged, in the order of :attr:`Judged.failed`."""

STATUSES = (Status.OK, Status.TOO_SMALL, Status.LOW_QUALITY)
"""What the numbers of :attr:`Judged.status` stand for."""

_WHOLE = (Region.ENTIRE, Region.REST)  # seen from one side, they still are mostly in view


@dataclass(frozen=True)
class Gates:
    """What a face must be to be judged.

    The shares are those of the 702 shared photographs (FFHQ in the wild, London in the studio)
    that fail, with dlib's landmarks and YuNet; `benchmarks/faces.py` counts them.

    Attributes:
        min_size: Pixels of the face's width in the frame. At 40 the mouth, the smallest region,
            covers 130 pixels and is enlarged fivefold for a detector of 200; landmarks are within
            3 % of the eye corners' distance for 95 % of faces, at 24 within 5 %. None fails (all
            are at least 188).
        min_confidence: Of the landmarks, where the backend gives one (else see
            ``DOUBTFUL_YAW``). For dlib and YuNet, 0.5 is
            a mean distance of 11 % of the eye corners' between the two: 1.4 % fail, near-profiles
            and faces behind hands, microphones and mirrored sunglasses; of the near-profile DFDC
            clip 91 % of the frames fail. Of faces 64 pixels wide 4 % fail, of 40 pixels 10 %, as
            YuNet places its points less exactly.
        max_yaw: Degrees that the head may be turned aside for eyes, nose and mouth: beyond, half
            of each is hidden or narrow, and the nose stands before the background. In dlib's
            degrees, which fall short of the true ones (30 looks like 45); 1.6 % fail. FAN and
            OpenFace should give truer degrees, and bear a larger limit.
        max_yaw_whole: The same for the entire face and the rest, where the cheek in view is most
            of what is seen: 1.0 % fail.
        max_pitch: Degrees up or down; beyond, the nose hides the mouth, or lids the eyes. None of
            the photographs has more than 25.
        max_roll: Degrees; the canvas stays upright, so that a third of it is background at 45.
            None has more than 7.
        max_dark: Share of a region's pixels that may be black: there is no detail in them. None
            has more than 0.38.
        max_bright: Share that may be white. One fails (its nose, 0.57).
        min_sharpness: See :mod:`deepregions.faces.quality`; a face that is blurred as a whole has
            no sharp region. Less than 0.35 is a face with nothing finer than its features: blurred
            by 2 % of their width 98 % of the photographs fail, by 3 % all; reduced to 24 pixels
            and enlarged again half, to 16 pixels all. Unchanged none fails; the compressed clips
            have 0.46 and more for the face, 0.36 for a nose.
    """

    min_size: float = 40.0
    min_confidence: float = 0.5
    max_yaw: float = 30.0
    max_yaw_whole: float = 35.0
    max_pitch: float = 30.0
    max_roll: float = 45.0
    max_dark: float = 0.5
    max_bright: float = 0.5
    min_sharpness: float = 0.35


@dataclass(frozen=True)
class Judged:
    """What may be judged of B faces; tensors on the faces' device.

    Attributes:
        regions: (B, 5) bool, in the order of ``REGIONS``. Whether a region is in the picture at
            all is the cropper's to say too: both must agree.
        status: (B,) int64, an index into ``STATUSES``: ``OK`` if any region may be judged, else
            ``TOO_SMALL`` if that is so, else ``LOW_QUALITY``.
        failed: (B, 5, C) bool: which of ``CHECKS`` each region failed.
    """

    regions: Tensor
    status: Tensor
    failed: Tensor


class Refusal(NamedTuple):
    """Why regions of a face are not judged.

    Attributes:
        regions: Which, in the order of ``REGIONS``.
        why: One of ``CHECKS``.
        detail: With the figure and the gate, such as ``"yaw 33 degrees, at most 30"``.
    """

    regions: tuple[Region, ...]
    why: str
    detail: str

    def __str__(self) -> str:
        """A few words that are equal for equal reasons: ``"blurred (nose)"``."""
        part = len(self.regions) < len(REGIONS)
        return f"{self.why} ({', '.join(self.regions)})" if part else self.why


def judge(quality: Quality, gates: Gates) -> Judged:
    """Applies the gates, on the faces' device and without waiting for it."""
    yaw = quality.yaw.abs()
    limits = [gates.max_yaw_whole if one in _WHOLE else gates.max_yaw for one in REGIONS]
    aside = (quality.pitch.abs() > gates.max_pitch) | (quality.roll.abs() > gates.max_roll)
    unsure = quality.confidence.isnan() & (yaw > DOUBTFUL_YAW)
    blurred = ~(quality.sharpness >= gates.min_sharpness)
    of_face = (
        ~(quality.finite & (quality.misfit <= MAX_MISFIT)),
        (quality.confidence < gates.min_confidence) | (unsure & (quality.misfit > DOUBTFUL_MISFIT)),
        ~(quality.size >= gates.min_size),
    )
    of_region = (
        torch.stack([(yaw > limit) | aside for limit in limits], dim=1),
        quality.inside < MIN_INSIDE,
        quality.dark > gates.max_dark,
        quality.bright > gates.max_bright,
        blurred | blurred[:, :1],  # the entire face comes first
    )
    everywhere = [check[:, None].expand(-1, len(REGIONS)) for check in of_face]
    failed = torch.stack((*everywhere, *of_region), dim=2)
    regions = ~failed.any(dim=2)
    small = failed[:, 0, CHECKS.index("too small")].long()
    return Judged(regions, torch.where(regions.any(dim=1), 0, 2 - small), failed)


def figures(quality: Quality) -> list[dict[str, float | None]]:
    """Lists what was measured of each face, by name; waits for the device.

    Figures of regions are those of the entire face. What is no number, such as an unknown
    confidence, is None.
    """
    names = [one.name for one in fields(quality) if one.name != "finite"]
    values = [getattr(quality, name) for name in names]
    columns = [value[:, 0] if value.ndim == 2 else value for value in values]
    rows = torch.stack([column.double() for column in columns], dim=1).tolist()
    return [
        {name: v if math.isfinite(v) else None for name, v in zip(names, row, strict=True)}
        for row in rows
    ]


def refusals(quality: Quality, judged: Judged, gates: Gates) -> list[tuple[Refusal, ...]]:
    """Says in words which regions of each face are not judged, and why; waits for the device.

    Of landmarks that are not a face's nothing else is told: all was measured in the wrong place.
    """
    failed = judged.failed.transpose(1, 2).tolist()  # (B, C, 5)
    on_host = Quality(*(getattr(quality, one.name).cpu() for one in fields(quality)))
    found: list[tuple[Refusal, ...]] = []
    for face, checks in enumerate(failed):
        own = []
        for why, row in zip(CHECKS, checks, strict=True):
            places = [place for place, fails in enumerate(row) if fails]
            if places:
                detail = _detail(why, on_host, face, places, gates)
                own.append(Refusal(tuple(REGIONS[place] for place in places), why, detail))
        found.append(tuple(own[:1] if own and own[0].why == CHECKS[0] else own))
    return found


def _doubt(quality: Quality, face: int, gates: Gates) -> str:
    confidence = float(quality.confidence[face])
    if not math.isnan(confidence):
        return f"confidence {confidence:.2f}, at least {gates.min_confidence:g}"
    return (
        f"no confidence, and {float(quality.misfit[face]):.3f} widths off the mean face, "
        f"at most {DOUBTFUL_MISFIT:g}"
    )


def _detail(why: str, quality: Quality, face: int, places: list[int], gates: Gates) -> str:
    """The figures that failed: of several regions, those of the worst."""
    yaw, pitch, roll = (round(float(a[face])) for a in (quality.yaw, quality.pitch, quality.roll))
    limit = min(gates.max_yaw_whole if REGIONS[p] in _WHOLE else gates.max_yaw for p in places)
    return {
        "landmarks are not a face's": f"{float(quality.misfit[face]):.2f} widths off the mean face",
        "landmarks are not certain": _doubt(quality, face, gates),
        "too small": f"{float(quality.size[face]):.0f} pixels wide, at least {gates.min_size:g}",
        "turned away": f"yaw {yaw}, pitch {pitch}, roll {roll} degrees, "
        f"at most {limit:g}, {gates.max_pitch:g}, {gates.max_roll:g}",
        "out of the frame": f"{float(quality.inside[face, places].min()):.0%} of it inside, "
        f"at least {MIN_INSIDE:.0%}",
        "too dark": f"{float(quality.dark[face, places].max()):.0%} black, "
        f"at most {gates.max_dark:.0%}",
        "overexposed": f"{float(quality.bright[face, places].max()):.0%} white, "
        f"at most {gates.max_bright:.0%}",
        "blurred": f"sharpness {float(quality.sharpness[face, [0, *places]].min()):.2f}, "
        f"at least {gates.min_sharpness:g}",
    }[why]
