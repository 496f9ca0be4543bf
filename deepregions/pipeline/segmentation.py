"""Segmentation: a face's five region images as files, which the original made with OpenFace 2."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deepregions.faces.cropping import RegionCropper
from deepregions.faces.cropping import segment as segment_face
from deepregions.faces.patches import upright
from deepregions.files import atomic_folder
from deepregions.pixels.tensors import as_array, as_tensor
from deepregions.types import REGIONS


def write_regions(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], folder: Path, size: int | None
) -> None:
    """Writes a face's regions as ``entire.png`` ... ``rest.png``, and its landmarks.

    The folder is replaced as a whole; canvases are stretched to squares of ``size``, if it is
    given.
    """
    picture, points = upright(image, landmarks)
    pixels, turned = as_tensor(picture), torch.from_numpy(points)
    if size is None:
        canvases = segment_face(pixels, turned)
    else:
        crops, _ = RegionCropper(size)(pixels[None], turned[None])
        canvases = dict(zip(REGIONS, (crops[0] * 255).round().to(torch.uint8), strict=True))
    with atomic_folder(folder) as partial:
        for region, canvas in canvases.items():
            Image.fromarray(as_array(canvas)).save(partial / f"{region}.png")
        units = "pixels of the picture, x right, y down"
        given = landmarks.tolist()  # not rounded: the same landmarks cut the same regions
        text = json.dumps({"order": "iBUG-68", "units": units, "points": given})
        (partial / "landmarks.json").write_text(text + "\n", encoding="utf-8")
