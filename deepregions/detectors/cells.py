"""Which pixel of a crop each cell of a network's last map is centred on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepregions.errors import UsageError


@torch.no_grad()
def cells_of(network: nn.Module, grid: nn.Module, size: int) -> tuple[float, float]:
    """Finds the pixel that the first cell is centred on, and the pixels from one to the next.

    Every window that changes the size of a map moves the cells' centres as its padding says; a
    shortcut beside it, which makes the same change, is passed over. Where a network makes maps
    smaller by other means, as Swin merges patches, cells are halved or quartered from their
    corner.

    Raises:
        UsageError: The network's last map is one cell.
    """
    layers: list[tuple[nn.Module, int, int]] = []  # with the sides of their maps, in and out

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs[0].ndim == 4 and isinstance(output, Tensor) and output.ndim == 4:
            layers.append((module, inputs[0].shape[2], output.shape[2]))

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
    first, step, current = 0.0, 1.0, size
    for module, before, after in layers:
        reach, stride, padding = _window(module, before, after)
        # Beside the way lie shortcuts, branches that look at the whole, and the pool of a head.
        if before == current and after >= side and (after, stride) != (current, 1):
            first += step * ((reach - 1) / 2 - padding)
            step, current = step * stride, after
    merged = round(current / side)
    return first + step * (merged - 1) / 2, step * merged


def _window(module: nn.Module, before: int, after: int) -> tuple[int, int, int]:
    """Returns how far a layer's window reaches, its stride, and the padding in front."""
    given = (getattr(module, name, 1) for name in ("kernel_size", "stride", "padding", "dilation"))
    kernel, stride, padding, dilation = (
        int(value[0] if isinstance(value, tuple) else value) for value in given
    )
    reach = (kernel - 1) * dilation + 1
    if "Same" in type(module).__name__:  # as TensorFlow pads: as much as is needed, less in front
        padding = max((after - 1) * stride + reach - before, 0) // 2
    return reach, stride, padding
