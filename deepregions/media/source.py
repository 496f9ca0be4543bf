"""A file, opened as what its content says it is: the one way to its frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.media.frames import DEFAULT_LIMITS, Limits, Progress, no_progress
from deepregions.media.images import ImageSource
from deepregions.media.kinds import HEAD, check_file, kind_of
from deepregions.media.videos import VideoSource

Source = ImageSource | VideoSource


@contextmanager
def open_source(
    path: Path, limits: Limits = DEFAULT_LIMITS, progress: Progress = no_progress
) -> Iterator[Source]:
    """Opens a photograph or video.

    Args:
        path: A regular file.
        limits: The pixels of a frame.
        progress: Called after every step of reading.

    Raises:
        UnreadableError: Not there, empty, damaged, or not what it seems.
        UnsupportedError: No regular file, or a kind that is not read here.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if kind_of(head, path) == "video":
                yield VideoSource(path, file, limits, progress)
                return
            film = _animation(path, file, limits, progress) if head.startswith(b"GIF8") else None
            file.seek(0)
            yield film or ImageSource(path, file, limits)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}", "check the file") from error


def _animation(
    path: Path, file: BinaryIO, limits: Limits, progress: Progress
) -> VideoSource | None:
    """Opens an animated GIF like a film; None if it has one picture, or FFmpeg cannot read it."""
    with suppress(UnreadableError, UnsupportedError):
        film = VideoSource(path, file, limits, progress)
        return film if film.info.frames > 1 else None
    return None


class Clock:
    """Counts the time of work on a file, and ends it when it takes too long.

    Args:
        path: The file, for the error.
        seconds: How long it may take; see :class:`~deepregions.media.frames.Limits`.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._worked = 0.0
        self._since = time.monotonic()

    def pause(self) -> None:
        """Stops counting."""
        self._worked += time.monotonic() - self._since

    def go_on(self) -> None:
        """Counts again."""
        self._since = time.monotonic()

    def check(self) -> None:
        """Looks at the clock.

        Raises:
            UnreadableError: The time is over.
        """
        if self._worked + time.monotonic() - self._since > self._seconds:
            raise UnreadableError(
                f"{self._path}: reading it takes more than {self._seconds:g} s",
                "make it shorter or smaller",
            )
