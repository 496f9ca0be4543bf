"""How near an exported file's answers are to PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepregions.deploy.faces import conditions
from deepregions.deploy.graph import Graph, ImageGraph
from deepregions.errors import require

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Parity:
    """How two ways to compute the same compare.

    Attributes:
        faces: How many were compared.
        cells: How many log-odds of networks, valid in both.
        logits: Largest difference of the networks' log-odds; NaN where one is not a number.
        fused: Largest difference of the fused log-odds, and of likelihood ratios.
        mean: Mean difference of the networks' log-odds.
        disputed: How many cells are valid in one and not in the other.
    """

    faces: int
    cells: int
    logits: float
    fused: float
    mean: float
    disputed: int

    def within(self, limit: float) -> bool:
        """Returns whether nothing differs by more, and something was compared."""
        near = self.logits <= limit and self.fused <= limit  # False where one is NaN
        return near and not self.disputed and self.cells > 0

    def __str__(self) -> str:
        said = (
            f"largest difference of log-odds {self.logits:.2g}, of fused ones {self.fused:.2g}, "
            f"mean {self.mean:.2g}, over {self.cells} answers for {self.faces} faces"
        )
        return said + (f"; {self.disputed} answers in one only" if self.disputed else "")


def compare(graph: Graph, path: Path) -> Parity:
    """Compares a file, run by onnxruntime, with the graph that it was made of.

    Args:
        graph: In float32, on the CPU.
        path: The exported file.

    Raises:
        MissingExtraError: onnxruntime is not installed, or what has the faces.
    """
    session = require("onnxruntime", "onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    pairs = []
    for inputs, given in _inputs(graph):
        with torch.inference_mode():
            expected = [answer.numpy() for answer in graph(*inputs)]
        answers = session.run([*graph.outputs], {key: each.numpy() for key, each in given.items()})
        pairs.append([dict(zip(graph.outputs, each, strict=True)) for each in (expected, answers)])
    return parity(pairs)


def parity(pairs: list[list[Arrays]]) -> Parity:
    """Compares answers of two ways, batch by batch: logits, valid, fused, and llr if there."""
    expected, got = (
        {key: np.concatenate([pair[way][key] for pair in pairs]) for key in pairs[0][0]}
        for way in (0, 1)
    )
    both = expected["valid"] & got["valid"]
    difference = np.abs(expected["logits"] - got["logits"])[both]
    return Parity(
        faces=len(both),
        cells=int(both.sum()),
        logits=float(difference.max(initial=0.0)),
        fused=max(_largest(expected[key], got[key]) for key in ("fused", "llr") if key in got),
        mean=float(difference.mean()) if difference.size else 0.0,
        disputed=int((expected["valid"] != got["valid"]).sum()),
    )


def _largest(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """The largest difference; what is no finite number, for no answer, must be so in both."""
    known = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~known], b[~known], equal_nan=True):
        return float("nan")
    return float(np.abs(a[known] - b[known]).max(initial=0.0))


def _inputs(graph: Graph) -> Iterator[tuple[tuple[Any, ...], dict[str, Tensor]]]:
    """Yields a graph's inputs as it takes them, and by name."""
    for image, landmarks in conditions():
        if isinstance(graph, ImageGraph):
            yield (image, landmarks), {"image": image, "landmarks": landmarks}
            continue
        crops, present = cut(graph, image, landmarks)
        named = dict(zip(graph.inputs, (*crops, present), strict=True))
        yield (crops, present), named


@torch.inference_mode()
def cut(graph: Graph, image: Tensor, landmarks: Tensor) -> tuple[list[Tensor], Tensor]:
    """Makes the inputs of a graph of crops: crops of each kind, and (B, R) what is present."""
    system = graph.system
    made = [cropper(image, landmarks) for cropper in system.croppers]
    present = {
        region: valid[:, number]
        for regions, (_, valid) in zip(system.cuts.values(), made, strict=True)
        for number, region in enumerate(regions)
    }
    there = torch.stack([present[region] for region in system.regions], dim=1)
    return [crops for crops, _ in made], there
