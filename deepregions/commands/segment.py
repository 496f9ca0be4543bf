"""``deepregions segment``: the five region images of each face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.commands import checks
from deepregions.commands.options import check_there, photographs
from deepregions.errors import DeepregionsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

NOTHING_FOUND = 5


def segment(
    images: list[Path],
    *,
    out: Path,
    landmarks: Path | None = None,
    size: int | None = None,
    backend: str = "auto",
    device: str = "auto",
) -> int:
    """Cuts the five region images of each face in photographs.

    Writes OUT/IMAGE/face-N/{entire,eyes,nose,mouth,rest}.png, each on the face's own canvas and
    black outside the region, with landmarks.json beside them. The largest face is face-0. Prints
    one folder per line. Exits with 5 if no face was found at all.

    Args:
        images: Photographs, or folders of them.
        out: The folder to write to.
        landmarks: A JSON file with the 68 landmarks ("points", in pixels) of the faces in the
            one image, instead of searching for faces.
        size: Stretch each canvas to SIZE x SIZE pixels, as detectors see it; native size by
            default.
        backend: Landmark backend: auto, dlib, dlib-hog, face_alignment, or openface:FOLDER for
            CSV files of OpenFace 2.
        device: auto, cpu, cuda or cuda:N; for the landmark backend.
    """
    from deepregions.files import Names
    from deepregions.media import MediaReader, Sampling

    if size is not None:
        checks.positive(size=size)
    files = photographs(images, "segment")
    check_there(landmarks)
    if landmarks is not None and len(files) != 1:
        raise UsageError(f"--landmarks is for one image, not {len(files)}")
    import torch  # noqa: F401 - where it is missing, that is said before faces are looked for

    find = _finder(landmarks, backend, device)
    written = 0
    names = Names()
    with MediaReader() as reader:
        opened = reader.open_all(files, Sampling())
        for media in checks.progress(opened, "segmenting", len(files)):
            folder = out / names.unused(media.path.stem)
            try:
                image = next(media.batches(1))[0].image
                faces = find(image, media.path)
                for number, points in enumerate(faces):
                    target = folder / f"face-{number}"
                    _write_regions(image, points, target, size)
                    checks.print_lines(str(target))
            except DeepregionsError as error:
                checks.warn(str(error))
                continue
            if not faces:
                checks.warn(f"{media.path}: no face was found")
            written += len(faces)
    return 0 if written else NOTHING_FOUND


def _finder(
    file: Path | None, backend: str, device: str
) -> Callable[[NDArray[np.uint8], Path], Sequence[NDArray[np.float32]]]:
    """Returns what gives the (68, 2) landmarks of each face of a (H, W, 3) uint8 image."""
    from deepregions.faces.backends import landmark_detector
    from deepregions.faces.landmarks import Place, read_landmarks

    if file is not None:
        known = list(read_landmarks(file))
        return lambda *_: known
    detector = landmark_detector(backend, device)
    return lambda image, path: [face.landmarks for face in detector([image], [Place(path)])[0]]


def _write_regions(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], folder: Path, size: int | None
) -> None:
    """Writes a face's regions and landmarks; the folder is replaced as a whole."""
    import torch
    from PIL import Image

    from deepregions.faces.cropping import RegionCropper
    from deepregions.faces.cropping import segment as segment_face
    from deepregions.faces.patches import upright
    from deepregions.files import atomic_folder
    from deepregions.pixels.tensors import as_array, as_tensor
    from deepregions.types import REGIONS

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
