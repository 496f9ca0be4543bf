"""Which device a name means here, and whether its memory is full."""

from __future__ import annotations

import os
import re
import sys
from importlib import util
from types import ModuleType
from typing import TYPE_CHECKING, cast

import cv2

from deepregions.errors import OutOfMemoryError, UsageError, require
from deepregions.memory import keep_freed

if TYPE_CHECKING:
    import torch

# What PyTorch, onnxruntime, OpenVINO and C++ say; their exceptions have no type for it.
_FULL = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to) allocate|bad_alloc|"
    r"bad allocation|alloc(ate|ation|ating)? (memory )?fail|could not create a memory",
    re.IGNORECASE,
)


def choose_device(name: str) -> torch.device:
    """Returns the device of a name, if it is here; "auto" is the GPU where there is one.

    Raises:
        UsageError: There is no such device here.
    """
    import torch  # noqa: PLC0415 - a system that was exported runs without

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = "auto, cpu, cuda or cuda:N; see what PyTorch says of your GPU"
        raise UsageError(f"device {name!r} cannot be used here", hint) from error
    return device


def share_cores(workers: int) -> None:
    """Readies this process to compute beside others: its share of the cores, or OMP_NUM_THREADS."""
    keep_freed()
    share = max(1, _cores() // workers)
    cv2.setNumThreads(share)  # what finds faces; it does not ask OMP_NUM_THREADS
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    if torch := sys.modules.get("torch"):  # otherwise it reads the variable when it is imported
        torch.set_num_threads(threads())


def may_have_gpu() -> bool:
    """Returns whether PyTorch might find a GPU, without the seconds that asking it takes."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))


def has_torch() -> bool:
    """Returns whether PyTorch is installed."""
    try:
        return util.find_spec("torch") is not None
    except (ImportError, ValueError):  # what hides it from this process
        return False


def threads() -> int:
    """Returns how many threads a runtime may use: OMP_NUM_THREADS, or one for each core."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdecimal() and int(told) else _cores()


def _cores() -> int:
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    return own or os.cpu_count() or 1


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception, of ours or of a library, says that memory is full."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return True
    return isinstance(error, Exception) and _FULL.search(str(error)) is not None


def import_runtime(module: str) -> ModuleType:
    """Imports onnxruntime or OpenVINO without their reports to their makers.

    By itself, importing onnxruntime (1.32) writes a device id to the user's cache and looks up a
    telemetry host; importing openvino looks up an analytics host and writes a client id. Nothing
    else in this project imports them.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    cast(dict[str, object], sys.modules).setdefault("openvino_telemetry", None)
    return require(module, module.partition(".")[0])
