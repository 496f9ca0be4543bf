"""The folder of an archive's results: parts that appear whole, and journals of those begun.

A *part* is a Parquet file of the results of consecutive rows of the manifest, named after its
first and last id and a digest of its ids and paths. While it is worked on it is a *journal*, a file
of JSON lines: whoever goes on with it finds in it what is finished, and what became of the rest.
"""

import errno
import json
import os
import re
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from deepregions.archive.columns import as_results, schema
from deepregions.archive.manifest import as_files, digest
from deepregions.errors import UsageError
from deepregions.files import atomic_file, named_errors, try_lock

RUN = "run.json"
KILLS = 2  # workers that a file may end before it is given up
RUNS = 5  # runs that may end, without having time to say so, during a file before it is given up

_ROWS = 256  # of a part's row group, and of what is held of it when it is written
_NAME = re.compile(r"(\d{12,})-(\d{12,})-([0-9a-f]{8})")


class IdRange(NamedTuple):
    """Which rows of a manifest a part has."""

    first: int
    last: int
    digest: str

    @classmethod
    def of(cls, files: pa.Table) -> Self:
        """Returns that of rows of a manifest."""
        return cls(files["id"][0].as_py(), files["id"][-1].as_py(), digest(files))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Returns that of a part or journal by its name; None where it is neither."""
        found = _NAME.fullmatch(name.partition(".")[0])
        return None if found is None else cls(int(found[1]), int(found[2]), found[3])

    def __str__(self) -> str:
        return f"{self.first:012d}-{self.last:012d}-{self.digest}"


class ArchiveResults:
    """The results of an archive: ``run.json``, and the folders ``parts``, ``pages``, ``shards``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"

    def begin(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Says what the results are made with, if nobody has; returns what they are made with.

        Raises:
            UsageError: They are made with something else.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        target = self.path / RUN
        if not target.exists():
            scratch = self.path / f".{RUN}.{secrets.token_hex(8)}"
            with named_errors(target):
                scratch.write_text(json.dumps(run, indent=1), encoding="ascii")
            with suppress(FileExistsError):
                target.hardlink_to(scratch)
            scratch.unlink()
        there, wanted = self.run(), json.loads(json.dumps(run))
        for name, value in wanted["settings"].items():
            before = there["settings"].get(name)
            if before != value:
                values = f" ({before}, now {value})" if len(f"{before}{value}") < 60 else ""
                raise UsageError(
                    f"{self.path} was begun with other settings: {name} differs{values}",
                    "use the same again, or name another folder",
                )
        return there

    def run(self) -> dict[str, Any]:
        """Returns what the results are made with.

        Raises:
            UsageError: There are no results.
        """
        try:
            told = json.loads((self.path / RUN).read_text("ascii"))
            int(told["settings"]["part_size"])
            return dict(told)
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "deepregions archive score MANIFEST --out FOLDER makes one"
            raise UsageError(f"{self.path} is no folder of an archive's results", hint) from error

    def part_size(self) -> int | None:
        """Returns how many files a part has; None where that is not decided yet."""
        if not (self.path / RUN).exists():
            return None
        return int(self.run()["settings"]["part_size"])

    def finished(self) -> list[IdRange]:
        """Returns the parts that are there, by their ids."""
        return sorted(self._spans(".parquet"))

    def begun(self) -> list[IdRange]:
        """Returns the parts of which there are journals."""
        return sorted(self._spans(".jsonl"))

    def part(self, span: IdRange) -> Path:
        """Returns the path of a part."""
        return self.parts / f"{span}.parquet"

    def journal(self, span: IdRange) -> Path:
        """Returns the path of a part's journal."""
        return self.parts / f"{span}.jsonl"

    def page(self, number: int) -> Path:
        """Returns the path of a file's page, by its id."""
        return self.path / "pages" / f"{number}.html"

    def shard(self, shard: int, shards: int) -> Path:
        """Returns the path of what a shard's run says of itself."""
        return self.path / "shards" / f"{shard}-of-{shards}.json"

    def beats(self) -> list[dict[str, Any]]:
        """Returns what runs have said of how far they are, but for what cannot be read."""
        said = []
        for path in self.path.glob("shards/*-of-*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_bytes())
                numbers = {name: float(told[name]) for name in ("done", "seconds", "time")}
                said.append(numbers | {"files": int(told["files"]), "ended": bool(told["ended"])})
        return said

    def _spans(self, ending: str) -> Iterator[IdRange]:
        with os.scandir(self.parts) as entries:
            for entry in entries:
                span = IdRange.parse(entry.name) if entry.name.endswith(ending) else None
                if span is not None:
                    yield span


def unfinished(files: pa.Table, finished: list[IdRange]) -> pa.Table:
    """Returns the rows of a manifest that no part has; parts of other files are refused.

    Raises:
        UsageError: A part has other files by the same ids.
    """
    first, last = files["id"][0].as_py(), files["id"][-1].as_py()
    at = max(0, bisect_left(finished, (first,)) - 1)  # the part before may reach into it
    left, start, ids = [], 0, None
    for span in finished[at:]:
        if span.first > last:
            break
        if span.last < first:
            continue
        if ids is None:
            ids = files["id"].to_numpy()
        begin, end = (int(place) for place in ids.searchsorted([span.first, span.last + 1]))
        if begin == end or IdRange.of(files.slice(begin, end - begin)) != span:
            raise UsageError(
                f"the results of the ids {span.first} to {span.last} are those of other files",
                "score another manifest into another folder; one may grow at its end only",
            )
        left.append(files.slice(start, begin - start))
        start = end
    return pa.concat_tables([*left, files.slice(start)])


class OpenPart:
    """A part that is worked on; BlockingIOError says that another process has it.

    Raises:
        BlockingIOError: Another process has it.
    """

    def __init__(self, folder: ArchiveResults, files: pa.Table) -> None:
        self.span = IdRange.of(files)
        self._files = files
        self._part, self._journal = folder.part(self.span), folder.journal(self.span)
        self._stream = self._journal.open("ab", buffering=0)
        if try_lock(self._stream.fileno()) is False:
            self._stream.close()
            raise BlockingIOError(f"{self._journal} is another process's")
        self._places: dict[int, int] = {}  # of the results in the journal, by id
        self._kills: Counter[int] = Counter()
        self._why: dict[int, str] = {}  # the last worker ended
        self._runs: Counter[int] = Counter()
        self._begun: set[int] = set()  # by this run
        self._read()
        self.waiting = [each for each in as_files(files) if each.id not in self._places]

    @property
    def full(self) -> bool:
        """Whether every file has a result."""
        return len(self._places) == len(self._files)

    def lost(self, number: int) -> str:
        """Returns why a file is given up; nothing where it is not."""
        if self._kills[number] >= KILLS:
            why = self._why[number]
            return f"{KILLS} workers ended while this file was worked on, the last one by {why}"
        if self._runs[number] >= RUNS:
            return f"{RUNS} runs ended while this file was worked on"
        return ""

    def begin(self, number: int) -> None:
        """Notes that a file is given to a worker."""
        if number not in self._begun:
            self._begun.add(number)
            self._note(begun=number)

    def blame(self, number: int, why: str) -> None:
        """Notes that a worker has ended while it worked on a file."""
        self._note(killed=number, why=why)

    def add(self, number: int, line: bytes) -> None:
        """Keeps the result of a file, as :func:`~deepregions.archive.columns.as_line` writes it."""
        self._begun.discard(number)
        if number not in self._places:
            self._places[number] = self._write(line)

    def finish(self, run: Mapping[str, Any]) -> None:
        """Makes it Parquet; ``run`` is what its metadata say that it was made with."""
        ids = self._files["id"].to_pylist()
        columns = schema().with_metadata({"deepregions": json.dumps(run)})
        with atomic_file(self._part) as partial, partial.open("wb") as stream:
            with (
                self._journal.open("rb") as journal,
                pq.ParquetWriter(stream, columns, compression="zstd") as out,
            ):
                for start in range(0, len(ids), _ROWS):
                    lines = [self._line(journal, each) for each in ids[start : start + _ROWS]]
                    out.write_table(as_results(self._files.slice(start, _ROWS), lines))
            stream.flush()
            os.fsync(stream.fileno())  # its journal goes now
        self._journal.unlink()
        self._stream.close()

    def close(self) -> None:
        """Leaves it to a later run, which is told that this one ended by its own will."""
        if not self._stream.closed:
            with suppress(OSError):  # such as a full disk, which is why it is closed
                for number in sorted(self._begun):
                    self._note(left=number)
            self._stream.close()

    def drop(self) -> None:
        """Takes away the journal of a part that has become Parquet since."""
        self._journal.unlink()
        self._stream.close()

    def _line(self, journal: BinaryIO, number: int) -> bytes:
        journal.seek(self._places[number])
        return journal.readline()

    def _note(self, **entry: Any) -> None:
        self._understand(entry, self._write(f"{json.dumps(entry)}\n".encode()))

    def _write(self, line: bytes) -> int:
        """Appends a line; returns where it begins."""
        place = self._stream.seek(0, os.SEEK_END)
        with named_errors(self._journal):
            if self._stream.write(line) != len(line):
                self._stream.truncate(place)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return place

    def _read(self) -> None:
        """Takes up what earlier runs have left; from what is no whole line on, it is cut off."""
        place = 0
        with self._journal.open("rb") as journal:
            for line in journal:
                try:
                    self._understand(json.loads(line), place)
                except (ValueError, KeyError, TypeError):
                    break
                place += len(line)
        self._stream.truncate(place)

    def _understand(self, entry: Mapping[str, Any], place: int) -> None:
        if "begun" in entry:
            self._runs[entry["begun"]] += 1
        elif "left" in entry:
            self._runs[entry["left"]] -= 1
        elif "killed" in entry:
            self._why[entry["killed"]] = entry["why"]
            self._kills[entry["killed"]] += 1
        else:
            self._places[entry["id"]] = place
