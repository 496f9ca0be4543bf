"""Splits batches of pictures into chunks that fit a CPU's caches."""

from __future__ import annotations

import torch
from torch import Tensor

_ON_A_CPU = 4  # pictures; a few megabytes in work


def chunks(first: int, end: int, device: torch.device) -> list[slice]:
    """Splits rows into chunks to process at a time; on a GPU there is one chunk."""
    step = _ON_A_CPU if device.type == "cpu" else max(end - first, 1)
    return [slice(start, min(end, start + step)) for start in range(first, end, step)]


def put(whole: Tensor, rows: Tensor, part: Tensor) -> None:
    """Copies pictures (N, ...) into some rows (N,) of a batch (B, ...), eight bytes at a time."""
    if part.dtype == torch.uint8 and part.shape[-1] % 8 == 0 and part.is_contiguous():
        whole, part = whole.view(torch.int64), part.view(torch.int64)
    whole.index_copy_(0, rows, part)
