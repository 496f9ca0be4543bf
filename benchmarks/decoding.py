"""Frames of a file, decoded in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from deepregions.media import Frame, Sampling
from deepregions.media.source import open_source


def frames(path: Path, count: int) -> Iterator[Frame]:
    """``count`` frames of a video, evenly in time; the one of a photograph."""
    sampling = Sampling(count=count)
    with open_source(path) as source:
        yield from source.frames(source.choose(sampling).numbers)


def read_frames(path: Path, numbers: Sequence[int]) -> Iterator[Frame]:
    """The frames of these numbers, in order of time, each once."""
    with open_source(path) as source:
        yield from source.frames(numbers)
