"""Gates: which regions of a face may be judged, by what was measured of it."""

import torch
from torch import Tensor

from deepregions.faces.judgement import (
    CHECKS,
    DOUBTFUL_MISFIT,
    DOUBTFUL_YAW,
    MAX_MISFIT,
    Judgement,
    Quality,
    most_yaw,
)
from deepregions.faces.thresholds import MIN_INSIDE, Gates
from deepregions.types import REGIONS


def judge(quality: Quality[Tensor], gates: Gates) -> Judgement[Tensor]:
    """Applies the gates, on the faces' device and without waiting for it."""
    yaw = quality.yaw.abs()
    limits = [most_yaw(region, gates) for region in REGIONS]
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
