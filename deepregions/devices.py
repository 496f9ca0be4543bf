"""Which device a name means here, and whether its memory is full."""

import os
import re

import cv2
import torch

from deepregions.errors import OutOfMemoryError, UsageError
from deepregions.memory import keep_freed

# What PyTorch, onnxruntime, OpenVINO and C++ say; their exceptions have no type for it.
_FULL = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to) allocate|bad_alloc|"
    r"bad allocation|alloc(ate|ation|ating)? (memory )?fail|could not create a memory",
    re.IGNORECASE,
)


def choose_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" is the GPU where there is one.

    Raises:
        UsageError: There is no such device here.
    """
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
    """Readies this process to compute beside others: with its share of the cores.

    ``OMP_NUM_THREADS`` decides where it is set.
    """
    keep_freed()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    share = max(1, (cores or os.cpu_count() or 1) // workers)
    cv2.setNumThreads(share)  # what finds faces; it does not ask OMP_NUM_THREADS
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception, of ours or of a library, says that memory is full."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, OutOfMemoryError)):
        return True
    return isinstance(error, Exception) and _FULL.search(str(error)) is not None
