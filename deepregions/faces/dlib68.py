"""dlib's 68 landmarks (Kazemi and Sullivan, CVPR 2014), on the CPU, with a choice of finders."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepregions import assets
from deepregions.errors import AssetError
from deepregions.faces.finders import YUNET, FaceFinder, Found, HogFinder, Image, YuNetFinder
from deepregions.faces.landmarks import Face

logger = logging.getLogger(__name__)

PACKAGE = "face_recognition_models"

# It comes with that package, which pip installed: the url is where dlib's author offers it.
MODEL = assets.Asset(
    name="shape_predictor_68_face_landmarks.dat",
    url="https://github.com/davisking/dlib-models/raw/master/shape_predictor_68_face_landmarks.dat.bz2",
    sha256="fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    license="CC0-1.0; trained on iBUG 300-W, whose licence excludes commercial use",
    source="dlib, in face_recognition_models",
)


def dlib_landmarks(*, fetch_yunet: bool = True) -> DlibLandmarks:
    """Makes the detector with YuNet, or with HOG where YuNet's file is not to be had.

    Args:
        fetch_yunet: Whether to look for YuNet at all.

    Raises:
        AssetError: dlib's model is missing, or a cached file is not what it should be.
    """
    model = assets.find(YUNET) if fetch_yunet else None
    if fetch_yunet and model is None:
        try:
            model = assets.fetch(YUNET, timeout=5.0)
        except AssetError as error:
            logger.warning("faces by dlib's HOG, which finds fewer, not by YuNet: %s", error)
    return DlibLandmarks(HogFinder() if model is None else YuNetFinder(model))


class DlibLandmarks:
    """Landmarks by dlib's shape predictor, as a :class:`LandmarkDetector` does them.

    dlib gives whole pixels, so small faces are enlarged: less of the shake between frames
    (a quarter less on the shared clips, faces of 90 to 150 pixels).

    Args:
        finder: Finds the faces.

    Raises:
        AssetError: dlib's model is missing or altered.
    """

    enlarged = 256  # pixels of a face's side, below which it is enlarged to it

    def __init__(self, finder: FaceFinder) -> None:
        self._finder = finder
        self._predictor = dlib.shape_predictor(str(_model()))

    @property
    def name(self) -> str:
        """Landmarks, then finder: ``"dlib68+yunet"``."""
        return f"dlib68+{self._finder.name}"

    @property
    def version(self) -> str:
        """dlib, the package with its model, and the finder."""
        models = f"{PACKAGE} {metadata.version(PACKAGE)}"
        return f"dlib {dlib.__version__}; {models}; {self._finder.version}"

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        """Returns each frame's faces, largest first; a frame that fails has none.

        Args:
            frames: (T, 3, H, W) uint8 RGB, on any device.
        """
        return [self._faces(index, frame) for index, frame in enumerate(frames)]

    def _faces(self, index: int, frame: Tensor) -> list[Face]:
        image = frame.permute(1, 2, 0).contiguous().cpu().numpy()
        try:
            found = self._finder(image)
            faces = [self._face(image, one) for one in found if one.square[2] >= 1]
        except (cv2.error, RuntimeError, ValueError) as error:
            logger.warning("frame %d: no faces, as the search failed: %s", index, error)
            return []
        return sorted(faces, key=lambda face: -float((face.box[2:] - face.box[:2]).prod()))

    def _face(self, image: Image, found: Found) -> Face:
        landmarks = self._landmarks(image, found.square)
        box = torch.from_numpy(found.box.astype(np.float32))
        return Face(box, torch.from_numpy(landmarks.astype(np.float32)), found.score)

    def _landmarks(self, image: Image, square: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns (68, 2) points from a box given as centre x, centre y, side."""
        centre, side = square[:2], square[2]
        limits = np.array(image.shape[1::-1])
        # Twice the box: the predictor looks at pixels outside it too (black beyond the image).
        low = np.clip(np.floor(centre - side), 0, limits - 1).astype(int)
        high = np.clip(np.ceil(centre + side) + 1, low + 1, limits).astype(int)
        crop = image[low[1] : high[1], low[0] : high[0]]
        scale = np.ones(2)
        if side < self.enlarged:
            size = np.round((high - low) * (self.enlarged / side)).astype(int)
            crop = np.asarray(cv2.resize(crop, size.tolist()), dtype=np.uint8)
            scale = size / (high - low)
        corners = np.array([centre - side / 2, centre + side / 2 - 1])
        rectangle = np.round((corners - low + 0.5) * scale - 0.5).astype(int)
        shape = self._predictor(
            np.ascontiguousarray(crop), dlib.rectangle(*rectangle.ravel().tolist())
        )
        points = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        landmarks: NDArray[np.float64] = (points + 0.5) / scale - 0.5 + low
        return landmarks


def _model() -> Path:
    """Locates the model's file in the package, which is not imported (it needs pkg_resources)."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise AssetError(f"{PACKAGE} is not installed", f"pip install {PACKAGE}") from error
    for file in files:
        path = Path(str(file.locate()))
        if file.name == MODEL.name and path.is_file():
            return assets.verify(path, MODEL)
    raise AssetError(
        f"{MODEL.name} is not in {PACKAGE}", f"pip install --force-reinstall {PACKAGE}"
    )
