"""What a face must be to be judged: numbers only, so that command lines can have them at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gates:
    """What a face must be to be judged.

    The shares are those of the 702 shared photographs (FFHQ in the wild, London in the studio)
    that fail, with dlib's landmarks and YuNet; `benchmarks/faces.py` counts them.

    Attributes:
        min_size: Pixels of the face's width in the frame. At 40 the mouth, the smallest region,
            covers 130 pixels and is enlarged fivefold for a detector of 200; landmarks are within
            4 % of the eye corners' distance for 95 % of faces, at 24 within 6 %. None fails (all
            are at least 188).
        min_confidence: Of the landmarks, where the backend gives one. For dlib and YuNet, 0.5 is
            a mean distance of 10 % of the eye corners' between the two: 1.7 % fail, near-profiles
            and faces behind hands, microphones and mirrored sunglasses; of the near-profile DFDC
            clip 95 % of the frames fail.
        max_yaw: Degrees that the head may be turned aside for eyes, nose and mouth: beyond, half
            of each is hidden or narrow, and the nose stands before the background. In dlib's
            degrees, which fall short of the true ones (30 is a true 45, about); 1.6 % fail. FAN
            and OpenFace give truer degrees: 45 suits them.
        max_yaw_whole: The same for the entire face and the rest, where the cheek in view is most
            of what is seen: 1.0 % fail.
        max_pitch: Degrees up or down; beyond, the nose hides the mouth, or lids the eyes. None of
            the photographs has more than 25.
        max_roll: Degrees; the canvas stays upright, so that a third of it is background at 45.
            None has more than 7.
        max_dark: Share of a region's pixels that may be black: there is no detail in them. None
            has more than 0.38.
        max_bright: Share that may be white. One fails (its nose, 0.57).
        min_sharpness: See :mod:`deepregions.faces.quality`. Less than 0.35 is a face blurred by
            2 % of its width, or enlarged from 17 pixels: there is nothing finer than features. None
            fails; the compressed clips have 0.46 and more for the face, 0.36 for a nose.
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
