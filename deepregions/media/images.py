"""Reading photographs: header first, one frame, upright, 8 bits a channel, RGB."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deepregions.errors import UnreadableError, UnsupportedError

MAX_PIXELS = 100_000_000  # 300 MB of RGB; the largest phone cameras make 200 MP files, at 12-50 MP

# Formats whose decoders are part of Pillow itself: no EPS (runs Ghostscript), no stubs. AVIF comes
# with Pillow 11.3. A JPEG of several pictures (MPO, as phones make) is read as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_SUFFIXES = "avif bmp gif jp2 jpeg jpg pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())

# What Pillow raises on broken files (found by feeding it mutated ones).
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Reads a photograph, or the first frame of an animation.

    EXIF orientation is applied, transparency is dropped, 16-bit grey is scaled to 8 bits, CMYK
    and palettes become RGB. Nothing is decoded before its size is known to be allowed.

    Args:
        path: A regular file.
        max_pixels: The most pixels that are decoded.

    Returns:
        (3, H, W) uint8 RGB; in memory its channels come last.

    Raises:
        UnreadableError: Not there, empty, no image, damaged, or too large.
        UnsupportedError: No regular file, or a kind of image that is not read here.
    """
    check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own size warning, odd EXIF, odd palettes
        try:
            with Image.open(path, formats=_formats()) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise UnreadableError(
                        f"{path}: {width} x {height} pixels are more than {max_pixels:,}",
                        "make it smaller",
                    )
                pixels = np.array(_rgb(path, _oriented(image)))
        except UnidentifiedImageError as error:
            raise _unidentified(path) from error
        except _BROKEN as error:
            raise UnreadableError(f"{path}: damaged image: {error}", "get another copy") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def check_file(path: Path) -> None:
    """Refuses what should not even be opened: pipes, devices, folders, empty files.

    Raises:
        UnreadableError: Not there, not allowed, or empty.
        UnsupportedError: No regular file.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"{path}: {reason}", "check the path") from error
    if not path.is_file():
        raise UnsupportedError(f"{path}: no regular file", "give an image or video file")
    if size == 0:
        raise UnreadableError(f"{path}: the file is empty", "get another copy")


def _formats() -> list[str]:
    Image.init()  # registers all; does nothing the second time
    return [name for name in FORMATS if name in Image.OPEN]


def _oriented(image: Image.Image) -> Image.Image:
    try:
        transpose = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # unreadable EXIF says nothing about the pixels
        transpose = None
    if transpose is None:
        image.load()
        return image
    return image.transpose(transpose)


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        wide = np.array(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "I":  # 16 bits too, as some decoders give them; wider ones have no set scale
        wide = np.array(image).astype(np.int64)
        if wide.min() >= 0 and wide.max() <= 0xFFFF:
            return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnsupportedError(
            f"{path}: {image.mode} pixels (32 bits) have no set range", "convert it to 8 or 16 bits"
        )
    if image.mode in ("P", "PA", "La", "RGBa"):  # these go to RGB only by way of RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def _unidentified(path: Path) -> UnreadableError | UnsupportedError:
    """Names the kinds that people have and that are not read here."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1"):
        return UnsupportedError(f"{path}: HEIC is not read here", "convert it to JPEG or PNG")
    if b"<svg" in head.lower():
        return UnsupportedError(f"{path}: SVG is a drawing, no photograph", "give a photograph")
    return UnreadableError(
        f"{path}: no image that is read here", f"the formats are {', '.join(_formats())}"
    )
