"""Results as a table for spreadsheets: one row for each track, written as results come."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from deepregions.fusion.calibration import LikelihoodRatio
from deepregions.pipeline.results import Cell, InputResult, TrackResult, probability

COLUMNS = (
    "input",
    "kind",
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
    "log10_llr",
    "log10_llr_min",
    "log10_llr_max",
    "verbal",
)

# What makes a spreadsheet take a text for a formula (OWASP, CSV injection; full-width forms too),
# and the mark itself, so that taking one mark away always gives back what was there.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")
_MARK = "'"


class CsvTable:
    """A table that grows by results: whatever was written stays when a run is interrupted.

    Columns are those of :data:`COLUMNS` and one for each network, ``detector/region``, with its
    score. ``status``, ``message``, ``score``, ``log_odds``, the likelihood ratio with its bounds
    and its words are the track's; an input without a track has one row with its own. Numbers are
    those of the JSON. A text that a spreadsheet would take for a formula begins with an
    apostrophe, as does one that began with an apostrophe. All texts are quoted, so that no other
    separator splits them.

    Args:
        stream: Where to; open it as UTF-8, with ``newline=""``.
        models: The networks, as the JSON names them: their ``detector`` and ``region``.
        header: Whether to begin with the columns' names; not where the table goes on.
    """

    def __init__(
        self, stream: TextIO, models: Sequence[Mapping[str, Any]], *, header: bool = True
    ) -> None:
        self._stream = stream
        self._networks = [(model["detector"], str(model["region"])) for model in models]
        self._writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        networks = (f"{detector}/{region}" for detector, region in self._networks)
        if header:
            self._write([*COLUMNS, *networks])

    def add(self, result: InputResult) -> None:
        """Writes the rows of one input, and flushes them."""
        if not result.tracks:
            self._write([*_input(result), *_no_track(result), *([None] * len(self._networks))])
        for track in result.tracks:
            scores = _scores(track.cells)
            cells = [scores.get(network) for network in self._networks]
            self._write([*_input(result), *_track(track, result), *cells])
        self._stream.flush()

    def _write(self, row: Sequence[str | float | None]) -> None:
        self._writer.writerow([guarded(each) if isinstance(each, str) else each for each in row])


def write_csv(
    results: Iterable[InputResult], stream: TextIO, models: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a table of results as they come; see :class:`CsvTable`."""
    table = CsvTable(stream, models)
    for result in results:
        table.add(result)


def _input(result: InputResult) -> list[str]:
    return [result.input, result.kind]


def _track(track: TrackResult, result: InputResult) -> list[str | float | None]:
    return [
        str(track.status),
        "; ".join(track.reasons),
        _rounded(probability(track.log_odds)),
        _rounded(track.log_odds),
        track.track,
        round(track.start, 3),
        round(track.end, 3),
        track.faces,
        track.scored,
        str(result.status),
        _rounded(probability(result.log_odds)),
        *_ratio(track.llr),
    ]


def _no_track(result: InputResult) -> list[str | float | None]:
    status = str(result.status)
    return [status, result.message, *([None] * 7), status, None, *_ratio(None)]


def _ratio(ratio: LikelihoodRatio | None) -> list[str | float | None]:
    if ratio is None:
        return [None] * 4
    return [_rounded(ratio.log10), *map(_rounded, ratio.bounds_log10), ratio.verbal]


def _scores(cells: Iterable[Cell]) -> dict[tuple[str, str], float | None]:
    return {(c.detector, str(c.region)): _rounded(probability(c.log_odds)) for c in cells}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def guarded(text: str) -> str:
    """A text that no spreadsheet calculates, and that every encoding of Unicode can write."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return f"{_MARK}{text}" if text.startswith(_FORMULA) else text
