"""The face store: prepared faces in Arrow files, read by memory map, one row at a time.

A store is a folder of ``shard-00000.arrow``, ``shard-00001.arrow``, ... and ``store.json``. A shard
is an Arrow IPC file, which pyarrow, pandas, DuckDB and Hugging Face ``datasets`` read too. It
appears whole or not at all. ``store.json`` lists the shards with their sizes and hashes and is
written last, so a folder that has it is complete. Nothing in a store depends on when, where or by
how many processes it was made: the same faces give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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
from deepregions.errors import StoreError
from deepregions.files import atomic_file, atomic_folder, sha256
from deepregions.types import NUM_LANDMARKS

SCHEMA_VERSION = 2
SPLITS = ("train", "val", "test")

_MANIFEST = "store.json"
_ROWS_PER_BATCH = 128  # a few MB: what other readers load at once; this one loads single rows
_ROWS_PER_SHARD = 1024

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("landmarks", pa.list_(pa.float32(), 2 * NUM_LANDMARKS), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("track", pa.int32(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("compression", pa.string(), nullable=False),
        pa.field("identities", pa.list_(pa.string()), nullable=False),
        pa.field("scale", pa.float32(), nullable=False),
        pa.field("frame_size", pa.list_(pa.int32(), 2), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("confidence", pa.float32()),
    ]
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
        label: 1 is fake, 0 is genuine.
        split: ``"train"``, ``"val"`` or ``"test"``.
        frame: Which of the frames that were taken from the video, from 0.
        time: Where in the video, in seconds.
        track: Which person of the video.
        method: How it was made, such as ``"Deepfakes"``; ``"original"`` if genuine.
        compression: The database's word for it, such as ``"c23"``; may be empty.
        identities: Who is in it: one name, or target and source of a fake.
        scale: Pixels of ``image`` per pixel of the frame; below 1 if the face was made smaller.
        frame_size: Width and height of the frame, in pixels.
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
        if self.landmarks.shape != (NUM_LANDMARKS, 2) or not np.isfinite(self.landmarks).all():
            raise ValueError(f"{self.key}: landmarks must be (68, 2) and finite")
        if self.label not in (0, 1) or self.split not in SPLITS:
            raise ValueError(f"{self.key}: label {self.label!r}, split {self.split!r}")


@dataclass(frozen=True)
class StoreInfo:
    """How a store's faces were made.

    Attributes:
        database: The database's name, such as ``"ffpp"``.
        landmarks: The landmark backend's name, such as ``"dlib68+yunet"``.
        landmarks_version: Its version.
        margin: What surrounds the face on each side, as a share of its width or height.
        frames_per_video: How many frames were asked for.
        tracks: ``"main"`` or ``"all"``: which people of a video were kept.
        max_size: Faces with margin were made smaller to this many pixels at most.
        package: The version of this package that made it.
    """

    database: str
    landmarks: str
    landmarks_version: str
    margin: float = 0.5
    frames_per_video: int = 1
    tracks: str = "main"
    max_size: int = 512
    package: str = field(default=deepregions.__version__)


def encode_image(image: Tensor) -> bytes:
    """Returns the JPEG bytes (quality 95, no chroma subsampling) of a (3, H, W) uint8 RGB image."""
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def decode_image(data: bytes) -> Tensor:
    """Returns JPEG bytes as a (3, H, W) uint8 RGB image.

    OpenCV gives Pillow's pixels, as torchvision does, in 0.5 to 0.8 of Pillow's time (faces of 200
    and 400 px), and is imported in a tenth of torchvision's.

    Raises:
        StoreError: The bytes are not a JPEG image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise StoreError("a stored face is not a JPEG image", _AGAIN)
    return torch.from_numpy(image).permute(2, 0, 1)


def shard_name(number: int) -> str:
    """Returns the file name of a shard."""
    return f"shard-{number:05d}.arrow"


def write_shard(
    path: Path, records: Iterable[FaceRecord], metadata: Mapping[str, str] | None = None
) -> int:
    """Writes one shard, whole or not at all.

    Args:
        path: The file; its folder is made if needed.
        records: The faces, in their order; may be none.
        metadata: Kept in the Arrow schema, for whoever writes the store.

    Returns:
        The number of faces.

    Raises:
        OSError: The file cannot be written.
    """
    schema = _SCHEMA.with_metadata({"deepregions.schema": str(SCHEMA_VERSION), **(metadata or {})})
    rows = 0
    with atomic_file(path) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        for batch in _batched(records, _ROWS_PER_BATCH):
            writer.write_batch(pa.RecordBatch.from_pylist([_row(r) for r in batch], schema=schema))
            rows += len(batch)
    return rows


def read_shard(path: Path) -> pa.Table:
    """Returns a shard as a memory-mapped table: no image is read until it is asked for.

    Raises:
        StoreError: The file is missing, truncated, or not a shard that this version reads.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()  # its buffers keep the map alive; the file handle is freed
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is not a readable shard: {error}", _AGAIN) from error
    metadata = table.schema.metadata or {}
    expected = _schema_of(path, (metadata.get(b"deepregions.schema") or b"").decode())
    if not table.schema.equals(expected):
        raise StoreError(f"{path} does not have the columns of a face store", _AGAIN)
    for missing in list(_SCHEMA)[len(expected) :]:
        table = table.append_column(missing, pa.nulls(table.num_rows, missing.type))
    return table


def finish_store(folder: Path, info: StoreInfo, shards: Sequence[str]) -> None:
    """Writes ``store.json`` over shards that are there: from then on the store can be read.

    Raises:
        StoreError: A shard cannot be read.
    """
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
        OSError: The store cannot be written.
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


class FaceStore:
    """A store, opened: faces by row number, and columns over all faces.

    Opening reads ``store.json`` only; a shard is mapped when first needed, and ``store[i]`` copies
    one row. Pickling (to the workers of a DataLoader) carries the path only.

    Args:
        path: The store's folder.

    Attributes:
        path: The store's folder.
        info: How it was made.

    Raises:
        StoreError: It is missing, unfinished, empty, truncated, or of an unknown schema.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        manifest = _read_manifest(self.path)
        try:
            self.info = StoreInfo(**manifest["info"])
            self._names = [str(shard["name"]) for shard in manifest["shards"]]
            self._hashes = [str(shard["sha256"]) for shard in manifest["shards"]]
            rows = [int(shard["rows"]) for shard in manifest["shards"]]
            sizes = [int(shard["bytes"]) for shard in manifest["shards"]]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.path / _MANIFEST} is not a store's", _AGAIN) from error
        for name, size in zip(self._names, sizes, strict=True):
            _check_size(self.path / name, size)
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).tolist()
        if not len(self):
            raise StoreError(f"{self.path} has no faces")
        self._tables: dict[int, pa.Table] = {}

    def __reduce__(self) -> tuple[type[FaceStore], tuple[Path]]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[FaceRecord]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: int) -> FaceRecord:
        """Returns the face of a row.

        Raises:
            IndexError: There is no such row.
        """
        row = range(len(self))[index]
        shard = bisect_right(self._starts, row) - 1
        table = self._table(shard).slice(row - self._starts[shard], 1)
        return _record({name: table.column(name)[0].as_py() for name in table.column_names})

    def column(self, name: str) -> npt.NDArray[Any]:
        """Returns one column over all faces: numbers as they are stored, strings as objects.

        Raises:
            KeyError: There is no such column.
        """
        shards = range(len(self._names))
        chunks = [chunk for shard in shards for chunk in self._table(shard).column(name).chunks]
        values: npt.NDArray[Any] = pa.chunked_array(chunks, _SCHEMA.field(name).type).to_numpy()
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
        return np.unique(self.column("video").astype(str), return_inverse=True)[1].astype(np.int64)

    @property
    def persons(self) -> npt.NDArray[np.int64]:
        """(N,) numbers, equal for faces whose first identity, or else whose video, is the same."""
        names = zip(self.column("identities"), self.column("video"), strict=True)
        who = [
            f"person {people[0]}" if len(people) else f"video {video}" for people, video in names
        ]
        return np.unique(who, return_inverse=True)[1].astype(np.int64)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the faces and of all that is recorded of each, from the shards' own."""
        return hashlib.sha256("\n".join(self._hashes).encode()).hexdigest()

    def _table(self, shard: int) -> pa.Table:
        if shard not in self._tables:
            self._tables[shard] = read_shard(self.path / self._names[shard])
        return self._tables[shard]


_AGAIN = "run prepare again with the same options, or copy the store again"


def _row(record: FaceRecord) -> dict[str, Any]:
    row = {item.name: getattr(record, item.name) for item in fields(record)}
    row["landmarks"] = record.landmarks.astype(np.float32).ravel()
    return row


def _record(row: dict[str, Any]) -> FaceRecord:
    row["landmarks"] = np.asarray(row["landmarks"], np.float32).reshape(NUM_LANDMARKS, 2)
    row["identities"] = tuple(row["identities"])
    row["frame_size"] = tuple(row["frame_size"])
    return FaceRecord(**row)


def _batched(records: Iterable[FaceRecord], size: int) -> Iterator[list[FaceRecord]]:
    batch: list[FaceRecord] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise StoreError(f"there is no store at {path}", "make one with: deepregions prepare")
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
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
    if not isinstance(manifest, dict):
        raise StoreError(f"{path / _MANIFEST} is not a store's", _AGAIN)
    _schema_of(path, str(manifest.get("schema", "")))
    return manifest


def _schema_of(path: Path, version: str) -> pa.Schema:
    if version not in _READS:
        raise StoreError(
            f"{path} has schema {version or 'none'}; this version reads {' and '.join(_READS)}",
            "upgrade deepregions, or prepare the store again",
        )
    return _READS[version]


def _check_size(path: Path, size: int) -> None:
    if not path.is_file():
        raise StoreError(f"{path} is missing", _AGAIN)
    if path.stat().st_size != size:
        raise StoreError(f"{path} is truncated or altered: it should have {size} bytes", _AGAIN)
