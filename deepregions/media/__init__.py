"""Opening photographs and videos: what is there, and its frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepregions.errors import UsageError
from deepregions.media.frames import Frame, Limits, MediaInfo
from deepregions.media.images import OpenImage
from deepregions.media.kinds import SUFFIXES, kind_of, known_kind, read_head
from deepregions.media.reader import MediaReader, OpenMedia
from deepregions.media.sampling import Sampling

__all__ = [
    "Frame",
    "Limits",
    "MediaInfo",
    "MediaReader",
    "OpenImage",
    "OpenMedia",
    "Sampling",
    "find_media",
    "is_video",
]


def is_video(path: Path) -> bool:
    """Returns whether a file is taken for a video: by its content, or else by its ending."""
    return kind_of(read_head(path), path) == "video"


def find_media(paths: Iterable[Path]) -> list[Path]:
    """Lists the photographs and videos that paths stand for.

    A file that is named is taken whatever its ending. A folder stands for the files in it and in
    its subfolders whose endings are those of photographs or videos, or that have no ending but
    such content, sorted; hidden ones are left out, and a folder that links lead back to is
    entered once. A folder that may not be listed stands for itself: reading it gives the error.

    Raises:
        UsageError: A path that is not there, or a folder without photographs or videos.
    """
    found: list[Path] = []
    for path in paths:
        if _is_folder(path):
            inside = sorted(_walk(path))
            if not inside:
                looked = f"looked for {' '.join(sorted(SUFFIXES))}"
                raise UsageError(f"{path}: no photographs or videos in this folder", looked)
            found += inside
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder", "check the path")
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for there to be anything
        return False


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    unlisted: list[Path] = []  # they are inputs too: reading them says what is wrong
    walk = os.walk(
        folder, onerror=lambda error: unlisted.append(Path(error.filename)), followlinks=True
    )
    for root, folders, files in walk:
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(root, name)
            if not name.startswith(".") and path.is_file() and _wanted(path):
                yield path
    yield from unlisted


def _wanted(path: Path) -> bool:
    ending = path.suffix.lower()
    return ending in SUFFIXES or (not ending and known_kind(read_head(path)) is not None)
