"""Small networks and faces that several tests score with."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from data_helpers import face_points
from numpy.typing import NDArray
from torch import Tensor, nn

from deepregions.detectors import DSPFWA, RegionDetector, Xception
from deepregions.detectors.base import Attention, Normalisation
from deepregions.fusion.calibration import Calibration, Development, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.pixels.tensors import as_array
from deepregions.system import TrainedNetwork
from deepregions.types import Region

SIZE = 64

Detector = TypeVar("Detector", bound=RegionDetector)


def landmarks(batch: int = 1, *, centre: float = 100.0, scale: float = 60.0) -> Tensor:
    """(B, 68, 2) of an upright, symmetric face, 2 * ``scale`` px wide."""
    points = torch.from_numpy(face_points())
    return (centre + 2 * scale * (points - 0.5)).expand(batch, -1, -1).clone()


def picture(height: int = 200, width: int = 200, *, seed: int = 0) -> Tensor:
    """(3, H, W) uint8 noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def pixels(height: int = 200, width: int = 200, *, seed: int = 0) -> NDArray[np.uint8]:
    """The same noise as a file's pixels are, (H, W, 3)."""
    return as_array(picture(height, width, seed=seed))


def points(*, centre: float = 100.0, scale: float = 60.0) -> NDArray[np.float32]:
    """(68, 2): one face's :func:`landmarks` as a detector gives them."""
    found: NDArray[np.float32] = landmarks(centre=centre, scale=scale)[0].numpy()
    return found


def xception(bias: float | None = None) -> Xception:
    """A small Xception; with a bias, it gives these log-odds whatever it sees."""
    return _constant(Xception(size=SIZE), bias)


def dsp_fwa(bias: float | None = None) -> DSPFWA:
    """A small DSP-FWA, likewise."""
    return _constant(DSPFWA(size=SIZE, pyramid="adaptive"), bias)


class Tint(RegionDetector):
    """The least there is of a network, for what has to do with all of them but their size."""

    name = "tint"

    def __init__(self, size: int = SIZE, *, normalisation: Normalisation = "unit") -> None:
        adam = torch.optim.Adam
        super().__init__(size=size, normalisation=normalisation, optimizer=adam, lr_scheduler=None)
        self.mix = torch.nn.Conv2d(3, 2, 5)

    @property
    def head(self) -> torch.nn.Module:
        return self.mix

    def network(self, x: Tensor) -> Tensor:
        return 20 * self.mix(x).mean((2, 3))


def _constant(detector: Detector, bias: float | None) -> Detector:
    if bias is not None:
        with torch.no_grad():
            last = [module for module in detector.modules() if isinstance(module, torch.nn.Linear)]
            last[-1].weight.zero_()
            last[-1].bias.copy_(torch.tensor([0.0, bias]))
    return detector.eval()


def member(
    detector: RegionDetector, region: Region = Region.ENTIRE, database: str = "made"
) -> TrainedNetwork:
    return TrainedNetwork(detector, region, database, "masked", {"note": "made by a test"})


def calibration(slope: float, offset: float, lower: float, upper: float) -> Calibration:
    """A calibration of videos' scores, whatever made them."""
    about = Development(
        "made", "f00d", "val", 70, 60, {"swap": 60}, None, {"folds": 5, "by": "people"}
    )
    line, quantity = {"slope": slope, "offset": offset}, Quantity.pooled("video", Pooling())
    return Calibration("logistic", line, lower, upper, quantity, about)


def trainer(folder: Path | None = None, *callbacks: Any, **options: Any) -> Any:
    """One that trains on one CPU process, says nothing, and keeps nothing unless asked to."""
    from pytorch_lightning import Trainer

    said = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    quiet = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, **said}
    return Trainer(callbacks=list(callbacks), default_root_dir=folder, **quiet | options)


class Bright(RegionDetector):
    """A detector that looks for a colour: its map is how much of it is in cells of 8x8 pixels."""

    name = "bright"

    def __init__(
        self, size: int = 200, weight: float = 1.0, colour: tuple[float, ...] = (1.0, 1.0, 1.0)
    ) -> None:
        super().__init__(
            size=size, normalisation="unit", optimizer=torch.optim.SGD, lr_scheduler=None
        )
        self.pool = nn.Conv2d(3, 2, 8, stride=8, bias=False)
        self.classifier = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.pool.weight[:] = torch.tensor(colour)[:, None, None] / 192
            self.classifier.weight.copy_(torch.tensor([[0.0, 0.0], [weight, 0.0]]))

    @property
    def head(self) -> nn.Module:
        return self.classifier

    @property
    def attention(self) -> Attention:
        return Attention(self.pool, 3.5, 8)

    def network(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(x).mean((2, 3)))
