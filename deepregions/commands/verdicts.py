"""How ``detect`` shows its results: tables or lines on standard output, pages in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import ImageShow
from rich import box
from rich.markup import escape
from rich.table import Table

from deepregions.analysis.archive import RESULTS, Archive, Mode
from deepregions.analysis.evidence import Analysis
from deepregions.analysis.picture import draw_verdict, save_verdict
from deepregions.analysis.report import CsvWriter, annotate_video, write_index, write_page
from deepregions.analysis.results import InputResult, TrackResult, probability, to_json
from deepregions.commands import checks
from deepregions.errors import UsageError
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
        video: Write annotated videos to the folder.

    Raises:
        UsageError: Options that do not go together.
    """

    json: bool = False
    csv: bool = False
    show: bool = False
    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False
    video: bool = False

    def __post_init__(self) -> None:
        if self.json and self.csv:
            raise UsageError("--json and --csv do not go together", "--out DIR writes both")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite do not go together", "give one of them")
        for name in ("resume", "overwrite", "video"):
            if getattr(self, name) and self.folder is None:
                raise UsageError(f"--{name} needs a folder", "--out DIR")

    @property
    def mode(self) -> Mode:
        """How the folder is opened."""
        return "resume" if self.resume else "overwrite" if self.overwrite else "new"


class Verdicts:
    """Shows results one by one, as they come; what was shown is kept, whatever comes after.

    Args:
        facts: What results say about how they were made.
        output: What is shown, and where.

    Attributes:
        scored: How many inputs have a score, with those of an earlier run that is gone on with.
    """

    def __init__(self, facts: Mapping[str, Any], output: Output) -> None:
        self.scored = 0
        self._facts = facts
        self._output = output
        self._console = checks.output()
        self._archive: Archive | None = None
        self._csv = CsvWriter(sys.stdout, facts["models"]) if output.csv else None

    def __enter__(self) -> Self:
        if self._output.folder is not None:
            self._archive = Archive(self._output.folder, self._facts, self._output.mode)
            self.scored = sum(line["score"] is not None for _, line in self._archive.results())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._archive is not None and (kind is None or issubclass(kind, KeyboardInterrupt)):
            self._archive.finish()

    def unfinished(self, files: Sequence[Path]) -> list[Path]:
        """Returns the inputs that have no result yet."""
        done = self._archive.finished if self._archive is not None else set()
        return [path for path in files if str(path) not in done]

    def show(self, analysis: Analysis) -> None:
        """Prints one result and writes its files; without a score, says why on stderr."""
        result = analysis.result
        line = to_json(result, self._facts)
        if self._output.json:
            sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
            sys.stdout.flush()
        elif self._csv is not None:
            self._csv.write(result)
        else:
            self._print_table(result)
        self._say(result)
        picture = None
        if analysis.top is not None and (self._archive is not None or self._output.show):
            picture = draw_verdict(result, analysis.top, self._facts["models"])
        if self._archive is not None:
            self._archive.add(analysis, line, picture)
        if picture is not None and self._output.show:
            if not ImageShow.show(picture, title=result.input):
                sys.stderr.write("deepregions: no program shows pictures here (use --out DIR)\n")
        self.scored += result.log_odds is not None
