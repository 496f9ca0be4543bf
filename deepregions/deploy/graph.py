"""What of a system becomes an ONNX graph: from face pixels, or from ready crops, to the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from deepregions.fusion.calibration import Calibration
from deepregions.system import System, SystemOutput
from deepregions.types import NUM_LANDMARKS

Kind = Literal["image", "crops"]
"""What a graph takes."""

_EXAMPLES = 2  # faces to trace with: a batch of one would be traced as always one
_EXAMPLE_SIDE = (150, 160)


class CalibrationModule(nn.Module):
    """A calibration as a module, for a graph.

    Args:
        calibration: From a video's, here a face's, fused log-odds to likelihood ratios.
    """

    x: Tensor
    y: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.lower, self.upper = calibration.lower, calibration.upper
        given = calibration.parameters
        if calibration.kind == "logistic":
            self.slope = float(given["slope"])
            x, y = [0.0], [float(given["offset"])]
        else:
            self.slope = 0.0
            x, y = given["log_odds"], given["llr"]
        self.register_buffer("x", torch.tensor(x, dtype=torch.float32))
        self.register_buffer("y", torch.tensor(y, dtype=torch.float32))

    def forward(self, log_odds: Tensor) -> Tensor:
        """Returns natural LLRs (B,) within their bounds of log-odds (B,), NaN for NaN."""
        straight = len(self.x) == 1
        llr = self.y[0] + self.slope * log_odds if straight else self._between(log_odds)
        return torch.where(log_odds.isnan(), log_odds, llr.clamp(self.lower, self.upper))

    def _between(self, log_odds: Tensor) -> Tensor:
        """Straight lines between the knots, constant beyond: all of them at once, summed."""
        low, high = self.x[:-1], self.x[1:]
        share = ((log_odds[:, None] - low) / (high - low)).clamp(0, 1)
        return self.y[0] + (share * (self.y[1:] - self.y[:-1])).sum(1)


class Graph(nn.Module, ABC):
    """A system, and what makes likelihood ratios of its fused log-odds.

    Args:
        system: Networks and their fusion, whatever that is.
        calibration: From fused log-odds (B,) to log-likelihood ratios (B,), if there is one.
    """

    kind: ClassVar[Kind]

    def __init__(self, system: System, calibration: nn.Module | None = None) -> None:
        super().__init__()
        self.system = system
        self.calibration = calibration
        self.eval()

    @property
    @abstractmethod
    def inputs(self) -> dict[str, tuple[str | int, ...]]:
        """Names of the inputs, in the order of :meth:`examples`, and their shapes."""

    @property
    def outputs(self) -> dict[str, tuple[str | int, ...]]:
        """Names of the outputs, in order, and their shapes."""
        cells = ("batch", len(self.system.rows), len(self.system.regions))
        shapes: dict[str, tuple[str | int, ...]] = {
            "logits": cells,
            "valid": cells,
            "fused": ("batch",),
        }
        return shapes if self.calibration is None else shapes | {"llr": ("batch",)}

    @abstractmethod
    def examples(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Returns inputs to trace with, and which of their sides may be of any length."""

    def answers(self, output: SystemOutput) -> tuple[Tensor, ...]:
        """Returns the graph's outputs, in order."""
        answers = (output.logits, output.valid, output.fused)
        return answers if self.calibration is None else (*answers, self.calibration(output.fused))


class ImageGraph(Graph):
    """From photographs and landmarks: masks, crops and resizing are in the graph."""

    kind: ClassVar[Kind] = "image"

    @property
    def inputs(self) -> dict[str, tuple[str | int, ...]]:
        """``image`` and ``landmarks``."""
        return {
            "image": ("batch", 3, "height", "width"),
            "landmarks": ("batch", NUM_LANDMARKS, 2),
        }

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, ...]:
        """Scores faces.

        Args:
            image: (B, 3, H, W) uint8 RGB, pictures of one size, none of them padded.
            landmarks: (B, 68, 2) float32 pixels of ``image``.
        """
        return self.answers(self.system(image, landmarks))

    def examples(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Returns black images; batch, height and width may be anything."""
        dynamic = torch.export.Dim.DYNAMIC
        side = torch.linspace(0.2, 0.8, NUM_LANDMARKS)
        points = torch.stack((side, side.flip(0)), dim=-1) * min(_EXAMPLE_SIDE)
        image = torch.zeros(_EXAMPLES, 3, *_EXAMPLE_SIDE, dtype=torch.uint8)
        inputs = (image, points.expand(_EXAMPLES, -1, -1).clone())
        return inputs, ({0: dynamic, 2: dynamic, 3: dynamic}, {0: dynamic})


class CropsGraph(Graph):
    """From crops that :class:`~deepregions.faces.cropping.RegionCropper` or its like has made.

    ``crops`` is (B, R, 3, S, S). Where networks want crops of several kinds, there is an input
    for each kind, ``crops_0``, ``crops_1`` ..., in the order of the system's cuts.
    """

    kind: ClassVar[Kind] = "crops"

    @property
    def inputs(self) -> dict[str, tuple[str | int, ...]]:
        """``crops`` (or ``crops_0`` ...) and ``present``."""
        cuts = self.system.cuts.items()
        shapes: dict[str, tuple[str | int, ...]] = {
            name: ("batch", len(regions), 3, cut.size, cut.size)
            for name, (cut, regions) in zip(crop_inputs(self.system), cuts, strict=True)
        }
        return shapes | {"present": ("batch", len(self.system.regions))}

    def forward(self, crops: Sequence[Tensor], present: Tensor) -> tuple[Tensor, ...]:
        """Scores crops.

        Args:
            crops: For each cut (B, R of the cut, 3, S, S) float32 in [0, 1].
            present: (B, R) bool, which regions are there to be judged. Not ``valid``, as that is
                an output, and names of a graph are unique.
        """
        return self.answers(self.system.score(crops, present))

    def examples(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Returns grey crops; the batch may be anything."""
        dynamic = torch.export.Dim.DYNAMIC
        crops = [
            torch.full((_EXAMPLES, len(regions), 3, cut.size, cut.size), 0.5)
            for cut, regions in self.system.cuts.items()
        ]
        present = torch.ones(_EXAMPLES, len(self.system.regions), dtype=torch.bool)
        return (crops, present), ([{0: dynamic} for _ in crops], {0: dynamic})


def crop_inputs(system: System) -> tuple[str, ...]:
    """Returns the names of a graph's inputs of crops, one for each kind."""
    if len(system.cuts) == 1:
        return ("crops",)
    return tuple(f"crops_{number}" for number in range(len(system.cuts)))


class HalfNetwork(nn.Module):
    """A network that computes in 16 bits, between float32 crops and float32 log-odds.

    Args:
        detector: Made half in place.
        kind: float16, or bfloat16.
    """

    def __init__(self, detector: nn.Module, kind: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.kind = kind
        self.detector = detector.to(kind)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the log-odds (N,) float32 of crops (N, 3, S, S)."""
        answer: Tensor = self.detector(x.to(self.kind))
        return answer.float()
