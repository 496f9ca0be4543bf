"""Which pixel of a crop each cell of a network's last map is centred on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepregions.errors import UsageError


class Cells(NamedTuple):
    """Where the cells of a map are, in x as in y."""

    first: float
    """The pixel that the first cell is centred on."""
    step: float
    """Pixels from one cell to the next."""


class _Window(NamedTuple):
    kernel: int
    stride: int
    padding: int  # before the first pixel
    before: int
    after: int


@torch.no_grad()
def cells_of(network: nn.Module, grid: nn.Module, size: int) -> Cells:
    """Follows the cells of a map through the layers before it.

    Every window that changes the size of a map moves the cells' centres as its padding says; a
    shortcut beside it, which makes the same change, is passed over. Where a network makes maps
    smaller by other means, as Swin merges patches, cells are halved or quartered from their
    corner.

    Args:
        network: One of timm, which has ``forward_features``.
        grid: Makes (N, C, h, w) of what that gives.
        size: Height and width of the crops.

    Raises:
        UsageError: The network's last map is one cell.
    """
    windows: list[_Window] = []

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        before, after = inputs[0], output
        if before.ndim == 4 and isinstance(after, Tensor) and after.ndim == 4:
            windows.append(_window(module, before.shape[2], after.shape[2]))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    handles = [
        module.register_forward_hook(record)
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        parameter = next(network.parameters())
        empty = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
        side = grid(network.forward_features(empty)).shape[2]  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    if side < 2:
        raise UsageError("the last map of this network is one cell", "give it larger crops")
    return _follow(windows, size, side)


def _follow(windows: list[_Window], size: int, side: int) -> Cells:
    first, step, current = 0.0, 1.0, size
    for window in windows:
        if window.before != current or (window.after == current and window.stride == 1):
            continue
        if window.after < side:  # a branch that looks at the whole, or the pool of a head
            continue
        first += step * ((window.kernel - 1) / 2 - window.padding)
        step, current = step * window.stride, window.after
    merged = round(current / side)
    return Cells(first + step * (merged - 1) / 2, step * merged)


def _window(module: nn.Module, before: int, after: int) -> _Window:
    kernel, stride, padding, dilation = (
        _first(getattr(module, name, 1))
        for name in ("kernel_size", "stride", "padding", "dilation")
    )
    reach = (kernel - 1) * dilation + 1
    if "Same" in type(module).__name__:  # as TensorFlow pads: as much as is needed, less in front
        padding = max((after - 1) * stride + reach - before, 0) // 2
    return _Window(reach, stride, padding, before, after)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
