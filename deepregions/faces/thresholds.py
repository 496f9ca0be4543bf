"""What a face must be to be judged: numbers only, so that command lines can have them at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gates:
    """What a face must be to be judged; docs/faces.md says why these numbers.

    Attributes:
        min_size: Pixels of the face's width in the frame.
        min_confidence: Of the landmarks, where the backend gives one (else see ``DOUBTFUL_YAW``).
        max_yaw: Degrees that the head may be turned aside for eyes, nose and mouth. In dlib's
            degrees, which fall short of the true ones (30 looks like 45).
        max_yaw_whole: The same for the entire face and the rest.
        max_pitch: Degrees up or down.
        max_roll: Degrees; the canvas stays upright, so a third of it is background at 45.
        max_dark: Share of a region's pixels that may be black: there is no detail in them.
        max_bright: Share that may be white.
        min_sharpness: Of the entire face; see :mod:`deepregions.faces.quality`. A region that is
            less sharp than its face is judged: blending blurs, so some forgeries show that.
    """

    min_size: float = 40.0
    min_confidence: float = 0.5
    max_yaw: float = 30.0
    max_yaw_whole: float = 35.0
    max_pitch: float = 30.0
    max_roll: float = 45.0
    max_dark: float = 0.5
    max_bright: float = 0.5
    min_sharpness: float = 0.35
