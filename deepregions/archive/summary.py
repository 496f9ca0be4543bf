"""A summary of an archive's results: read in one pass, or two, and never held as a whole."""

import heapq
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deepregions.archive.columns import schema
from deepregions.archive.parts import ArchiveResults
from deepregions.errors import UnreadableError, UsageError, printable
from deepregions.files import atomic_file

SCORES = np.linspace(0, 1, 21)
RATIOS = np.linspace(-2.5, 2.5, 21)
"""Edges of histograms: of scores, and of likelihood ratios' decimal logarithms, ends included."""

_BATCH = 1 << 16
_GROUP_BYTES = 64 << 20  # of a merged file's row group
_LIVE = 60.0  # seconds since a run has last said how far it is, after which it counts as ended
_REASONS, _FOLDERS, _STRONGEST, _COPIES = 20, 40, 100, 50  # that are shown
_SHOWN = ("id", "input", "status", "score", "log_odds", "llr.log10", "llr.verbal")
_UNJUDGED = ("unreadable", "unsupported", "error")


@dataclass
class ArchiveSummary:
    """What results say as a whole: counts of files, but where something else is named."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # status, why not judged
    seconds: float = 0.0  # of all workers together
    size: int = 0  # bytes
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(20, np.int64))
    ratios: NDArray[np.int64] = field(default_factory=lambda: np.zeros(20, np.int64))
    above: int = 0  # at or above the chosen threshold
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)  # files, those with a score
    strongest: list[dict[str, Any]] = field(default_factory=list)
    copies: list[tuple[int, list[str]]] = field(default_factory=list)  # how many, some paths
    repeated: int = 0  # with the content of another one
    limits: str = ""

    @property
    def files(self) -> int:
        """How many files have a result."""
        return self.statuses.total()


def results_of(path: Path) -> list[Path]:
    """Returns the Parquet files of a folder of results, or the one that was merged from it.

    Raises:
        UsageError: There are no results.
    """
    if path.is_file():
        return [path]
    folder = ArchiveResults(path)
    folder.run()
    return [folder.part(each) for each in folder.finished()]


def summarise(files: Sequence[Path], *, whole: bool = True) -> ArchiveSummary:
    """Reads results; without ``whole``, only what became of files and how long it took."""
    summary, prefixes = ArchiveSummary(), []
    summary.limits = _limits(files[0]) if files and whole else ""
    columns = ["status", "message", "input", "seconds"]
    if whole:
        columns += ["size", "above_threshold", "media.sha256", *_SHOWN]
    by_folder: Counter[tuple[str, bool]] = Counter()
    for batch in _batches(files, columns):
        _count(summary, batch)
        if whole:
            _look_closer(summary, batch, by_folder)
            prefixes.append(_prefixes(batch["media"].field("sha256")))
    summary.folders = _gathered(by_folder)
    summary.strongest.sort(key=_strength, reverse=True)
    _find_copies(summary, files, np.concatenate(prefixes) if prefixes else np.empty(0, np.uint64))
    return summary


def _limits(path: Path) -> str:
    with _opened(path) as file:
        run = (file.schema_arrow.metadata or {}).get(b"deepregions", b"{}")
    with suppress(ValueError, KeyError, TypeError):  # somebody else's file
        return str(json.loads(run)["facts"]["limits"])
    return ""


def _batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with _opened(path, columns) as file:
            yield from file.iter_batches(_BATCH, columns=list(dict.fromkeys(columns)))


@contextmanager
def _opened(path: Path, columns: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """Opens results."""
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            there, wanted = file.schema_arrow, schema()
            for name in {column.partition(".")[0] for column in columns}:
                if name not in there.names or there.field(name).type != wanted.field(name).type:
                    hint = "deepregions archive score makes them; another version may have others"
                    raise UsageError(f"{path} has no column {name!r} of an archive's results", hint)
            yield file
    except (pa.ArrowException, OSError) as error:
        hint = "if it is a part, remove it, and deepregions archive score makes it again"
        raise UnreadableError(f"{path}: {printable(str(error))[:200]}", hint) from error


def _count(summary: ArchiveSummary, batch: pa.RecordBatch) -> None:
    for each in pc.value_counts(batch["status"]).to_pylist():
        summary.statuses[each["values"]] += each["counts"]
    summary.seconds += pc.sum(batch["seconds"]).as_py() or 0.0
    unjudged = batch.filter(pc.is_in(batch["status"], pa.array(_UNJUDGED)))
    told = (unjudged[name].to_pylist() for name in ("status", "message", "input"))
    for status, message, path in zip(*told, strict=True):
        summary.reasons[status, message.removeprefix(f"{path}: ").replace(path, "it")] += 1


def _look_closer(
    summary: ArchiveSummary, batch: pa.RecordBatch, by_folder: Counter[tuple[str, bool]]
) -> None:
    summary.size += pc.sum(batch["size"]).as_py() or 0
    summary.above += pc.sum(batch["above_threshold"]).as_py() or 0
    ratios = batch["llr"].field("log10")
    summary.scores += _histogram(batch["score"], SCORES)
    summary.ratios += _histogram(pc.filter(ratios, pc.is_valid(batch["llr"])), RATIOS)
    folders = pc.replace_substring_regex(batch["input"], r"/[^/]*$", "").dictionary_encode()
    places, names = folders.indices.to_numpy(), folders.dictionary.to_pylist()
    scored = batch["score"].is_valid().to_numpy(zero_copy_only=False)
    for kind in (True, False):
        counts = np.bincount(places[scored == kind], minlength=len(names))
        by_folder.update({(n, kind): int(c) for n, c in zip(names, counts, strict=True) if c})
    judged = pa.Table.from_batches([batch]).filter(batch["score"].is_valid()).flatten()
    highest = judged.sort_by([("log_odds", "descending")]).slice(0, _STRONGEST)
    rows = highest.select(list(_SHOWN)).to_pylist()
    summary.strongest = heapq.nlargest(_STRONGEST, [*summary.strongest, *rows], key=_strength)


def _strength(row: dict[str, Any]) -> tuple[float, float]:
    ratio = row["llr.log10"]
    return (-np.inf if ratio is None else ratio, row["log_odds"])


def _histogram(values: pa.Array, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    known = values.drop_null().to_numpy(zero_copy_only=False)
    return np.histogram(np.clip(known, edges[0], edges[-1]), edges)[0]


def _gathered(by_folder: Counter[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """Returns files and scores by folder, down to the depth at which folders are few."""
    names = {name for name, _ in by_folder}
    deepest = max((name.count("/") for name in names), default=0)
    depth = 0
    while depth < deepest:
        if len({_cut(name, depth + 1) for name in names}) > _FOLDERS:
            break
        depth += 1
    found: dict[str, tuple[int, int]] = {}
    for (name, scored), count in by_folder.items():
        files, judged = found.get(_cut(name, depth), (0, 0))
        found[_cut(name, depth)] = files + count, judged + count * scored
    most = heapq.nlargest(_FOLDERS, found.items(), key=lambda item: item[1])
    return dict(sorted(most))


def _cut(folder: str, depth: int) -> str:
    return "/".join(folder.split("/")[: depth + 1]) or "/"


def _prefixes(digests: pa.Array) -> NDArray[np.uint64]:
    """Returns the first 64 bits of digests: two of ten million differ in them, but for luck."""
    known = pc.utf8_slice_codeunits(digests.drop_null(), 0, 16)
    text = b"".join(each.encode() for each in known.to_pylist())
    return np.frombuffer(bytes.fromhex(text.decode()), ">u8").astype(np.uint64)


def _find_copies(
    summary: ArchiveSummary, files: Sequence[Path], prefixes: NDArray[np.uint64]
) -> None:
    """Finds contents of several files; their paths take a second pass, if there are any."""
    prefixes.sort()
    starts = np.flatnonzero(np.concatenate(([True], prefixes[1:] != prefixes[:-1])))
    sizes = np.diff(np.append(starts, len(prefixes))) if len(prefixes) else np.empty(0, np.int64)
    summary.repeated = int((sizes - 1).sum())
    largest = np.argsort(-sizes, kind="stable")[:_COPIES]
    several = {int(prefixes[starts[at]]): int(sizes[at]) for at in largest if sizes[at] > 1}
    paths: dict[int, list[str]] = {each: [] for each in several}
    wanted = np.array(sorted(several), np.uint64)
    for batch in _batches(files, ["input", "media.sha256"]) if several else ():
        known = batch.filter(batch["media"].field("sha256").is_valid())
        found = _prefixes(known["media"].field("sha256"))
        for at in np.flatnonzero(np.isin(found, wanted)):
            if len(paths[int(found[at])]) < 5:
                paths[int(found[at])].append(known["input"][int(at)].as_py())
    summary.copies = [(count, paths[each]) for each, count in several.items()]


@dataclass(frozen=True)
class ArchiveProgress:
    """How far an archive is.

    ``finished`` files have a result in a part, ``begun`` ones in a journal; ``files`` is None where
    no run has said how many there are, ``rate`` is what ``runs`` finish in a second.
    """

    files: int | None
    finished: int
    begun: int
    runs: int
    rate: float

    @property
    def left(self) -> float | None:
        """Seconds until all are finished; None where that cannot be said."""
        if not self.rate or self.files is None:
            return None
        return (self.files - self.finished - self.begun) / self.rate


def look_up(folder: ArchiveResults, finished: int) -> ArchiveProgress:
    """Returns how far an archive is, of which so many files are finished in parts."""
    begun = 0
    for span in folder.begun():
        try:
            with folder.journal(span).open("rb") as journal:
                begun += sum(line.startswith(b'{"id"') for line in journal)
        except FileNotFoundError:  # it has become a part since
            continue
    said = folder.beats()
    live = [each for each in said if not each["ended"] and time.time() - each["time"] < _LIVE]
    return ArchiveProgress(
        max((each["files"] for each in said), default=None),
        finished,
        begun,
        len(live),
        sum(each["done"] / max(each["seconds"], 1e-9) for each in live),
    )


def merge(files: Sequence[Path], out: Path) -> int:
    """Writes results, part by part, as one Parquet file in the order of ids; returns its rows.

    Raises:
        UsageError: There are none.
    """
    if not files:
        raise UsageError("no part is finished yet", "deepregions archive score goes on with them")
    with _opened(files[0], schema().names) as first:
        columns = first.schema_arrow
    count, waiting, size = 0, [], 0
    with atomic_file(out) as partial, pq.ParquetWriter(partial, columns, compression="zstd") as to:
        for batch in _batches(files, columns.names):
            waiting.append(batch)
            count, size = count + len(batch), size + batch.nbytes
            if size > _GROUP_BYTES:
                to.write_table(pa.Table.from_batches(waiting))
                waiting, size = [], 0
        if waiting:
            to.write_table(pa.Table.from_batches(waiting))
    return count


def write_report(summary: ArchiveSummary, folder: Path, out: Path) -> None:
    """Writes a page of what results say as a whole, which appears whole."""
    from deepregions.pages import environment  # noqa: PLC0415 - status needs none
    from deepregions.pipeline.report.index import link  # noqa: PLC0415 - torch
    from deepregions.pipeline.words import MEANING  # noqa: PLC0415 - torch

    template = environment("deepregions.archive").get_template("archive.html.j2")
    pages = {
        row["id"]: link(os.path.relpath(page, out.resolve().parent))
        for row in summary.strongest
        if (page := folder.resolve() / "pages" / f"{row['id']}.html").exists()
    }
    text = template.render(
        summary=summary,
        meaning={str(status): text for status, text in MEANING.items()},
        reasons=summary.reasons.most_common(_REASONS),
        histograms=[
            ("Scores", "from 0, looks genuine, to 1, looks fake", SCORES, summary.scores),
            ("Likelihood ratios", "log10; positive speaks for a fake", RATIOS, summary.ratios),
        ],
        pages=pages,
    )
    with atomic_file(out) as partial:
        partial.write_text(text, encoding="utf-8")
