"""The list of several inputs, with a link to each one's page."""

import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from deepregions.files import atomic_file
from deepregions.pipeline.origin_words import origin_line
from deepregions.pipeline.report.drawing import small_uri, to_picture
from deepregions.pipeline.report.page import environment
from deepregions.pipeline.results import Result
from deepregions.pipeline.words import MEANING
from deepregions.types import Status

_SIDE = 96  # pixels: about 2 KB
_GROUPS = {
    "manipulated": "evidence of manipulation",
    "genuine": "evidence of a genuine face",
    "none": "no conclusion",
    **{str(status): MEANING[status] for status in Status if status is not Status.OK},
}


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
    judged = sum(face.log_odds is not None for face in result.faces)
    return {
        "input": result.input,
        "status": str(result.status),
        "answer": asdict(result.answer),
        "side": _side(result),
        "log10_llr": None if result.evidence is None else result.evidence.log10,
        "log_odds": result.log_odds,
        "above": result.above_threshold,
        "coverage": judged / len(result.faces) if result.faces else None,
        "origin": origin_line(result.provenance),
        "page": page,
        "thumbnail": thumbnail,
    }


def _side(result: Result) -> str:
    """Which of the groups of the list it is in: what it speaks for, else its status."""
    if result.log_odds is None:
        return str(result.status)
    verbal = "" if result.evidence is None else result.evidence.verbal
    return next((side for side in ("manipulated", "genuine") if verbal.endswith(side)), "none")


def write_index(rows: Sequence[Mapping[str, Any]], path: Path, *, table: str = "") -> None:
    """Writes the list of inputs, rows by :func:`index_row`, as HTML; ``table`` names its CSV."""
    counts = Counter(row["side"] for row in rows)
    notes = dict.fromkeys(
        row["answer"][key] for key in ("holds_for", "error_rates") for row in rows
    )
    template = environment().get_template("index.html.j2")
    stream = template.stream(
        rows=[_shown(row) for row in rows],
        groups=[(side, name, counts[side]) for side, name in _GROUPS.items() if counts[side]],
        notes=[each for each in notes if each],
        table=table,
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
