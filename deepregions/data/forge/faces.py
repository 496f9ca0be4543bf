"""What a method is given and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from deepregions.data.draws import Draws

FACE_SHARE = 1.6
"""Side of a stored picture over that of the face in it, about: what a ``detail`` refers to."""


@dataclass(frozen=True)
class Faces:
    """A batch of faces in work.

    Attributes:
        pixels: (B, 3, H, W) RGB in [0, 255], uint8 or, in work, float32.
        landmarks: (B, 68, 2) float32, finite.
    """

    pixels: Tensor
    landmarks: Tensor

    def rows(self, index: Tensor) -> Faces:
        """Returns some of them."""
        return Faces(self.pixels.index_select(0, index), self.landmarks.index_select(0, index))

    def to(self, device: torch.device | str) -> Faces:
        """Returns them on a device."""
        return Faces(self.pixels.to(device), self.landmarks.to(device))

    def floating(self) -> Faces:
        """Returns them with float32 pixels."""
        return Faces(self.pixels.float(), self.landmarks)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[2], self.pixels.shape[3]


def runs(kinds: Tensor) -> list[tuple[int, slice]]:
    """Returns the runs of equal neighbours in (B,) int64 on the host: each kind, and where."""
    values, counts = torch.unique_consecutive(kinds, return_counts=True)
    ends = counts.cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return [
        (kind, slice(*ends_)) for kind, *ends_ in zip(values.tolist(), starts, ends, strict=True)
    ]


@dataclass(frozen=True)
class Blend:
    """A forgery: ``source`` where ``mask`` is 1, ``target`` where it is 0.

    Attributes:
        target: (B, 3, H, W) float32 in [0, 255]. Its genuine counterpart is this very picture.
        source: As ``target``.
        mask: (B, 1, H, W) float32 in [0, 1].
        touched: (B, 5) bool, which regions are replaced, in the order of ``REGIONS``.
    """

    target: Tensor
    source: Tensor
    mask: Tensor
    touched: Tensor


class Method(Protocol):
    """Forges a batch of faces."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def needs_donors(self) -> bool:
        """Whether it takes something from somebody else."""

    def kinds(self, draws: Draws) -> Tensor:
        """Which way of the method each face goes, (B,) int64: those of a kind go together fastest.

        Args:
            draws: Of B faces.
        """

    def __call__(self, faces: Faces, donors: Faces | None, parts: Tensor, draws: Draws) -> Blend:
        """Forges.

        Args:
            faces: B faces.
            donors: Somebody else for each of them; None where there is nobody.
            parts: (B, 3) bool on the host, the regions of :data:`masks.CONFINED` to which each
                forgery is confined; none: the whole face.
            draws: Of B faces.
        """
