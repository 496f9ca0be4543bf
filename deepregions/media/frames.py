"""What reading returns: frames and facts about their file; and the limits that reading keeps to.

No module of this package imports torch: the processes that decode (see ``worker.py``) are many and
start often, and torch takes seconds and half a gigabyte.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "video"]
Progress = Callable[[], None]  # called after each step of reading; may raise to stop it


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video, or a photograph, (H, W, 3) uint8 RGB, upright.

    Its number is its place in display order, from 0; its time is in seconds from the first frame.
    """

    number: int
    time: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class MediaInfo:
    """What a file is, as its content says, whatever its name or header claim.

    Size is that of the upright frames in pixels (it may change within a video); the duration is in
    seconds, the rate frames per second on average, both 0 for an image. The codec is such as
    ``"h264"`` or ``"jpeg"``; notes, short phrases, are what else to know when frames are judged.
    JPEG's quality, 1 to 100, is estimated from its luma table, as libjpeg and Pillow count it.
    """

    kind: Kind
    width: int
    height: int
    frames: int
    duration: float
    rate: float
    codec: str
    notes: tuple[str, ...] = ()
    jpeg_quality: int | None = None


@dataclass(frozen=True)
class Limits:
    """How much reading one file may take."""

    seconds: float = 600.0  # of work; waiting for whoever takes the frames does not count
    silence: float = 60.0  # seconds without progress, after which a decoder counts as hung
    memory: int = 3 << 30  # bytes beyond the start's; 100 MP take up to 1.9 GB, 8K video 1.3 GB
    pixels: int = 100_000_000  # of a frame or photograph: 300 MB of RGB


DEFAULT_LIMITS = Limits()
