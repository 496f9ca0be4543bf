"""Segmentation: a face's five region images as files, which the original made with OpenFace 2."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from deepregions.faces.cropping import RegionCropper
from deepregions.faces.cropping import segment as segment_face
from deepregions.faces.patches import upright
from deepregions.files import atomic_folder
from deepregions.types import REGIONS


def write_regions(image: Tensor, landmarks: Tensor, folder: Path, size: int | None) -> None:
    """Writes a face's regions as ``entire.png`` ... ``rest.png``, and its landmarks.

    The folder is replaced as a whole; canvases are stretched to squares of ``size``, if it is
    given.
    """
    image, turned = upright(image, landmarks)
    if size is None:
        canvases = segment_face(image, turned)
    else:
        crops, _ = RegionCropper(size)(image[None], turned[None])
        canvases = dict(zip(REGIONS, (crops[0] * 255).round().to(torch.uint8), strict=True))
    with atomic_folder(folder) as partial:
        for region, canvas in canvases.items():
            Image.fromarray(canvas.permute(1, 2, 0).numpy()).save(partial / f"{region}.png")
        units = "pixels of the picture, x right, y down"
        points = landmarks.tolist()  # not rounded: the same landmarks cut the same regions
        text = json.dumps({"order": "iBUG-68", "units": units, "points": points})
        (partial / "landmarks.json").write_text(text + "\n", encoding="utf-8")
