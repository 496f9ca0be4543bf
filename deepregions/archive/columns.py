"""The columns of results, derived from the JSON Schema of ``detect``: one definition for both."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa

from deepregions.archive.manifest import SCHEMA as MANIFEST
from deepregions.pipeline.schemas import schema_text

OF_THE_RUN = (
    "schema",
    "version",
    "models",
    "fusion",
    "fusion_sha256",
    "landmarks",
    "rules",
    "gates",
    "command",
    "device",
    "runtime",
    "uncalibrated",
    "operating_point",
    "limits",
    "precision",
    "calibration",
    "versions",
    "deepregions",
)
"""What is the same of all files: it stands once, in ``run.json`` and in the metadata of a part."""

_KINDS = {
    "date-time": pa.timestamp("ms", tz="UTC"),  # Parquet has no coarser one
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
_LONE = re.compile("[\ud800-\udfff]")


@cache
def schema() -> pa.Schema:
    """Returns the columns of results: the file's, those of the JSON, and how long it took."""
    described = json.loads(schema_text("detect"))
    own = [MANIFEST.field(0), MANIFEST.field(1).with_name("input"), *list(MANIFEST)[2:]]
    told = [
        pa.field(name, _type(kind, described["$defs"]))
        for name, kind in described["properties"].items()
        if name not in (*OF_THE_RUN, "input")
    ]
    return pa.schema([*own, *told, pa.field("seconds", pa.float64())])


def _type(described: Mapping[str, Any], named: Mapping[str, Any]) -> pa.DataType:
    """Returns the type of what a schema describes; all of it may be null."""
    if "$ref" in described and "properties" not in described:
        return _type(named[described["$ref"].rpartition("/")[2]], named)
    if "oneOf" in described:
        (other,) = (each for each in described["oneOf"] if each != {"type": "null"})
        return _type(other, named)
    kinds = described.get("format") or described.get("type", "string")  # or one of several texts
    (kind,) = (each for each in ([kinds] if isinstance(kinds, str) else kinds) if each != "null")
    if kind == "array":
        return pa.list_(_type(described["items"], named))
    if kind == "object" and "properties" in described:
        return pa.struct({name: _type(one, named) for name, one in described["properties"].items()})
    if kind == "object":
        return pa.map_(pa.string(), _type(described["additionalProperties"], named))
    return _KINDS[kind]


def as_line(number: int, told: Mapping[str, Any], seconds: float) -> bytes:
    """Returns a file's result, as ``detect --json`` has it, as a line of JSON of its columns."""
    kept = {name: value for name, value in told.items() if name not in (*OF_THE_RUN, "input")}
    row = {"id": number, **kept, "seconds": round(seconds, 3)}
    text = json.dumps(row, allow_nan=False, ensure_ascii=False)
    # What is no character, as in a name that is no UTF-8, is written as people are shown it.
    text = _LONE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    return f"{text}\n".encode()


def as_results(files: pa.Table, lines: Sequence[bytes]) -> pa.Table:
    """Joins rows of a manifest and, in their order, the lines of what came of them."""
    wanted = schema()
    told = pa.schema(list(wanted)[len(MANIFEST) :])
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["date"] = row.get("date") and datetime.fromisoformat(row["date"])
    results = pa.Table.from_pylist(rows, schema=told)
    return pa.table([*files.columns, *results.columns], schema=wanted)
