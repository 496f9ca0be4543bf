"""Landmark backends: one module each, and :func:`landmark_detector`, which makes one by name."""

import logging
from pathlib import Path

from deepregions.devices import choose_device, has_torch
from deepregions.errors import AssetError, UsageError
from deepregions.faces.landmarks import LandmarkDetector

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "dlib", "dlib-hog", "face_alignment", "openface")
FACE_FINDERS = ("sfd", "yunet")  # of the face-alignment package; others have no digest


def landmark_detector(
    name: str = "auto", device: str = "auto", min_size: float = 40.0
) -> LandmarkDetector:
    """Makes one of the backends; faces narrower than ``min_size`` pixels may be passed over.

    ``dlib`` finds faces by YuNet, or, with a warning, by dlib's HOG where YuNet's file cannot be
    had; ``dlib-hog`` never fetches anything. ``face_alignment``, which alone heeds the device,
    finds them by S3FD, or by ``face_alignment:yunet``. ``openface:FOLDER`` is what OpenFace has
    written of each input, ``FOLDER/NAME.csv``, or one such file. ``auto`` is face_alignment where
    there is a GPU and its weights can be had, else dlib.

    Raises:
        UsageError: No such backend, face finder, device or folder.
        AssetError: A model file is missing and cannot be fetched, or is not what it should be.
    """
    backend, _, finder = name.partition(":")
    unknown = UsageError(f"no landmark backend {name!r}", f"there are {', '.join(BACKENDS)}")
    if backend not in BACKENDS or (finder and backend not in ("face_alignment", "openface")):
        raise unknown
    # Imported where they are needed: dlib takes a second, face_alignment several.
    if backend == "openface":
        from deepregions.faces.backends.openface import OpenFaceLandmarks  # noqa: PLC0415

        if not finder:
            raise UsageError("openface has landmarks in files", "openface:FOLDER, of its CSV files")
        return OpenFaceLandmarks(Path(finder))
    if finder and finder not in FACE_FINDERS:
        raise UsageError(
            f"face_alignment has no face finder {finder!r}", f"it has {', '.join(FACE_FINDERS)}"
        )
    where = "cpu" if device == "cpu" or not has_torch() else str(choose_device(device))
    if backend == "face_alignment" or (backend == "auto" and where != "cpu"):
        from deepregions.faces.backends.fan import FanLandmarks  # noqa: PLC0415

        try:
            return FanLandmarks(where, finder or "sfd")
        except AssetError as error:
            if backend != "auto":
                raise
            logger.warning("landmarks by dlib, not by face_alignment: %s", error)
    if backend not in ("auto", "dlib", "dlib-hog"):
        raise unknown
    from deepregions.faces.backends.dlib68 import dlib_landmarks  # noqa: PLC0415

    return dlib_landmarks(fetch_yunet=backend != "dlib-hog", min_size=min_size)
