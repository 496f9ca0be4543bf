"""Networks that tell a manipulated face, or a region of one, from a genuine one."""

from typing import Any

from deepregions.detectors.backbone import Backbone
from deepregions.detectors.base import RegionDetector
from deepregions.detectors.capsule import Capsule
from deepregions.detectors.dsp_fwa import DSPFWA
from deepregions.detectors.xception import Xception

__all__ = ["DSPFWA", "Backbone", "Capsule", "HeadFirst", "RegionDetector", "Xception"]


def __getattr__(name: str) -> Any:
    """Imports :class:`HeadFirst` where it is asked for: with Lightning, that takes seconds."""
    if name == "HeadFirst":
        from deepregions.detectors.finetuning import HeadFirst  # noqa: PLC0415

        return HeadFirst
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
