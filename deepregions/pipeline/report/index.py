"""The list of several inputs, with a link to each one's page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from deepregions.files import atomic_file
from deepregions.pipeline.report.page import UNCALIBRATED, environment
from deepregions.pipeline.report.pictures import thumbnail
from deepregions.pipeline.top_faces import Analysis
from deepregions.types import Status

_SIDE = 96  # pixels: about 2 KB


@dataclass(frozen=True)
class IndexRow:
    """One input of a list: small enough to keep many.

    Attributes:
        input: Its path.
        kind: As in its result.
        status: As in its result.
        message: As in its result.
        log_odds: As in its result.
        tracks: How many it has.
        page: Its page, relative to the list's folder; empty for none.
        thumbnail: What it looks like, as a data URI.
    """

    input: str
    kind: str
    status: Status
    message: str
    log_odds: float | None
    tracks: int
    page: str
    thumbnail: Markup | None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.input).name or self.input

    @property
    def folder(self) -> str:
        """The rest of its path; empty if there is none."""
        return str(Path(self.input).parent) if Path(self.input).parent.parts else ""

    @property
    def link(self) -> str:
        """The page as a relative address: never one with a scheme, whatever its name is."""
        return f"./{quote(os.fsencode(self.page))}" if self.page else ""


def index_row(analysis: Analysis, page: str = "") -> IndexRow:
    """Makes an input's row.

    Args:
        analysis: What came of it.
        page: Its page, relative to the list's folder, with ``/`` between folders.
    """
    result = analysis.result
    return IndexRow(
        input=result.input,
        kind=result.kind,
        status=result.status,
        message=result.message,
        log_odds=result.log_odds,
        tracks=len(result.tracks),
        page=page,
        thumbnail=thumbnail(analysis, _SIDE),
    )


def write_index(
    rows: Sequence[IndexRow], path: Path, *, calibration: str | Mapping[str, Any] = UNCALIBRATED
) -> None:
    """Writes the list of inputs, in the order given, as one HTML file.

    Args:
        rows: The inputs.
        path: The file; it appears whole or not at all.
        calibration: As in the results' facts.

    Raises:
        OSError: The file cannot be written.
    """
    counts = Counter(row.status for row in rows)
    stream = (
        environment()
        .get_template("index.html.j2")
        .stream(
            rows=rows,
            counts=[(status, counts[status]) for status in Status if counts[status]],
            calibration=calibration,
        )
    )
    stream.enable_buffering(100)
    with atomic_file(path) as partial:
        stream.dump(str(partial), encoding="utf-8")
