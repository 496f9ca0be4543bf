"""Memory that does not suffice: fewer faces at once, said once, and never a traceback."""

import json
import logging
import subprocess
import sys

import pytest
import torch
from networks import Tint, member, pixels, points

from deepregions.deploy.graph import CropsGraph
from deepregions.deploy.runtime_system import RuntimeSystem
from deepregions.deploy.runtimes import Arrays, TorchRuntime
from deepregions.devices import out_of_memory
from deepregions.errors import OutOfMemoryError, UsageError
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import FacePatch, FaceResult
from deepregions.system import System
from deepregions.types import Region

ALL = Gates(min_size=0, min_sharpness=0, max_dark=1, max_bright=1)

FULL = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("std::bad_alloc"),
    OutOfMemoryError("onnxruntime is out of memory: Failed to allocate memory for buffer"),
)


class Small(TorchRuntime):
    """Fails with more than some faces at once."""

    def __init__(self, system: System, most: int, error: Exception) -> None:
        super().__init__(CropsGraph(system))
        self.most, self.error = most, error
        self.asked: list[int] = []

    def run(self, inputs: Arrays) -> Arrays:  # type: ignore[override]
        self.asked.append(len(inputs["present"]))
        if self.asked[-1] > self.most:
            raise self.error
        return super().run(inputs)


def system() -> System:
    torch.manual_seed(0)
    return System([member(Tint().eval())])


def faces(count: int) -> list[FacePatch]:
    return [FacePatch(pixels(seed=seed), points()) for seed in range(count)]


def scored(runtime: TorchRuntime, count: int) -> list[FaceResult]:
    scorer = FaceScorer(RuntimeSystem(system(), runtime), ALL, torch.device("cpu"))
    return [*scorer.score(faces(count)), *scorer.score(faces(1))]


@pytest.mark.parametrize("error", FULL[:3], ids=lambda error: type(error).__name__)
def test_a_batch_is_halved_until_it_fits_and_stays_so(error, caplog):
    plain = scored(TorchRuntime(CropsGraph(system())), 7)
    with caplog.at_level(logging.WARNING):
        runtime = Small(system(), 2, error)
        found = scored(runtime, 7)
    assert runtime.asked == [7, 3, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [each.log_odds for each in found] == pytest.approx([each.log_odds for each in plain])
    assert [each.status for each in found] == ["ok"] * 8
    (said,) = (each.getMessage() for each in caplog.records)
    assert said == "deepregions: out of memory with 7 faces at once: going on with 3 or fewer"


def test_one_face_that_does_not_fit_is_an_error():
    assert all(out_of_memory(error) for error in FULL)
    error = MemoryError()
    with pytest.raises(OutOfMemoryError, match=r"suffice to score one face.*--detector"):
        scored(Small(system(), 0, error), 4)
    scorer = FaceScorer(
        RuntimeSystem(system(), Small(system(), 0, error)), ALL, torch.device("cpu")
    )
    with pytest.raises(OutOfMemoryError, match="suffice to score one face"):
        scorer.score_canvas(pixels(64, 64), Region.ENTIRE)


def test_other_errors_are_not_taken_for_full_memory():
    for error in (RuntimeError("shape mismatch"), UsageError("the graph takes crops")):
        assert not out_of_memory(error)
        runtime = Small(system(), 2, error)
        with pytest.raises(type(error), match=str(error)):
            scored(runtime, 4)
        assert runtime.asked == [4]
    assert not out_of_memory(KeyboardInterrupt("out of memory"))


_REAL = """
import json, re, resource, sys
from pathlib import Path
import numpy as np
import onnx, torch
from onnx import TensorProto, helper, numpy_helper
from deepregions.deploy.runtimes import OnnxRuntime, OpenVino
from deepregions.devices import out_of_memory
from deepregions.errors import OutOfMemoryError

# A row of 16 MB for each face.
given = helper.make_tensor_value_info("present", TensorProto.FLOAT, ["batch", 1])
made = helper.make_tensor_value_info("fused", TensorProto.FLOAT, ["batch"])
row = numpy_helper.from_array(np.random.rand(1, 4_000_000).astype(np.float32), "row")
nodes = [
    helper.make_node("Mul", ["present", "row"], ["wide"]),
    helper.make_node("Softmax", ["wide"], ["other"], axis=1),
    helper.make_node("ReduceMax", ["other", "axis"], ["fused"], keepdims=0),
]
axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
graph = helper.make_graph(nodes, "wide", [given], [made], [row, axis])
opset = [helper.make_opsetid("", 18)]
onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), sys.argv[1])
# onnxruntime last: after a failure its arena takes all memory that is left.
runtimes = [OpenVino(Path(sys.argv[1])), OnnxRuntime(Path(sys.argv[1]))]
for runtime in runtimes:
    runtime.run({"present": torch.zeros(2, 1).numpy()})
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), resource.RLIM_INFINITY))
said = {}
for runtime in runtimes:
    try:
        runtime.run({"present": torch.zeros(200, 1).numpy()})
    except (OutOfMemoryError, MemoryError) as error:
        said[runtime.name] = str(error) or "MemoryError"
    answers = runtime.run({"present": torch.ones(3, 1).numpy()})["fused"]
    if answers.shape != (3,) or not (answers > 2.6e-7).all():
        said[runtime.name] = ""  # those of another batch
try:
    torch.zeros(800_000_000)
except RuntimeError as error:
    said["torch"] = str(error) if out_of_memory(error) else ""
print(json.dumps(said))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit and /proc are Linux's")
def test_libraries_that_run_out_of_memory_are_understood(tmp_path):
    command = [sys.executable, "-c", _REAL, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert all(said.values()) and set(said) == {"onnxruntime", "openvino", "torch"}, said
