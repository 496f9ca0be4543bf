"""How ``detect`` shows its results: tables or lines on standard output, pages in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
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


@dataclass
class VerdictPrinter:
    """Shows results one by one as they come, and keeps them in a folder if there is one.

    Attributes:
        facts: What results say about how they were made.
        sampling: Which frames are looked at.
        form: What is printed on standard output: tables, a JSON object per input and line, or
            comma-separated values.
        mode: How the folder is opened.
        explain: Finds what a page shows of why a result is as it is.
        scored: How many inputs have a score, including those of an earlier run that is resumed.

    Raises:
        UsageError: The folder has results, or those of other networks or options.
    """

    facts: Mapping[str, Any]
    sampling: Sampling
    form: Literal["tables", "json", "csv"]
    folder: InitVar[Path | None] = None
    mode: InitVar[Mode] = "new"
    annotate: bool = False
    display: bool = False
    explain: Callable[[Result], Mapping[str, Any]] | None = None
    browser: str = ""
    scored: int = field(default=0, init=False)
    _folder: ResultsFolder | None = field(default=None, init=False)
    _answered: bool = field(default=False, init=False)
    _printed: bool = field(default=False, init=False)

    def __post_init__(self, folder: Path | None, mode: Mode) -> None:
        if folder is not None:
            from deepregions.pipeline.results_folder import ResultsFolder

            self._folder = ResultsFolder(folder, self.facts, mode, sampling=asdict(self.sampling))
            self.scored = self._folder.scored
        self._csv = CsvTable(sys.stdout, self.facts["models"]) if self.form == "csv" else None

    def close(self) -> None:
        """Ends tables with the networks' limits; lists in the folder what was finished.

        So it does even if Ctrl-C or an error ended the run.
        """
        if self._printed and "limits" in self.facts:
            checks.print_lines(f"Limits of these networks: {printable(self.facts['limits'])}")
        if self._folder is not None:
            self._folder.close()
            if self._answered:
                checks.print_lines(f"Open {printable(str(self._folder.index))} in a browser.")

    def unfinished(self, files: Sequence[Path]) -> list[Path]:
        """Returns the inputs that have no result yet, and says how many have one."""
        done = self._folder.finished if self._folder is not None else set()
        left = [path for path in files if str(path) not in done]
        if self.form == "tables" and len(left) < len(files):
            self._answered = True
            checks.print_lines(f"{len(files) - len(left)} of {len(files)} files were done before")
        return left

    def show(self, result: Result) -> None:
        """Prints one result and writes its files; without a score, says why on standard error."""
        line = result.to_dict()
        if self.form == "json":
            checks.print_json(line, indent=None)
        elif self._csv is not None:
            self._csv.add(line)
        else:
            self._print_tables(result)
        say(result)
        picture = None
        if result.top_face is not None and (self._folder is not None or self.display):
            from deepregions.pipeline.report.verdict import draw_verdict

            picture = draw_verdict(result, result.top_face, self.facts["models"])
        if self._folder is not None:
            name = self._folder.name(result.input)
            try:
                self._keep(self._folder, name, result, line, picture)
            except BaseException:  # Ctrl-C too
                self._folder.drop(name, result)
                raise
        self.scored += result.log_odds is not None
        if picture is not None and self.display:
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
        write_page(result, folder.path / page, **(self.explain(result) if self.explain else {}))
        if self.browser:
            print_page(self.browser, folder.path / page, folder.path / f"{name}.pdf")
        if picture is not None:
            with atomic_file(folder.path / f"{name}.png") as partial:
                picture.save(partial, format="PNG", compress_level=1)  # a third of the time
        if self.annotate and result.kind == "video" and result.faces:
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
    detectors = list(dict.fromkeys(detector for detector, _ in track.cells))
    regions = list(dict.fromkeys(region for _, region in track.cells))
    scores = {place: score(log_odds) for place, log_odds in track.cells.items()}
    rows = [
        [region, *(scores.get((each, region), "-") for each in detectors)] for region in regions
    ]
    fused = ["fused", score(track.log_odds), *[""] * (len(detectors) - 1)]
    checks.print_table(["region", *detectors], [*rows, [], fused], right=detectors)
