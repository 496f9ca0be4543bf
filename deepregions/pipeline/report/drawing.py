"""What all pictures are drawn with: colours, letters, and pixels as pictures."""

import io
from functools import cache

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deepregions import pages
from deepregions.errors import printable

INK, FAINT, PAPER, MISSING = (32, 33, 36), (110, 114, 120), (255, 255, 255), (238, 239, 241)

# Told apart by the colour-blind, and from white and near-black (contrast 3:1, WCAG 2.2, 1.4.11); no
# red and no green, which would seem to judge; each with the colour of text on it. There are more
# people than colours: a number always stands beside the colour.
TRACKS = (
    ("#0072b2", "#ffffff"),
    ("#a66f00", "#000000"),
    ("#cc79a7", "#000000"),
    ("#656565", "#ffffff"),
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]


def track_colours(track: int) -> tuple[str, str]:
    """Returns a track's colour, and that of text on it, as ``#rrggbb``."""
    return TRACKS[track % len(TRACKS)]


@cache
def font(size: int) -> Font:
    """Returns the letters of all pictures, of this size in pixels."""
    return ImageFont.load_default(size)


def fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shortens a text in its middle until it is one line no wider than this, in pixels."""
    text = printable(text)
    keep = len(text)
    shown = text
    while keep > 2 and draw.textlength(shown, font(16)) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return shown


def wrapped(text: str, width: int, letters: Font) -> list[str]:
    """Breaks a text into lines no wider than this, in pixels; a longer word keeps its line."""
    lines: list[str] = []
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and letters.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def centred(
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
    text: str,
    colour: Colour,
    *,
    width: int = 200,
    bold: bool = False,
) -> None:
    """Writes a line in the middle of a box that is ``width`` pixels wide."""
    text, letters = printable(text), font(16)
    left = x + (width - draw.textlength(text, letters)) / 2
    draw.text((left, y), text, colour, letters, stroke_width=0.3 if bold else 0, stroke_fill=colour)


def to_picture(image: NDArray[np.uint8], side: int | None = None) -> Image.Image:
    """Makes a picture of (H, W, 3) uint8, stretched to a square where a side is given."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if side is None or picture.size == (side, side):
        return picture
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def data_uri(picture: bytes | Image.Image, quality: int = 88) -> Markup:
    """Returns a JPEG as a data URI: one that is there, or a picture made into one."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        # 4:4:4: where a forgery was blended in, colour may be what shows it
        picture.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0)
        picture = buffer.getvalue()
    return pages.data_uri("jpeg", picture)


def small_uri(picture: Image.Image, side: int, quality: int) -> Markup:
    """Returns a picture made no larger than ``side`` as a data URI."""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_uri(picture, quality)
