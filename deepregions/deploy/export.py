"""A system as one self-contained ONNX file, checked against PyTorch before it is there."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import nn
from torch.onnx.errors import OnnxExporterError

from deepregions import __version__
from deepregions.deploy.facts import KEY, describe
from deepregions.deploy.graph import CropsGraph, Graph, HalfNetwork, ImageGraph, Kind
from deepregions.deploy.parity import Parity, compare
from deepregions.errors import ExportError, require
from deepregions.files import atomic_file
from deepregions.system import System

Precision = Literal["fp32", "fp16"]

OPSET = 18  # what torch's exporter writes without converting, and runtimes since 2023 read
LIMITS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.1}
"""Largest difference of log-odds from PyTorch's float32 that a file may have."""

_GRAPHS: dict[Kind, type[Graph]] = {"image": ImageGraph, "crops": CropsGraph}
_TALKATIVE = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript")
_LARGEST = 2**31 - 2**24  # bytes of weights: protobuf's limit, with room for the graph


def export(
    system: System,
    path: Path,
    *,
    takes: Kind = "image",
    precision: Precision = "fp32",
    calibration: nn.Module | None = None,
) -> Parity:
    """Writes a system as one ONNX file, or nothing.

    Args:
        system: Networks and their fusion, on the CPU.
        path: The file; an earlier one is replaced.
        takes: ``image``: photographs and landmarks; ``crops``: ready crops.
        precision: What the networks compute in; all else is float32.
        calibration: From fused log-odds (B,) to log-likelihood ratios (B,): then there is a
            further output, ``llr``.

    Returns:
        How near the file's answers, by onnxruntime, are to PyTorch's.

    Raises:
        ExportError: The file would exceed 2 GB, PyTorch cannot export a network, or the file's
            answers are further from PyTorch's than :data:`LIMITS`.
        MissingExtraError: What exports, or what runs the file for the check, is not installed.
        OSError: The file cannot be written.
    """
    require("onnxscript", "onnxruntime")
    require("onnxruntime", "onnxruntime")
    reference = _GRAPHS[takes](system, calibration)
    graph = reference if precision == "fp32" else _halved(reference)
    _check_size(graph)
    with atomic_file(path) as partial:
        program = _program(graph)
        program.model.producer_name, program.model.producer_version = "deepregions", __version__
        facts = describe(graph, precision)
        program.model.metadata_props[KEY] = json.dumps(facts, allow_nan=False)
        program.save(partial, external_data=False)
        del program
        onnx.checker.check_model(str(partial), full_check=True)
        parity = compare(reference, partial)
        if not parity.within(LIMITS[precision]):
            raise ExportError(
                f"the file does not compute what PyTorch does: {parity}",
                f"at most {LIMITS[precision]:g} is allowed; nothing was written",
            )
    return parity


def _check_size(graph: nn.Module) -> None:
    tensors = [*graph.parameters(), *graph.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > _LARGEST:
        raise ExportError(
            f"the networks have {size / 1e9:.1f} GB of weights, and an ONNX file ends at 2 GB",
            "--precision fp16 halves it; --only DETECTOR/REGION takes one network",
        )


def _halved(graph: Graph) -> Graph:
    graph = copy.deepcopy(graph)
    graph.system.detectors = nn.ModuleList(map(HalfNetwork, graph.system.detectors))
    return graph


def _program(graph: Graph) -> torch.onnx.ONNXProgram:
    """Traces a graph; nothing of this machine stays in it, such as paths of code."""
    inputs, sides = graph.examples()
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(graph, inputs, dynamic_shapes=sides)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=[*graph.inputs],
                output_names=[*graph.outputs],
                opset_version=OPSET,
                verbose=False,
            )
    except (OnnxExporterError, torch._dynamo.exc.TorchDynamoException) as error:
        first = str(error).strip().partition("\n")[0]
        raise ExportError(f"PyTorch cannot export this system: {first}") from error
    if program is None:  # only where it is told to write a file by itself
        raise ExportError("PyTorch's exporter gave nothing", "report this")
    _clean(program, graph)
    return program


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
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
