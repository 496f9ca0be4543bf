"""Thresholds that a face must keep to be judged: numbers only, to import at no cost."""

from dataclasses import dataclass

MIN_INSIDE = 0.75  # share of a region that must lie inside the image to be valid


@dataclass(frozen=True)
class Gates:
    """When a face is good enough to be judged (docs/faces.md explains the numbers).

    Attributes:
        min_size: Smallest width of a face, in pixels of the frame.
        min_confidence: Smallest confidence of the landmarks, if the backend gives one.
        max_yaw: Largest turn of the head to the side, in degrees, for eyes, nose and mouth. dlib
            underestimates it: its 30 are about 45.
        max_yaw_whole: The same for the entire face and the rest.
        max_pitch: Largest turn of the head up or down, in degrees.
        max_roll: Largest tilt of the head, in degrees.
        max_dark: Largest share of black pixels in a region, from 0 to 1.
        max_bright: Largest share of white pixels in a region, from 0 to 1.
        min_sharpness: Smallest sharpness of the entire face. A region that is less sharp than its
            face is still judged, since forging blurs.
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
