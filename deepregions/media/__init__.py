"""Opening photographs and videos: what is there, and its frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from deepregions.errors import UnreadableError, UsageError
from deepregions.media.images import IMAGE_SUFFIXES, read_image
from deepregions.media.videos import VIDEO_SUFFIXES, Frame, sample_video

__all__ = ["Frame", "find_media", "frame_batches", "frames", "is_video"]


def is_video(path: Path) -> bool:
    """Returns whether a file is taken for a video, which its name's ending decides."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def frames(path: Path, count: int) -> Iterator[Frame]:
    """Yields the frames to judge a file by: ``count`` of a video, the one of a photograph.

    Raises:
        UnreadableError: See :func:`~deepregions.media.images.read_image` and
            :func:`~deepregions.media.videos.sample_video`.
        UnsupportedError: See there.
    """
    if is_video(path):
        yield from sample_video(path, count)
    else:
        yield Frame(0, 0.0, read_image(path))


def frame_batches(path: Path, count: int, at_once: int = 8) -> Iterator[list[Frame]]:
    """Yields the frames of :func:`frames`, consecutive ones of one size together.

    Args:
        path: A photograph or a video.
        count: How many frames of a video.
        at_once: How many in a batch at most; eight of a 4K video are 200 MB.

    Raises:
        UnreadableError: As :func:`frames`.
        UnsupportedError: As :func:`frames`.
    """
    batch: list[Frame] = []
    for frame in frames(path, count):
        if batch and (len(batch) == at_once or batch[0].image.shape != frame.image.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def find_media(paths: Iterable[Path]) -> list[Path]:
    """Lists the photographs and videos that paths stand for.

    A file that is named is taken whatever its ending. A folder stands for the files in it and in
    its subfolders whose endings are those of photographs or videos, sorted; hidden ones are left
    out, and a folder that links lead back to is entered once.

    Raises:
        UsageError: A path that is not there, or a folder without photographs or videos.
        UnreadableError: A folder that may not be listed.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(_walk(path))
            if not inside:
                raise UsageError(f"{path}: no photographs or videos in this folder", _ENDINGS)
            found += inside
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder", "check the path")
    return found


_ENDINGS = f"looked for {' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}"


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(folder, onerror=_denied, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(root, name)
            known = path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
            if known and not name.startswith(".") and path.is_file():
                yield path


def _denied(error: OSError) -> NoReturn:
    raise UnreadableError(f"{error.filename}: {error.strerror}", "check its permissions") from error
