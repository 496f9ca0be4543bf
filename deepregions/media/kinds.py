"""What a file is: its content decides; its name does where the content says nothing."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.files import refuse_stand_in
from deepregions.media.frames import Kind

_IMAGES = "avif bmp gif heic heif jfif jp2 jpe jpeg jpg mpo pgm png pnm ppm tif tiff webp"
_VIDEOS = "3g2 3gp asf avi flv insv m2ts m4v mkv mov mp4 mpeg mpg mts ogv qt ts webm wmv"
_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_IMAGES} {_VIDEOS}".split())
# Sounds in containers of videos; in a folder they are passed over.
_SOUNDS = frozenset({".aac", ".m4a", ".m4b", ".mka", ".oga", ".ogg", ".opus", ".wma"})

HEAD = 512  # bytes that say what a file is

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Signatures as the formats' specifications give them; a dot is any byte.
_IMAGE = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP"
    rb"|II[*+]\0|MM\0[*+]"  # TIFF, BigTIFF
    rb"|P[1-6]\s"  # PPM and its kin
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51"  # JPEG 2000, its bare codestream
    rb"|....ftyp(?:avi[fs]|" + rb"|".join(HEIC_BRANDS) + rb")",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb"....(?:ftyp|moov|mdat|wide|skip|free|pnot)"  # MP4, QuickTime
    rb"|\x1a\x45\xdf\xa3"  # Matroska, WebM
    rb"|RIFF....AVI |FLV\x01|OggS|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\0\0\x01[\xb3\xba]",
    re.DOTALL,
)
_SOUND = re.compile(  # MP3 and AAC with and without tags, FLAC, WAVE, AIFF, AMR
    rb"ID3[\x02-\x04]|\xff[\xf0-\xf3\xf8-\xfb]|fLaC|(?:RIFF|RF64)....WAVE|FORM....AIF|#!AMR",
    re.DOTALL,
)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)


def kind_of(head: bytes, path: Path) -> Kind:
    """Says what a file is; its name decides where its first bytes are of no known format."""
    if kind := known_kind(head):
        return kind
    named = path.suffix.lower()[1:] in _VIDEOS.split() and not is_drawing(head)
    return "video" if named else "image"


def known_ending(name: str) -> str:
    """Returns a name's ending, in lower case with its dot, if photographs or videos have it."""
    ending = Path(name).suffix.lower()
    return ending if ending in _SUFFIXES else ""


def is_wanted(path: Path) -> bool:
    """Returns whether a file of a folder is a photograph or video by its ending or content."""
    ending = path.suffix.lower()
    if ending in _SUFFIXES:
        return True
    return ending not in _SOUNDS and known_kind(read_head(path)) is not None


def known_kind(head: bytes) -> Kind | None:
    """Returns the kind that a file's first :data:`HEAD` bytes are of, if it is a known one."""
    if _IMAGE.match(head):
        return "image"
    # A transport stream's packets are 188 bytes, or 192 with a time stamp before each (Blu-ray).
    packets = any(
        len(head) > start + step and head[start] == head[start + step] == 0x47
        for start, step in ((0, 188), (4, 192))
    )
    return "video" if packets or _VIDEO.match(head) else None


def is_drawing(head: bytes) -> bool:
    """Returns whether the first bytes are those of an SVG drawing."""
    return _SVG.search(head) is not None


def is_sound(head: bytes) -> bool:
    """Returns whether the first bytes are those of a file that holds sound only."""
    return _SOUND.match(head) is not None


def read_head(path: Path) -> bytes:
    """Returns the first bytes of a regular file; none where it cannot be read."""
    with suppress(UnreadableError, UnsupportedError), opened(path) as file:
        return file.read(HEAD)
    return b""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file that is not empty, and no pipe, device or folder.

    Raises:
        UnreadableError: Not there, not allowed, empty, or saved in a file's stead (a web page, a
            pointer of git-LFS); or reading it fails in the block.
        UnsupportedError: No regular file.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"{path}: {reason}", "check the path") from error
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise UnreadableError(f"{path}: the folder may not be listed", "check its permissions")
    if not path.is_file():
        raise UnsupportedError(f"{path}: no regular file", "give an image or video file")
    if size == 0:
        raise UnreadableError(f"{path}: the file is empty", "get another copy")
    try:
        with path.open("rb") as file:
            refuse_stand_in(path, file.read(HEAD), "a photograph or video")
            file.seek(0)
            yield file
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror or error}", "check the file") from error
