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
            3 % of the eye corners' distance for 95 % of faces, at 24 within 5 %. None fails (all
            are at least 188).
        min_confidence: Of the landmarks, where the backend gives one (else see
            ``DOUBTFUL_YAW``). For dlib and YuNet, 0.5 is
            a mean distance of 11 % of the eye corners' between the two: 1.4 % fail, near-profiles
            and faces behind hands, microphones and mirrored sunglasses; of the near-profile DFDC
            clip 91 % of the frames fail. Of faces 64 pixels wide 4 % fail, of 40 pixels 10 %, as
            YuNet places its points less exactly.
        max_yaw: Degrees that the head may be turned aside for eyes, nose and mouth: beyond, half
            of each is hidden or narrow, and the nose stands before the background. In dlib's
            degrees, which fall short of the true ones (30 looks like 45); 1.6 % fail. FAN and
            OpenFace should give truer degrees, and bear a larger limit.
        max_yaw_whole: The same for the entire face and the rest, where the cheek in view is most
            of what is seen: 1.0 % fail.
        max_pitch: Degrees up or down; beyond, the nose hides the mouth, or lids the eyes. None of
            the photographs has more than 25.
        max_roll: Degrees; the canvas stays upright, so that a third of it is background at 45.
            None has more than 7.
        max_dark: Share of a region's pixels that may be black: there is no detail in them. None
            has more than 0.38.
        max_bright: Share that may be white. One fails (its nose, 0.57).
        min_sharpness: Of the entire face; see :mod:`deepregions.faces.quality`. A region that is
            less sharp than its face is judged: blending blurs, so that is what some forgeries
            show. Less than 0.35 is a face with nothing finer than its features: blurred
            by 2 % of their width 98 % of the photographs fail, by 3 % all; reduced to 24 pixels
            and enlarged again half, to 16 pixels all. Unchanged none fails; the compressed clips
            have 0.46 and more.
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
