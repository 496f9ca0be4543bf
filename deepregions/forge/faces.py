"""Faces as a forging method takes and returns them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from deepregions.pixels.face_rng import FaceRng

FACE_SHARE = 1.6
"""About how much larger a stored picture is than the face in it; ``detail`` refers to the face."""


class Rows:
    """A dataclass whose fields have one row per face: tensors, or other ``Rows``."""

    def __getitem__(self, rows: slice) -> Self:
        """Returns a slice of the faces."""
        values: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            values[item.name] = value[rows] if isinstance(value, Tensor | Rows) else value
        return replace(self, **values)  # type: ignore[type-var]


@dataclass(frozen=True)
class Blend:
    """A forgery: ``source`` where ``mask`` is 1, ``target``, its genuine twin, where it is 0.

    Both are (B, 3, H, W) float32 in [0, 255], in memory of their own; the mask is (B, 1, H, W).
    """

    target: Tensor
    source: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Scene:
    """Faces to forge, without their pixels.

    Attributes:
        landmarks: (B, 68, 2) float32, finite.
        size: Height and width of the pictures.
        parts: (B, 3) bool on the host, the regions of :data:`masks.CONFINED` to which each forgery
            is confined; none: the whole face.
        donors: (B, 68, 2) landmarks of another person for each face, if there is one.
    """

    landmarks: Tensor
    size: tuple[int, int]
    parts: Tensor
    donors: Tensor | None = None
    donor_size: tuple[int, int] = (0, 0)


PlanT = TypeVar("PlanT", bound=Rows)


class Method(ABC, Generic[PlanT]):
    """Forges faces: plans for the whole batch without pixels, then blends a few at a time."""

    name: ClassVar[str]
    needs_donors: ClassVar[bool] = False  # other people's faces

    def kinds(self, draws: FaceRng) -> Tensor:
        """Draws a variant of the method for each face, (B,) int64; equal variants run together."""
        return torch.zeros(len(draws), dtype=torch.int64)

    @abstractmethod
    def plan(self, scene: Scene, draws: FaceRng) -> PlanT:
        """Draws all random numbers, and computes what needs no pixels; has ``masks``."""

    @abstractmethod
    def blend(self, pixels: Tensor, donors: Tensor | None, plan: PlanT) -> Blend:
        """Forges; pixels and donors' pictures are (B, 3, H, W) float32 RGB in [0, 255]."""


def runs(kinds: Tensor) -> list[tuple[int, slice]]:
    """Returns the runs of equal neighbours in (B,) int64 on the host: each value and its slice."""
    values, counts = torch.unique_consecutive(kinds, return_counts=True)
    ends = [0, *counts.cumsum(0).tolist()]
    return [
        (kind, slice(*pair)) for kind, pair in zip(values.tolist(), pairwise(ends), strict=True)
    ]
