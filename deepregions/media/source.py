"""A file, opened as what its content says it is: the one way to its frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepregions.media.frames import DEFAULT_LIMITS, Limits, Progress
from deepregions.media.images import AnimationSource, ImageSource, is_moving
from deepregions.media.kinds import HEAD, kind_of, opened
from deepregions.media.videos import VideoSource

Source = AnimationSource | ImageSource | VideoSource


@contextmanager
def open_source(
    path: Path, limits: Limits = DEFAULT_LIMITS, progress: Progress = lambda: None
) -> Iterator[Source]:
    """Opens a photograph or video; ``progress`` is called after every step of reading.

    Raises:
        UnreadableError: Not there, empty, damaged, or not what it seems.
        UnsupportedError: No regular file, or a kind that is not read here.
    """
    with opened(path) as file:
        head = file.read(HEAD)
        if kind_of(head, path) == "video":
            yield VideoSource(path, file, limits, progress)
            return
        if is_moving(path, file, limits):
            yield AnimationSource(path, file, limits, progress)
            return
        yield ImageSource(path, file, limits)
