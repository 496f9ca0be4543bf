"""Pillow's resize of a box, a different box for each image of a batch.

Antialiased bilinear, or nearest, as Keras loads images by default. A box is a range of whole
pixels along one axis, [start, start + length); it may reach out of the image, where everything is
black. An output of ``size`` samples covers it exactly.
"""

import torch
from torch import Tensor
from torch.nn import functional

Taps = tuple[Tensor, Tensor]  # along one axis: index (N, size, K) int64, weight (N, size, K)

MAX_BOX = 1.5
"""Boxes up to this many times the image's side are resized exactly; see :func:`box_taps`."""


def box_taps(start: Tensor, length: Tensor, limit: int, size: int, extent: Tensor) -> Taps:
    """Which input samples make each output sample of boxes, and their weights, both (N, size, K).

    The filter is Pillow's for ``BILINEAR``: a triangle, as wide as the box is reduced, normalised
    over the box. ``limit``, the image's samples along this axis, and ``size`` alone fix the number
    of taps: of a box longer than ``MAX_BOX * extent``, mostly outside the picture, only every n-th
    sample is used. ``start``, ``length`` and ``extent``, the picture's without padding, are (N,).
    """
    count = max(int(2 * MAX_BOX) * limit // size, 2) + 1
    own = (int(2 * MAX_BOX) * extent // size).clamp(min=2) + 1  # taps, were the picture alone
    extent, own = extent[:, None, None], own[:, None]
    output, tap = (torch.arange(n, device=start.device) for n in (size, count))
    length = length.float()[:, None]
    scale = length / size
    support = scale.clamp(min=1)
    centre = (output + 0.5) * scale
    stride = (2 * support / own).clamp(min=1)
    first = torch.floor(centre - support + 0.5)
    position = first[..., None] + torch.floor(tap * stride[..., None])
    weight = (1 - (position + 0.5 - centre[..., None]).abs() / support[..., None]).clamp(min=0)
    used = (position >= 0) & (position < length[..., None]) & (tap < own[..., None])
    weight = weight * used
    weight = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    index = position.long() + start[:, None, None]
    weight = weight * ((index >= 0) & (index < extent))
    return index.clamp(0, limit - 1), weight


def nearest_taps(start: Tensor, length: Tensor, limit: int, size: int, extent: Tensor) -> Taps:
    """As :func:`box_taps`, for Pillow's ``NEAREST``: one input sample for each output sample."""
    step = (length.double() / size)[:, None].repeat(1, size)
    step[:, 0] /= 2
    # Pillow adds step to step, whose rounding decides where a centre falls between two samples.
    index = step.cumsum(1).long().minimum(length[:, None] - 1) + start[:, None]
    weight = ((index >= 0) & (index < extent[:, None])).float()
    return index.clamp(0, limit - 1)[..., None], weight[..., None]


def resample(table: Tensor, taps_x: Taps, taps_y: Taps) -> Tensor:
    """Resizes (N, W, C, H) float32, contiguous, to (N, C, S, S), by the taps of each axis."""
    channels, height = table.shape[2:]
    index, weight = taps_y
    if torch.compiler.is_exporting():  # ONNX has no weighted bags; matrix products are the same
        items, size, _ = index.shape
        narrow = _matrix(*taps_x, table.shape[1]) @ table.flatten(2)  # (N, S, C * H)
        lines = narrow.view(items, size * channels, height)
        short = lines @ _matrix(index, weight, height).mT
        return short.view(items, size, channels, size).permute(0, 2, 3, 1)
    narrow = _weighted_rows(table.flatten(2), *taps_x)  # (N, S, C * H)
    narrow = narrow.transpose(1, 2).contiguous()
    channel = torch.arange(channels, device=index.device)[:, None, None]
    index = (index[:, None] + channel * height).flatten(1, 2)  # (N, C * S, K)
    weight = weight[:, None].expand(-1, channels, -1, -1).flatten(1, 2)
    rows = _weighted_rows(narrow, index, weight)
    return rows.view(rows.shape[0], channels, -1, rows.shape[-1])


def _weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(N, L, D), (N, S, K) twice -> (N, S, D): each output row a weighted sum of K rows."""
    items, rows, depth = table.shape
    first = torch.arange(items, device=index.device)[:, None, None] * rows
    bags = functional.embedding_bag(
        (index + first).flatten(0, 1),
        table.view(items * rows, depth),
        mode="sum",
        per_sample_weights=weight.flatten(0, 1),
    )
    return bags.view(items, -1, depth)


def _matrix(index: Tensor, weight: Tensor, samples: int) -> Tensor:
    """Taps as matrices (N, S, samples), for inputs of so many samples."""
    return weight.new_zeros(*weight.shape[:2], samples).scatter_add(-1, index, weight)
