"""At what rate this machine multiplies matrices: what networks are measured against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import onnx
import torch

from deepregions.deploy.export import OPSET
from deepregions.deploy.runtimes import installed
from deepregions.devices import import_runtime

_CPU = torch.device("cpu")
_MATRIX = 4096  # columns; smaller ones do not keep all units busy


def matrix_rate(kind: torch.dtype, seconds: float, device: torch.device = _CPU) -> float:
    """Returns GFLOP/s of a product of square matrices: the best of those who offer one.

    On some CPUs PyTorch's float32 product takes twice as long as onnxruntime's, and would make a
    network seem to compute more than the machine can.
    """
    a = torch.rand(_MATRIX, _MATRIX).to(device, kind)

    def product() -> object:
        return (a @ a)[:1].cpu()  # waits for the device

    ways: list[Callable[[], object]] = [product]
    if kind == torch.float32 and device.type == "cpu" and "onnxruntime" in installed():
        ways.append(_onnx_product(a))
    return max(2e-9 * _MATRIX**3 / statistics.median(run_times(way, seconds)) for way in ways)


def _onnx_product(a: torch.Tensor) -> Callable[[], object]:
    """Returns what multiplies a matrix by itself with onnxruntime."""
    sides = [None, None]
    a_in, a_out = (onnx.helper.make_tensor_value_info(x, 1, sides) for x in ("a", "square"))
    node = onnx.helper.make_node("MatMul", ["a", "a"], ["square"])
    graph = onnx.helper.make_graph([node], "product", [a_in], [a_out])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10
    )
    library = import_runtime("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = library.InferenceSession(model.SerializeToString(), options)
    given = {"a": a.numpy()}
    return lambda: session.run(None, given)


def run_times(work: Callable[[], object], seconds: float) -> list[float]:
    """Returns the seconds of each run, after one that does not count; three at least."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times
