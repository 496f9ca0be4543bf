"""How ``detect`` shows its results: tables or lines on standard output, pages in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image, ImageShow
from rich import box
from rich.markup import escape
from rich.table import Table

from deepregions.commands import checks
from deepregions.errors import UnreadableError, UnsupportedError, UsageError, printable
from deepregions.files import atomic_file, lock_folder
from deepregions.fusion.calibration import LikelihoodRatio
from deepregions.media import Sampling
from deepregions.pipeline.report import CsvTable, annotate_video, write_page
from deepregions.pipeline.report.verdict import draw_verdict
from deepregions.pipeline.report.words import conclusion, people
from deepregions.pipeline.results import InputResult, TrackResult, probability, to_json
from deepregions.pipeline.results_folder import Archive, Mode
from deepregions.types import Status

_HINTS = {
    Status.NO_FACE: "nothing was judged; --landmarks names other face finders",
    Status.TOO_SMALL: "give a larger picture of the face",
    Status.LOW_QUALITY: "give a better picture of the face, or other --gates",
    Status.ERROR: "the bundle is broken: train or import it again",
}


@dataclass(frozen=True)
class Output:
    """What is shown, and where.

    Attributes:
        json: A JSON object per input on standard output, instead of tables.
        csv: Comma-separated values on standard output, instead of tables.
        show: Open pictures in the system's viewer.
        folder: Where pages, pictures and results go; None for nowhere.
        resume: Go on with the folder's results.
        overwrite: Begin the folder anew.
        annotate: Write annotated videos to the folder.

    Raises:
        UsageError: Options that do not go together.
    """

    json: bool = False
    csv: bool = False
    show: bool = False
    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False
    annotate: bool = False

    def __post_init__(self) -> None:
        if self.json and self.csv:
            raise UsageError("--json and --csv do not go together", "--out DIR writes both")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite do not go together", "give one of them")
        for name in ("resume", "overwrite", "annotate"):
            if getattr(self, name) and self.folder is None:
                raise UsageError(f"--{name} needs a folder", "--out DIR")

    @property
    def mode(self) -> Mode:
        """How the folder is opened."""
        return "resume" if self.resume else "overwrite" if self.overwrite else "new"


class VerdictPrinter:
    """Shows results one by one, as they come; what was shown is kept, whatever comes after.

    Args:
        facts: What results say about how they were made.
        output: What is shown, and where.
        sampling: Which frames are looked at.
    """

    def __init__(self, facts: Mapping[str, Any], output: Output, sampling: Sampling) -> None:
        self._facts = facts
        self._output = output
        self._sampling = asdict(sampling)
        self._console = checks.output()
        self._archive: Archive | None = None
        self._table: CsvTable | None = None
        self._scored = 0
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        if self._output.folder is not None:
            self._lock.enter_context(lock_folder(self._output.folder, "detect"))
            self._archive = Archive(
                self._output.folder, self._facts, self._output.mode, sampling=self._sampling
            )
            self._scored = self._archive.scored
        if self._output.csv:
            self._table = CsvTable(sys.stdout, self._facts["models"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Lists what was finished, also where Ctrl-C or an error ended it."""
        with self._lock:
            if self._archive is not None:
                self._archive.close()

    @property
    def scored(self) -> int:
        """How many inputs have a score, with those of an earlier run that is gone on with."""
        return self._scored

    def unfinished(self, files: Sequence[Path]) -> list[Path]:
        """Returns the inputs that have no result yet."""
        done = self._archive.finished if self._archive is not None else set()
        return [path for path in files if str(path) not in done]

    def show(self, result: InputResult) -> None:
        """Prints one result and writes its files; without a score, says why on stderr."""
        line = to_json(result, self._facts)
        if self._output.json:
            sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
            sys.stdout.flush()
        elif self._table is not None:
            self._table.add(line)
        else:
            self._print_table(result)
        say(result)
        picture = None
        if result.top_face is not None and (self._archive is not None or self._output.show):
            picture = draw_verdict(result, result.top_face, self._facts["models"])
        if self._archive is not None:
            self._keep(self._archive, result, line, picture)
        self._scored += result.log_odds is not None
        if picture is not None and self._output.show:
            shown = ImageShow.show(picture, title=printable(result.input))
            if not shown:
                sys.stderr.write("deepregions: no program shows pictures here (use --out DIR)\n")

    def _keep(
        self,
        archive: Archive,
        result: InputResult,
        line: Mapping[str, Any],
        picture: Image.Image | None,
    ) -> None:
        """Writes an input's files, its line last: what has a line is whole."""
        name = archive.name(result.input)
        page = f"{name}.html"
        write_page(result, self._facts, archive.folder / page)
        if picture is not None:
            with atomic_file(archive.folder / f"{name}.png") as partial:
                picture.save(partial, format="PNG")
        if self._output.annotate and result.kind == "video" and result.faces:
            try:
                annotate_video(Path(result.input), result, archive.folder / f"{name}.mp4")
            except (UnreadableError, UnsupportedError) as error:
                sys.stderr.write(f"deepregions: no annotated video: {error}\n")
        archive.add(result, line, page)

    def _print_table(self, result: InputResult) -> None:
        head = f"[bold]{escape(printable(result.input))}[/]  "
        said = escape(printable(conclusion(result)))
        self._console.print(f"{head}[bold]{said}[/]", highlight=False)
        if result.top_track is None:
            return
        seen = f"{_count(result.frames, 'frame')}, {_count(len(result.faces), 'face')}"
        self._console.print(f"  {people(result)} ({seen})", highlight=False)
        if result.llr is not None:
            self._console.print(f"  {_ratio(result.llr)}", highlight=False)
        self._console.print(_table(result.top_track))
        for warning in result.warnings:
            self._console.print(f"  note: {escape(printable(warning))}", highlight=False)


def _ratio(ratio: LikelihoodRatio) -> str:
    """What the score says, by the calibration."""
    low, high = ratio.bounds_log10
    bounds = f"the data supports {low:+.2f} to {high:+.2f}"
    return f"log10 likelihood ratio [bold]{ratio.log10:+.2f}[/] ({bounds}): {ratio.verbal}"


def say(result: InputResult) -> None:
    """Says on standard error why there is no score, in one line."""
    if result.status is Status.OK:
        return
    hint = _HINTS.get(result.status, "")
    name = printable(result.input)
    told = printable(result.message)
    said = told if name in told else f"{name}: {result.status}: {told}".removesuffix(": ")
    sys.stderr.write(f"deepregions: {said}{f' ({hint})' if hint else ''}\n")


def _table(track: TrackResult) -> Table:
    """The region x detector table of the person that gives the input its score."""
    detectors = list(dict.fromkeys(detector for detector, _ in track.cells))
    regions = list(dict.fromkeys(region for _, region in track.cells))
    table = Table(box=box.SIMPLE)
    table.add_column("region")
    for detector in detectors:
        table.add_column(detector, justify="right")
    for region in regions:
        cells = [
            _number(probability(track.cells[detector, region]))
            if (detector, region) in track.cells
            else "-"
            for detector in detectors
        ]
        table.add_row(str(region), *cells)
    table.add_section()
    table.add_row("fused", _number(probability(track.log_odds)), *[""] * (len(detectors) - 1))
    return table


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(score: float | None) -> str:
    return "no answer" if score is None else f"{score:.3f}"
