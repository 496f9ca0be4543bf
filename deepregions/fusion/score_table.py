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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepregions.errors import UnreadableError, UsageError
from deepregions.files import atomic_file
from deepregions.people import Numbers
from deepregions.roc import Bools, Floats
from deepregions.types import FAKE, Region, Status

SCHEMA = "deepregions.scores"
VERSION = 1

Strings = npt.NDArray[np.object_]

_COLUMNS = {
    "key": pa.string(),
    "video": pa.string(),
    "track": pa.int32(),
    "identities": pa.list_(pa.string()),
    "label": pa.int8(),
    "method": pa.string(),
    "compression": pa.string(),
    "split": pa.string(),
    "status": pa.string(),
    "detector": pa.string(),
    "region": pa.string(),
    "log_odds": pa.float32(),
    "score": pa.float32(),
    "valid": pa.bool_(),
}
_TEXTS = [name for name, kind in _COLUMNS.items() if kind == pa.string()]
_SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=kind == pa.float32()) for name, kind in _COLUMNS.items()]
)
_OF_A_FACE = [*_COLUMNS][:9]
_MOST_ROWS = 200_000_000
_MOST_ODDS = 1e6
_LONGEST = 4096  # bytes of a name
_BROKEN = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError),
    *(pa.ArrowException, MemoryError, OSError, UsageError),
)
_AGAIN = "score the store again with: deepregions evaluate"


class ScoreRow(NamedTuple):
    """Who a row of a table is: networks of one detector, trained on one database."""

    detector: str
    database: str
    """Empty if it is not known."""


@dataclass(frozen=True)
class ScoredSystem:
    """Who a column of scores is: a network, or a fusion of several.

    Attributes:
        detector: The detector, or the name of the fusion.
        region: The network's region; None for a fusion.
        trained_on: The database that it was trained on; empty if that is not one known database.
    """

    detector: str
    region: Region | None = None
    trained_on: str = ""

    @property
    def fused(self) -> bool:
        """Whether it is a fusion."""
        return self.region is None

    @property
    def label(self) -> str:
        """Its name, whatever it was trained on."""
        return self.detector if self.region is None else f"{self.detector} {self.region}"

    @property
    def name(self) -> str:
        """Its name with what it was trained on: unique among the systems of a database."""
        return f"{self.label} ({self.trained_on})" if self.trained_on else self.label

    @property
    def network(self) -> str:
        """A network's name in :attr:`Origin.models`."""
        return f"{self.detector}_{self.region}.{self.trained_on}"


@dataclass(frozen=True)
class Origin:
    """Where scores come from.

    Attributes:
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
        detectors: D names, rows of the matrix, as :attr:`deepregions.system.System.rows`.
        key: (N,) names, unique within a database.
        video: (N,) the photo or video of each.
        track: (N,) int64, which person of the video.
        identities: (N,) tuples of names: who is in it.
        label: (N,) int64, 1 is fake.
        method: (N,) how it was made; ``"original"`` if genuine.
        split: (N,) ``"train"``, ``"val"`` (development) or ``"test"`` (evaluation).
        status: (N,) :class:`~deepregions.types.Status` as words; faces without a verdict stay.
        log_odds: (N, D, R) float64 fake log-odds; NaN where not valid.
        rows: Who the D rows are.

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
    rows: tuple[ScoreRow, ...]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.detectors):
            raise UsageError("a table of scores does not say who each of its rows is", _AGAIN)
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

    @cached_property
    def systems(self) -> dict[ScoredSystem, tuple[int, int]]:
        """The place in the matrix of each network, row by row."""
        there = np.asarray(self.valid.any(0), dtype=np.bool_)
        found = {}
        for d, row in enumerate(self.rows):
            for r, region in enumerate(self.regions):
                system = ScoredSystem(row.detector, region, row.database)
                if there[d, r] or system.network in self.origin.models:
                    found[system] = (d, r)
        return found

    @property
    def cells(self) -> tuple[tuple[int, int], ...]:
        """Places in the matrix at which there is a network, row by row."""
        return tuple(self.systems.values())

    def networks(self, cells: Iterable[tuple[str, Region]]) -> list[str]:
        """Returns the SHA-256 of the networks at some cells; none if one has no name."""
        found = []
        for name, region in cells:
            row = self.rows[self.detectors.index(name)]
            network = ScoredSystem(row.detector, region, row.database).network
            found.append(self.origin.models.get(network, ""))
        return found if all(found) else []

    def select(self, rows: npt.NDArray[Any]) -> ScoreTable:
        """Returns some faces: ``rows`` are numbers or a mask."""
        columns = {name: getattr(self, name)[rows] for name in (*_OF_A_FACE, "log_odds")}
        return replace(self, **columns)

    def part(self, split: str) -> ScoreTable:
        """Returns the faces of one split, maybe none."""
        return self.select(self.split == split)

    def write(self, path: Path) -> None:
        """Writes a Parquet file, whole or not at all."""
        face = np.repeat(np.arange(len(self)), len(self.detectors) * len(self.regions))
        columns = {
            name: pa.array(getattr(self, name).tolist(), _COLUMNS[name]).take(face)
            for name in _OF_A_FACE
        }
        flat, valid = self.log_odds.reshape(-1), self.valid.reshape(-1)
        columns |= _cell_names(self.detectors, self.regions, len(self)) | {
            "log_odds": pa.array(flat.astype(np.float32), mask=~valid),
            "score": pa.array((0.5 * (1 + np.tanh(flat / 2))).astype(np.float32), mask=~valid),
            "valid": pa.array(valid),
        }
        about = {
            "schema": SCHEMA,
            "version": VERSION,
            "detectors": self.detectors,
            "rows": self.rows,
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
        try:
            about, table = _about(path), _columns(path)
            detectors = tuple(map(str, about["detectors"]))
            regions = tuple(Region(region) for region in about["regions"])
            _check_order(table, detectors, regions)
            _check_ranges(table)
            cells = max(1, len(detectors) * len(regions))
            first = table.take(np.arange(0, table.num_rows, cells))
            logits = table.column("log_odds").to_numpy(zero_copy_only=False).astype(np.float64)
            return cls(
                _origin(about["origin"]),
                detectors,
                regions,
                **{name: _array(name, first.column(name).to_pylist()) for name in _OF_A_FACE},
                log_odds=logits.reshape(-1, len(detectors), len(regions)),
                rows=tuple(ScoreRow(str(d), str(b)) for d, b in about["rows"]),
            )
        except _BROKEN as error:
            said = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
            reason = " ".join(said.split())[:200]
            raise UnreadableError(f"{path} is not a table of scores: {reason}", _AGAIN) from error


def judged(status: Strings) -> Bools:
    """(N,), which faces have a verdict."""
    return np.asarray(status == str(Status.OK), dtype=np.bool_)


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UnreadableError(f"{path} is no file", _AGAIN)
    metadata = pq.read_schema(path).metadata or {}
    about = json.loads(metadata[SCHEMA.encode()])
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise UnreadableError(f"{path} is of a version that this program does not read", _AGAIN)
    return about


def _origin(given: Any) -> Origin:
    """Makes an origin of JSON values, maybe a stranger's."""
    origin = Origin(**given)
    texts = [origin.database, origin.store, *origin.models, *origin.models.values()]
    if not all(isinstance(text, str) for text in texts) or not isinstance(origin.settings, dict):
        raise ValueError("its origin is not in words")
    return origin


def _columns(path: Path) -> pa.Table:
    """Reads a file's columns as they should be; texts stay encoded, however often they stand."""
    with pq.ParquetFile(path, read_dictionary=_TEXTS) as file:
        if file.metadata.num_rows > _MOST_ROWS:
            raise ValueError(f"it has {file.metadata.num_rows} rows, more than {_MOST_ROWS}")
        table = file.read(_SCHEMA.names)
    coded = pa.dictionary(pa.int32(), pa.string())
    fields = [each.with_type(coded) if each.name in _TEXTS else each for each in _SCHEMA]
    for each in fields:
        if table.column(each.name).null_count and not each.nullable:
            raise ValueError(f"its column {each.name} has gaps")
    table = table.cast(pa.schema(fields))
    table.validate(full=True)
    return table


def _check_order(table: pa.Table, detectors: Sequence[str], regions: Sequence[Region]) -> None:
    """Refuses doubled names, and faces by halves or in another order."""
    cells = max(1, len(detectors) * len(regions))
    if table.num_rows % cells or len({*detectors, *regions}) < len(detectors) + len(regions):
        raise ValueError(f"{table.num_rows} rows are no matrices of {cells} cells")
    for name, wanted in _cell_names(detectors, regions, table.num_rows // cells).items():
        if not table.column(name).cast(pa.string()).equals(pa.chunked_array([wanted])):
            raise ValueError(f"its column {name} is in another order than it says")


def _check_ranges(table: pa.Table) -> None:
    """Refuses numbers, texts and words out of range."""
    for name, low, high in (("label", 0, 1), ("track", 0, _MOST_ROWS)):
        ends = pc.min_max(table.column(name)).as_py()
        if table.num_rows and not low <= ends["min"] <= ends["max"] <= high:
            raise ValueError(f"its column {name} has numbers beyond {low} to {high}")
    odds = pc.min_max(pc.abs(pc.drop_null(table.column("log_odds")))).as_py()["max"]
    if odds is not None and not odds <= _MOST_ODDS:
        raise ValueError(f"it has log-odds of {odds}")
    identities = pc.list_flatten(table.column("identities"))
    if identities.null_count:
        raise ValueError("its column identities has gaps")
    texts = {name: pc.unique(table.column(name)).cast(pa.string()) for name in _TEXTS}
    for name, column in (texts | {"identities": identities}).items():
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        if longest > _LONGEST:
            raise ValueError(f"its column {name} has a text of {longest} bytes")
    if unknown := {*texts["status"].to_pylist()} - {*map(str, Status)}:
        raise ValueError(f"there is no status {min(unknown)!r}")


def _array(name: str, values: list[Any]) -> npt.NDArray[Any]:
    if name in ("track", "label"):
        return np.asarray(values, dtype=np.int64)
    array = np.empty(len(values), dtype=np.object_)
    array[:] = [tuple(value) if name == "identities" else str(value) for value in values]
    return array


def _cell_names(
    detectors: Sequence[str], regions: Sequence[Region], faces: int
) -> dict[str, pa.Array]:
    """Returns the columns that name each face's cells, row by row."""
    cells = [(detector, str(region)) for detector in detectors for region in regions]
    place = np.tile(np.arange(len(cells)), faces)
    names = {"detector": [d for d, _ in cells], "region": [r for _, r in cells]}
    return {key: pa.array(each, pa.string()).take(place) for key, each in names.items()}
