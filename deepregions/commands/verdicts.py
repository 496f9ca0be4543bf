"""How ``detect`` shows its results: tables or JSON on standard output, pictures in a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import ImageShow
from rich import box
from rich.markup import escape
from rich.table import Table

from deepregions.analysis.evidence import Analysis
from deepregions.analysis.picture import draw_verdict, save_verdict
from deepregions.analysis.results import InputResult, TrackResult, probability, to_json
from deepregions.commands import checks
from deepregions.files import atomic_file
from deepregions.types import Status

_HINTS = {
    Status.NO_FACE: "nothing was judged; --landmarks names other face finders",
    Status.TOO_SMALL: "give a larger picture of the face",
    Status.ERROR: "the bundle is broken: train or import it again",
}


class Verdicts:
    """Shows results one by one, as they come.

    Args:
        facts: What results say about how they were made.
        folder: Where pictures and results.jsonl go; None for nowhere.
        as_json: One JSON object per line on standard output, instead of tables.
        on_screen: Open pictures in the system's viewer.
    """

    def __init__(
        self, facts: dict[str, Any], *, folder: Path | None, as_json: bool, on_screen: bool = False
    ) -> None:
        self._facts = facts
        self._folder = folder
        self._as_json = as_json
        self._on_screen = on_screen
        self._lines: list[str] = []
        self._names = checks.Names()
        self._console = checks.output()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def show(self, analysis: Analysis) -> None:
        """Prints one result, and writes its picture; without a score, says why on stderr."""
        result = analysis.result
        line = json.dumps(to_json(result, self._facts), allow_nan=False)
        self._lines.append(line)
        if self._as_json:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        else:
            self._print_table(result)
        if result.status is not Status.OK:
            hint = _HINTS.get(result.status, "")
            said = f"{result.input}: {result.status}: {result.message}".removesuffix(": ")
            shown = said if result.input not in result.message else result.message
            sys.stderr.write(f"deepregions: {shown}{f' ({hint})' if hint else ''}\n")
        if analysis.top is not None and (self._folder is not None or self._on_screen):
            picture = draw_verdict(result, analysis.top, self._facts["models"])
            if self._folder is not None:
                name = self._names.unused(Path(result.input).stem)
                save_verdict(picture, self._folder / f"{name}.png")
            if self._on_screen and not ImageShow.show(picture, title=result.input):
                sys.stderr.write("deepregions: no program shows pictures here (use --out DIR)\n")

    def close(self) -> None:
        """Writes results.jsonl, if there is a folder for it."""
        if self._folder is not None:
            with atomic_file(self._folder / "results.jsonl") as partial:
                partial.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")

    def _print_table(self, result: InputResult) -> None:
        head = f"[bold]{escape(result.input)}[/]  status [bold]{result.status}[/]"
        if result.top_track is None:
            self._console.print(f"{head}  no score", highlight=False)
            return
        score = _number(probability(result.log_odds))
        seen = f"{_count(result.frames, 'frame')}, {_count(len(result.faces), 'face')}"
        if len(result.tracks) > 1:
            seen += f", {len(result.tracks)} people, the highest is shown"
        self._console.print(f"{head}  fused P(fake) [bold]{score}[/]  ({seen})", highlight=False)
        self._console.print(_table(result.top_track))


def _table(track: TrackResult) -> Table:
    """The region x detector table of the person that gives the input its score."""
    detectors = list(dict.fromkeys(cell.detector for cell in track.cells))
    regions = list(dict.fromkeys(cell.region for cell in track.cells))
    scores = {(cell.detector, cell.region): cell.log_odds for cell in track.cells}
    table = Table(box=box.SIMPLE)
    table.add_column("region")
    for detector in detectors:
        table.add_column(detector, justify="right")
    for region in regions:
        cells = [_cell(scores, detector, region) for detector in detectors]
        table.add_row(str(region), *cells)
    table.add_section()
    table.add_row("fused", _number(probability(track.log_odds)), *[""] * (len(detectors) - 1))
    return table


def _cell(scores: dict[tuple[str, Any], float | None], detector: str, region: Any) -> str:
    if (detector, region) not in scores:
        return "-"
    return _number(probability(scores[detector, region]))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(score: float | None) -> str:
    return "no answer" if score is None else f"{score:.3f}"
