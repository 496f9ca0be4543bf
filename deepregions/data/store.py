"""The face store: prepared faces in Arrow files, read by memory map, one row at a time.

A store is a folder of ``shard-00000.arrow``, ``shard-00001.arrow``, ... and ``store.json``. A shard
is an Arrow IPC file, which other programs read too; it appears whole or not at all. ``store.json``
lists the shards with their sizes and hashes and is written last, so a folder that has it is
complete. The same faces give the same bytes, whenever and wherever they are written.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

import deepregions
from deepregions.errors import StoreError, UsageError
from deepregions.files import atomic_file, atomic_folder, sha256
from deepregions.types import NUM_LANDMARKS

SCHEMA_VERSION = 2
SPLITS = ("train", "val", "test")

_MANIFEST = "store.json"
_ROWS_PER_BATCH = 128  # a few MB: what other readers load at once; this one loads single rows
_ROWS_PER_SHARD = 1024
_LONGEST = 64 << 20  # bytes of store.json, of 400,000 shards
_FARTHEST = 1e6  # pixels
_LARGEST = 1 << 24  # pixels of a stored picture, 50 MB of RGB; prepare makes faces smaller
_MOST = 1_000_000  # of any number in store.json's info
_AGAIN = "run prepare again with the same options, or copy the store again"

_COLUMNS: Mapping[str, tuple[pa.DataType, Callable[[Any], bool] | None]] = {
    "image": (pa.binary(), None),
    "landmarks": (pa.list_(pa.float32(), 2 * NUM_LANDMARKS), None),
    "key": (pa.string(), None),
    "video": (pa.string(), None),
    "frame": (pa.int32(), lambda value: value >= 0),
    "time": (pa.float64(), lambda value: 0 <= value < math.inf),
    "track": (pa.int32(), lambda value: value >= 0),
    "label": (pa.int8(), lambda value: value in (0, 1)),
    "split": (pa.string(), lambda value: value in SPLITS),
    "method": (pa.string(), None),
    "compression": (pa.string(), None),
    "identities": (pa.list_(pa.string()), None),
    "scale": (pa.float32(), lambda value: 0 < value < math.inf),
    "frame_size": (pa.list_(pa.int32(), 2), lambda value: len(value) == 2 and min(value) >= 0),
    "score": (pa.float32(), math.isfinite),
    "confidence": (pa.float32(), lambda value: value is None or 0 <= value <= 1),
}
"""The type of each column, and what its values must satisfy."""

_SCHEMA = pa.schema(
    [pa.field(name, kind, name == "confidence") for name, (kind, _) in _COLUMNS.items()]
)
_READS = {"1": _SCHEMA.remove(len(_SCHEMA) - 1), "2": _SCHEMA}  # confidence came with 2


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """One prepared face.

    Attributes:
        image: The JPEG bytes of the face with its margin (:func:`encode_image` makes them).
        landmarks: (68, 2) float32, iBUG order, (x, y) pixels of ``image``.
        key: The face's name, unique within its database.
        video: The name of the photo or video that it is from (a clip's key).
        frame: Which of the frames that were taken from the video, from 0.
        time: Where in the video, in seconds.
        identities: Who is in it: one name, or target and source of a fake.
        scale: Pixels of ``image`` per pixel of the frame; below 1 if the face was made smaller.
        score: The face finder's confidence, on the scale of the store's landmark backend.
        confidence: How sure the landmarks are, in [0, 1]; None where the backend cannot say.
    """

    image: bytes
    landmarks: npt.NDArray[np.float32]
    key: str
    video: str
    label: int
    split: str
    frame: int = 0
    time: float = 0.0
    track: int = 0
    method: str = "original"
    compression: str = ""
    identities: tuple[str, ...] = ()
    scale: float = 1.0
    frame_size: tuple[int, int] = (0, 0)
    score: float = 1.0
    confidence: float | None = None

    def __post_init__(self) -> None:
        points = self.landmarks
        if points.shape != (NUM_LANDMARKS, 2) or not bool((np.abs(points) < _FARTHEST).all()):
            raise ValueError(f"{self.key}: landmarks must be (68, 2) and finite")
        for name, (_, fits) in _COLUMNS.items():
            if fits is not None and not fits(value := getattr(self, name)):
                raise ValueError(f"{self.key}: {name} is {value!r}")


@dataclass(frozen=True)
class StoreInfo:
    """How a store's faces were made.

    Attributes:
        landmarks: The landmark backend's name, such as ``"dlib68+yunet"``.
        margin: What surrounds the face (its box and all landmarks) on each side, as a share of
            its width or height; less where the picture ends.
        frames_per_video: How many frames were asked for, evenly spaced in time; a photo is one.
        tracks: ``"main"``: the person who is largest and longest in view; ``"all"``: everybody.
        others: In a manipulated video whose mask says who was manipulated, whether the others are
            ``"dropped"`` or kept as ``"genuine"``.
        max_size: Faces with margin were made smaller if a side was longer, in pixels.

    Raises:
        StoreError: A value is of another type, or out of range.
    """

    database: str
    landmarks: str
    landmarks_version: str
    margin: float = 0.5
    frames_per_video: int = 1
    tracks: str = "main"
    max_size: int = 512
    others: str = "dropped"
    package: str = field(default=deepregions.__version__)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind: Any = {"margin": (int, float), "frames_per_video": int, "max_size": int}
            if not isinstance(value, kind.get(name, str)) or isinstance(value, bool):
                raise StoreError(f"a store's {name} cannot be {value!r}")
            if not (value.isprintable() if isinstance(value, str) else 0 <= value < _MOST):
                raise StoreError(f"a store's {name} is out of range")
        if not re.fullmatch(r"\w[\w.+ ()-]{0,99}", self.database):  # files are named after it
            raise StoreError(
                f"a database cannot be called {self.database[:99]!r}",
                "a name has letters, digits and . _ + - ( ), and begins with one of the first two",
            )


def encode_image(image: Tensor) -> bytes:
    """Returns the JPEG bytes (quality 95, no chroma subsampling) of a (3, H, W) uint8 RGB image."""
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def decode_image(data: bytes) -> Tensor:
    """Returns JPEG bytes as a (3, H, W) uint8 RGB image: Pillow's pixels, but sooner.

    Raises:
        StoreError: The bytes are not a JPEG image, or one of more than 16 million pixels.
    """
    pixels = _jpeg_pixels(data)
    if pixels > _LARGEST:
        raise StoreError(f"a stored face has {pixels:,} pixels, at most {_LARGEST:,} are read")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if pixels else None
    except cv2.error:
        image = None
    if image is None:
        raise StoreError("a stored face is not a JPEG image", _AGAIN)
    return torch.from_numpy(image).permute(2, 0, 1)


def _jpeg_pixels(data: bytes) -> int:
    """How many pixels a JPEG's header announces, to any decoder alike; 0 where it has none."""
    place = 2 if data[:2] == b"\xff\xd8" else len(data)
    while place + 9 <= len(data) and data[place] == 0xFF and data[place + 1] >= 0xC0:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[place + 5 : place + 7])
            return height * int.from_bytes(data[place + 7 : place + 9])
        if 0xD0 <= kind <= 0xDA or kind == 0xFF or length < 2:
            return 0
        place += 2 + length
    return 0


def shard_name(number: int) -> str:
    """Returns the file name of a shard."""
    return f"shard-{number:05d}.arrow"


def write_shard(
    path: Path, records: Iterable[FaceRecord], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes one shard, whole or not at all; it may have no faces."""
    schema = _SCHEMA.with_metadata({"deepregions.schema": str(SCHEMA_VERSION), **(metadata or {})})
    with atomic_file(path) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        for batch in _batched(records, _ROWS_PER_BATCH):
            rows = [
                vars(record) | {"landmarks": record.landmarks.astype(np.float32).ravel()}
                for record in batch
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def read_shard(path: Path) -> pa.Table:
    """Returns a shard as a memory-mapped table: no image is read until it is asked for.

    Raises:
        StoreError: The file is missing, truncated, or not a shard that this version reads.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            version = (reader.schema.metadata or {}).get(b"deepregions.schema", b"")
            expected = _schema_of(path, version.decode(errors="replace"))
            if not reader.schema.equals(expected):
                raise StoreError(f"{path} does not have the columns of a face store", _AGAIN)
            table = reader.read_all()  # its buffers keep the map alive; the file handle is freed
        table.validate(full=True)  # offsets and text; no picture is read for it
        if any(table.column(f.name).null_count for f in expected if not f.nullable):
            raise StoreError(f"{path} lacks values", _AGAIN)
    except (OSError, MemoryError, pa.ArrowException) as error:
        raise StoreError(f"{path} is not a readable shard: {error}", _AGAIN) from error
    for missing in list(_SCHEMA)[len(expected) :]:
        table = table.append_column(missing, pa.nulls(table.num_rows, missing.type))
    return table


def finish_store(folder: Path, info: StoreInfo, shards: Sequence[str]) -> None:
    """Writes ``store.json`` over shards that are there: from then on the store can be read."""
    entries = [
        {
            "name": name,
            "rows": read_shard(folder / name).num_rows,
            "bytes": (folder / name).stat().st_size,
            "sha256": sha256(folder / name),
        }
        for name in shards
    ]
    manifest = {"schema": SCHEMA_VERSION, "info": asdict(info), "shards": entries}
    with atomic_file(folder / _MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=1) + "\n")


def create_store(path: Path, info: StoreInfo, records: Iterable[FaceRecord]) -> FaceStore:
    """Writes a whole store from faces as they come; it appears whole or not at all.

    Raises:
        StoreError: There is something at ``path`` already, or there are no faces.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path} is there already", "delete it, or choose another folder")
    with atomic_folder(path) as folder:
        names = []
        for number, shard in enumerate(_batched(records, _ROWS_PER_SHARD)):
            names.append(shard_name(number))
            write_shard(folder / names[-1], shard)
        if not names:
            raise StoreError(f"there are no faces to write to {path}")
        finish_store(folder, info, names)
    return FaceStore(path)


@dataclass(frozen=True)
class _Shard:
    """What store.json says of a shard."""

    name: str
    rows: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        counted = all(type(n) is int and 0 <= n < 2**53 for n in (self.rows, self.bytes))
        named = re.fullmatch(r"shard-\d{5,}\.arrow", self.name)  # a name, and never a path
        if not (counted and named and re.fullmatch("[0-9a-f]{64}", self.sha256)):
            raise ValueError(f"no shard: {self}")


class FaceStore:
    """A store, opened: faces by row number, and columns over all faces.

    Opening reads ``store.json`` only; a shard is mapped when first needed, and ``store[i]`` copies
    one row. Pickling (to the workers of a DataLoader) carries the paths only.

    Several stores are one, one's rows after the other's. People and videos of one are others than
    those of the next, whatever they are called: stores of the same people must have been divided
    together.

    Attributes:
        path: The first store's folder.
        info: How the first store was made: networks are named after its database, and judged on its
            development part.

    Raises:
        StoreError: One is missing, unfinished, empty, truncated, or of an unknown schema.
    """

    def __init__(self, *paths: Path | str) -> None:
        self._paths = [Path(path) for path in paths]
        if len({path.resolve() for path in self._paths}) < len(paths):
            raise UsageError("a store is given twice", "give each once")
        infos, shards = zip(*map(_read_manifest, self._paths), strict=True)
        self.path, self.info = self._paths[0], infos[0]
        backends = {(info.landmarks, info.landmarks_version) for info in infos}
        if len(backends) > 1:
            raise UsageError(
                f"stores with landmarks of {' and '.join(sorted(name for name, _ in backends))}",
                "regions would be cut differently: prepare them with the same --landmarks",
            )
        self._shards: list[tuple[int, _Shard]] = [
            (store, shard) for store, own in enumerate(shards) for shard in own
        ]
        self._starts = [0, *accumulate(shard.rows for _, shard in self._shards)]
        self._tables: dict[int, pa.Table] = {}

    def __reduce__(self) -> tuple[type[FaceStore], tuple[Path, ...]]:
        return type(self), tuple(self._paths)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[FaceRecord]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: int) -> FaceRecord:
        """Returns the face of a row."""
        row = range(len(self))[index]
        shard = bisect_right(self._starts, row) - 1
        place = self._table(shard).slice(row - self._starts[shard], 1)
        try:
            (values,) = place.to_pylist()
            points = np.asarray(values["landmarks"], np.float32).reshape(NUM_LANDMARKS, 2)
            tuples = {name: tuple(values[name]) for name in ("identities", "frame_size")}
            return FaceRecord(**values | tuples | {"landmarks": points})
        except (ValueError, TypeError, OverflowError) as error:
            where = self._file(shard)
            raise StoreError(f"{where}: a face is out of range: {error}", _AGAIN) from error

    def column(self, name: str) -> npt.NDArray[Any]:
        """Returns one column over all faces: numbers as they are stored, strings as objects.

        Raises:
            StoreError: A shard is broken, or a label or split is none.
        """
        shards = range(len(self._shards))
        chunks = [chunk for shard in shards for chunk in self._table(shard).column(name).chunks]
        column = pa.chunked_array(chunks, _SCHEMA.field(name).type)
        allowed: Sequence[Any] = {"label": (0, 1), "split": SPLITS}.get(name, ())
        if allowed and not set(column.unique().to_pylist()) <= set(allowed):
            where = ", ".join(map(str, self._paths))
            raise StoreError(f"{where}: a {name} is none of {', '.join(map(str, allowed))}")
        values: npt.NDArray[Any] = column.to_numpy()
        return values

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,), 1 is fake."""
        return self.column("label").astype(np.int64)

    @property
    def splits(self) -> npt.NDArray[np.object_]:
        """(N,) of ``"train"``, ``"val"``, ``"test"``."""
        return self.column("split")

    @property
    def videos(self) -> npt.NDArray[np.int64]:
        """(N,) numbers, equal for faces of one photo or video (of one name in "video")."""
        return self._numbered(self.column("video").tolist())

    @property
    def persons(self) -> npt.NDArray[np.int64]:
        """(N,) numbers, equal for faces whose first identity, or else whose video, is the same."""
        names = zip(self.column("identities"), self.column("video"), strict=True)
        return self._numbered(
            [f"person {people[0]}" if len(people) else f"video {clip}" for people, clip in names]
        )

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the faces and of all that is recorded of each, from the shards' own."""
        own: list[list[str]] = [[] for _ in self._paths]
        for store, shard in self._shards:
            own[store].append(shard.sha256)
        prints = [_digest(hashes) for hashes in own]
        return prints[0] if len(prints) == 1 else _digest(prints)

    def _numbered(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Numbers names in their order, those of each store after those of the one before."""
        rows = [shard.rows for _, shard in self._shards]
        store = np.repeat([store for store, _ in self._shards], rows)
        number = np.unique(names, return_inverse=True)[1]
        return np.unique(store * len(names) + number, return_inverse=True)[1].astype(np.int64)

    def _file(self, number: int) -> Path:
        store, shard = self._shards[number]
        return self._paths[store] / shard.name

    def _table(self, number: int) -> pa.Table:
        if number not in self._tables:
            file, rows = self._file(number), self._shards[number][1].rows
            table = read_shard(file)
            if table.num_rows != rows:
                raise StoreError(f"{file} has {table.num_rows} faces, not {rows}", _AGAIN)
            self._tables[number] = table
        return self._tables[number]


def _digest(hashes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _batched(records: Iterable[FaceRecord], size: int) -> Iterator[list[FaceRecord]]:
    rest = iter(records)
    return iter(lambda: list(islice(rest, size)), [])


def _read_manifest(path: Path) -> tuple[StoreInfo, list[_Shard]]:
    """Reads ``store.json``, and sees that the shards are there."""
    if not path.is_dir():
        raise StoreError(f"there is no store at {path}", "make one with: deepregions prepare")
    try:
        with (path / _MANIFEST).open("rb") as stream:
            content = stream.read(_LONGEST + 1)
        manifest = json.loads(content) if len(content) <= _LONGEST else None
    except FileNotFoundError as error:
        if any(path.glob("shard-*.arrow")):
            hint = "run prepare again with the same options: it goes on where it was"
            raise StoreError(f"the store at {path} is unfinished", hint) from error
        raise StoreError(
            f"{path} is not a face store: it has no {_MANIFEST}",
            "make one with: deepregions prepare",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path / _MANIFEST} cannot be read: {error}", _AGAIN) from error
    where = path / _MANIFEST
    if not isinstance(manifest, dict):
        raise StoreError(f"{where} is not a store's", _AGAIN)
    _schema_of(path, str(manifest.get("schema", "")))
    try:
        info = StoreInfo(**manifest["info"])
        shards = [_Shard(**entry) for entry in manifest["shards"]]
    except (TypeError, ValueError, KeyError) as error:
        raise StoreError(f"{where} is not a store's", _AGAIN) from error
    except StoreError as error:
        raise StoreError(f"{where}: {error.args[0]}", error.hint) from error
    for shard in shards:
        file = path / shard.name
        if not file.is_file():
            raise StoreError(f"{file} is missing", _AGAIN)
        if file.stat().st_size != shard.bytes:
            raise StoreError(
                f"{file} is truncated or altered: it should have {shard.bytes} bytes", _AGAIN
            )
    if not sum(shard.rows for shard in shards):
        raise StoreError(f"{path} has no faces")
    return info, shards


def _schema_of(path: Path, version: str) -> pa.Schema:
    if version not in _READS:
        raise StoreError(
            f"{path} has schema {version or 'none'}; this version reads {' and '.join(_READS)}",
            "upgrade deepregions, or prepare the store again",
        )
    return _READS[version]
