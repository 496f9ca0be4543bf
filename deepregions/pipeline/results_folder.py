"""A folder of results that grows input by input: what is finished is kept, whatever comes after.

``results.jsonl`` has a line for each input, written last: an input that has a line is whole. A run
that was stopped goes on with the others; what it had begun of them is dropped.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from deepregions.errors import UsageError
from deepregions.files import Names, atomic_file, named_errors
from deepregions.pipeline.report.index import index_row, write_index
from deepregions.pipeline.report.table import CsvTable
from deepregions.pipeline.results import Result

RESULTS = "results.jsonl"
TABLE = "results.csv"
INDEX = "index.html"
_ROWS = ".index.jsonl"  # of the index: with pictures, which the results are without

SETTINGS = (
    "models",
    "fusion",
    "fusion_sha256",
    "calibration",
    "operating_point",
    "rules",
    "gates",
    "landmarks",
    "runtime",
    "precision",
    "deepregions",
)
"""The facts of a result that must be the same for results to lie in one folder."""

Mode = Literal["new", "resume", "overwrite"]


class ResultsFolder:
    """The results of one run, or of one that was stopped and went on.

    The mode ``new`` refuses a folder that has results, ``resume`` goes on with it, ``overwrite``
    begins it anew (other files in it are left alone). The caller holds the folder's lock.
    ``finished`` are the inputs that have a result, ``scored`` how many of them have a score.

    Raises:
        UsageError: The folder has results, or those of other networks or options.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        mode: Mode = "new",
        *,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = folder
        self.finished: set[str] = set()
        self.scored = 0
        self._names = Names()
        folder.mkdir(parents=True, exist_ok=True)
        if mode == "overwrite":
            for name in (RESULTS, TABLE, INDEX, _ROWS):
                (folder / name).unlink(missing_ok=True)
        elif mode == "new" and (folder / RESULTS).exists():
            raise UsageError(
                f"{folder} has results of an earlier run",
                "--resume goes on with it, --overwrite begins it anew; or name another folder",
            )
        _drop_partial(folder / RESULTS)
        self._check(facts, sampling or {})
        # With the mark by which Excel knows UTF-8; programs read results.jsonl.
        self._stream = (folder / TABLE).open("w", encoding="utf-8-sig", newline="")
        self._table = CsvTable(self._stream, facts["models"])
        for line in _lines(folder / RESULTS):
            self._table.add(line)
            self.finished.add(line["input"])
            self.scored += line["score"] is not None
        self._drop_unfinished()

    @property
    def index(self) -> Path:
        """The list of the pages, there once the folder is closed."""
        return self.path / INDEX

    def name(self, path: str) -> str:
        """Returns a name for the files of an input, unlike all others in the folder."""
        return self._names.unused(Path(path).stem)

    def add(self, result: Result, line: Mapping[str, Any], page: str) -> None:
        """Writes an input's result, and its line as JSON; from then on it is finished.

        Raises:
            OSError: It cannot be written, such as on a full disk.
        """
        with named_errors(self.path / TABLE):
            self._table.add(line)
        _append(self.path / _ROWS, index_row(result, page))
        name = str(line["input"])
        self.finished.add(name)  # before its line: what has one is never dropped
        try:
            _append(self.path / RESULTS, line)
        except OSError:
            self.finished.discard(name)
            raise
        self.scored += line["score"] is not None

    def drop(self, name: str, result: Result) -> None:
        """Removes the files of an input that was not finished."""
        if result.input not in self.finished:
            for ending in (".html", ".pdf", ".png", ".mp4"):
                (self.path / f"{name}{ending}").unlink(missing_ok=True)

    def close(self) -> None:
        """Writes the list of all pages."""
        self._stream.close()
        if self.finished:
            rows = [row for row in _lines(self.path / _ROWS) if row["input"] in self.finished]
            write_index(rows, self.index, table=TABLE)

    def _check(self, facts: Mapping[str, Any], sampling: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps({key: facts.get(key) for key in SETTINGS}))
        for line in _lines(self.path / RESULTS):
            differing = [key for key in SETTINGS if line.get(key) != wanted[key]]
            chosen = line.get("sampling") or {}
            if any(key in chosen and chosen[key] != value for key, value in sampling.items()):
                differing.append("sampling")
            if "answer" not in line:
                differing.append("the version of deepregions")
            if differing:
                raise UsageError(
                    f"{self.path} was begun with other settings: {differing[0]} differs",
                    "use the same again, pass --overwrite, or name another folder",
                )

    def _drop_unfinished(self) -> None:
        """Takes inputs that have no line out of the list; they are the last."""
        rows = self.path / _ROWS
        _drop_partial(rows)
        kept = [each for each in _lines(rows) if each["input"] in self.finished]
        with atomic_file(rows) as partial:
            partial.write_text("".join(f"{json.dumps(each)}\n" for each in kept), encoding="ascii")
        for each in kept:
            self._names.take(Path(each["page"]).stem)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    text = json.dumps(line, allow_nan=False, ensure_ascii=True)
    with named_errors(path), path.open("a", encoding="ascii") as stream:
        stream.write(f"{text}\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, text in enumerate(stream, 1):
            try:
                line = json.loads(text)
                line["input"]  # what every line has
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise UsageError(
                    f"{path}, line {number}: no result of deepregions", "--overwrite begins anew"
                ) from error
            yield line


def _drop_partial(path: Path) -> None:
    """Cuts off what comes after the last whole line."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        whole = sum(len(line) for line in stream if line.endswith(b"\n"))
        stream.truncate(whole)
