"""Is this configuration an Xception? Its layers are found by following the graph from the input.

Every layer must be where Xception has it, with Xception's settings, and none may be left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepregions.errors import UnreadableError
from deepregions.weights.convert.keras_config import Layout, Node
from deepregions.weights.convert.keras_layers import SLOTS, Slot, head_slot

Normalisation = Literal["unit", "centred"]

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class XceptionLayers:
    """An Xception, as its configuration describes it.

    Attributes:
        layers: The layer of every slot, the head's included if there is one.
        size: Height and width of its input; None where any is taken.
        classes: Units of the head; 0 without a head.
        activation: That of the head: ``softmax``, ``sigmoid`` or ``linear``.
        normalisation: What a Rescaling layer does to pixels; None without one.
        bn_eps: Epsilon of batch normalisation.
        bn_momentum: Weight of the newest batch in its statistics (torch's way to count).
    """

    layers: Mapping[Slot, Node]
    size: int | None
    classes: int
    activation: str
    normalisation: Normalisation | None
    bn_eps: float
    bn_momentum: float


def find_xception(config: Mapping[str, Any]) -> XceptionLayers:
    """Follows the graph of a model's configuration.

    Raises:
        UnreadableError: It is no Xception; the message names the layer where it differs.
    """
    layout = Layout()
    try:
        layout.add_model(config, (), "", None)
        return _Walk(layout).follow()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UnreadableError(
            f"its configuration is not that of a Keras model: {type(error).__name__} {error}"
        ) from error


class _Walk:
    """Follows Xception's layers one after the other."""

    def __init__(self, layout: Layout) -> None:
        self.nodes = nodes = layout.nodes
        self.shapes = layout.shapes
        self.consumers: dict[int, list[int]] = {i: [] for i in range(len(nodes))}
        for i, node in enumerate(nodes):
            for source in node.inputs:
                self.consumers[source].append(i)
        self.used: set[int] = set()
        self.layers: dict[Slot, Node] = {}
        self.norms: list[tuple[float, float]] = []

    def follow(self) -> XceptionLayers:
        """Returns what was found."""
        size, at = self._input()
        normalisation, at = self._rescaling(at)
        for block in range(1, 15):
            at = self._block(block, at)
        classes, activation = self._head(at)
        for i, node in enumerate(self.nodes):
            if i not in self.used:
                raise UnreadableError(f"unexpected layer {node}", "Xception has no such layer")
        if len({eps for eps, _ in self.norms}) > 1:
            raise UnreadableError("its batch normalisations differ in epsilon")
        eps, momentum = self.norms[0]
        return XceptionLayers(self.layers, size, classes, activation, normalisation, eps, momentum)

    def _input(self) -> tuple[int | None, int]:
        roots = [i for i, node in enumerate(self.nodes) if not node.inputs]
        if len(roots) != 1:
            raise UnreadableError(f"the model has {len(roots)} inputs", "one is wanted")
        self.used.add(roots[0])
        sizes: list[int] = []
        for shape in self.shapes:
            _, height, width, channels = shape or (None, None, None, 3)
            if channels != 3 or height != width or type(height) not in (int, type(None)):
                raise UnreadableError(f"its input is {shape}", "square RGB images are wanted")
            sizes += [] if height is None else [height]
        return next(iter(sizes), None), roots[0]

    def _rescaling(self, at: int) -> tuple[Normalisation | None, int]:
        if [self.nodes[i].kind for i in self.consumers[at]] != ["Rescaling"]:
            return None, at
        at = self._take(at, "Rescaling")
        config = self.nodes[at].config
        scale, offset = config["scale"], config["offset"]
        known: dict[Normalisation, tuple[float, float]] = {
            "unit": (255.0, 0.0),
            "centred": (127.5, -1.0),
        }
        for name, (divisor, shift) in known.items():
            if abs(scale * divisor - 1) < 1e-6 and offset == shift:
                return name, at
        raise UnreadableError(
            f"layer {self.nodes[at]} multiplies by {scale} and adds {offset}",
            "pixels from 0 to 255 are wanted as [0, 1] or as [-1, 1]",
        )

    def _block(self, block: int, at: int) -> int:
        if block == 1:
            for name in ("block1_conv1", "block1_conv2"):
                strides = 2 if name == "block1_conv1" else 1
                at = self._convolution(SLOTS[name], at, strides, "valid")
                at = self._relu(self._norm(SLOTS[f"{name}_bn"], at))
            return at
        if block == 14:
            for name in ("block14_sepconv1", "block14_sepconv2"):
                at = self._relu(self._norm(SLOTS[f"{name}_bn"], self._separable(SLOTS[name], at)))
            return at
        start = at
        for i in (1, 2, 3) if 5 <= block <= 12 else (1, 2):
            if (block, i) != (2, 1):
                at = self._relu(at)
            name = f"block{block}_sepconv{i}"
            at = self._norm(SLOTS[f"{name}_bn"], self._separable(SLOTS[name], at))
        if 5 <= block <= 12:
            return self._take(at, "Add", other=start)
        at = self._take(at, "MaxPooling2D")
        self._demand(at, pool_size=(3, 3), strides=(2, 2), padding="same")
        residual = self._convolution(SLOTS[f"block{block}_residual"], start, 2, "same")
        residual = self._norm(SLOTS[f"block{block}_residual_bn"], residual)
        return self._take(at, "Add", other=residual)

    def _convolution(self, slot: Slot, at: int, strides: int, padding: str) -> int:
        at = self._take(at, "Conv2D")
        *kernel, _, filters = slot.shapes["kernel"]
        wanted = {"strides": (strides, strides), "padding": padding, "groups": 1}
        self._demand_convolution(at, filters, tuple(kernel), wanted)
        self.layers[slot] = self.nodes[at]
        return at

    def _separable(self, slot: Slot, at: int) -> int:
        at = self._take(at, "SeparableConv2D")
        wanted = {"strides": (1, 1), "padding": "same", "depth_multiplier": 1}
        self._demand_convolution(at, slot.shapes["pointwise_kernel"][-1], (3, 3), wanted)
        self.layers[slot] = self.nodes[at]
        return at

    def _demand_convolution(
        self, at: int, filters: int, kernel: tuple[int, ...], wanted: Mapping[str, Any]
    ) -> None:
        self._demand(at, filters=filters, kernel_size=kernel, use_bias=False, **wanted)
        self._demand(at, dilation_rate=(1, 1), activation="linear", data_format="channels_last")

    def _norm(self, slot: Slot, at: int) -> int:
        at = self._take(at, "BatchNormalization")
        node = self.nodes[at]
        self._demand(at, center=True, scale=True, renorm=False)
        axis = node.config.get("axis", -1)
        if axis not in (-1, 3, [-1], [3]):
            raise UnreadableError(f"layer {node}: axis is {axis}", "colours are wanted last")
        eps, momentum = float(node.config["epsilon"]), float(node.config["momentum"])
        if not (0 < eps < 1 and 0 <= momentum <= 1):
            raise UnreadableError(f"layer {node}: epsilon is {eps}, momentum is {momentum}")
        self.norms.append((eps, round(1 - momentum, 12)))
        self.layers[slot] = node
        return at

    def _relu(self, at: int) -> int:
        at = self._take(at, "Activation", "ReLU")
        if self.nodes[at].kind == "Activation":
            self._demand(at, activation="relu")
        else:
            self._demand(at, max_value=None, negative_slope=0.0, threshold=0.0)
        return at

    def _head(self, at: int) -> tuple[int, str]:
        """Follows what comes after the last convolution: nothing, a mean, or a mean and a head."""
        if not self.consumers[at]:
            return 0, "linear"
        at = self._take(at, "GlobalAveragePooling2D")
        self._demand(at, data_format="channels_last")
        while [self.nodes[i].kind for i in self.consumers[at]] in (["Dropout"], ["Flatten"]):
            at = self._take(at, "Dropout", "Flatten")
        if not self.consumers[at]:
            return 0, "linear"
        at = self._take(at, "Dense")
        dense = self.nodes[at]
        classes, activation = int(dense.config["units"]), dense.config["activation"]
        if self.consumers[at] and activation == "linear":
            at = self._take(at, "Activation", "Softmax")
            last = self.nodes[at].config
            activation = last.get("activation", "softmax")
        allowed = {1: ("sigmoid", "linear"), 2: ("softmax", "linear")}
        if classes != IMAGENET_CLASSES and activation not in allowed.get(classes, ()):
            raise UnreadableError(
                f"its head is Dense({classes}, {activation}), layer {dense.name!r}",
                "Dense(2, softmax), Dense(1, sigmoid) or ImageNet's 1000 classes are wanted",
            )
        self.layers[head_slot(classes, bias=bool(dense.config.get("use_bias", True)))] = dense
        return classes, str(activation)

    def _take(self, at: int, *kinds: str, other: int | None = None) -> int:
        """Returns the one layer of a class that a layer feeds (with the other, if there is one)."""
        consumers = [i for i in self.consumers[at] if i not in self.used]
        fitting = [i for i in consumers if self.nodes[i].kind in kinds]
        inputs = {at} if other is None else {at, other}
        if len(fitting) != 1 or set(self.nodes[fitting[0]].inputs) != inputs:
            what = f"Xception has {kinds[0]} after {self.nodes[at]}"
            wrong = [str(self.nodes[i]) for i in consumers]
            if not wrong:
                raise UnreadableError(f"a layer is missing: {what}, the model nothing")
            raise UnreadableError(f"unexpected layer {', '.join(wrong)}", what)
        self.used.add(fitting[0])
        return fitting[0]

    def _demand(self, at: int, **wanted: Any) -> None:
        """Checks settings; those that the file's version of Keras does not have are as wanted."""
        for key, value in wanted.items():
            found = self.nodes[at].config.get(key, value)
            if (tuple(found) if isinstance(found, list) else found) != value:
                raise UnreadableError(f"layer {self.nodes[at]}: {key} is {found}, not {value}")
