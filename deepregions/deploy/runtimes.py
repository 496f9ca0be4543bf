"""What runs a system: PyTorch, onnxruntime or OpenVINO, behind one protocol."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from deepregions.deploy.onnx_metadata import read_facts
from deepregions.devices import import_runtime, out_of_memory, threads
from deepregions.errors import (
    DeepregionsError,
    OutOfMemoryError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from deepregions.deploy.graph import Graph

Arrays = dict[str, npt.NDArray[Any]]
Given = Mapping[str, npt.NDArray[Any]]
Name = Literal["torch", "onnxruntime", "openvino"]
NAMES: tuple[Name, ...] = get_args(Name)
Precision = Literal["fp32", "bf16"]


class Runtime(ABC):
    """Runs a graph of :mod:`deepregions.deploy.graph`, on the CPU."""

    name: ClassVar[Name]
    at_once: int = 1
    """How many threads may run it at the same time."""
    version: str
    inputs: list[str]
    outputs: list[str]

    def run(self, inputs: Given, wanted: Sequence[str] | None = None) -> Arrays:
        """Answers: ``logits`` and ``valid`` (B, D, R), ``fused`` (B,), and ``llr`` (B,) if there.

        Without ``wanted`` it gives all answers. Where memory does not suffice, PyTorch says so by
        exceptions of its own, and any by a MemoryError
        (:func:`~deepregions.devices.out_of_memory`).

        Raises:
            OutOfMemoryError: Memory does not suffice.
        """
        if {*inputs} != {*self.inputs}:
            raise UsageError(f"the graph takes {', '.join(self.inputs)}, not {', '.join(inputs)}")
        names = self.outputs if wanted is None else [*wanted]
        return dict(zip(names, self._run(inputs, names), strict=True))

    @abstractmethod
    def _run(self, inputs: Given, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Returns the outputs of these names."""


class TorchRuntime(Runtime):
    """PyTorch itself, for what was not exported."""

    name = "torch"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.version = metadata.version("torch")
        self.inputs, self.outputs = [*graph.inputs], [*graph.outputs]

    def _run(self, inputs: Given, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        import torch  # noqa: PLC0415 - the other runtimes do without

        with torch.inference_mode():
            answers = dict(zip(self.outputs, self._graph.run(inputs), strict=True))
            return [answers[name].numpy() for name in names]


class OnnxRuntime(Runtime):
    """onnxruntime, on the CPU.

    Raises:
        MissingExtraError: It is not installed.
        UnsupportedError: It does not know the file's operators.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, at_once: int = 1) -> None:
        library = import_runtime("onnxruntime")
        self.version = str(library.__version__)
        options = library.SessionOptions()
        self.at_once = at_once
        options.intra_op_num_threads = max(1, threads() // at_once)
        # Threads that spin while they wait take the time of those that compute.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are exceptions
        try:
            self._session = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _onnxruntime_errors() as error:
            raise _cannot_load(self, path, error) from error
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def _run(self, inputs: Given, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        try:
            return list(self._session.run([*names], dict(inputs)))
        except _onnxruntime_errors() as error:
            raise _cannot_run(self, error) from error


class OpenVino(Runtime):
    """OpenVINO, on the CPU, in float32 also where the CPU has bfloat16, unless asked for that.

    Raises:
        MissingExtraError: It is not installed.
        UnsupportedError: It does not know the file's operators, or the CPU has no bfloat16.
    """

    name = "openvino"

    def __init__(self, path: Path, precision: Precision = "fp32") -> None:
        library = import_runtime("openvino")
        self.version = metadata.version("openvino")
        check_precision(self.name, precision)
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads(),
            "PERFORMANCE_HINT": "THROUGHPUT",  # parts of a batch side by side, in streams
        }
        try:
            self._model = library.Core().compile_model(str(path), "CPU", hints)
        except RuntimeError as error:
            raise _cannot_load(self, path, error) from error
        self._streams = self._model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = self._started()
        self._batched = {
            port.any_name for port in self._model.inputs if port.partial_shape[0].is_dynamic
        }
        self.inputs = [port.any_name for port in self._model.inputs]
        self.outputs = [port.any_name for port in self._model.outputs]

    def _started(self) -> list[Any]:
        return [self._model.create_infer_request() for _ in range(self._streams)]

    def _run(self, inputs: Given, names: Sequence[str]) -> list[npt.NDArray[Any]]:
        count = max(1, *(len(inputs[name]) for name in self._batched))
        size = -(-count // self._streams)
        begun = []
        try:
            for start, request in zip(range(0, count, size), self._requests, strict=False):
                part = slice(start, start + size)
                given = {
                    name: value[part] if name in self._batched else value
                    for name, value in inputs.items()
                }
                # Not infer(): where memory is full, that gives the answers of the batch before,
                # and no exception (2026.4.1; tests/test_memory.py).
                request.start_async(given, share_inputs=True)
                begun.append(request)
            for request in begun:
                request.wait()
        except RuntimeError as error:
            self._requests = self._started()  # one that failed stays so
            raise _cannot_run(self, error) from error
        # Copied: OpenVINO writes the next answers to the same place.
        return [
            np.concatenate([request.get_tensor(name).data for request in begun]) for name in names
        ]


def open_file(name: Name, path: Path, precision: Precision = "fp32") -> Runtime:
    """Opens an exported file; OpenVINO computes in ``precision``, others as the file says.

    Raises:
        UnreadableError: The file is not one of ours.
        UnsupportedError: Its weights are in other files, or the runtime cannot run it.
    """
    read_facts(path)
    return open_known(name, path, precision)


def open_known(
    name: Name, path: Path, precision: Precision = "fp32", *, at_once: int = 1
) -> Runtime:
    """Opens a file whose facts were read, as :func:`open_file` does.

    It is then for so many threads at the same time, if it can be; they share the cores.
    """
    if name == "onnxruntime":
        return OnnxRuntime(path, at_once)
    if name == "openvino":
        return OpenVino(path, precision)
    raise UsageError(f"{name} does not run ONNX files", "onnxruntime and openvino do")


def installed() -> tuple[Name, ...]:
    """Returns the runtimes that are there."""
    return tuple(name for name in NAMES if util.find_spec(name) is not None)


def has_bf16() -> bool:
    """Returns whether this CPU has bfloat16, as OpenVINO says, which must be installed."""
    core = import_runtime("openvino").Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def check_precision(name: str, precision: Precision) -> None:
    """Checks that a runtime can compute in a precision here.

    Raises:
        UsageError: It does not, whatever the CPU.
        UnsupportedError: This CPU has no bfloat16.
        MissingExtraError: OpenVINO is not installed.
    """
    if precision == "fp32":
        return
    if name != "openvino":
        raise UsageError(
            f"{name} does not compute in {precision} here", "--runtime openvino does, on some CPUs"
        )
    if not has_bf16():
        raise UnsupportedError("this CPU has no bfloat16", "--precision fp32 runs anywhere")


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Returns onnxruntime's exceptions, which have nothing in common but where they are."""
    module = import_runtime("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
    return (ValueError, *(kind for kind in kinds if issubclass(kind, Exception)))


def _cannot_load(runtime: Runtime, path: Path, error: Exception) -> UnsupportedError:
    opset = read_facts(path)["opset"]
    return UnsupportedError(
        f"{runtime.name} {runtime.version} cannot load {path} (opset {opset}): {_line(error)}",
        f"pip install --upgrade {runtime.name}, or export with this version of deepregions",
    )


def _cannot_run(runtime: Runtime, error: Exception) -> DeepregionsError:
    if out_of_memory(error):
        return OutOfMemoryError(f"{runtime.name} is out of memory: {_line(error)}")
    return UsageError(f"{runtime.name} cannot run these inputs: {_line(error)}")


def _line(error: Exception) -> str:
    """The complaint as one line, without where in the library's own sources it arose."""
    said = re.sub(r"Exception from \S+:|Check '.*?' failed at \S+:", "", str(error))
    return " ".join(said.split())[:300]
