"""What networks said of many faces: one matrix of log-odds per face, with what is known of it.

As a file it is Parquet, one row per (face, detector, region), which any data tool reads; in memory
it is columns over N faces and arrays (N, D, R). Fusion, calibration and evaluation start here and
never look at a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deepregions.errors import UnreadableError, UsageError
from deepregions.files import atomic_file
from deepregions.types import FAKE, Region, Status

SCHEMA = "deepregions.scores"
VERSION = 1

Strings = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        pa.field("track", pa.int32(), nullable=False),
        pa.field("identities", pa.list_(pa.string()), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("compression", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("region", pa.string(), nullable=False),
        pa.field("log_odds", pa.float32()),
        pa.field("score", pa.float32()),
        pa.field("valid", pa.bool_(), nullable=False),
    ]
)
_OF_A_FACE = _SCHEMA.names[:9]
_AGAIN = "score the store again with: deepregions evaluate"


@dataclass(frozen=True)
class Origin:
    """Where scores come from.

    Attributes:
        database: The store's database.
        store: The store's fingerprint.
        models: SHA-256 of the weights of each network, by ``DETECTOR_REGION.DATABASE``.
        settings: What else the scores depend on: gates, degradation, versions.
    """

    database: str
    store: str = ""
    models: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of N faces by D detectors on R regions.

    Attributes:
        origin: Where they come from.
        detectors: D names, rows of the matrix, as :attr:`deepregions.system.System.rows`.
        regions: R regions.
        key: (N,) names, unique within a database.
        video: (N,) the photo or video of each.
        track: (N,) int64, which person of the video.
        identities: (N,) tuples of names: who is in it.
        label: (N,) int64, 1 is fake.
        method: (N,) how it was made; ``"original"`` if genuine.
        compression: (N,) the database's word for it.
        split: (N,) ``"train"``, ``"val"`` (development) or ``"test"`` (evaluation).
        status: (N,) :class:`~deepregions.types.Status` as words; faces without a verdict stay.
        log_odds: (N, D, R) float64 fake log-odds; NaN where not valid.

    Raises:
        UsageError: Columns of different lengths, or a log-odds that is infinite.
    """

    origin: Origin
    detectors: tuple[str, ...]
    regions: tuple[Region, ...]
    key: Strings
    video: Strings
    track: Numbers
    identities: Strings
    label: Numbers
    method: Strings
    compression: Strings
    split: Strings
    status: Strings
    log_odds: Floats

    def __post_init__(self) -> None:
        shape = (len(self.key), len(self.detectors), len(self.regions))
        lengths = {len(getattr(self, name)) for name in _OF_A_FACE}
        if self.log_odds.shape != shape or lengths != {len(self.key)}:
            raise UsageError(f"a table of {shape} scores has columns of other lengths", _AGAIN)
        if bool(np.isinf(self.log_odds).any()):
            raise UsageError("a score is infinite", "a network's answer must be finite")

    def __len__(self) -> int:
        return len(self.key)

    @cached_property
    def valid(self) -> Bools:
        """(N, D, R), whether there is an answer."""
        return np.isfinite(self.log_odds)

    @property
    def fake(self) -> Bools:
        """(N,), whether it is a fake."""
        return np.asarray(self.label == FAKE, dtype=np.bool_)

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """Places in the matrix at which there is a network, row by row."""
        there = np.asarray(self.valid.any(0), dtype=np.bool_)
        return tuple(
            (d, r)
            for d, detector in enumerate(self.detectors)
            for r, region in enumerate(self.regions)
            if there[d, r] or self._names_network(detector, region)
        )

    def _names_network(self, row: str, region: Region) -> bool:
        """Whether the origin names a network for a row, which may have a database in its name."""
        detector, _, database = row.partition(".")
        stem = f"{detector}_{region}."
        return any(
            name.startswith(stem) and database in ("", name.removeprefix(stem))
            for name in self.origin.models
        )

    def networks(self, cells: Iterable[tuple[str, Region]]) -> list[str]:
        """Returns the SHA-256 of the networks at some places, as far as the origin names them."""
        found = []
        for row, region in cells:
            detector, _, database = row.partition(".")
            stem = f"{detector}_{region}."
            found += [
                digest
                for name, digest in self.origin.models.items()
                if name.startswith(stem) and database in ("", name.removeprefix(stem))
            ]
        return found

    def select(self, rows: npt.NDArray[Any]) -> ScoreTable:
        """Returns some faces: ``rows`` are numbers or a mask."""
        columns = {name: getattr(self, name)[rows] for name in (*_OF_A_FACE, "log_odds")}
        return replace(self, **columns)

    def part(self, split: str) -> ScoreTable:
        """Returns the faces of one split, maybe none."""
        return self.select(self.split == split)

    def write(self, path: Path) -> None:
        """Writes a Parquet file, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        count, cells = len(self), len(self.detectors) * len(self.regions)
        face = np.repeat(np.arange(count), cells)
        of_face = {
            name: pa.array(getattr(self, name).tolist(), _SCHEMA.field(name).type).take(face)
            for name in _OF_A_FACE
        }
        flat = self.log_odds.reshape(-1)
        valid = self.valid.reshape(-1)
        columns = of_face | {
            "detector": _tiled([d for d in self.detectors for _ in self.regions], count),
            "region": _tiled([str(r) for _ in self.detectors for r in self.regions], count),
            "log_odds": pa.array(flat.astype(np.float32), mask=~valid),
            "score": pa.array((0.5 * (1 + np.tanh(flat / 2))).astype(np.float32), mask=~valid),
            "valid": pa.array(valid),
        }
        about = {
            "schema": SCHEMA,
            "version": VERSION,
            "detectors": self.detectors,
            "regions": [str(region) for region in self.regions],
            "origin": asdict(self.origin),
        }
        schema = _SCHEMA.with_metadata({SCHEMA: json.dumps(about, allow_nan=False)})
        with atomic_file(path) as partial:
            pq.write_table(pa.table(columns, schema=schema), partial, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> ScoreTable:
        """Reads what :meth:`write` wrote.

        Raises:
            UnreadableError: It is missing, or not such a file, or of a newer version.
        """
        about = _about(path)
        try:
            table = pq.read_table(path)
            detectors = tuple(map(str, about["detectors"]))
            regions = tuple(Region(region) for region in about["regions"])
            cells = max(1, len(detectors) * len(regions))
            first = table.take(np.arange(0, table.num_rows, cells))
            columns = {name: _column(first, name) for name in _OF_A_FACE}
            logits = table.column("log_odds").to_numpy(zero_copy_only=False).astype(np.float64)
            return cls(
                origin=Origin(**about["origin"]),
                detectors=detectors,
                regions=regions,
                **columns,
                log_odds=logits.reshape(-1, len(detectors), len(regions)),
            )
        except (KeyError, TypeError, ValueError, pa.ArrowInvalid, OSError) as error:
            raise UnreadableError(f"{path} is not a table of scores: {error}", _AGAIN) from error


def read_origin(path: Path) -> Origin:
    """Returns where a file's scores come from, without reading them.

    Raises:
        UnreadableError: As :meth:`ScoreTable.read`.
    """
    try:
        return Origin(**_about(path)["origin"])
    except (KeyError, TypeError) as error:
        raise UnreadableError(f"{path} is not a table of scores: {error}", _AGAIN) from error


def make_table(
    origin: Origin,
    detectors: Sequence[str],
    regions: Sequence[Region],
    faces: Iterable[dict[str, Any]],
) -> ScoreTable:
    """Makes a table of faces one by one.

    Args:
        origin: Where they come from.
        detectors: D names.
        regions: R regions.
        faces: Of each face all columns of :class:`ScoreTable` by name, ``log_odds`` (D, R).
    """
    rows = list(faces)
    logits = np.array([row["log_odds"] for row in rows], dtype=np.float64)
    columns = {name: _array(name, [row[name] for row in rows]) for name in _OF_A_FACE}
    shape = (len(rows), len(detectors), len(regions))
    return ScoreTable(
        origin, tuple(detectors), tuple(regions), **columns, log_odds=logits.reshape(shape)
    )


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Returns the faces of several tables of the same networks as one.

    Raises:
        UsageError: None, or networks differ.
    """
    if not tables:
        raise UsageError("there are no scores", _AGAIN)
    first = tables[0]
    for table in tables[1:]:
        if (table.detectors, table.regions) != (first.detectors, first.regions):
            raise UsageError("tables of scores by different networks do not go together", _AGAIN)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in (*_OF_A_FACE, "log_odds")
    }
    return replace(first, **columns)


def judged(status: Strings) -> Bools:
    """(N,), which faces have a verdict."""
    return np.asarray(status == str(Status.OK), dtype=np.bool_)


def _about(path: Path) -> dict[str, Any]:
    try:
        metadata = pq.read_schema(path).metadata or {}
        about = json.loads(metadata[SCHEMA.encode()])
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} is not there", _AGAIN) from error
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise UnreadableError(f"{path} is not a table of scores", _AGAIN) from error
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise UnreadableError(f"{path} is of a version that this program does not read", _AGAIN)
    return about


def _array(name: str, values: list[Any]) -> npt.NDArray[Any]:
    if name in ("track", "label"):
        return np.asarray(values, dtype=np.int64)
    array = np.empty(len(values), dtype=np.object_)
    array[:] = [tuple(value) if name == "identities" else str(value) for value in values]
    return array


def _column(table: pa.Table, name: str) -> npt.NDArray[Any]:
    return _array(name, table.column(name).to_pylist())


def _tiled(names: Sequence[str], count: int) -> pa.Array:
    return pa.array(names, pa.string()).take(np.tile(np.arange(len(names)), count))
