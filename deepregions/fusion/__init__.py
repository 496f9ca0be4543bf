"""Score-level fusion: from the (detector x region) matrix of log-odds to one number per face.

Tolosana et al. (EAAI 2022, section 5.3) fuse the detectors' scores, and the regions' scores.
"""

from deepregions.fusion.rules import (
    Cell,
    Fusion,
    FusionHead,
    LogisticFusion,
    MaxFusion,
    MeanFusion,
    TrainedFusion,
    WeightedFusion,
    named,
)
from deepregions.fusion.training import KINDS, Kind, chosen_cells, fuse_table, train_fusion

__all__ = [
    "KINDS",
    "Cell",
    "Fusion",
    "FusionHead",
    "Kind",
    "LogisticFusion",
    "MaxFusion",
    "MeanFusion",
    "TrainedFusion",
    "WeightedFusion",
    "chosen_cells",
    "fuse_table",
    "named",
    "train_fusion",
]
