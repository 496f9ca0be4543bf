"""The layers of Xception that have arrays: what Keras calls them, their shapes, our names.

In the order in which ``keras.applications`` builds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["conv2d", "separable_conv2d", "batch_normalization", "dense"]


@dataclass(frozen=True)
class Slot:
    """A place for a layer.

    Attributes:
        name: Keras's name of the layer; ``block<n>_residual`` and ``block<n>_residual_bn`` are
            those that Keras numbers (``conv2d_1``, ``batch_normalization_1`` and so on).
        kind: Its class, as Keras 3's own format writes it.
        ours: The name of its module in :class:`~deepregions.detectors.Xception`.
        shapes: Its arrays, as Keras lays them out: height, width, in, out.
    """

    name: str
    kind: Kind
    ours: str
    shapes: Mapping[str, tuple[int, ...]] = field(hash=False)

    @property
    def stem(self) -> str:
        """The name without the number that Keras gives."""
        return self.kind if "residual" in self.name else self.name


def head_slot(classes: int, *, bias: bool = True) -> Slot:
    """Returns the slot of the fully connected layer."""
    shapes: dict[str, tuple[int, ...]] = {"kernel": (2048, classes)}
    if bias:
        shapes["bias"] = (classes,)
    return Slot("predictions", "dense", "classifier", shapes)


def _layers() -> Iterator[Slot]:
    yield from _convolution("block1_conv1", "conv1", "bn1", (3, 3, 3, 32))
    yield from _convolution("block1_conv2", "conv2", "bn2", (3, 3, 32, 64))
    width = 64
    for block in range(2, 14):
        widths = {2: [128] * 2, 3: [256] * 2, 4: [728] * 2, 13: [728, 1024]}.get(block, [728] * 3)
        ours = f"block{block - 1}"
        place = 0 if block == 2 else 1  # all others begin with a ReLU
        start = width
        for i, out in enumerate(widths):
            name = f"block{block}_sepconv{i + 1}"
            module = f"{ours}.rep.{place + 3 * i}"
            yield from _separable(name, module, f"{ours}.rep.{place + 3 * i + 1}", (width, out))
            width = out
        if block in (2, 3, 4, 13):
            shape = (1, 1, start, width)
            yield from _convolution(
                f"block{block}_residual", f"{ours}.skip", f"{ours}.skipbn", shape
            )
    yield from _separable("block14_sepconv1", "conv3", "bn3", (1024, 1536))
    yield from _separable("block14_sepconv2", "conv4", "bn4", (1536, 2048))


def _convolution(name: str, ours: str, norm: str, shape: tuple[int, ...]) -> Iterator[Slot]:
    yield Slot(name, "conv2d", f"backbone.{ours}", {"kernel": shape})
    yield _norm(name, norm, shape[-1])


def _separable(name: str, ours: str, norm: str, widths: tuple[int, int]) -> Iterator[Slot]:
    shapes: dict[str, tuple[int, ...]] = {
        "depthwise_kernel": (3, 3, widths[0], 1),
        "pointwise_kernel": (1, 1, *widths),
    }
    yield Slot(name, "separable_conv2d", f"backbone.{ours}", shapes)
    yield _norm(name, norm, widths[1])


def _norm(name: str, ours: str, width: int) -> Slot:
    kinds = ("gamma", "beta", "moving_mean", "moving_variance")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(kinds, (width,))
    return Slot(f"{name}_bn", "batch_normalization", f"backbone.{ours}", shapes)


LAYERS: tuple[Slot, ...] = tuple(_layers())
SLOTS: Mapping[str, Slot] = {slot.name: slot for slot in LAYERS}
