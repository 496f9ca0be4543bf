"""FAN landmarks (Bulat and Tzimiropoulos, ICCV 2017) by the face-alignment package, in batches.

The package's own networks, finders and cropping; but frames go in batches, coordinates keep their
fractions, and the weights of FAN and S3FD are verified.
"""

import logging
import pickle
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from face_alignment import utils
from face_alignment.models import FAN
from numpy.typing import NDArray
from torch import Tensor, nn

from deepregions import assets
from deepregions.errors import AssetError
from deepregions.faces.finders import YUNET
from deepregions.faces.landmarks import Face, Frames, Place, largest_first

logger = logging.getLogger(__name__)

_HOST = "https://www.adrianbulat.com/downloads/python-fan"

# The package's files; ten digits of their digests are in their names.
FAN_2D = assets.Asset(
    name="2DFAN4-11f355bf06.pth.tar",
    url=f"{_HOST}/2DFAN4-11f355bf06.pth.tar",
    sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
    license="BSD-3-Clause (face-alignment); trained on 300W-LP",
    source="face-alignment, 2DFAN-4",
)
S3FD = assets.Asset(
    name="s3fd-619a316812.pth",
    url=f"{_HOST}/s3fd-619a316812.pth",
    sha256="619a31681264d3f7f7fc7a16a42cbbe8b23f31a256f75a366e5a1bcd59b33543",
    license="BSD-3-Clause (face-alignment); trained on WIDER FACE",
    source="face-alignment, S3FD",
)

Boxes = NDArray[np.float64]  # (N, 5) x0, y0, x1, y1, score

# What torch.load says of files that are no state dicts, or those of another network.
_NO_WEIGHTS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


class _Crop(NamedTuple):
    """A face as FAN sees it: 256 x 256 RGB, and where it lies in its frame."""

    pixels: NDArray[np.uint8]
    box: NDArray[np.float32]  # x0, y0, x1, y1, score
    centre: NDArray[np.float64]
    side: float


class FanLandmarks:
    """FAN's 68 landmarks, as sure as :func:`peak_heights`, of faces that the package has found.

    Raises:
        AssetError: Weights are missing and cannot be fetched, or are not what they should be.
    """

    side = 640  # pixels of the longer side in which faces are looked for
    frames_at_once = 8
    faces_at_once = 32

    def __init__(self, device: str = "cpu", finder: str = "sfd") -> None:
        self.name = f"fan+{finder}"
        package = metadata.version("face-alignment")
        self.version = f"face-alignment {package}; 2DFAN4 {FAN_2D.sha256[:8]}; {finder}"
        self._device = torch.device(device)
        self._network: nn.Module = _network(self._device)
        self._finder = _finder(finder, device)

    @torch.inference_mode()
    def __call__(
        self,
        frames: Frames,
        places: Sequence[Place] = (),  # noqa: ARG002 - part of the protocol
    ) -> list[list[Face]]:
        """Returns each frame's faces, largest first; a frame that fails has none."""
        found: list[list[Face]] = []
        for start in range(0, len(frames), self.frames_at_once):
            chunk = frames[start : start + self.frames_at_once]
            images = torch.from_numpy(np.stack([*chunk])).permute(0, 3, 1, 2)
            crops = [self._crops(*pair) for pair in zip(chunk, self._boxes(images), strict=True)]
            faces = iter(self._faces([crop for own in crops for crop in own]))
            found += [largest_first(islice(faces, len(own))) for own in crops]
        return found

    def _boxes(self, frames: Tensor) -> Iterator[Boxes]:
        """Yields the faces of each frame, in its pixels, without those that are no face's box."""
        height, width = frames.shape[-2:]
        scale = min(self.side / max(height, width), 1.0)
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        reduced = frames.to(self._device)
        if scale < 1:
            reduced = nn.functional.interpolate(
                reduced.float(), size, mode="bilinear", antialias=True, align_corners=False
            )
            reduced = reduced.round().to(torch.uint8)
        factor = np.array([width / size[1], height / size[0]] * 2)
        for rows in self._found(reduced):
            boxes: Boxes = np.array([np.asarray(row, np.float64)[:5] for row in rows])
            boxes = boxes.reshape(-1, 5)
            boxes[:, :4] = boxes[:, :4] * factor - 0.5
            large = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= 4
            yield boxes[np.isfinite(boxes).all(axis=1) & large]

    def _found(self, frames: Tensor) -> list[Any]:
        try:
            return list(self._finder.detect_from_batch(frames))
        except (RuntimeError, ValueError, IndexError, cv2.error) as error:
            if len(frames) > 1:  # one bad frame must not take the others away
                return [self._found(frame[None])[0] for frame in frames]
            logger.warning("a frame has no faces, as the search failed: %s", error)
            return [[]]

    def _crops(self, frame: NDArray[np.uint8], boxes: Boxes) -> list[_Crop]:
        if not len(boxes):
            return []
        image = np.ascontiguousarray(frame)
        crops = []
        for box in boxes:
            (x0, y0, x1, y1), (width, height) = box[:4], box[2:4] - box[:2]
            centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - height * utils.CENTER_Y_OFFSET])
            scale = (width + height) / self._finder.reference_scale
            try:
                pixels = utils.crop(image, centre, scale)
            except (RuntimeError, ValueError, cv2.error) as error:  # a box outside the frame
                logger.warning("a face at %s was left out: %s", box[:4].tolist(), error)
                continue
            side = utils.SCALE_FACTOR * scale
            crops.append(_Crop(pixels, box.astype(np.float32), centre, side))
        return crops

    def _faces(self, crops: list[_Crop]) -> Iterator[Face]:
        for start in range(0, len(crops), self.faces_at_once):
            part = crops[start : start + self.faces_at_once]
            heat = self._heat(np.stack([crop.pixels for crop in part]))
            sure, points = peak_heights(heat).tolist(), peaks(heat).cpu().double().numpy()
            for (_, box, centre, side), within, confidence in zip(part, points, sure, strict=True):
                # The package rounds these down to whole pixels: half a pixel less, on average.
                exact = (centre + (within - 0.5) * side - 0.5).astype(np.float32)
                yield Face(box[:4], exact, float(box[4]), confidence)

    def _heat(self, crops: NDArray[np.uint8]) -> Tensor:
        """Returns (N, 68, 64, 64) heat maps of (N, 256, 256, 3) crops and their mirror images."""
        batch = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).float() / 255
        # Of FAN's stacked hourglasses, the last.
        mirrored: Tensor = utils.flip(self._network(utils.flip(batch))[-1], is_label=True)
        plain: Tensor = self._network(batch)[-1]
        return plain + mirrored


def peak_heights(heat: Tensor) -> Tensor:
    """Returns how sure FAN is of landmarks, (N,) in [0, 1]: the mean height of its maps' peaks.

    FAN was trained to give maps, (N, L, S, S), whose peak is 1; these are of crops and their mirror
    images, summed.
    """
    return (heat.flatten(2).amax(dim=2) / 2).clamp(0, 1).mean(dim=1)


def peaks(heat: Tensor) -> Tensor:
    """Returns where maps (N, L, S, S) are hottest: (N, L, 2) x, y as fractions of their side."""
    size, flat = heat.shape[-1], heat.flatten(2)
    index = flat.argmax(dim=2)
    x, y = index % size, index // size
    inside = (x > 0) & (x < size - 1) & (y > 0) & (y < size - 1)

    def slope(step: int) -> Tensor:
        low = flat.gather(2, (index - step).clamp_min(0)[..., None]).squeeze(2)
        high = flat.gather(2, (index + step).clamp_max(size * size - 1)[..., None]).squeeze(2)
        return torch.where(inside, (high - low).sign() * 0.25, 0.0)

    return torch.stack([x + 0.5 + slope(1), y + 0.5 + slope(size)], dim=2) / size


def _verified(asset: assets.Asset) -> Path:
    """Finds an asset where the package's own download puts it, or else in our cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / asset.name
    return assets.verify(path, asset) if path.is_file() else assets.fetch(asset)


def _network(device: torch.device) -> nn.Module:
    path = _verified(FAN_2D)
    network: nn.Module = FAN(4)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except _NO_WEIGHTS as error:
        raise AssetError(f"{path}: no FAN weights: {error}", "delete it") from error
    return network.to(device).eval()


def _finder(name: str, device: str) -> Any:
    """Makes one of the package's face finders, from files that hold tensors and nothing else."""
    path = _verified(S3FD) if name == "sfd" else assets.fetch(YUNET)
    finder = import_module(f"face_alignment.detection.{name}").FaceDetector
    try:
        return finder(device, verbose=False, path_to_detector=str(path))
    except (*_NO_WEIGHTS, cv2.error) as error:
        raise AssetError(f"{path}: no weights of {name}: {error}") from error
