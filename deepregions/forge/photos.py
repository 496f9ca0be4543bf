"""Forging the face in a photograph, at the photograph's own size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor
from torch.nn import functional

import deepregions
from deepregions.errors import UsageError
from deepregions.faces.landmarks import Face, LandmarkDetector
from deepregions.files import atomic_folder, sha256
from deepregions.forge.faces import Scene
from deepregions.forge.forger import make_method
from deepregions.forge.masks import CONFINED
from deepregions.forge.swap import choose_donors
from deepregions.media.images import read_image
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.tensors import as_array, as_tensor
from deepregions.types import REGIONS, Region

NOTE = "Synthetic: the face in this picture was forged by deepregions, for research."

_AROUND = 0.6  # of a face's width and height, on each side: what a forgery is made of
_LARGEST = 1024  # side of what is worked on; larger faces are worked on reduced, as fakes are made
_WIDEST = 3000  # of the side-by-side picture

# The IPTC's digital source type of a mix of elements of which at least one is synthetic.
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"
_XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description></rdf:RDF></x:xmpmeta>"""
_IMAGE_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photograph and the face in it that is to be forged."""

    path: Path
    face: Face


@dataclass(frozen=True, eq=False)
class ForgedPhoto:
    """A forged photograph and its original, (3, H, W) uint8 RGB: equal where the mask (H, W) is 0.

    ``record`` says what was done, as JSON values.
    """

    original: Tensor
    image: Tensor
    mask: Tensor
    record: dict[str, Any]


def find_portrait(path: Path, detector: LandmarkDetector) -> Portrait | None:
    """Returns a photograph's largest face; None if there is none."""
    faces = detector([read_image(path)])[0]
    usable = [face for face in faces if bool(np.isfinite(face.landmarks).all())]
    return Portrait(path, usable[0]) if usable else None


def pair_donors(portraits: Sequence[Portrait], seed: int) -> list[Portrait]:
    """Chooses a donor for each photograph: one whose face has a similar pose.

    Raises:
        UsageError: There are not two.
    """
    if len(portraits) < 2:
        raise UsageError(
            "a swap takes the faces of two photographs or more",
            "give another photograph, of somebody else, whose face can be found",
        )
    landmarks = torch.from_numpy(np.stack([one.face.landmarks for one in portraits]))
    draws = FaceRng(seeds_of([portrait.path.name for portrait in portraits], seed, "donors"))
    rows, _ = choose_donors(landmarks, torch.arange(len(portraits)), draws)
    return [portraits[row] for row in rows.tolist()]


def forge_photo(
    portrait: Portrait,
    method: str,
    *,
    region: Region | None = None,
    seed: int = 0,
    donor: Portrait | None = None,
    device: torch.device | str = "cpu",
) -> ForgedPhoto:
    """Forges the face in a photograph; every pixel around it stays as it was.

    A region confines the forgery to eyes, nose or mouth; the seed counts with the file's name;
    swaps need a donor.

    Raises:
        UsageError: The face cannot be forged: too little of it is in the picture.
    """
    original = as_tensor(read_image(portrait.path))
    (left, top, right, bottom), part, landmarks = _window(portrait.face, original)
    some, points = _worked_on(part, landmarks, _LARGEST / max(part.shape[1:]))
    scene = Scene(
        landmarks=points.to(device),
        size=(some.shape[2], some.shape[3]),
        parts=torch.tensor([[region == each for each in CONFINED]]),
    )
    other = None
    if donor is not None:
        other, others = (x.to(device) for x in _donor(donor, points))
        scene = replace(scene, donors=others, donor_size=(other.shape[2], other.shape[3]))
    # The picture around the face is not to change; see SelfBlend.
    maker = make_method(method, target_p=0.0)
    plan = maker.plan(scene, FaceRng(seeds_of([portrait.path.name], seed, method)))
    if not bool(plan.masks.touched[0, 0]):
        raise UsageError(f"{portrait.path}: too little of a face to forge", "give another picture")
    blend = maker.blend(some.to(device), other, plan)
    size = (part.shape[1], part.shape[2])
    source, mask = (
        functional.interpolate(x.cpu(), size, mode="bilinear", antialias=True).clamp(0, 255)
        for x in (blend.source, blend.mask)
    )
    forged, whole = original.clone(), torch.zeros(original.shape[1:])
    pasted = torch.lerp(part.float(), source[0], mask[0]).add(0.5).to(torch.uint8)
    forged[:, top:bottom, left:right] = pasted
    whole[top:bottom, left:right] = mask[0, 0]
    files = [
        {"file": each.path.name, "sha256": sha256(each.path)} if each else None
        for each in (portrait, donor)
    ]
    record = {
        "note": NOTE,
        "program": f"deepregions {deepregions.__version__}",
        "method": method,
        "region": str(region) if region else "face",
        "seed": seed,
        "source": files[0],
        "donor": files[1],
        "touched": dict(zip(map(str, REGIONS), plan.masks.touched[0].tolist(), strict=True)),
        "window": [left, top, right, bottom],
        "landmarks": portrait.face.landmarks.tolist(),
    }
    return ForgedPhoto(original, forged, whole, record)


def write_photo(photo: ForgedPhoto, folder: Path) -> None:
    """Writes ``forged.png``, ``mask.png``, ``side_by_side.png`` and ``forge.json`` to a folder.

    It is replaced if it exists. The pictures' metadata (PNG text, EXIF and the IPTC's digital
    source type in XMP) say that they are synthetic.
    """
    mask = (photo.mask * 255).round().to(torch.uint8)
    left, top, right, bottom = photo.record["window"]
    window = (slice(None), slice(top, bottom), slice(left, right))
    panels = [photo.original[window], photo.image[window], mask[None].expand(3, -1, -1)[window]]
    beside, forged = (
        Image.fromarray(as_array(pixels)) for pixels in (torch.cat(panels, dim=2), photo.image)
    )
    if beside.width > _WIDEST:
        beside = beside.resize((_WIDEST, max(1, round(beside.height * _WIDEST / beside.width))))
    with atomic_folder(folder) as partial:
        pictures = {"forged": forged, "mask": Image.fromarray(mask.numpy()), "side_by_side": beside}
        for name, picture in pictures.items():
            _save(picture, partial / f"{name}.png", photo.record)
        text = json.dumps(photo.record, indent=1) + "\n"
        (partial / "forge.json").write_text(text, encoding="utf-8")


def _window(face: Face, image: Tensor) -> tuple[tuple[int, int, int, int], Tensor, Tensor]:
    """Where to work (left, top, right, bottom, exclusive), the pixels there, the landmarks."""
    box, points = torch.from_numpy(face.box), torch.from_numpy(face.landmarks)
    low = torch.minimum(box[:2], points.amin(0))
    high = torch.maximum(box[2:], points.amax(0))
    around = _AROUND * (high - low)
    left, top = (low - around).floor().int().clamp(min=0).tolist()
    right, bottom = (high + around).ceil().int().tolist()
    right, bottom = min(right, image.shape[2]), min(bottom, image.shape[1])
    landmarks = points - torch.tensor([left, top])
    return (left, top, right, bottom), image[:, top:bottom, left:right], landmarks


def _worked_on(part: Tensor, landmarks: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Pixels (1, 3, h, w) and landmarks (1, 68, 2), made smaller if ``scale`` is below 1."""
    pixels = part[None].float()
    if scale < 1:
        size = [max(2, round(side * scale)) for side in part.shape[1:]]
        pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        ratio = torch.tensor([size[1] / part.shape[2], size[0] / part.shape[1]])
        landmarks = (landmarks + 0.5) * ratio - 0.5
    return pixels, landmarks[None]


def _donor(donor: Portrait, target: Tensor) -> tuple[Tensor, Tensor]:
    """A donor's face, about as large as the target's, or it would be sampled with gaps."""
    _, part, landmarks = _window(donor.face, as_tensor(read_image(donor.path)))
    wanted, there = (float((p.amax(0) - p.amin(0)).max()) for p in (target[0], landmarks))
    return _worked_on(part, landmarks, wanted / max(there, 1.0))


def _save(picture: Image.Image, path: Path, record: dict[str, Any]) -> None:
    said = f"{NOTE} Method: {record['method']}, {record['region']}; seed {record['seed']}."
    text = PngImagePlugin.PngInfo()
    for key, value in (("Description", said), ("Software", record["program"])):
        text.add_text(key, value)
    text.add_itxt("XML:com.adobe.xmp", _XMP)
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION], exif[_SOFTWARE] = said, record["program"]
    picture.save(path, pnginfo=text, exif=exif)
