"""What an exported file says about itself, in its metadata, and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from deepregions import __version__
from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.judgement import CHECKS, Quality
from deepregions.types import REGIONS

if TYPE_CHECKING:
    from deepregions.deploy.exported import ExportedSystem
    from deepregions.deploy.graph import Graph
    from deepregions.system import System

SCHEMA = "deepregions.onnx"
VERSION = 1
KEY = "deepregions"
"""The metadata's key whose value is the facts as JSON."""

_AGAIN = "deepregions export writes one"
_OF_REGIONS = ("inside", "light", "dark", "bright", "sharpness")


def digest(system: System) -> str:
    """Returns one SHA-256 for networks, how their crops are made, and how they are fused."""
    lines = [
        f"{member.sha256} {member.name} {member.cut.size} {member.layout} {member.resample}"
        for member in system.members
    ]
    lines.append(type(system.fusion).__name__)
    made = hashlib.sha256("\n".join(lines).encode())
    unsaved = [member.detector for member in system.members if not member.sha256]
    for module in (*unsaved, system.fusion):
        for name, value in sorted(module.state_dict().items()):
            made.update(f"{name} {[*value.shape]} {value.dtype}".encode())
            made.update(value.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()


def describe(graph: Graph, precision: str) -> dict[str, Any]:
    """Returns what the metadata says of a graph."""
    system = graph.system
    networks = [
        {
            **about,
            **member.cut._asdict(),
            "normalisation": member.detector.settings()["normalisation"],
        }
        for about, member in zip(system.network_facts(), system.members, strict=True)
    ]
    crops = [
        {"input": name, "regions": [*map(str, regions)], **cut._asdict()}
        for name, (cut, regions) in zip(crop_inputs(system), system.cuts.items(), strict=True)
    ]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "deepregions": __version__,
        "takes": graph.kind,
        "precision": precision,
        "classes": ["genuine", "fake"],  # 1 is fake: log-odds above 0 speak for it
        "detectors": [*system.rows],
        "regions": [*map(str, system.regions)],
        "networks": networks,
        "bundle": digest(system),
        "inputs": {name: [*shape] for name, shape in graph.inputs.items()},
        "outputs": {name: [*shape] for name, shape in graph.outputs.items()},
        "preprocessing": {
            "colours": "RGB",
            "normalisation": "in the graph",
            **({"crops": crops} if graph.kind == "crops" else {}),
        },
        "fusion": system.fusion.rule,
        "fusion_sha256": system.fusion.sha256,
        "calibrated": graph.calibration is not None,
    }


def crop_inputs(system: System) -> tuple[str, ...]:
    """Returns the names of a graph's inputs of crops, one for each kind."""
    if len(system.cuts) == 1:
        return ("crops",)
    return tuple(f"crops_{number}" for number in range(len(system.cuts)))


def face_answers(system: System | ExportedSystem) -> dict[str, tuple[int, ...]]:
    """Returns what a graph of faces answers, in order, and the shapes without the batch."""
    cells, regions = (len(system.rows), len(system.regions)), len(REGIONS)
    measured = [one.name for one in fields(Quality) if one.name != "confidence"]  # it is an input
    return {
        "logits": cells,
        "valid": cells,
        "fused": (),
        "present": cells[1:],
        **{f"quality_{name}": (regions,) if name in _OF_REGIONS else () for name in measured},
        "judged_regions": (regions,),
        "judged_status": (),
        "judged_failed": (regions, len(CHECKS)),
        **{
            f"seen_{number}": (len(own), cut.size, cut.size, 3)
            for number, (cut, own) in enumerate(system.cuts.items())
        },
    }


def write_facts(path: Path, content: dict[str, Any]) -> None:
    """Replaces what a file says about itself."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {KEY: json.dumps(content, allow_nan=False)})
    onnx.save(model, path)


def read_facts(path: Path, weights: Collection[str] = ()) -> dict[str, Any]:
    """Reads what a file says about itself, as :func:`describe` makes it.

    And ``opset``, the version of ONNX's operators that it needs. Its weights may lie in the files
    ``weights`` beside it.

    Raises:
        UnreadableError: It is not there, not ONNX, or not written by ``deepregions export``.
        UnsupportedError: Its weights lie in other files, or it is of a newer version.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise UnreadableError(f"{path} cannot be read as ONNX: {error}", _AGAIN) from error
    apart = filter(uses_external_data, _tensors(model.graph))
    if not {ExternalDataInfo(tensor).location for tensor in apart}.issubset(weights):
        raise UnsupportedError(
            f"{path} keeps its weights in other files", "one self-contained file is wanted"
        )
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return _content(model, path) | {"opset": max(opsets, default=0)}


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yields weights and constants, also of graphs within nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _content(model: ModelProto, path: Path) -> dict[str, Any]:
    texts = {entry.key: entry.value for entry in model.metadata_props}
    try:
        content = json.loads(texts.get(KEY, ""))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UnreadableError(f"{path} was not written by deepregions export", _AGAIN)
    if content.get("version") != VERSION:
        raise UnsupportedError(
            f"{path} is of version {content.get('version')}; this program reads version {VERSION}",
            "update deepregions, or export again",
        )
    missing = {"takes", "bundle", "inputs", "outputs", "detectors", "regions"} - content.keys()
    if missing:
        raise UnreadableError(f"{path} does not say its {', '.join(sorted(missing))}", _AGAIN)
    return content
