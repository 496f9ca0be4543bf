"""Manifests: which files an archive has, as Parquet that is read and written piece by piece."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from deepregions.archive.remote import TELLTALE, RemoteFile, is_remote, list_remote, refuse_secrets
from deepregions.errors import UnreadableError, UsageError, printable
from deepregions.files import atomic_file
from deepregions.media.kinds import is_wanted, known_ending

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("path_bytes", pa.binary()),  # of a path that is no UTF-8, as it is on disk
        pa.field("size", pa.int64()),
        pa.field("mtime", pa.timestamp("us", tz="UTC")),
    ]
)
"""What a manifest has of a file; size and time are null where it was not there, or not asked."""

_ROWS = 1 << 16  # of a row group: 10 MB
_SIZES = 1 << 24  # that are told apart: 16 MB; larger ones by their last bits
_LIST_ENDINGS = (".csv", ".parquet", ".txt")
_MAKES = "deepregions archive manifest makes a manifest of folders, or of a list of paths"


class Listed(NamedTuple):
    """A file of a manifest; its path may hold bytes that are no text, as Python writes them."""

    id: int
    path: str
    size: int | None = None
    mtime: int | None = None  # microseconds
    twin: bool = False  # whether another may have the same content

    @classmethod
    def look(cls, number: int, path: str) -> Listed:
        """Returns a file as it is now; nobody is asked of one elsewhere."""
        try:
            now = os.stat(path)  # noqa: PTH116 - millions of them
        except (OSError, ValueError):
            return cls(number, path)
        return cls(number, path, now.st_size, now.st_mtime_ns // 1000)

    @property
    def text(self) -> str:
        r"""The path as text: bytes that are none are written like ``\xff``."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


def list_files(
    roots: Iterable[Path | str], *, media_only: bool = False, warn: Callable[[str], None]
) -> Iterator[Listed]:
    """Yields the files of folders and lists; at most one folder's names are held at a time.

    Folders are walked in the order of names, without hidden files and without following links to
    folders. A ``.csv`` or ``.parquet`` file is a list with a column ``path`` and perhaps ``id``, a
    ``.txt`` file one with a path a line (or between NUL bytes); relative paths are those of the
    current folder. Any other file is itself, and a text the address of a folder or file elsewhere.
    Ids rise: those of a list are kept, others follow. With ``media_only``, what is no photograph or
    video by name or content (elsewhere by name) is left out of folders.

    Raises:
        UsageError: A root is not there, a list lacks a column, or ids do not rise.
        UnreachableError: A server does not answer.
    """
    last = -1
    for root in roots:
        for given, path in _found(root, media_only, warn):
            number = last + 1 if given is None else given
            if number <= last:
                raise UsageError(f"{root}: {_disorder(last, number)}", "sort it by id, each once")
            last = number
            if isinstance(path, RemoteFile):
                yield Listed(number, *path)
            elif is_remote(path):
                if re.match(TELLTALE, path):
                    raise refuse_secrets(f"{root} has an address")
                yield Listed(number, path)
            else:
                yield Listed.look(number, os.path.abspath(path))  # noqa: PTH100 - millions of them


def _found(
    root: Path | str, media_only: bool, warn: Callable[[str], None]
) -> Iterator[tuple[int | None, str | RemoteFile]]:
    if isinstance(root, str):
        for file in list_remote(root, warn):
            if not media_only or known_ending(file.path):
                yield None, file
    elif root.is_dir():
        for path in _walk(os.fspath(root), warn):
            if not media_only or is_wanted(Path(path)):
                yield None, path
    elif not root.exists():
        raise UsageError(f"{root}: no such file or folder", "check the path")
    elif root.suffix.lower() in _LIST_ENDINGS:
        yield from (_text_list if root.suffix.lower() == ".txt" else _table_list)(root)
    else:
        yield None, os.fspath(root)


def _walk(folder: str, warn: Callable[[str], None]) -> Iterator[str]:
    """Yields the files below a folder; links to folders are not followed, so there are no loops."""
    open_folders = [(folder, iter(_names(folder, warn)))]
    while open_folders:
        above, names = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        path = os.path.join(above, name)  # noqa: PTH118 - millions of them
        if name.endswith("/"):
            open_folders.append((path, iter(_names(path, warn))))
        else:
            yield path


def _names(folder: str, warn: Callable[[str], None]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in entries
                if not entry.name.startswith(".") and _is_listed(entry)
            )
    except OSError as error:
        warn(f"{folder}: {error.strerror}: not listed")
        return []


def _is_listed(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a folder or file; so is a link that cannot be followed."""
    try:
        link = entry.is_symlink() and not entry.is_dir()
        return link or entry.is_dir(follow_symlinks=False) or entry.is_file()
    except OSError:
        return True


def _text_list(path: Path) -> Iterator[tuple[None, str]]:
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
        stream.seek(0)
        rest = b""
        separator = b"\0" if b"\0" in head else b"\n"
        while block := stream.read(1 << 20):
            *lines, rest = (rest + block).split(separator)
            yield from ((None, os.fsdecode(line)) for line in map(_stripped, lines) if line)
        if line := _stripped(rest):
            yield None, os.fsdecode(line)


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _table_list(path: Path) -> Iterator[tuple[int | None, str]]:
    for batch in _batches(path):
        found = {name: batch[name].to_pylist() for name in batch.schema.names}
        none = [None] * len(batch)
        columns = (found.get(name, none) for name in ("id", "path", "path_bytes"))
        for number, text, raw in zip(*columns, strict=True):
            if not (raw or text):
                raise UsageError(f"{path}: a row without a path", "each row needs one")
            yield number, os.fsdecode(raw or text)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix.lower() == ".parquet":
            file = _open(path)
            names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
            _need(path, names, "path")
            yield from file.iter_batches(_ROWS, columns=names)
            return
        kinds = {"path": pa.binary(), "id": pa.int64()}
        convert = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
        with pa_csv.open_csv(path, convert_options=convert) as reader:
            _need(path, reader.schema.names, "path")
            yield from reader
    except pa.ArrowInvalid as error:
        raise UnreadableError(f"{path}: {printable(str(error))[:200]}", _MAKES) from error


def write_manifest(files: Iterable[Listed], path: Path) -> tuple[int, int]:
    """Writes a manifest, which appears whole; returns how many files it has, and their bytes."""
    count = size = 0
    waiting: list[Listed] = []
    with atomic_file(path) as partial, pq.ParquetWriter(partial, SCHEMA, compression="zstd") as out:
        for each in files:
            waiting.append(each)
            count, size = count + 1, size + (each.size or 0)
            if len(waiting) == _ROWS:
                out.write_table(as_table(waiting))
                waiting = []
        out.write_table(as_table(waiting))
        if not count:
            raise UsageError("there are no files to list", "give folders or lists that have some")
    return count, size


def as_table(files: Sequence[Listed]) -> pa.Table:
    """Returns files as rows of a manifest."""
    raw = [os.fsencode(each.path) for each in files]
    texts = [each.text for each in files]
    columns = [
        [each.id for each in files],
        texts,
        [None if text.encode() == one else one for text, one in zip(texts, raw, strict=True)],
        [each.size for each in files],
        [each.mtime for each in files],
    ]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def as_files(rows: pa.Table) -> Iterator[Listed]:
    """Yields the files of rows of a manifest."""
    mtimes = rows["mtime"].cast(pa.int64()).to_pylist()
    columns = [rows[name].to_pylist() for name in ("id", "path", "path_bytes", "size")]
    for number, text, raw, size, mtime in zip(*columns, mtimes, strict=True):
        yield Listed(number, text if raw is None else os.fsdecode(raw), size, mtime)


class FileManifest:
    """A manifest that is read in pieces; its ids and paths must be there, and ids must rise.

    Raises:
        UsageError: It has no ids or paths, an id twice, or ids that do not rise.
        UnreadableError: It is no Parquet file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: no such manifest", _MAKES)
        try:
            self._file = _open(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableError(f"{path} is no Parquet file", _MAKES) from error
        self._path = path
        self.rows: int = self._file.metadata.num_rows
        names = self._file.schema_arrow.names
        _need(path, names, "id", "path")
        self._columns = [name for name in SCHEMA.names if name in names]
        self._check_ids()

    def chunks(self, size: int, shard: int = 1, shards: int = 1) -> Iterator[pa.Table]:
        """Yields the shard's pieces, of ``size`` rows each; every ``shards``-th is one of them."""
        number, waiting = 0, SCHEMA.empty_table()
        for batch in self._file.iter_batches(max(size, _ROWS), columns=self._columns):
            waiting = pa.concat_tables([waiting, _complete(batch, self._path)])
            whole = len(waiting) // size * size
            for start in range(0, whole, size):
                if number % shards == shard - 1:
                    yield waiting.slice(start, size)
                number += 1
            waiting = waiting.slice(whole).combine_chunks()
        if len(waiting) and number % shards == shard - 1:
            yield waiting

    def count(self, size: int, shard: int, shards: int) -> int:
        """Returns how many files a shard has."""
        pieces = range(shard - 1, -(-self.rows // size), shards)
        short = -self.rows % size if pieces and (pieces[-1] + 1) * size > self.rows else 0
        return len(pieces) * size - short

    def shared_sizes(self) -> SharedSizes:
        """Returns which sizes several files have."""
        found = SharedSizes()
        for batch in self._file.iter_batches(1 << 20, columns=["size"]):
            with suppress(KeyError, pa.ArrowException):  # no sizes; or none, as reading rows says
                found.add(batch["size"].cast(pa.int64()))
        return found

    def _check_ids(self) -> None:
        last = -1
        for batch in self._file.iter_batches(1 << 20, columns=["id"]):
            column = batch["id"]
            if column.null_count or not pa.types.is_integer(column.type):
                raise UsageError(f"{self._path}: an id is no whole number", _MAKES)
            ids = column.cast(pa.int64()).to_numpy()
            before = np.concatenate(([last], ids[:-1]))
            falls = (ids <= before).nonzero()[0]
            if len(falls):
                said = _disorder(int(before[falls[0]]), int(ids[falls[0]]))
                raise UsageError(f"{self._path}: {said}", "sort it by id, each once")
            last = int(ids[-1])


class SharedSizes:
    """Which sizes several files of a manifest have, in 16 MB however many files there are.

    Files of 16 MiB and more may be taken to share theirs where they do not; never the reverse.
    """

    def __init__(self) -> None:
        self._files = np.zeros(_SIZES, np.uint8)  # by size: none, one, or several

    def add(self, sizes: pa.Array) -> None:
        """Counts files."""
        slots, counts = np.unique(sizes.drop_null().to_numpy() % _SIZES, return_counts=True)
        self._files[slots] = np.minimum(self._files[slots] + np.minimum(counts, 2), 2)

    def __contains__(self, file: Listed) -> bool:
        """Whether another file may have the same content; so may one of unknown size."""
        return file.size is None or (file.size > 0 and self._files[file.size % _SIZES] > 1)


def digest(rows: pa.Table) -> str:
    """Returns eight hexadecimal digits that tell which files these are."""
    ids, paths = rows["id"].to_pylist(), rows["path"].to_pylist()
    text = "\n".join([*map(str, ids), *paths])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _complete(batch: pa.RecordBatch, path: Path) -> pa.Table:
    table = pa.Table.from_batches([batch])
    for place, field in enumerate(SCHEMA):
        if field.name not in table.schema.names:
            table = table.add_column(place, field, pa.nulls(len(table), field.type))
    try:
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{path}: {printable(str(error))[:200]}", _MAKES) from error
    for name in ("path", "path_bytes"):
        if pc.any(pc.match_substring_regex(table[name], TELLTALE)).as_py():
            raise refuse_secrets(f"{path} has an address")
    return table


def _open(path: Path) -> pq.ParquetFile:
    """Opens a Parquet file that is read as it is needed, however large its row groups are."""
    return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def _need(path: Path, names: Sequence[str], *wanted: str) -> None:
    for name in wanted:
        if name not in names:
            shown = ", ".join(map(printable, names[:8]))
            raise UsageError(f"{path} has no column {name!r} (it has {shown})", _MAKES)


def _disorder(last: int, number: int) -> str:
    if number == last:
        return f"the id {number} is there twice"
    return f"ids must rise from 0 on, and {number} comes after {last}"
