"""The walk over a photograph or a video: its faces, frame by frame, and then who is who."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepregions.faces.appearance import appearance
from deepregions.faces.landmarks import Face, LandmarkDetector, Place
from deepregions.faces.shots import FrameSignature, ShotDetector
from deepregions.faces.tracks import Tracker
from deepregions.media import Frame


@dataclass(frozen=True)
class FrameFaces:
    """What is kept of a frame, without its pixels: its number, time and faces, largest first.

    A descriptor is None where a face's looks are not known or needed; the signature is None of a
    photograph, or of a frame without detail.
    """

    number: int
    time: float
    faces: list[Face]
    descriptors: list[NDArray[np.float32] | None]
    signature: FrameSignature | None


class VideoWalk:
    """Finds faces in frames as they come, in any order, and then follows people through them."""

    def __init__(self, find: LandmarkDetector) -> None:
        self._find = find
        self._shots = ShotDetector()
        self._frames: dict[int, FrameFaces] = {}

    @property
    def frames(self) -> list[FrameFaces]:
        """The frames so far, in order of display."""
        return [self._frames[number] for number in sorted(self._frames)]

    def look(
        self, frames: Sequence[Frame], places: Sequence[Place], *, still: bool = False
    ) -> Iterator[tuple[Frame, FrameFaces]]:
        """Yields each of some frames of one size that is new, with its faces.

        Shots and looks do not matter for a photograph, which is ``still``.

        Raises:
            UnreadableError: The backend has landmarks in files, and not of this one.
        """
        found = self._find([frame.image for frame in frames], places)
        for frame, faces in zip(frames, found, strict=True):
            if frame.number not in self._frames:
                kept = FrameFaces(
                    frame.number,
                    frame.time,
                    faces,
                    [None if still else appearance(frame.image, face) for face in faces],
                    None if still else self._shots.look(frame.image),
                )
                self._frames[frame.number] = kept
                yield frame, kept

    def tracks(self) -> list[list[int]]:
        """Returns the track of each face of each frame, numbered as they appear; call it once."""
        update, changes = Tracker().update, self._shots.changes
        return [
            update(one.faces, one.time, cut=changes(one.signature), descriptors=one.descriptors)
            for one in self.frames
        ]
