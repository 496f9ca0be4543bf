"""What of a system becomes an ONNX graph: from face pixels, or from ready crops, to the answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import astuple, fields
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from deepregions.deploy.onnx_metadata import crop_inputs, face_answers
from deepregions.deploy.runtimes import Arrays, Given
from deepregions.faces.cropping import full_extent
from deepregions.faces.gates import judge
from deepregions.faces.pose import head_pose
from deepregions.faces.quality import measure
from deepregions.faces.thresholds import Gates
from deepregions.fusion.calibration import Calibration
from deepregions.system import System, SystemOutput
from deepregions.types import NUM_LANDMARKS

Shape = tuple[str | int, ...]
Kind = Literal["image", "crops", "faces"]
"""What a graph takes."""

_EXAMPLES = 2  # faces to trace with: a batch of one would be traced as always one
_EXAMPLE_SIDES = (150, 160)


class CalibrationModule(nn.Module):
    """A calibration as a module, from fused log-odds to natural log-likelihood ratios."""

    x: Tensor
    y: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.lower, self.upper = calibration.lower, calibration.upper
        given = calibration.parameters
        straight = calibration.kind == "logistic"
        self.slope = float(given["slope"]) if straight else 0.0
        x, y = ([0.0], [given["offset"]]) if straight else (given["log_odds"], given["llr"])
        self.register_buffer("x", torch.tensor(x, dtype=torch.float32))
        self.register_buffer("y", torch.tensor(y, dtype=torch.float32))

    def forward(self, log_odds: Tensor) -> Tensor:
        """Returns natural LLRs (B,) within their bounds of log-odds (B,), NaN for NaN."""
        llr = self.y[0] + self.slope * log_odds
        if len(self.x) > 1:  # straight lines between the knots, constant beyond, summed
            low, high = self.x[:-1], self.x[1:]
            share = ((log_odds[:, None] - low) / (high - low)).clamp(0, 1)
            llr = self.y[0] + (share * (self.y[1:] - self.y[:-1])).sum(1)
        return torch.where(log_odds.isnan(), log_odds, llr.clamp(self.lower, self.upper))


class Graph(nn.Module, ABC):
    """A system, and what makes likelihood ratios of its fused log-odds."""

    kind: ClassVar[Kind]

    def __init__(self, system: System, calibration: nn.Module | None = None) -> None:
        super().__init__()
        self.system = system
        self.calibration = calibration
        self.eval()

    @property
    @abstractmethod
    def inputs(self) -> dict[str, Shape]:
        """Names of the inputs, in the order of :meth:`examples`, and their shapes."""

    @property
    def outputs(self) -> dict[str, Shape]:
        """Names of the outputs, in order, and their shapes."""
        cells = ("batch", len(self.system.rows), len(self.system.regions))
        shapes: dict[str, Shape] = {"logits": cells, "valid": cells, "fused": ("batch",)}
        return shapes if self.calibration is None else shapes | {"llr": ("batch",)}

    def examples(self) -> tuple[tuple[Tensor, ...], tuple[dict[int, object], ...]]:
        """Returns inputs to trace with, and which of their sides may be of any length.

        Images are black, crops grey.
        """
        line = torch.linspace(0.2, 0.8, NUM_LANDMARKS)
        points = torch.stack((line, line.flip(0)), dim=-1) * min(_EXAMPLE_SIDES)
        head_pose(points[None])  # what it keeps is made here, not as part of the trace
        known = {
            "image": torch.zeros(_EXAMPLES, 3, *_EXAMPLE_SIDES, dtype=torch.uint8),
            "landmarks": points.repeat(_EXAMPLES, 1, 1),
            "extent": torch.tensor([_EXAMPLE_SIDES[::-1]] * _EXAMPLES),
            "scale": torch.ones(_EXAMPLES),
            "confidence": torch.full((_EXAMPLES,), 0.5),
            "gates": torch.tensor(astuple(Gates())),
            "present": torch.ones(_EXAMPLES, len(self.system.regions), dtype=torch.bool),
        }
        free = {name: torch.export.Dim(name) for name in ("batch", "height", "width")}
        inputs: list[Tensor] = []
        sides: list[dict[int, object]] = []
        for name, shape in self.inputs.items():
            crops = name not in known
            inputs.append(
                torch.full([_EXAMPLES, *map(int, shape[1:])], 0.5) if crops else known[name]
            )
            sides.append(
                {place: free[str(side)] for place, side in enumerate(shape) if side in free}
            )
        return tuple(inputs), tuple(sides)

    @abstractmethod
    def feeds(self, image: Tensor, landmarks: Tensor, extent: Tensor) -> Iterator[Arrays]:
        """Yields faces as inputs by name.

        Args:
            image: (B, 3, H, W) uint8 RGB.
            landmarks: (B, 68, 2) float32 pixels of ``image``.
            extent: (B, 2) int64, width and height of each picture without its padding.
        """

    def run(self, inputs: Given) -> tuple[Tensor, ...]:
        """Returns the outputs, in order, for inputs by name."""
        outputs: tuple[Tensor, ...] = self(*(torch.from_numpy(inputs[n]) for n in self.inputs))
        return outputs

    def answers(self, output: SystemOutput) -> tuple[Tensor, ...]:
        """Returns the graph's outputs, in order."""
        answers = (output.logits, output.valid, output.fused)
        return answers if self.calibration is None else (*answers, self.calibration(output.fused))


class ImageGraph(Graph):
    """From photographs and landmarks: masks, crops and resizing are in the graph."""

    kind: ClassVar[Kind] = "image"

    @property
    def inputs(self) -> dict[str, Shape]:
        """``image`` and ``landmarks``."""
        return {"image": ("batch", 3, "height", "width"), "landmarks": ("batch", NUM_LANDMARKS, 2)}

    def feeds(self, image: Tensor, landmarks: Tensor, extent: Tensor) -> Iterator[Arrays]:
        """See :meth:`Graph.feeds`; padded pictures, which it does not take, go one by one."""
        if torch.equal(extent, full_extent(image)):
            yield {"image": image.numpy(), "landmarks": landmarks.numpy()}
            return
        for picture, points, (width, height) in zip(image, landmarks, extent.tolist(), strict=True):
            own = np.ascontiguousarray(picture[None, :, :height, :width])
            yield {"image": own, "landmarks": points[None].numpy()}

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, ...]:
        """Scores faces as of :meth:`Graph.feeds`, pictures of one size, none of them padded."""
        return self.answers(self.system(image, landmarks))


class CropsGraph(Graph):
    """From ready crops, (B, R, 3, S, S).

    Where networks want crops of several kinds, there is an input for each kind, ``crops_0``,
    ``crops_1`` ..., in the order of the system's cuts.
    """

    kind: ClassVar[Kind] = "crops"

    @property
    def inputs(self) -> dict[str, Shape]:
        """``crops`` (or ``crops_0`` ...) and ``present``."""
        cuts = self.system.cuts.items()
        shapes: dict[str, Shape] = {
            name: ("batch", len(regions), 3, cut.size, cut.size)
            for name, (cut, regions) in zip(crop_inputs(self.system), cuts, strict=True)
        }
        return shapes | {"present": ("batch", len(self.system.regions))}

    def feeds(self, image: Tensor, landmarks: Tensor, extent: Tensor) -> Iterator[Arrays]:
        """See :meth:`Graph.feeds`; crops are made here."""
        with torch.inference_mode():
            crops, present = self.system.crops(image, landmarks, extent)
        pairs = zip(self.inputs, (*crops, present), strict=True)
        yield {name: values.numpy() for name, values in pairs}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores crops, for each cut (B, R of the cut, 3, S, S) float32 in [0, 1].

        The last input is ``present``, (B, R) bool: which regions are to be judged.
        """
        return self.answers(self.system.score(inputs[:-1], inputs[-1]))


class FacesGraph(Graph):
    """From faces cut out of their pictures: all that ``detect`` needs of PyTorch.

    Quality, gates, crops, networks and fusion are in the graph, and the crops as pictures.
    """

    kind: ClassVar[Kind] = "faces"

    @property
    def inputs(self) -> dict[str, Shape]:
        """Those of :func:`~deepregions.pipeline.scorer.face_inputs`, and the gates' numbers."""
        return {
            "image": ("batch", 3, "height", "width"),
            "landmarks": ("batch", NUM_LANDMARKS, 2),
            "extent": ("batch", 2),
            "scale": ("batch",),
            "confidence": ("batch",),
            "gates": (len(fields(Gates)),),
        }

    @property
    def outputs(self) -> dict[str, Shape]:
        """The answers, what was measured and judged, and for each cut ``seen_N``."""
        shapes = face_answers(self.system).items()
        return super().outputs | {name: ("batch", *shape) for name, shape in shapes}

    def feeds(self, image: Tensor, landmarks: Tensor, extent: Tensor) -> Iterator[Arrays]:
        """See :meth:`Graph.feeds`; at the scale of 1, and without a confidence."""
        batch = len(image)
        yield {
            "image": image.numpy(),
            "landmarks": landmarks.numpy(),
            "extent": extent.numpy(),
            "scale": np.ones(batch, np.float32),
            "confidence": np.full(batch, np.nan, np.float32),
            "gates": np.array(astuple(Gates()), np.float32),
        }

    def forward(  # noqa: PLR0917 - the graph's inputs
        self,
        image: Tensor,
        landmarks: Tensor,
        extent: Tensor,
        scale: Tensor,
        confidence: Tensor,
        gates: Tensor,
    ) -> tuple[Tensor, ...]:
        """Scores faces; ``gates`` are the numbers of a :class:`Gates`, in the order it has them."""
        quality = measure(image, landmarks, scale=scale, extent=extent, confidence=confidence)
        judged = judge(quality, Gates(*gates.unbind()))  # type: ignore[arg-type]
        crops, present = self.system.crops(image, landmarks, extent, judged.regions)
        output = self.system.score(crops, present)
        seen = ((own.clamp(0, 1) * 255).round().to(torch.uint8) for own in crops)
        return (
            *self.answers(output),
            present,
            *(getattr(quality, one.name) for one in fields(quality) if one.name != "confidence"),
            *(getattr(judged, one.name) for one in fields(judged)),
            *(own.permute(0, 1, 3, 4, 2) for own in seen),
        )


class HalfNetwork(nn.Module):
    """A network, changed in place, that computes in 16 bits between float32 crops and log-odds."""

    def __init__(self, detector: nn.Module, kind: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.kind = kind
        self.detector = detector.to(kind)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the log-odds (N,) float32 of crops (N, 3, S, S)."""
        answer: Tensor = self.detector(x.to(self.kind))
        return answer.float()
