"""Xceptions trained in Keras, converted to ours without Keras or TensorFlow.

Arrays belong to layers by name (``block4_sepconv1``); the few layers that Keras numbers itself,
beside the blocks, belong by their shapes, which are all different. A configuration, where the
file has one, gives epsilon, size and head, and must have Xception's layers and settings. Every
array must have its place and none may be left over.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError
from deepregions.files import atomic_file, sha256
from deepregions.weights.convert.keras_files import KerasFile, StoredLayer, open_keras

if TYPE_CHECKING:
    from deepregions.detectors import Xception

DEFAULT_FAKE_INDEX = 0  # BiDA's: its folders are called fake and real, and Keras sorts them
DEFAULT_SIZE = 200  # BiDA's
IMAGENET_CLASSES = 1000
MAX_LAYERS = 1000  # Xception has 134
MAX_DEPTH = 8

Normalisation = Literal["unit", "centred"]
Shapes = Mapping[str, tuple[int, ...]]

_OURS = {  # Keras's kind of array: our module's suffix and array
    "depthwise_kernel": "conv1.weight",
    "pointwise_kernel": "pointwise.weight",
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


@dataclass(frozen=True)
class Slot:
    """A layer of Xception that has arrays.

    Attributes:
        name: Keras's name of the layer; ``block<n>_residual`` and ``block<n>_residual_bn`` are
            those that Keras numbers (``conv2d_1``, ``batch_normalization_1`` and so on).
        kind: Its class, as Keras 3's own format writes it.
        ours: The name of its module in :class:`~deepregions.detectors.Xception`.
        shapes: Its arrays, as Keras lays them out: height, width, in, out.
    """

    name: str
    kind: str
    ours: str
    shapes: Shapes


def _slots() -> Iterator[Slot]:
    """Yields Xception's layers in the order in which ``keras.applications`` builds them."""

    def layer(name: str, kind: str, ours: str, norm: str, shapes: Shapes) -> Iterator[Slot]:
        yield Slot(name, kind, f"backbone.{ours}", shapes)
        kinds = ("gamma", "beta", "moving_mean", "moving_variance")
        width = list(shapes.values())[-1][-1]
        norms: Shapes = dict.fromkeys(kinds, (width,))
        yield Slot(f"{name}_bn", "batch_normalization", f"backbone.{norm}", norms)

    def plain(name: str, ours: str, norm: str, *shape: int) -> Iterator[Slot]:
        yield from layer(name, "conv2d", ours, norm, {"kernel": shape})

    def separable(name: str, ours: str, norm: str, start: int, end: int) -> Iterator[Slot]:
        shapes = {"depthwise_kernel": (3, 3, start, 1), "pointwise_kernel": (1, 1, start, end)}
        yield from layer(name, "separable_conv2d", ours, norm, shapes)

    yield from plain("block1_conv1", "conv1", "bn1", 3, 3, 3, 32)
    yield from plain("block1_conv2", "conv2", "bn2", 3, 3, 32, 64)
    width = 64
    for block in range(2, 14):
        widths = {2: [128] * 2, 3: [256] * 2, 4: [728] * 2, 13: [728, 1024]}.get(block, [728] * 3)
        ours, start = f"block{block - 1}", width
        for i, out in enumerate(widths):
            place = 3 * i + (block > 2)  # all but the first begin with a ReLU
            name = f"block{block}_sepconv{i + 1}"
            yield from separable(name, f"{ours}.rep.{place}", f"{ours}.rep.{place + 1}", width, out)
            width = out
        if len(widths) == 2:
            name = f"block{block}_residual"
            yield from plain(name, f"{ours}.skip", f"{ours}.skipbn", 1, 1, start, width)
    yield from separable("block14_sepconv1", "conv3", "bn3", 1024, 1536)
    yield from separable("block14_sepconv2", "conv4", "bn4", 1536, 2048)


SLOTS: tuple[Slot, ...] = tuple(_slots())

Assigned = dict[str, tuple[Slot, StoredLayer]]
"""By a slot's name, what is stored for it."""


@dataclass(frozen=True)
class KerasArray:
    """An array that found its place.

    Attributes:
        theirs: Its path in the file.
        ours: Its name in our state dict.
        shape: Its shape in the file.
    """

    theirs: str
    ours: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class KerasReport:
    """What was found in a file.

    Attributes:
        source: The file's name.
        format: Which format, and the version of Keras.
        size: Height and width of the input; None where the file does not say.
        head: Such as ``Dense(2, softmax)``; ``none`` without a head.
        classes: Units of the head: 2, 1, 1000 (ImageNet), or 0 without a head.
        normalisation: What a Rescaling layer in the model makes of pixels (``unit`` or
            ``centred``); None where it has none.
        bn_eps: Epsilon of batch normalisation.
        bn_momentum: Weight of the newest batch in its statistics (1 - Keras's momentum).
        arrays: All arrays that were mapped: those of Xception and of the head.
        notes: What was assumed because the file does not say it, and what looks wrong.
    """

    source: str
    format: str
    size: int | None
    head: str
    classes: int
    normalisation: Normalisation | None
    bn_eps: float
    bn_momentum: float
    arrays: tuple[KerasArray, ...]
    notes: tuple[str, ...] = ()

    @property
    def detects(self) -> bool:
        """Whether it tells fake from real, other than ImageNet's classes or features."""
        return self.classes in (1, 2)

    def lines(self) -> list[str]:
        """Returns the report in words, without the single arrays."""
        count = len(self.arrays)
        pixels = {"unit": "x/255, in the model", "centred": "x/127.5 - 1, in the model"}
        return [
            f"format: {self.format}",
            f"input: {f'{self.size} x {self.size}' if self.size else 'any size'}, "
            f"{pixels.get(self.normalisation or '', 'no rescaling in the model')}",
            f"head: {self.head}",
            f"batch normalisation: epsilon {self.bn_eps:g}, momentum {1 - self.bn_momentum:g}",
            f"arrays: {f'all {count}' if self.classes else f'{count}, no head,'} mapped, "
            "none left over, every shape as Xception's",
            *(f"note: {note}" for note in self.notes),
        ]


@dataclass(frozen=True)
class KerasXception:
    """A converted model.

    Attributes:
        state: The state dict of :class:`~deepregions.detectors.Xception`, fake second; of a
            model without a fake class that of its backbone, as ``backbone_file`` takes it.
        report: What was found, and what was assumed.
        size: Height and width of the crops.
        fake_index: Which of the model's classes is fake; None for a backbone.
        normalisation: What the network expects: ``unit`` or ``centred``.
        sha256: Of the Keras file.
    """

    state: dict[str, Tensor]
    report: KerasReport
    size: int
    fake_index: int | None
    normalisation: Normalisation
    sha256: str

    @property
    def settings(self) -> dict[str, float | str]:
        """The arguments of :class:`~deepregions.detectors.Xception` that make this network."""
        return {
            "size": self.size,
            "bn_momentum": self.report.bn_momentum,
            "bn_eps": self.report.bn_eps,
            "padding": "same",
            "normalisation": self.normalisation,
        }

    def detector(self) -> Xception:
        """Returns the network, in eval mode.

        Raises:
            UnreadableError: It is a backbone only.
        """
        if self.fake_index is None:
            raise UnreadableError(f"{self.report.source} has no class for fakes: it scores nothing")
        # Converting needs no network, nor the half of its time and memory that importing one takes.
        from deepregions.detectors import Xception  # noqa: PLC0415

        detector = Xception(**self.settings)  # type: ignore[arg-type]
        detector.load_state_dict(self.state)
        return detector.eval()

    def save(self, path: Path) -> None:
        """Writes the state as safetensors, with what it is and where it is from as metadata.

        Raises:
            UsageError: The name does not end in ``.safetensors``.
            OSError: It cannot be written.
        """
        if path.suffix != ".safetensors":
            raise UsageError(f"{path} is no safetensors file", "name it OUT.safetensors")
        metadata = {
            "class": "Xception" if self.report.detects else "Xception, backbone only",
            "settings": json.dumps(self.settings),
            "fake_index": json.dumps(self.fake_index),
            "head": self.report.head,
            "format": self.report.format,
            "source": self.report.source,
            "source_sha256": self.sha256,
        }
        with atomic_file(path) as partial:
            save_file(self.state, partial, metadata)


def inspect_keras(path: Path) -> KerasReport:
    """Returns what is in a Keras file, without reading its numbers.

    Args:
        path: As :func:`convert_keras` takes it.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It holds no Xception, or is broken; the message says what or which layer.
    """
    with _opened(path) as (_, report, _):
        return report


def convert_keras(
    path: Path, *, fake_index: int | None = None, size: int | None = None
) -> KerasXception:
    """Converts an Xception that was trained in Keras.

    Args:
        path: HDF5 of Keras 2, tf.keras or Keras 3, a whole model or weights only, or a
            ``.keras`` archive.
        fake_index: Which class of the model is fake. By default 0, as in the paper's program,
            whose folders ``fake`` and ``real`` sort so. A single sigmoid is class 1's
            probability.
        size: Height and width of the crops, for a file that does not say; 200 by default.

    Raises:
        UsageError: There is no such file, the class is neither 0 nor 1 or the model has no such
            classes, or the file says another size.
        UnreadableError: It holds no Xception, or is broken; the message says what or which layer.
    """
    if fake_index not in (None, 0, 1):
        raise UsageError(f"class {fake_index} cannot be the fake one", "it is 0 or 1")
    with _opened(path) as (file, report, assigned):
        if report.size is not None and size not in (None, report.size):
            raise UsageError(f"{path} takes images of {report.size} pixels, not of {size}")
        if fake_index is not None and not report.detects:
            raise UsageError(
                f"{path} has no class for fakes: its head is {report.head}", "leave fake_index out"
            )
        index = None
        if report.detects:
            index = DEFAULT_FAKE_INDEX if fake_index is None else fake_index
        state, odd = _state(file, assigned, index)
    notes = list(report.notes)
    if report.detects and fake_index is None:
        notes.append(
            f"class {index} is taken as fake, as in BiDA's models, whose folders fake and real "
            "sort so; if that is wrong here, every score is turned around"
        )
    if odd:
        notes.append(f"{len(odd)} arrays hold numbers that are not finite, {odd[0]} first")
    if report.size is None and size is None and report.detects:
        notes.append(f"the file does not say its size: {DEFAULT_SIZE} is taken, as BiDA's")
    return KerasXception(
        state=state,
        report=replace(report, notes=tuple(notes)),
        size=report.size or size or DEFAULT_SIZE,
        fake_index=index,
        normalisation=report.normalisation or "unit",
        sha256=sha256(path),
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[KerasFile, KerasReport, Assigned]]:
    """Opens a file and finds its layers; errors in it and in what follows name the file."""
    try:
        with open_keras(path) as file:
            config = None if file.config is None else read_config(file.config)
            assigned = _assign(file.layers)
            yield file, _report(path, file, config, assigned), assigned
    except UnreadableError as error:
        raise UnreadableError(f"{path}: {error.args[0]}", error.hint) from error


# What a configuration says


@dataclass(frozen=True)
class XceptionConfig:
    """What a model's configuration says beside its arrays.

    Attributes:
        size: Height and width of its input; None where any is taken.
        classes: Units of the head; 0 without a head.
        activation: That of the head: ``softmax``, ``sigmoid`` or ``linear``.
        normalisation: What a Rescaling layer does to pixels; None without one.
        bn_eps: Epsilon of batch normalisation; Keras's own where the file has no configuration.
        bn_momentum: Weight of the newest batch in its statistics (torch's way to count).
    """

    size: int | None = None
    classes: int = 0
    activation: str = "linear"
    normalisation: Normalisation | None = None
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01


_MODELS = ("Model", "Functional", "Sequential")
_CONVOLUTION = {
    "use_bias": False,
    "dilation_rate": (1, 1),
    "activation": "linear",
    "data_format": "channels_last",
    "groups": 1,
}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "Conv2D": _CONVOLUTION,
    "SeparableConv2D": {
        **_CONVOLUTION,
        "kernel_size": (3, 3),
        "strides": (1, 1),
        "padding": "same",
        "depth_multiplier": 1,
    },
    "BatchNormalization": {"center": True, "scale": True, "renorm": False},
    "Activation": {"activation": "relu"},
    "ReLU": {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    "MaxPooling2D": {"pool_size": (3, 3), "strides": (2, 2), "padding": "same"},
    "GlobalAveragePooling2D": {"data_format": "channels_last"},
}
_COUNTS = {"Conv2D": 6, "SeparableConv2D": 34, "BatchNormalization": 40, "MaxPooling2D": 4}
_COUNTS |= {"Add": 12, "Activation": 35}
_AT_MOST_ONE = ("Rescaling", "GlobalAveragePooling2D", "Dense", "Softmax")
_ANY_NUMBER = ("InputLayer", "Dropout", "Flatten")


def read_config(config: Mapping[str, Any]) -> XceptionConfig:
    """Reads a model's configuration.

    Raises:
        UnreadableError: It is no Xception's; the message names the layer where it differs.
    """
    try:
        layers = list(_layers(config))
        sizes = [size for layer in layers for size in _input_size(layer)]
        dense = next((layer for layer in layers if layer["class_name"] == "Dense"), None)
        after = layers[layers.index(dense) + 1 :] if dense else []
        last = [x for x in after if x["class_name"] in ("Activation", "Softmax")]
        norms = {_norm(x) for x in layers if x["class_name"].startswith("BatchNormalization")}
        _check_layers([layer for layer in layers if layer not in last])
        if len(norms) != 1:
            raise UnreadableError("its batch normalisations differ in epsilon or momentum")
        ((eps, momentum),) = norms
        classes, activation = _head(dense, last)
        scales = [_rescaling(x) for x in layers if x["class_name"] == "Rescaling"]
        normalisation = scales[0] if scales else None
        size = sizes[0] if sizes else None
        return XceptionConfig(size, classes, activation, normalisation, eps, momentum)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UnreadableError(
            f"its configuration is not that of a Keras model: {type(error).__name__} {error}"
        ) from error


def _layers(model: Mapping[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the layers of a model and of the models in it, each with a ``name``."""
    config = model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    if depth > MAX_DEPTH or len(layers) > MAX_LAYERS:
        raise UnreadableError(f"a model of {len(layers)} layers, {depth} deep")
    names = [_name(layer) for layer in layers]
    if len(set(names)) < len(names):
        raise UnreadableError("two layers of a model have the same name")
    if isinstance(config, Mapping) and "output_layers" in config:
        ends = config["output_layers"]
        if len(ends) != 1 and not isinstance(ends[0], str):  # Keras 3 leaves the list out for one
            raise UnreadableError(f"a model has {len(ends)} outputs", "one is wanted")
    for name, layer in zip(names, layers, strict=True):
        uses = len(layer.get("inbound_nodes") or ())
        if uses > 1:
            raise UnreadableError(f"layer {name!r} is used {uses} times")
        if layer["class_name"] in _MODELS:
            yield from _layers(layer, depth + 1)
        else:
            yield {**layer, "name": name, "class_name": str(layer["class_name"])}


def _name(layer: Mapping[str, Any]) -> str:
    """Returns a layer's name; models in an old Sequential have none outside their own config."""
    name = layer.get("name")
    if name is None and isinstance(layer["config"], Mapping):
        name = layer["config"].get("name")
    return str(name if name is not None else layer["class_name"])


def _check_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    """Checks that layers, up to the head, are Xception's in class, number and settings."""
    counts: Counter[str] = Counter()
    for layer in layers:
        called = f"{layer['name']!r} ({layer['class_name']})"
        kind = layer["class_name"].removesuffix("V1")
        counts["Activation" if kind == "ReLU" else kind] += 1
        module = str(layer.get("module") or "keras").partition(".")[0]
        known = kind in (*_COUNTS, "ReLU", *_AT_MOST_ONE, *_ANY_NUMBER)
        if not known or module not in ("keras", "tf_keras", "tensorflow"):
            hint = "Xception has none like it"
            if "Lambda" in kind:
                hint = "its program code is not run; save the model without it"
            raise UnreadableError(f"unexpected layer {called}", hint)
        wanted = dict(_SETTINGS.get(kind, {}))
        if kind == "Conv2D":
            wanted |= {"kernel_size": (1, 1), "strides": (2, 2), "padding": "same"}
            if layer["name"].startswith("block1_conv"):
                stride = 2 if "conv1" in layer["name"] else 1
                wanted |= {"kernel_size": (3, 3), "strides": (stride,) * 2, "padding": "valid"}
        for key, value in wanted.items():
            # What the file's version of Keras does not have is as wanted.
            found = layer["config"].get(key, value)
            if (tuple(found) if isinstance(found, list) else found) != value:
                raise UnreadableError(f"layer {called}: {key} is {found}, not {value}")
    for kind, count in _COUNTS.items():
        if counts[kind] != count:
            raise UnreadableError(
                f"it has {counts[kind]} layers of the class {kind}", f"Xception has {count}"
            )
    for kind in _AT_MOST_ONE:
        if counts[kind] > 1:
            raise UnreadableError(f"it has {counts[kind]} layers of the class {kind}")


def _input_size(layer: Mapping[str, Any]) -> Iterator[int]:
    config = layer["config"]
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None:
        return
    _, height, width, channels = shape
    if channels != 3 or height != width or type(height) not in (int, type(None)):
        raise UnreadableError(f"its input is {shape}", "square RGB images are wanted")
    if height is not None:
        yield height


def _norm(layer: Mapping[str, Any]) -> tuple[float, float]:
    """Returns epsilon and torch's momentum of a batch normalisation."""
    config = layer["config"]
    axis = config.get("axis", -1)
    if axis not in (-1, 3, [-1], [3]):
        raise UnreadableError(f"layer {layer['name']!r}: axis is {axis}", "colours come last")
    eps, momentum = float(config["epsilon"]), float(config["momentum"])
    if not (0 < eps < 1 and 0 <= momentum <= 1):
        raise UnreadableError(f"layer {layer['name']!r}: epsilon is {eps}, momentum is {momentum}")
    return eps, round(1 - momentum, 12)


def _rescaling(layer: Mapping[str, Any]) -> Normalisation:
    scale, offset = layer["config"]["scale"], layer["config"]["offset"]
    if abs(scale * 255.0 - 1) < 1e-6 and offset == 0:
        return "unit"
    if abs(scale * 127.5 - 1) < 1e-6 and offset == -1:
        return "centred"
    raise UnreadableError(
        f"layer {layer['name']!r} multiplies by {scale} and adds {offset}",
        "pixels from 0 to 255 are wanted as [0, 1] or as [-1, 1]",
    )


def _head(dense: Mapping[str, Any] | None, last: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Returns the head's classes and activation, which may be a layer of its own."""
    if dense is None:
        return 0, "linear"
    classes, activation = int(dense["config"]["units"]), dense["config"]["activation"]
    kinds = [layer["class_name"] for layer in last]
    if activation == "linear" and kinds in (["Activation"], ["Softmax"]):
        activation = last[0]["config"].get("activation", "softmax")
    elif kinds:
        name = last[0]["name"]
        raise UnreadableError(f"unexpected layer {name!r} ({kinds[0]})", "it comes after the head")
    allowed = {1: ("sigmoid", "linear"), 2: ("softmax", "linear")}
    if classes != IMAGENET_CLASSES and activation not in allowed.get(classes, ()):
        raise UnreadableError(
            f"its head is Dense({classes}, {activation}), layer {dense['name']!r}",
            "Dense(2, softmax), Dense(1, sigmoid) or ImageNet's 1000 classes are wanted",
        )
    return classes, str(activation)


# Which arrays belong to which layer


def _assign(layers: Sequence[StoredLayer]) -> Assigned:
    """Gives every layer of Xception, and the head if there is one, its arrays.

    Raises:
        UnreadableError: A layer or an array is missing, has another shape, or is left over.
    """
    heads = [x for x in layers if "kernel" in x.arrays and len(x.arrays["kernel"].shape) == 2]
    rest = [layer for layer in layers if layer not in heads]
    _refuse_other_networks(layers, heads)
    named = bool(rest) and all(layer.name for layer in rest)
    stored = _by_name(rest) if named else _by_number(rest)
    assigned = {}
    for slot in SLOTS:
        if slot.name not in stored:
            shapes = ", ".join(f"{kind} {list(shape)}" for kind, shape in slot.shapes.items())
            raise UnreadableError(f"layer {slot.name!r} is missing in the file: {shapes}")
        assigned[slot.name] = (slot, _fitting(slot, stored[slot.name]))
    used = {id(layer) for _, layer in assigned.values()}
    left = [layer.name or layer.place for layer in rest if id(layer) not in used]
    if left:
        names = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        raise UnreadableError(
            f"{len(left)} of its layers with arrays are not Xception's: {names}",
            "nothing may be left over",
        )
    for head in heads:
        classes = head.arrays["kernel"].shape[1]
        places: Shapes = {"kernel": (2048, classes)}
        if "bias" in head.arrays:
            places = {**places, "bias": (classes,)}
        slot = Slot("predictions", "dense", "classifier", places)
        assigned[slot.name] = (slot, _fitting(slot, head))
    return assigned


def _refuse_other_networks(layers: Sequence[StoredLayer], heads: Sequence[StoredLayer]) -> None:
    """Says what other networks are, where that is known."""
    widths = [head.arrays["kernel"].shape[0] for head in heads]
    if 1024 in widths and 16 in widths:
        raise UnreadableError(
            "it is a MesoNet (Afchar et al. 2018)", "of Keras's networks only Xception is read"
        )
    if len(heads) > 1:
        raise UnreadableError(f"it has {len(heads)} fully connected layers", "one is wanted")
    names = [layer.name for layer in layers if layer.name]
    if names and not any(name.startswith("block1_conv1") for name in names):
        raise UnreadableError(
            f"it is no Xception: its layers are {', '.join(names[:4])} and so on",
            "of Keras's networks only Xception is read",
        )


def _by_name(layers: Sequence[StoredLayer]) -> dict[str, StoredLayer]:
    """Finds layers by name, whatever a session has added to it (``block1_conv1_3``)."""
    known = {slot.name for slot in SLOTS}
    unnamed = {_shapes_of(slot.shapes): slot.name for slot in SLOTS if "residual" in slot.name}
    stored: dict[str, StoredLayer] = {}
    for layer in layers:
        name = re.sub(r"(_\d+)+$", "", layer.name)
        if name not in known:
            shapes = {kind: array.shape for kind, array in layer.arrays.items()}
            name = unnamed.get(_shapes_of(shapes), layer.name)
        if name in stored:
            raise UnreadableError(f"two layers can be {name!r}: {stored[name].name}, {layer.name}")
        stored[name] = layer
    return stored


def _by_number(layers: Sequence[StoredLayer]) -> dict[str, StoredLayer]:
    """Finds layers without names: by class, numbered as ``keras.applications`` builds them."""
    models = Counter(layer.place.rpartition("/")[0] for layer in layers)
    if not models:
        raise UnreadableError("it has no arrays")
    model = models.most_common(1)[0][0]
    places = {layer.place: layer for layer in layers}
    counts: Counter[str] = Counter()
    stored = {}
    for slot in SLOTS:
        number = f"_{counts[slot.kind]}" if counts[slot.kind] else ""
        layer = places.get(f"{model}/{slot.kind}{number}")
        counts[slot.kind] += 1
        if layer is not None:
            stored[slot.name] = layer
    return stored


def _shapes_of(shapes: Shapes) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset(shapes.items())


def _fitting(slot: Slot, layer: StoredLayer) -> StoredLayer:
    """Checks that a layer has a slot's arrays, and no others."""
    name = layer.name or layer.place
    for kind, shape in slot.shapes.items():
        array = layer.arrays.get(kind)
        if array is None:
            raise UnreadableError(f"layer {name!r} lacks its array {kind}")
        if array.shape != shape:
            raise UnreadableError(
                f"array {array.path} of layer {name!r} is {list(array.shape)}, not {list(shape)}",
                "it is no Xception's",
            )
        if array.dtype.kind != "f":
            raise UnreadableError(f"array {array.path} of layer {name!r} holds {array.dtype}")
    extra = sorted(layer.arrays.keys() - slot.shapes.keys())
    if extra:
        raise UnreadableError(f"layer {name!r} has an array {extra[0]}, which Xception's has not")
    return layer


def _report(
    path: Path, file: KerasFile, config: XceptionConfig | None, assigned: Assigned
) -> KerasReport:
    head = assigned.get("predictions")
    classes = head[0].shapes["kernel"][1] if head else 0
    if classes not in (0, 1, 2, IMAGENET_CLASSES):
        raise UnreadableError(f"its head has {classes} classes", "1, 2 or 1000 are wanted")
    notes = []
    if config is None:
        config = XceptionConfig(activation="sigmoid" if classes == 1 else "softmax")
        notes.append(
            f"the file has no configuration: epsilon {config.bn_eps:g}"
            + (f" and {config.activation} are assumed" if classes else " is assumed")
        )
    elif classes != config.classes:
        raise UnreadableError(
            f"its head has {classes} classes, its configuration says {config.classes}"
        )
    elif classes and config.activation == "linear":
        notes.append("the head has no activation: its numbers are taken as logits")
    if classes in (1, 2) and config.normalisation is None:
        notes.append("pixels are taken as x/255, as BiDA's program gives them")
    if classes == IMAGENET_CLASSES:
        notes.append("the head is ImageNet's: only the backbone is converted, it scores no fakes")
    return KerasReport(
        source=path.name,
        format=file.format,
        size=config.size,
        head=f"Dense({classes}, {config.activation})" if classes else "none",
        classes=classes,
        normalisation=config.normalisation,
        bn_eps=config.bn_eps,
        bn_momentum=config.bn_momentum,
        arrays=tuple(
            KerasArray(layer.arrays[kind].path, f"{slot.ours}.{_OURS[kind]}", shape)
            for slot, layer in assigned.values()
            for kind, shape in slot.shapes.items()
        ),
        notes=tuple(notes),
    )


def _state(
    file: KerasFile, assigned: Assigned, fake_index: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state dict, and the arrays whose numbers are not all finite."""
    state: dict[str, Tensor] = {}
    odd = []
    for slot, layer in assigned.values():
        if slot.kind == "dense" and fake_index is None:
            continue
        for kind in slot.shapes:
            values = file.read(layer.arrays[kind])
            if not np.isfinite(values).all():
                odd.append(layer.arrays[kind].path)
            state[f"{slot.ours}.{_OURS[kind]}"] = torch.from_numpy(_in_torch_order(kind, values))
        if slot.kind == "batch_normalization":
            state[f"{slot.ours}.num_batches_tracked"] = torch.tensor(0)
    if fake_index is None:
        return {key.removeprefix("backbone."): value for key, value in state.items()}, odd
    for kind in ("weight", "bias"):
        classes = state.get(f"classifier.{kind}")
        if classes is None:  # a head without bias
            classes = torch.zeros(len(state["classifier.weight"]))
        if len(classes) == 1:  # one logit, of class 1: that of class 0 is 0
            classes = torch.cat([torch.zeros_like(classes), classes])
        state[f"classifier.{kind}"] = classes.flip(0) if fake_index == 0 else classes
    return state, odd


def _in_torch_order(kind: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns an array in torch's layout."""
    if values.ndim == 2:
        values = values.T
    elif kind == "depthwise_kernel":
        values = values.transpose(2, 3, 0, 1)
    elif values.ndim == 4:
        values = values.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(values)
