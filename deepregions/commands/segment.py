"""``deepregions segment``: the five region images of each face."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from deepregions.media import OpenMedia

    _Find = Callable[[Tensor, Path], list[Tensor]]

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
    black outside the region, and landmarks.json beside them. Faces are numbered by size, the
    largest is 0. Prints one folder per line. Exits with 5 if no face was found at all.

    Args:
        images: Photographs, or folders of them.
        out: The folder to write to.
        landmarks: 68 landmarks of the faces in the (one) image, as JSON with "points" in pixels;
            no face is searched then.
        size: Stretch each canvas to SIZE x SIZE pixels, as detectors see it; native size if left
            out.
        backend: Which landmark backend: auto, dlib, dlib-hog, face_alignment, or
            openface:FOLDER for the CSV files of OpenFace.
        device: auto, cpu, cuda or cuda:N, for the landmark backend.
    """
    from deepregions.commands import checks
    from deepregions.errors import DeepregionsError, UsageError, printable
    from deepregions.files import Names
    from deepregions.media import MediaReader, Sampling, find_media, is_video

    if size is not None:
        checks.positive(size=size)
    files = [path for path in find_media(images) if not is_video(path)]
    if not files:
        raise UsageError("there are no images among the inputs", "segment takes photographs")
    if landmarks is not None and len(files) != 1:
        raise UsageError(f"--landmarks is for one image, not {len(files)}")
    find = _finder(landmarks, backend, device)
    written = 0
    names = Names()
    with MediaReader() as reader:
        opened = reader.open_all(files, Sampling())
        for media in checks.progress(opened, "segmenting", len(files)):
            try:
                count = _segment_one(media, find, out / names.unused(media.path.stem), size)
            except DeepregionsError as error:
                sys.stderr.write(f"deepregions: {error}\n")
                continue
            if not count:
                sys.stderr.write(f"deepregions: {printable(str(media.path))}: no face was found\n")
            written += count
    return 0 if written else NOTHING_FOUND


def _finder(file: Path | None, backend: str, device: str) -> _Find:
    """Returns what gives the (68, 2) landmarks of each face of a (3, H, W) uint8 image."""
    from deepregions.faces.backends import landmark_detector
    from deepregions.faces.landmarks import Place, read_landmarks

    if file is not None:
        known = list(read_landmarks(file))
        return lambda *_: known
    detector = landmark_detector(backend, device)
    return lambda image, path: [face.landmarks for face in detector(image[None], [Place(path)])[0]]


def _segment_one(media: OpenMedia, find: _Find, folder: Path, size: int | None) -> int:
    from deepregions.pipeline.segmentation import write_regions

    image = next(media.batches(1))[0].image
    faces = find(image, media.path)
    for number, landmarks in enumerate(faces):
        target = folder / f"face-{number}"
        write_regions(image, landmarks, target, size)
        sys.stdout.write(f"{target}\n")
    return len(faces)
