"""How near an exported file's answers are to PyTorch's, on one portrait in many conditions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from deepregions.deploy.graph import Graph
from deepregions.deploy.runtimes import Arrays, OnnxRuntime, TorchRuntime
from deepregions.errors import ExportError, require
from deepregions.faces.backends import landmark_detector
from deepregions.faces.cropping import full_extent
from deepregions.pixels.tensors import as_tensor

_PORTRAIT = (slice(0, 320), slice(60, 380))  # of scikit-image's astronaut: head and shoulders
_TINY = 12 / 150  # of the portrait: a face of some 12 pixels


@dataclass(frozen=True)
class Parity:
    """How two ways to compute the same compare.

    Attributes:
        cells: How many log-odds of networks, valid in both.
        logits: Largest difference of the networks' log-odds; NaN where one is not a number.
        fused: Largest difference of the fused log-odds, and of likelihood ratios.
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


def conditions() -> Iterator[tuple[Tensor, Tensor]]:
    """Yields images (B, 3, H, W) uint8 with landmarks: of several sizes, and bad ones.

    Raises:
        MissingExtraError: scikit-image, whose portrait it is, is not installed.
        AssetError: dlib's landmarks are not to be had.
    """
    image, points = portrait()
    yield image[None], points[None]
    noise = torch.randint(-40, 41, image.shape, generator=torch.Generator().manual_seed(0))
    noisy = (image.int() + noise).clamp(0, 255).to(torch.uint8)
    half, half_points = _scaled(torch.stack((image, image // 3, noisy)), points, 0.6)
    yield half, half_points.expand(3, -1, -1).clone()
    cut = torch.zeros_like(image)
    middle = int(points[:, 0].mean())
    cut[:, :, : image.shape[2] - middle] = image[:, :, middle:]
    tiny, tiny_points = _scaled(image[None], points, _TINY)
    corner = torch.zeros_like(image)
    corner[:, : tiny.shape[2], : tiny.shape[3]] = tiny[0]
    moved = points - torch.tensor([float(middle), 0.0])
    lost = torch.full_like(points, torch.nan)
    yield (
        torch.stack((image, cut, corner, image)),
        torch.stack((points, moved, tiny_points, lost)),
    )
    large, large_points = _scaled(image[None], points, 1.7)
    yield functional.pad(large, (30, 200, 90, 10)), large_points[None] + torch.tensor([30.0, 90.0])


def portrait() -> tuple[Tensor, Tensor]:
    """Returns a photograph (3, H, W) uint8, and its face's landmarks (68, 2), by dlib.

    Raises:
        MissingExtraError: scikit-image is not installed.
        ExportError: No face is found, which must not be.
    """
    pixels = np.ascontiguousarray(require("skimage.data", "onnxruntime").astronaut()[_PORTRAIT])
    image = as_tensor(pixels).contiguous()
    found = landmark_detector("dlib-hog")([pixels])[0]
    if not found:
        raise ExportError("no face is found on scikit-image's portrait", "deepregions doctor")
    return image, torch.from_numpy(found[0].landmarks)


def _scaled(images: Tensor, points: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Makes images (B, 3, H, W) larger or smaller, with landmarks (68, 2)."""
    size = [round(side * factor) for side in images.shape[2:]]
    scaled = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    ratio = torch.tensor([size[1] / images.shape[3], size[0] / images.shape[2]])
    return scaled.round().clamp(0, 255).to(torch.uint8), (points + 0.5) * ratio - 0.5
