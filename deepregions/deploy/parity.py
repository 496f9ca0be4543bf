"""How near an exported file's answers are to PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregions.deploy.faces import conditions
from deepregions.deploy.graph import Arrays, Graph
from deepregions.deploy.runtimes import OnnxRuntime, TorchRuntime
from deepregions.faces.cropping import full_extent


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
        silent: The networks that answer no face at all, not even by PyTorch.
    """

    faces: int
    cells: int
    logits: float
    fused: float
    mean: float
    disputed: int
    silent: tuple[str, ...] = ()

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

    Raises:
        MissingExtraError: onnxruntime is not installed, or what has the faces.
        UnsupportedError: onnxruntime cannot load the file.
    """
    original, exported = TorchRuntime(graph), OnnxRuntime(path)
    pairs = [
        [original.run(inputs), exported.run(inputs)]
        for image, landmarks in conditions()
        for inputs in graph.feeds(image, landmarks, full_extent(image))
    ]
    spoke = np.asarray(np.concatenate([expected["valid"] for expected, _ in pairs]).any(axis=0))
    networks = zip(graph.system.members, graph.system.cells, strict=True)
    silent = tuple(member.name for member, cell in networks if not spoke[cell])
    return replace(parity(pairs), silent=silent)


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
