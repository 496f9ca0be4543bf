"""dlib's 68 landmarks (Kazemi and Sullivan, CVPR 2014), on the CPU, with a choice of finders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from deepregions import assets
from deepregions.errors import AssetError
from deepregions.faces.finders import YUNET, FaceDetection, FaceFinder, HogFinder, YuNetFinder
from deepregions.faces.landmarks import Face, Frames, Place, largest_first

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


def dlib_landmarks(*, fetch_yunet: bool = True, min_size: float = 40.0) -> DlibLandmarks:
    """Makes the detector with YuNet, or with HOG where YuNet is not asked for, or not to be had.

    Raises:
        AssetError: dlib's model is missing, or a cached file is not what it should be.
    """
    model = assets.find(YUNET) if fetch_yunet else None
    if fetch_yunet and model is None:
        try:
            model = assets.fetch(YUNET, timeout=5.0)
        except AssetError as error:
            logger.warning("faces by dlib's HOG, which finds fewer, not by YuNet: %s", error)
    return DlibLandmarks(HogFinder() if model is None else YuNetFinder(model, min_size))


class DlibLandmarks:
    """Landmarks by dlib's shape predictor, which sees faces upright, and small ones enlarged.

    Confidence is by :func:`agreement` with the finder's five points, where it has them.

    Raises:
        AssetError: dlib's model is missing or altered.
    """

    sides = (256, 512)  # pixels of a face's side, the least and the most that dlib sees

    def __init__(self, finder: FaceFinder) -> None:
        self.finder = finder
        self._predictor = dlib.shape_predictor(str(_model()))

    @property
    def name(self) -> str:
        """Landmarks, then finder: ``"dlib68+yunet"``."""
        return f"dlib68+{self.finder.name}"

    @property
    def version(self) -> str:
        """dlib, the package with its model, and the finder."""
        models = f"{PACKAGE} {metadata.version(PACKAGE)}"
        return f"dlib {dlib.__version__}; {models}; {self.finder.version}"

    def __call__(
        self,
        frames: Frames,
        places: Sequence[Place] = (),  # noqa: ARG002 - part of the protocol
    ) -> list[list[Face]]:
        """Returns each frame's faces, largest first; a frame that fails has none."""
        return [self._faces(index, frame) for index, frame in enumerate(frames)]

    def _faces(self, index: int, frame: NDArray[np.uint8]) -> list[Face]:
        image = np.ascontiguousarray(frame)
        faces = []
        try:
            for one in self.finder(image):
                if one.square[2] >= 1:
                    landmarks = self._landmarks(image, one)
                    sure = None if one.points is None else agreement(landmarks, one.points)
                    box, points = (a.astype(np.float32) for a in (one.box, landmarks))
                    faces.append(Face(box, points, one.score, sure))
        except (cv2.error, RuntimeError, ValueError) as error:
            logger.warning("frame %d: no faces, as the search failed: %s", index, error)
            return []
        return largest_first(faces)

    def _landmarks(self, image: NDArray[np.uint8], found: FaceDetection) -> NDArray[np.float64]:
        """Returns (68, 2) points, from an upright copy of the face and as much again around it."""
        side = int(np.clip(found.square[2], *self.sides))
        cosine, sine = np.cos(found.roll), np.sin(found.roll)
        turn = side / found.square[2] * np.array([[cosine, sine], [-sine, cosine]])
        middle = np.full(2, side - 0.5)  # of 2 side x 2 side pixels
        affine = np.column_stack([turn, middle - turn @ found.square[:2]])
        upright = np.asarray(cv2.warpAffine(image, affine, (2 * side, 2 * side)), dtype=np.uint8)
        low = side // 2
        shape = self._predictor(upright, dlib.rectangle(low, low, low + side - 1, low + side - 1))
        points = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        inverse: NDArray[np.float64] = np.linalg.inv(turn).T
        return np.asarray(found.square[:2] + (points - middle) @ inverse)


def agreement(landmarks: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    """How well landmarks (68, 2) agree with the finder's own points (5, 2), in [0, 1].

    It comes from the mean distance between the five points and theirs among the landmarks, over
    that of the outer eye corners: 0.5 at 0.11, beyond which landmarks are visibly wrong.
    """
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    own = np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])
    span = max(float(np.hypot(*(landmarks[45] - landmarks[36]))), 1e-6)
    distance = float(np.hypot(*(own - points).T).mean()) / span
    return float(1 / (1 + np.exp(min((distance - _DOUBT) / _SPREAD, 50.0))))


_DOUBT, _SPREAD = 0.11, 0.02  # the logistic curve from distance to confidence


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
