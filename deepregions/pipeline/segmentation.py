"""The five region images of a face as files: what the original needed OpenFace 2 for."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from deepregions.faces.cropping import RegionCropper
from deepregions.faces.cropping import segment as segment_face
from deepregions.files import atomic_folder
from deepregions.types import REGIONS, Region


def cut_regions(image: Tensor, landmarks: Tensor, size: int | None) -> dict[Region, Tensor]:
    """Cuts one face into its regions.

    Args:
        image: (3, H, W) uint8 RGB.
        landmarks: (68, 2) pixels of ``image``.
        size: Side of the square to stretch each canvas to; None keeps its native size.

    Returns:
        (3, h, w) uint8 canvases, black outside the region.
    """
    if size is None:
        return segment_face(image, landmarks)
    crops, _ = RegionCropper(size)(image[None], landmarks[None])
    pixels = (crops[0] * 255).round().to(torch.uint8)
    return dict(zip(REGIONS, pixels, strict=True))


def write_regions(regions: dict[Region, Tensor], landmarks: Tensor, folder: Path) -> None:
    """Writes a face's regions as ``entire.png`` ... ``rest.png``, and its landmarks.

    Args:
        regions: Canvases, as :func:`cut_regions` gives them.
        landmarks: (68, 2) pixels of the picture that the face was found in.
        folder: Replaced as a whole if it is there.
    """
    with atomic_folder(folder) as partial:
        for region, canvas in regions.items():
            Image.fromarray(canvas.permute(1, 2, 0).numpy()).save(partial / f"{region}.png")
        units = "pixels of the picture, x right, y down"
        points = landmarks.tolist()  # not rounded: the same landmarks cut the same regions
        text = json.dumps({"order": "iBUG-68", "units": units, "points": points})
        (partial / "landmarks.json").write_text(text + "\n", encoding="utf-8")
