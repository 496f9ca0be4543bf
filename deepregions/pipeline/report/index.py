"""The list of several inputs, with a link to each one's page."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from deepregions.files import atomic_file
from deepregions.pipeline.report.drawing import small_uri, to_picture
from deepregions.pipeline.report.page import UNCALIBRATED, environment
from deepregions.pipeline.results import Result
from deepregions.types import Status

_SIDE = 96  # pixels: about 2 KB


def index_row(result: Result, page: str = "") -> dict[str, Any]:
    """Makes an input's row of the list, as JSON: small enough to keep many.

    Its first frame, else its highest face, is what it looks like; the page is relative to the
    list's folder, with ``/`` between folders.
    """
    thumbnail = None
    if result.strip:
        with Image.open(io.BytesIO(result.strip[0].jpeg)) as picture:
            thumbnail = small_uri(picture, _SIDE, 65)
    elif result.top_face is not None and result.top_face.patch is not None:
        thumbnail = small_uri(to_picture(result.top_face.patch.image), _SIDE, 80)
    return {
        "input": result.input,
        "kind": result.kind,
        "status": str(result.status),
        "message": result.reason,
        "log_odds": result.log_odds,
        "tracks": len(result.people),
        "page": page,
        "thumbnail": thumbnail,
    }


def write_index(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    calibration: str | Mapping[str, Any] = UNCALIBRATED,
) -> None:
    """Writes the list of inputs, rows by :func:`index_row`, as one HTML file."""
    counts = Counter(row["status"] for row in rows)
    stream = (
        environment()
        .get_template("index.html.j2")
        .stream(
            rows=[_shown(row) for row in rows],
            counts=[(status, counts[status]) for status in Status if counts[status]],
            calibration=calibration,
        )
    )
    stream.enable_buffering(100)
    with atomic_file(path) as partial:
        stream.dump(str(partial), encoding="utf-8")


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(row["input"])
    folder = str(path.parent) if path.parent.parts else ""
    return {**row, "name": path.name or row["input"], "folder": folder, "link": link(row["page"])}


def link(page: str) -> str:
    """Returns a page's relative address: never one with a scheme, whatever its name is."""
    return f"./{quote(os.fsencode(page))}" if page else ""
