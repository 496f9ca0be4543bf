"""Networks that tell a manipulated face, or a region of one, from a genuine one."""

from deepregions.detectors.backbone import Backbone
from deepregions.detectors.base import RegionDetector
from deepregions.detectors.capsule import Capsule
from deepregions.detectors.dsp_fwa import DSPFWA
from deepregions.detectors.finetuning import HeadFirst
from deepregions.detectors.xception import Xception

__all__ = ["DSPFWA", "Backbone", "Capsule", "HeadFirst", "RegionDetector", "Xception"]
