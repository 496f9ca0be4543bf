"""The description of a store as a page: one HTML file with all of its pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from deepregions.data.describe import CLASSES, Description, Table
from deepregions.data.store import FaceStore
from deepregions.files import atomic_file

_PICTURED = 24  # faces of each class, of as many videos
_PICTURE = 128  # pixels of a picture's longer side


def write_page(store: FaceStore, description: Description, path: Path) -> None:
    """Writes the page, whole or not at all. It needs no other file and no network.

    Args:
        store: The store, for its pictures.
        description: What is said of it.
        path: The HTML file.

    Raises:
        OSError: It cannot be written.
    """
    loader = PackageLoader("deepregions.data")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    sheets = contact_sheets(store)
    page = environment.get_template("store.html").render(about=description, sheets=sheets)
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def contact_sheets(store: FaceStore) -> dict[str, list[tuple[str, str]]]:
    """Returns pictures (data URIs) and captions of each class, one face of each of some videos."""
    table = Table(store)
    sheets = {}
    for label, word in CLASSES:
        first = [row for row in table.first_rows.values() if table.labels[row] == label]
        first.sort()
        count = min(len(first), _PICTURED)
        chosen = (
            [first[i] for i in np.linspace(0, len(first) - 1, count).astype(int)] if count else []
        )
        sheets[word] = [(_picture(store[row].image), table.videos[row]) for row in chosen]
    return sheets


def _picture(data: bytes) -> str:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((_PICTURE, _PICTURE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
