"""A folder of results that grows input by input: what is finished is kept, whatever comes after.

``results.jsonl`` has a line for each input, written as soon as it is known. Beside it lie the
pages and pictures, of a name that is kept in ``.names.jsonl``. A run that was stopped goes on with
the inputs that have no line yet; a line that was half written is dropped.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from deepregions.errors import UsageError

RESULTS = "results.jsonl"
_NAMES = ".names.jsonl"
_LONGEST = 120  # bytes of a name: room for endings, and for the hidden name of a partial file

SETTINGS = ("models", "fusion", "rules", "gates", "sampling", "landmarks", "deepregions")
"""The facts of a result that must be the same for results to lie in one folder."""

Mode = Literal["new", "resume", "overwrite"]


class Archive:
    """The results of one run, or of one that was stopped and went on.

    Args:
        folder: Made if it is not there.
        facts: What results say about how they were made; see :data:`SETTINGS`.
        mode: ``new`` refuses a folder that has results, ``resume`` goes on with it, ``overwrite``
            begins it anew (other files in it are left alone).

    Attributes:
        finished: The inputs that have a result.

    Raises:
        UsageError: The folder has results, or those of other networks or options.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], mode: Mode = "new") -> None:
        self.folder = folder
        self.finished: set[str] = set()
        self._names = Names()
        folder.mkdir(parents=True, exist_ok=True)
        self._results, self._given = folder / RESULTS, folder / _NAMES
        if mode == "overwrite":
            self._results.unlink(missing_ok=True)
            self._given.unlink(missing_ok=True)
        elif self._results.exists():
            if mode == "new":
                raise UsageError(
                    f"{folder} has results of an earlier run",
                    "--resume goes on with it, --overwrite begins it anew; or name another folder",
                )
            self._go_on(facts)

    def name(self, path: str) -> str:
        """Returns a name for the files of an input, unlike all others in the folder."""
        name = self._names.unused(Path(path).stem)
        _append(self._given, {"input": path, "name": name})
        return name

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes an input's result; from then on it is finished.

        Raises:
            OSError: It cannot be written, such as on a full disk.
        """
        _append(self._results, line)
        self.finished.add(str(line["input"]))

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the name and the result of each input, in the order in which they came."""
        names = {each["input"]: each["name"] for each in _lines(self._given)}
        for line in _lines(self._results):
            yield names.get(line["input"], ""), line

    def _go_on(self, facts: Mapping[str, Any]) -> None:
        for file in (self._results, self._given):
            _drop_partial(file)
        for each in _lines(self._given):
            self._names.take(each["name"])
        wanted = json.loads(json.dumps({key: facts.get(key) for key in SETTINGS}))
        for line in _lines(self._results):
            for key in SETTINGS:
                if line.get(key) != wanted[key]:
                    raise UsageError(
                        f"{self.folder} was begun with other settings: {key} differs",
                        "use the same again, pass --overwrite, or name another folder",
                    )
            self.finished.add(line["input"])


def _append(path: Path, line: Mapping[str, Any]) -> None:
    text = json.dumps(line, allow_nan=False, ensure_ascii=True)
    with path.open("a", encoding="ascii") as stream:
        stream.write(f"{text}\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of lines.

    Raises:
        UsageError: A line is none.
    """
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
        end = stream.seek(0, os.SEEK_END)
        kept = end
        while kept:
            start = max(0, kept - 65536)
            stream.seek(start)
            place = stream.read(kept - start).rfind(b"\n")
            if place >= 0:
                kept = start + place + 1
                break
            kept = start
        if kept < end:
            stream.truncate(kept)


class Names:
    """Gives each input a file name of its own, on any system."""

    def __init__(self) -> None:
        self._used = {"results", "index"}

    def take(self, name: str) -> None:
        """Marks a name as used."""
        self._used.add(_folded(name))

    def unused(self, stem: str) -> str:
        """Returns the stem made plain, with a number where another input has it."""
        plain = re.sub(r"[^\w.+ ()-]", "_", stem).strip(" .-") or "input"
        plain = plain.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
        name, number = plain, 2
        while _folded(name) in self._used:
            name, number = f"{plain}-{number}", number + 1
        self.take(name)
        return name


def _folded(name: str) -> str:
    """Returns what two names share that are one to a system that ignores case and accents' form."""
    return unicodedata.normalize("NFKC", name).casefold()
