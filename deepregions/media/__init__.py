"""Opening photographs and videos: what is there, and its frames."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from deepregions.errors import UsageError
from deepregions.media.frames import Frame, Limits, MediaInfo
from deepregions.media.images import OpenImage
from deepregions.media.kinds import is_wanted, kind_of, read_head
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

logger = logging.getLogger(__name__)


def is_video(path: Path) -> bool:
    """Returns whether a file is taken for a video: by its content, or else by its ending."""
    return kind_of(read_head(path), path) == "video"


def find_media(paths: Iterable[Path]) -> list[Path]:
    """Lists the photographs and videos that paths stand for.

    A file that is named is taken whatever it is. A folder stands for the files in it and in its
    subfolders whose content or ending is that of a photograph or video, sorted, without hidden
    ones; others are counted in a warning. A folder that may not be listed stands for itself:
    reading it gives the error.

    Raises:
        UsageError: A path that is not there, or a folder without photographs or videos.
    """
    found: list[Path] = []
    for path in paths:
        if _is_folder(path):
            passed: Counter[str] = Counter()
            inside = sorted(_walk(path, passed))
            others = _listed(passed)
            if not inside:
                looked = f"there are other files: {others}" if others else "it is empty"
                raise UsageError(f"{path}: no photographs or videos in this folder", looked)
            if others:
                logger.warning("%s: no photographs or videos, passed over: %s", path, others)
            found += inside
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise UsageError(*_absent(path))
    return found


def _absent(path: Path) -> tuple[str, str]:
    given = "give photographs, videos, or folders of them"
    if str(path) == "-":
        return "-: standard input is not read", given
    if address := re.match(r"(\w+):/+(.*)", str(path)):  # as a path, one slash of two is left
        return f"{address[1]}://{address[2]}: addresses are not read", "download it first"
    if re.search(r"[*?\[{]", path.name):
        return f"{path}: no file matches this pattern", given
    return f"{path}: no such file or folder", "check the path"


def _listed(passed: Counter[str]) -> str:
    most = passed.most_common(5)
    rest = passed.total() - sum(count for _, count in most)
    shown = [f"{count} {ending or 'without ending'}" for ending, count in most]
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for there to be anything
        return False


def _walk(folder: Path, passed: Counter[str]) -> Iterator[Path]:
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
            if name.startswith("."):
                continue
            if path.is_file() and is_wanted(path):
                yield path
            else:
                passed[path.suffix.lower()] += 1
    yield from unlisted
