"""A system as one self-contained ONNX file, checked against PyTorch before it is there."""

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import onnx
import torch
from torch import nn
from torch.onnx.errors import OnnxExporterError

from deepregions import __version__
from deepregions.deploy.bundle_graph import manifest_digest, share_weights
from deepregions.deploy.drift import Drift, Source, measure
from deepregions.deploy.graph import CropsGraph, FacesGraph, Graph, HalfNetwork, ImageGraph, Kind
from deepregions.deploy.onnx_metadata import KEY, describe, write_facts
from deepregions.deploy.parity import Parity, compare
from deepregions.deploy.quantise import quantise, store_halves
from deepregions.deploy.runtimes import OnnxRuntime, OpenVino, check_precision
from deepregions.devices import import_runtime
from deepregions.errors import ExportError, UsageError, require
from deepregions.files import atomic_file
from deepregions.system import System

Precision = Literal["fp32", "fp16", "int8", "bf16"]

OPSET = 18  # what torch's exporter writes without converting, and runtimes since 2023 read
CALIBRATION_FACES = 128
"""On how many faces int8 finds the range of each map, at most."""
LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.1, "bf16": 1e-4, "int8": math.inf}
"""Largest difference of log-odds from PyTorch's float32 that a file may have on a photograph."""
LIMITS_WITH_FACES = LIMITS | {"fp16": math.inf}
"""The same where faces of a store show what becomes of verdicts, which is what counts."""

_GRAPHS: dict[Kind, type[Graph]] = {"image": ImageGraph, "crops": CropsGraph, "faces": FacesGraph}
_LARGEST = 2**31 - 2**24  # bytes of weights: protobuf's limit, with room for the graph


class Exported(NamedTuple):
    """What was found of a file before it was written."""

    parity: Parity
    """How near its answers, by onnxruntime, are to PyTorch's on a photograph."""
    drift: Drift | None
    """What its precision does to verdicts on a store; None where that was not asked for."""


def export(
    system: System,
    path: Path,
    *,
    takes: Kind = "image",
    precision: Precision = "fp32",
    calibration: nn.Module | None = None,
    about: Mapping[str, Any] | None = None,
    source: Source | None = None,
    allow_drift: bool = False,
    bundle: Path | None = None,
) -> Exported:
    """Writes a system as one ONNX file, or nothing.

    Args:
        system: Networks and their fusion, on the CPU.
        path: The file; an earlier one is replaced.
        takes: ``image``: photographs and landmarks; ``crops``: ready crops; ``faces``: faces cut
            out of their pictures, which it also measures, for ``detect``.
        precision: What the networks compute in; all else is float32. The file for ``bf16`` is that
            for ``fp32``: OpenVINO makes the difference.
        calibration: From fused log-odds (B,) to log-likelihood ratios (B,): then there is a
            further output, ``llr``.
        about: What the file is to say of itself beside what is known of any system.
        source: Faces on which what the precision does to verdicts is measured; those of its
            development part show int8 its ranges.
        allow_drift: Write the file even if verdicts drift further than they may.
        bundle: The bundle of the system, whose weights the file shares: it is its graph.

    Raises:
        ExportError: The file would exceed 2 GB, PyTorch cannot export a network, a network gives
            no number, the file's answers are further from PyTorch's than :data:`LIMITS`, or
            verdicts drift.
    """
    import_runtime("onnxruntime")
    require("onnxscript", "onnxruntime")
    _check_use(takes, precision, source)
    reference = _GRAPHS[takes](system, calibration)
    graph = reference
    if precision == "fp16":
        graph = copy.deepcopy(reference)
        graph.system.detectors = nn.ModuleList(map(HalfNetwork, graph.system.detectors))
    _check_size(graph)
    with atomic_file(path) as partial:
        program = _program(graph)
        program.model.producer_name, program.model.producer_version = "deepregions", __version__
        facts = describe(graph, precision) | dict(about or {})
        if bundle is not None:
            facts["manifest"] = manifest_digest(bundle)
        program.model.metadata_props[KEY] = json.dumps(facts, allow_nan=False)
        program.save(partial, external_data=False)
        del program
        if takes == "faces" and precision == "fp32":
            store_halves(partial)
        if bundle is not None:
            share_weights(partial, bundle)
        if precision == "int8" and source is not None:
            faces = source.faces("val", CALIBRATION_FACES)
            quantise(partial, (inputs for each in faces for inputs in reference.feeds(*each[:3])))
            facts |= {"ranges": source.facts | {"part": "val", "at_most": CALIBRATION_FACES}}
        onnx.checker.check_model(str(partial), full_check=True)
        parity = compare(reference, partial)
        _check_parity(parity, precision, source)
        drift = None
        if source is not None:
            bf16 = precision == "bf16"
            runtime = OpenVino(partial, "bf16") if bf16 else OnnxRuntime(partial)
            drift = measure(reference, runtime, source)
            if not (drift.small or allow_drift):
                raise ExportError(
                    f"{precision} changes verdicts: {drift}",
                    "nothing was written; --allow-drift writes it nevertheless",
                )
            write_facts(partial, facts | {"drift": source.facts | asdict(drift)})
    return Exported(parity, drift)


def _check_use(takes: Kind, precision: Precision, source: Source | None) -> None:
    if precision in ("int8", "bf16") and source is None:
        why = "finds the networks' ranges and " if precision == "int8" else ""
        raise UsageError(
            f"--precision {precision} needs faces: with them it {why}measures what it costs",
            "--store DIR, as deepregions forge makes it",
        )
    if precision == "bf16":
        if takes != "crops":
            raise UsageError(
                "--precision bf16 is for files that take crops: in others it would move the crops",
                "--crops-in",
            )
        check_precision("openvino", "bf16")


def _check_parity(parity: Parity, precision: Precision, source: Source | None) -> None:
    if parity.silent:
        raise ExportError(
            f"{', '.join(parity.silent)} answers with no finite number, whatever the face",
            "the bundle is broken: train or import it again; nothing was written",
        )
    limit = LIMITS[precision] if source is None else LIMITS_WITH_FACES[precision]
    if not parity.within(limit):
        allowed = "" if math.isinf(limit) else f"at most {limit:g} is allowed; "
        raise ExportError(
            f"the file does not compute what PyTorch does: {parity}",
            f"{allowed}nothing was written",
        )


def _check_size(graph: nn.Module) -> None:
    tensors = [*graph.parameters(), *graph.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _LARGEST:
        raise ExportError(
            f"the networks have {size / 1e9:.1f} GB of weights, and an ONNX file ends at 2 GB",
            "--precision fp16 halves it; --only DETECTOR/REGION takes one network",
        )


def _program(graph: Graph) -> torch.onnx.ONNXProgram:
    """Traces a graph; nothing of this machine stays in it, such as paths of code."""
    inputs, sides = graph.examples()
    try:
        with torch.no_grad(), _quiet():
            several = graph.kind == "crops"  # which are one argument, of any number
            traced = torch.export.export(
                graph, inputs, dynamic_shapes=(sides,) if several else sides
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=[*graph.inputs],
                output_names=[*graph.outputs],
                opset_version=OPSET,
                verbose=False,
                optimize=False,
            )
            if program is not None:
                _simplify(program, fuse=graph.kind != "faces")
    except (OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportError(f"PyTorch cannot export this system: {first}") from error
    if program is None:  # only where it is told to write a file by itself
        raise ExportError("PyTorch's exporter gave nothing", "report this")
    _clean(program, graph)
    return program


def _simplify(program: torch.onnx.ONNXProgram, *, fuse: bool) -> None:
    """Makes the graph small.

    The exporter's own rules are slow on the many nodes that it writes: what computes the same
    twice, or what is known already, goes before. They also fuse layers, which runtimes do too:
    weights that are not fused may be stored in 16 bits as they are.
    """
    passes = require("onnx_ir.passes.common", "onnxruntime")
    require("onnxscript.optimizer", "onnxruntime").fold_constants(program.model)
    for each in (
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        each(program.model)
    if fuse:
        program.optimize()


def _clean(program: torch.onnx.ONNXProgram, graph: Graph) -> None:
    """Drops where each node came from, and names sides by what they are."""
    model = program.model
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.shape = None  # in terms of the trace's own symbols; runtimes infer it
    shape_of = require("onnx_ir", "onnxruntime").Shape
    shapes = graph.inputs | graph.outputs
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
        value.shape = shape_of(shapes[str(value.name)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk about every step, and warn of what is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
