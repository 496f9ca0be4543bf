"""FAN landmarks (Bulat and Tzimiropoulos, ICCV 2017) by the face-alignment package, in batches.

The package's own networks, face finders and cropping; but frames are searched and faces are
landmarked in batches, coordinates keep their fractions, and the weights of FAN and S3FD are
verified. Its ``FaceAlignment`` class goes image by image, downloads at construction without a
timeout, and trusts what it finds.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

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
from deepregions.faces.landmarks import Face, Place

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

# What torch.load says of files that are no state dicts, or those of another network.
_NO_WEIGHTS = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True)
class _Crop:
    """A face as FAN sees it: 256 x 256 RGB, and where it lies in its frame."""

    pixels: NDArray[np.uint8]
    box: Tensor  # x0, y0, x1, y1, score
    centre: NDArray[np.float64]
    side: float


class FanLandmarks:
    """FAN's 68 two-dimensional landmarks: a :class:`~deepregions.faces.landmarks.LandmarkDetector`.

    Confidence is by :func:`peak_heights`.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        finder: Which of the package's face finders: ``sfd`` or ``yunet``, whose files are verified.

    Raises:
        AssetError: Weights are missing and cannot be fetched, or are not what they should be.
    """

    side = 640  # pixels of the longer side in which faces are looked for
    frames_at_once = 8
    faces_at_once = 32

    def __init__(self, device: str = "cpu", finder: str = "sfd") -> None:
        self._device = torch.device(device)
        self._network: nn.Module = _network(self._device)
        self._finder = _finder(finder, device)
        self._finder_name = finder

    @property
    def name(self) -> str:
        """Landmarks, then finder: ``"fan+sfd"``."""
        return f"fan+{self._finder_name}"

    @property
    def version(self) -> str:
        """The package, FAN's weights, and the finder."""
        package = metadata.version("face-alignment")
        return f"face-alignment {package}; 2DFAN4 {FAN_2D.sha256[:8]}; {self._finder_name}"

    @torch.inference_mode()
    def __call__(
        self,
        frames: Tensor,
        places: Sequence[Place] = (),  # noqa: ARG002 - part of the protocol
    ) -> list[list[Face]]:
        """Returns each frame's faces, largest first; a frame that fails has none.

        Args:
            frames: (T, 3, H, W) uint8 RGB, on any device.
            places: Not needed.
        """
        found: list[list[Face]] = []
        for start in range(0, len(frames), self.frames_at_once):
            chunk = frames[start : start + self.frames_at_once]
            crops = [self._crops(*pair) for pair in zip(chunk, self._boxes(chunk), strict=True)]
            points = iter(self._points([crop for own in crops for crop in own]))
            for own in crops:
                faces = [_face(crop, *next(points)) for crop in own]
                faces.sort(key=lambda face: -float((face.box[2:] - face.box[:2]).prod()))
                found.append(faces)
        return found

    def _boxes(self, frames: Tensor) -> list[NDArray[np.float64]]:
        """Returns (N, 5) x0, y0, x1, y1, score for each frame, in its pixels."""
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
        return [_scaled(rows, factor) for rows in self._found(reduced)]

    def _found(self, frames: Tensor) -> list[Any]:
        try:
            return list(self._finder.detect_from_batch(frames))
        except (RuntimeError, ValueError, IndexError, cv2.error) as error:
            if len(frames) > 1:  # one bad frame must not take the others away
                return [self._found(frame[None])[0] for frame in frames]
            logger.warning("a frame has no faces, as the search failed: %s", error)
            return [[]]

    def _crops(self, frame: Tensor, boxes: NDArray[np.float64]) -> list[_Crop]:
        if not len(boxes):
            return []
        image = frame.permute(1, 2, 0).contiguous().cpu().numpy()
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
            crops.append(_Crop(pixels, torch.from_numpy(box.astype(np.float32)), centre, side))
        return crops

    def _points(self, crops: list[_Crop]) -> list[tuple[Tensor, float]]:
        """Returns each crop's (68, 2) landmarks in its frame's pixels, and their confidence."""
        points = []
        for start in range(0, len(crops), self.faces_at_once):
            part = crops[start : start + self.faces_at_once]
            heat = self._heat(np.stack([crop.pixels for crop in part]))
            sure = peak_heights(heat).tolist()
            for crop, within, one in zip(
                part, peaks(heat).cpu().double().numpy(), sure, strict=True
            ):
                # The package rounds these down to whole pixels: half a pixel less, on average.
                exact = crop.centre + (within - 0.5) * crop.side - 0.5
                points.append((torch.from_numpy(exact.astype(np.float32)), one))
        return points

    def _heat(self, crops: NDArray[np.uint8]) -> Tensor:
        """Returns (N, 68, 64, 64) heat maps of (N, 256, 256, 3) crops and their mirror images."""
        batch = torch.from_numpy(crops).to(self._device).permute(0, 3, 1, 2).float() / 255
        mirrored: Tensor = utils.flip(_last(self._network(utils.flip(batch))), is_label=True)
        return _last(self._network(batch)) + mirrored


def peak_heights(heat: Tensor) -> Tensor:
    """Returns how sure FAN is of a face's landmarks: the mean height of its heat maps' peaks.

    FAN was trained to give maps whose peak is 1. A landmark that it does not see has a low one.

    Args:
        heat: (N, L, S, S), of crops and their mirror images, summed.

    Returns:
        (N,) in [0, 1].
    """
    return (heat.flatten(2).amax(dim=2) / 2).clamp(0, 1).mean(dim=1)


def peaks(heat: Tensor) -> Tensor:
    """Returns where heat maps are hottest, a quarter of a cell towards the hotter neighbour.

    Args:
        heat: (N, L, S, S).

    Returns:
        (N, L, 2) x, y as fractions of the map's side, 0 and 1 being its edges.
    """
    size = heat.shape[-1]
    index = heat.flatten(2).argmax(dim=2)
    x, y = index % size, index // size
    inside = (x > 0) & (x < size - 1) & (y > 0) & (y < size - 1)
    flat = heat.flatten(2)

    def slope(step: int) -> Tensor:
        low = flat.gather(2, (index - step).clamp_min(0)[..., None]).squeeze(2)
        high = flat.gather(2, (index + step).clamp_max(size * size - 1)[..., None]).squeeze(2)
        return torch.where(inside, (high - low).sign() * 0.25, 0.0)

    return torch.stack([x + 0.5 + slope(1), y + 0.5 + slope(size)], dim=2) / size


def _face(crop: _Crop, landmarks: Tensor, confidence: float) -> Face:
    return Face(crop.box[:4], landmarks, float(crop.box[4]), confidence)


def _scaled(rows: Any, factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns a finder's rows in the frame's pixels, without those that are no face's box."""
    boxes: NDArray[np.float64] = np.array([np.asarray(row, np.float64)[:5] for row in rows])
    boxes = boxes.reshape(-1, 5)
    boxes[:, :4] = boxes[:, :4] * factor - 0.5
    large = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= 4
    kept: NDArray[np.float64] = boxes[np.isfinite(boxes).all(axis=1) & large]
    return kept


def _last(output: Tensor | list[Tensor]) -> Tensor:
    """Returns the heat maps of the last of FAN's stacked hourglasses."""
    return output[-1] if isinstance(output, list) else output


def _verified(asset: assets.Asset) -> Path:
    """Finds an asset where the package's own download puts it, or else in our cache."""
    path = _package_folder() / asset.name
    return assets.verify(path, asset) if path.is_file() else assets.fetch(asset)


def _package_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


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
