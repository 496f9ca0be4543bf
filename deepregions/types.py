"""The words that every layer shares: classes, regions, statuses, and batches of faces.

Convention (everywhere in this package):
    Images are RGB. Tensors of images are (..., 3, H, W). Points are (x, y) in pixels, x to the
    right, y down; the centre of the top left pixel is (0, 0). 68 landmarks are in iBUG order:
    0-16 is the jaw from the image's left to its right, 36-41 the eye on the image's left (the
    person's right), 48-67 the mouth. 1 is fake.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

if TYPE_CHECKING:  # whoever needs the words alone need not wait for torch
    import torch
    from torch import Tensor

BONA_FIDE = 0
FAKE = 1

ORIGINAL = "original"  # what genuine faces have for the method by which they were made

NUM_LANDMARKS = 68


class Region(StrEnum):
    """A part of the face, in the paper's names and order (section 3.1)."""

    ENTIRE = "entire"
    EYES = "eyes"
    NOSE = "nose"
    MOUTH = "mouth"
    REST = "rest"


REGIONS: tuple[Region, ...] = tuple(Region)

Layout = Literal["masked", "tight", "context"]
Resample = Literal["bilinear", "nearest"]
Level = Literal["frame", "video"]

Cell = tuple[str, Region]  # the row of a detector, as a system or table names it, and a region


class CropSpec(NamedTuple):
    """How a network wants its crops."""

    size: int
    layout: Layout
    resample: Resample


class Status(StrEnum):
    """What came of an input, a track or a face. Only ``OK`` has a score."""

    OK = "ok"
    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    LOW_QUALITY = "low_quality"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    ERROR = "error"


class _Batch:
    """Moves every field that can be moved: tensors."""

    def _map(self, method: str, *args: Any, **kwargs: Any) -> Self:
        def moved(value: Any) -> Any:
            return getattr(value, method)(*args, **kwargs) if hasattr(value, method) else value

        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return type(self)(**{name: moved(getattr(self, name)) for name in names})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Returns the batch on a device (Lightning calls this)."""
        return self._map("to", device, non_blocking=non_blocking)

    def pin_memory(self) -> Self:
        """Returns the batch in page-locked memory (DataLoader calls this)."""
        return self._map("pin_memory")


@dataclass
class FaceBatch(_Batch):
    """Faces as they come from a store or a frame, before any cropping."""

    image: Tensor  # (B, 3, H, W) uint8 RGB, padded with black right and below
    landmarks: Tensor  # (B, 68, 2) float32 pixels of the image
    extent: Tensor  # (B, 2) int64 width and height without the padding
    label: Tensor  # (B,) int64, 1 is fake
    video: Tensor  # (B,) int64, equal for faces of one photo or video
    index: Tensor  # (B,) int64, the row in its store: a face must not count twice in an epoch
    key: tuple[str, ...]  # B names, unique within a database
    person: Tensor | None = None  # (B,) int64, equal for faces of one person, if that is known
    region_label: Tensor | None = None  # (B, 5) int64 of REGIONS; None: all are what the face is
    method: tuple[str, ...] = ()  # B names of how each was made, ORIGINAL for genuine ones


@dataclass
class RegionBatch(_Batch):
    """What detectors see; what is not explained here is as in :class:`FaceBatch`."""

    crops: Tensor  # (B, R, 3, S, S) float32 in [0, 1], black outside the region
    valid: Tensor  # (B, R) bool, whether the region is there to be judged
    label: Tensor
    video: Tensor
    index: Tensor
    key: tuple[str, ...]
    region_label: Tensor | None = None  # (B, R) int64; None: all are what the face is
    method: Tensor | None = None  # (B,) int64, which of the methods made it
    methods: tuple[str, ...] = ()  # their names, the first is ORIGINAL; figures are told for each
