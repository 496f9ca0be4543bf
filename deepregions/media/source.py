"""A file, opened as what its content says it is: the one way to its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.media.frames import DEFAULT_LIMITS, Limits, Progress
from deepregions.media.images import ImageSource
from deepregions.media.kinds import HEAD, kind_of, opened
from deepregions.media.videos import VideoSource

Source = ImageSource | VideoSource


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
        if head.startswith(b"GIF8"):  # an animated one is a film, if FFmpeg can read it
            film = None
            with suppress(UnreadableError, UnsupportedError):
                film = VideoSource(path, file, limits, progress)
            if film is not None and film.info.frames > 1:
                yield film
                return
        file.seek(0)
        yield ImageSource(path, file, limits)
