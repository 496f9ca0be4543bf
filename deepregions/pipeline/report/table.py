"""Results as a table for spreadsheets: one row for each track, written as results come."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from deepregions.errors import printable
from deepregions.media.provenance import from_json
from deepregions.pipeline.origin_words import origin_line
from deepregions.pipeline.words import threshold

COLUMNS = (
    "input",
    "kind",
    "conclusion",
    "log10_llr",
    "log10_llr_min",
    "log10_llr_max",
    "verbal",
    "holds_for",
    "judged",
    "above_threshold",
    "threshold",
    "error_rates",
    "status",
    "message",
    "score",
    "log_odds",
    "track",
    "start",
    "end",
    "faces",
    "scored",
    "input_status",
    "input_score",
    "origin",
)

# What makes a spreadsheet take a text for a formula (OWASP, CSV injection; full-width forms too),
# and the mark itself, so that taking one mark away always gives back what was there.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
_MARK = "'"


class CsvTable:
    """A table that grows by results: whatever was written stays when a run is interrupted.

    Columns are those of :data:`COLUMNS` and one for each network, ``detector/region``, with its
    score. ``judged``, ``holds_for``, ``error_rates``, ``input_...`` and ``origin`` are the input's,
    the others the track's; an input without a track has one row with its own. The stream is UTF-8,
    opened with ``newline=""``; on a terminal, no text of a stranger can move the cursor.
    """

    def __init__(self, stream: TextIO, models: Sequence[Mapping[str, Any]]) -> None:
        self._stream = stream
        self._networks = [(model["detector"], str(model["region"])) for model in models]
        self._writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        self._write([*COLUMNS, *("/".join(network) for network in self._networks)])

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes the rows of one input, as :func:`~deepregions.pipeline.results.to_json` has it."""
        answer = line["answer"]
        own = {"input": line["input"], "kind": line["kind"], "judged": answer["judged"]}
        own |= {key: answer[key] for key in ("holds_for", "error_rates")}
        own["input_status"] = line["status"]
        own["origin"] = origin_line(from_json(line["provenance"])) or None
        if not line["tracks"]:
            row = own | {key: line[key] for key in ("status", "message")}
            row["conclusion"] = answer["conclusion"]
            self._write([*map(row.get, COLUMNS), *([None] * len(self._networks))])
        for track in line["tracks"]:
            ratio = track["llr"] or {"log10": None, "log10_bounds": (None, None), "verbal": None}
            row = track | own
            row["message"], row["input_score"] = "; ".join(track["reasons"]), line["score"]
            row["log10_llr"], row["verbal"] = ratio["log10"], ratio["verbal"]
            row["log10_llr_min"], row["log10_llr_max"] = ratio["log10_bounds"]
            above = track.get("above_threshold")
            row["threshold"] = threshold(above, line.get("operating_point"))
            row["above_threshold"] = None if above is None else str(above).lower()
            scores = {(cell["detector"], cell["region"]): cell["score"] for cell in track["cells"]}
            self._write([*map(row.get, COLUMNS), *map(scores.get, self._networks)])
        self._stream.flush()

    def _write(self, row: Sequence[str | float | None]) -> None:
        texts = (guarded(each) if isinstance(each, str) else each for each in row)
        if self._stream.isatty():
            texts = (printable(each) if isinstance(each, str) else each for each in texts)
        self._writer.writerow(texts)


def guarded(text: str) -> str:
    """A text that no spreadsheet calculates, and that every encoding of Unicode can write."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return f"{_MARK}{text}" if text.startswith(_FORMULA) else text
