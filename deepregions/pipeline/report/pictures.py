"""Pictures inside a page: as data URIs, so that the page is one file."""

from __future__ import annotations

import base64
import io

from markupsafe import Markup
from PIL import Image

from deepregions.pipeline.report.picture import from_pixels
from deepregions.pipeline.top_faces import Analysis, Evidence


def data_uri(picture: bytes | Image.Image, quality: int = 88) -> Markup:
    """A JPEG as a data URI: one that is there, or a picture made into one."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        # 4:4:4: where a forgery was blended in, colour may be what shows it
        picture.convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
        picture = buffer.getvalue()
    encoded = base64.b64encode(picture).decode("ascii")
    return Markup("data:image/jpeg;base64,") + encoded


def portrait(evidence: Evidence, side: int) -> Markup:
    """A face with its surroundings, small."""
    picture = from_pixels(evidence.image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_uri(picture, 80)


def thumbnail(analysis: Analysis, side: int) -> Markup | None:
    """What an input looks like, very small: its first frame, else its highest face."""
    if analysis.strip:
        with Image.open(io.BytesIO(analysis.strip[0].jpeg)) as picture:
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            return data_uri(picture, 65)
    return portrait(analysis.top, side) if analysis.top is not None else None
