"""How ``detect`` shows its results: tables or lines on standard output, pages in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from deepregions.commands import checks
from deepregions.errors import UnreadableError, UnsupportedError, printable
from deepregions.files import atomic_file
from deepregions.media import Sampling
from deepregions.pipeline.origin_words import origin_line
from deepregions.pipeline.report.table import CsvTable
from deepregions.pipeline.results import Person, Result
from deepregions.pipeline.words import score
from deepregions.types import Status

if TYPE_CHECKING:
    from deepregions.pipeline.results_folder import Mode, ResultsFolder

_HINTS = {
    Status.NO_FACE: "nothing was judged; --landmarks names other face finders",
    Status.TOO_SMALL: "give a larger picture of the face",
    Status.LOW_QUALITY: "give a better picture of the face, or other --gates",
    Status.ERROR: "the bundle is broken: train or import it again",
}


class VerdictPrinter:
    """Shows results one by one as they come, and keeps them in a folder if there is one.

    Args:
        facts: What results say about how they were made.
        sampling: Which frames are looked at.
        form: What is printed on standard output: tables, a JSON object per input and line, or
            comma-separated values.
        mode: How the folder is opened.
        explain: Finds what a page shows of why a result is as it is.

    Attributes:
        scored: How many inputs have a score, including those of an earlier run that is resumed.

    Raises:
        UsageError: The folder has results, or those of other networks or options.
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        sampling: Sampling,
        form: Literal["tables", "json", "csv"],
        *,
        folder: Path | None,
        mode: Mode,
        annotate: bool,
        show: bool,
        explain: Callable[[Result], Mapping[str, Any]] | None = None,
        browser: str = "",
    ) -> None:
        self._facts = facts
        self._form = form
        self._annotate = annotate
        self._show = show
        self._explain = explain
        self._browser = browser
        self._folder: ResultsFolder | None = None
        self._answered = self._printed = False
        self.scored = 0
        if folder is not None:
            from deepregions.pipeline.results_folder import ResultsFolder

            self._folder = ResultsFolder(folder, facts, mode, sampling=asdict(sampling))
            self.scored = self._folder.scored
        self._csv = CsvTable(sys.stdout, facts["models"]) if form == "csv" else None

    def close(self) -> None:
        """Ends tables with the networks' limits; lists in the folder what was finished.

        So it does even if Ctrl-C or an error ended the run.
        """
        if self._printed and "limits" in self._facts:
            checks.print_lines(f"Limits of these networks: {printable(self._facts['limits'])}")
        if self._folder is not None:
            self._folder.close()
            if self._answered:
                checks.print_lines(f"Open {printable(str(self._folder.index))} in a browser.")

    def unfinished(self, files: Sequence[Path]) -> list[Path]:
        """Returns the inputs that have no result yet."""
        done = self._folder.finished if self._folder is not None else set()
        return [path for path in files if str(path) not in done]

    def show(self, result: Result) -> None:
        """Prints one result and writes its files; without a score, says why on standard error."""
        line = result.to_dict()
        if self._form == "json":
            checks.print_json(line, indent=None)
        elif self._csv is not None:
            self._csv.add(line)
        else:
            self._print_tables(result)
        say(result)
        picture = None
        if result.top_face is not None and (self._folder is not None or self._show):
            from deepregions.pipeline.report.verdict import draw_verdict

            picture = draw_verdict(result, result.top_face, self._facts["models"])
        if self._folder is not None:
            name = self._folder.name(result.input)
            try:
                self._keep(self._folder, name, result, line, picture)
            except BaseException:  # Ctrl-C too
                self._folder.drop(name, result)
                raise
        self.scored += result.log_odds is not None
        if picture is not None and self._show:
            from PIL import ImageShow

            shown = ImageShow.show(picture, title=printable(result.input))
            if not shown:
                checks.warn("no program shows pictures here (use --out DIR)")

    def _keep(
        self,
        folder: ResultsFolder,
        name: str,
        result: Result,
        line: Mapping[str, Any],
        picture: Image.Image | None,
    ) -> None:
        """Writes an input's files, its line last: what has a line is whole."""
        from deepregions.pages.pdf import print_page
        from deepregions.pipeline.report.page import write_page
        from deepregions.pipeline.report.video import annotate_video

        page = f"{name}.html"
        write_page(result, folder.path / page, **(self._explain(result) if self._explain else {}))
        if self._browser:
            print_page(self._browser, folder.path / page, folder.path / f"{name}.pdf")
        if picture is not None:
            with atomic_file(folder.path / f"{name}.png") as partial:
                picture.save(partial, format="PNG")
        if self._annotate and result.kind == "video" and result.faces:
            try:
                annotate_video(Path(result.input), result, folder.path / f"{name}.mp4")
            except (UnreadableError, UnsupportedError) as error:
                checks.warn(f"no annotated video: {error}")
        folder.add(result, line, page)

    def _print_tables(self, result: Result) -> None:
        self._answered = True
        print_answer(result)
        if told := origin_line(result.provenance):
            checks.print_lines(f"  Where the file comes from: {told}")
        if result.top_person is None:
            return
        self._printed = True
        _print_track(result.top_person)
        checks.print_lines(*(f"  note: {warning}" for warning in result.warnings))


def print_answer(result: Result) -> None:
    """Prints what a result says."""
    from rich.text import Text

    said = printable(f"{result.input}  {result.answer.conclusion}")
    checks.output().print(Text(said, "bold"))
    checks.print_lines(*(f"  {each}" for each in result.answer.details))


def say(result: Result) -> None:
    """Says on standard error why there is no score, in one line."""
    if result.status is Status.OK:
        return
    hint = _HINTS.get(result.status, "")
    said = result.reason
    if result.input not in said:
        said = f"{result.input}: {result.status}: {said}".removesuffix(": ")
    checks.warn(f"{said} ({hint})" if hint else said)


def _print_track(track: Person) -> None:
    """Prints the region x detector table of the person that gives the input its score."""
    detectors = list(dict.fromkeys(detector for detector, _ in track.cells))
    regions = list(dict.fromkeys(region for _, region in track.cells))
    scores = {place: score(log_odds) for place, log_odds in track.cells.items()}
    rows = [
        [region, *(scores.get((each, region), "-") for each in detectors)] for region in regions
    ]
    fused = ["fused", score(track.log_odds), *[""] * (len(detectors) - 1)]
    checks.print_table(["region", *detectors], [*rows, [], fused], right=detectors)
