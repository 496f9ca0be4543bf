"""Smaller files: weights stored in 16 bits, or networks that compute in 8-bit integers.

Of onnxruntime's static quantisation only convolutions over height and width are made integer, and
what lies between two of them, but for the first layers of each network: leaving these about halves
the change of scores. Weights are signed with a scale for each channel; maps are unsigned, which
x86's VNNI instructions multiply fastest.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from deepregions.deploy.runtimes import Arrays
from deepregions.devices import import_runtime
from deepregions.errors import ExportError

_PASSERS = {"Relu", "MaxPool", "AveragePool", "Add", "Concat", "Pad"}  # maps in, a map out
_MAP = 4  # dimensions
_LARGE = 1024  # numbers of an array that is worth it
_EXACT = 3  # convolutions in a row that stay float32: measured, see docs/export.md


def quantise(path: Path, batches: Iterable[Arrays]) -> None:
    """Replaces a float32 file by one whose networks compute in 8-bit integers.

    Raises:
        ExportError: There is nothing to quantise, or onnxruntime cannot.
    """
    library = import_runtime("onnxruntime.quantization")
    prepare = import_runtime("onnxruntime.quantization.shape_inference")
    source = onnx.load(path)
    with TemporaryDirectory() as folder:
        simple, made = Path(folder, "simple.onnx"), Path(folder, "made.onnx")
        try:
            prepare.quant_pre_process(str(path), str(simple), skip_symbolic_shape=True)
            library.quantize_static(
                str(simple),
                str(made),
                _reader(library, batches),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
                weight_type=library.QuantType.QInt8,
                activation_type=library.QuantType.QUInt8,
                nodes_to_quantize=_nodes(onnx.load(simple)),
                calibrate_method=library.CalibrationMethod.MinMax,
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ExportError(f"onnxruntime cannot quantise this system: {first}") from error
        model = onnx.load(made)
    del model.graph.value_info[:]  # runtimes infer it
    del model.metadata_props[:]
    model.metadata_props.extend(source.metadata_props)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    onnx.save(model, path)


def store_halves(path: Path) -> None:
    """Stores the large float32 arrays of a file in 16 bits where that loses nothing.

    So it is with weights that came from a bundle in float16. They are float32 again when a runtime
    has loaded the file.
    """
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) < _LARGE:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
            casts.append(
                onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def _reader(library: Any, batches: Iterable[Arrays]) -> Any:
    """Returns what onnxruntime takes faces from, one by one: it keeps all maps of a batch."""

    def faces() -> Iterator[Arrays]:
        for batch in batches:
            for row in range(len(next(iter(batch.values())))):
                yield {name: values[row : row + 1] for name, values in batch.items()}

    given = faces()
    methods = {"get_next": lambda _: next(given, None)}
    return type("Reader", (library.CalibrationDataReader,), methods)()


def _nodes(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the nodes that make maps of maps, in the order of the graph."""
    weights = {each.name: len(each.dims) for each in model.graph.initializer}
    depths: dict[str, int] = {}  # of maps: how many convolutions lie before
    maps: set[str] = set()  # that are integer
    names = []
    for node in model.graph.node:
        given = [name for name in node.input if name and name not in weights]
        depth = max((depths.get(name, 0) for name in given), default=0)
        convolves = node.op_type == "Conv" and weights.get(node.input[1]) == _MAP
        passes = node.op_type in _PASSERS and maps.issuperset(given) and given
        depths |= dict.fromkeys(node.output, depth + convolves)
        if (convolves and depth >= _EXACT) or passes:
            names.append(node.name)
            maps.update(node.output)
    if not names:
        raise ExportError("there is no convolution to quantise", "--precision fp32")
    return names
