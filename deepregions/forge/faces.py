"""What a method is given and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from deepregions.pixels.face_rng import FaceRng

FACE_SHARE = 1.6
"""Side of a stored picture over that of the face in it, about: what a ``detail`` refers to."""


class Rows:
    """A dataclass whose fields have a row for each face: tensors, or others like this."""

    def __getitem__(self, rows: slice) -> Self:
        """Returns those of some neighbours."""
        values: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            values[item.name] = value[rows] if isinstance(value, Tensor | Rows) else value
        return replace(self, **values)  # type: ignore[type-var]


@dataclass(frozen=True)
class Blend:
    """A forgery: ``source`` where ``mask`` is 1, ``target`` where it is 0.

    Attributes:
        target: (B, 3, H, W) float32 in [0, 255]. Its genuine counterpart is this very picture.
        source: As ``target``, and not the same memory.
        mask: (B, 1, H, W) float32 in [0, 1].
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
        donors: (B, 68, 2) landmarks of somebody else for each of them, if there is anybody.
        donor_size: Height and width of their pictures.
    """

    landmarks: Tensor
    size: tuple[int, int]
    parts: Tensor
    donors: Tensor | None = None
    donor_size: tuple[int, int] = (0, 0)


PlanT = TypeVar("PlanT", bound=Rows)


class Method(Protocol[PlanT]):
    """Forges faces: first what needs no pixels, for all at once; then pixels, some at a time."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def needs_donors(self) -> bool:
        """Whether it takes something from somebody else."""

    def kinds(self, draws: FaceRng) -> Tensor:
        """Which way of the method each face goes, (B,) int64: those of a kind go together fastest.

        Args:
            draws: Of B faces.
        """

    def plan(self, scene: Scene, draws: FaceRng) -> PlanT:
        """Draws all that is drawn, and does what needs no pixels.

        Args:
            scene: B faces.
            draws: Of them.

        Returns:
            With ``masks``, a :class:`masks.Masks`.
        """

    def blend(self, pixels: Tensor, donors: Tensor | None, plan: PlanT) -> Blend:
        """Forges.

        Args:
            pixels: (B, 3, H, W) float32 RGB in [0, 255].
            donors: The same of somebody else for each of them.
            plan: Of the same B faces.
        """


def runs(kinds: Tensor) -> list[tuple[int, slice]]:
    """Returns the runs of equal neighbours in (B,) int64 on the host: each kind, and where."""
    values, counts = torch.unique_consecutive(kinds, return_counts=True)
    ends = counts.cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return [
        (kind, slice(start, end))
        for kind, start, end in zip(values.tolist(), starts, ends, strict=True)
    ]
