"""Xceptions trained in Keras, converted to ours without Keras or TensorFlow.

Arrays belong to layers by name (``block4_sepconv1``); the few layers that Keras numbers itself,
beside the blocks, belong by their shapes, which are all different. A configuration, where the
file has one, gives epsilon, size and head, and must have Xception's layers and settings. Every
array must have its place and none may be left over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import h5py
import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError, naming
from deepregions.files import atomic_file, sha256
from deepregions.weights.convert.keras_files import (
    BROKEN,
    KINDS,
    StoredLayers,
    first_line,
    open_keras,
)

if TYPE_CHECKING:
    from deepregions.detectors import Xception

DEFAULT_FAKE_INDEX = 0  # BiDA's: its folders are called fake and real, and Keras sorts them
DEFAULT_SIZE = 200  # BiDA's
IMAGENET_CLASSES = 1000

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


class Slot(NamedTuple):
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

    def plain(name: str, ours: str, norm: str, *shape: int) -> Iterator[Slot]:
        yield Slot(name, "conv2d", f"backbone.{ours}", {"kernel": shape})
        norms: Shapes = dict.fromkeys(KINDS["batch_normalization"], shape[-1:])
        yield Slot(f"{name}_bn", "batch_normalization", f"backbone.{norm}", norms)

    def separable(name: str, ours: str, norm: str, start: int, end: int) -> Iterator[Slot]:
        shapes = {"depthwise_kernel": (3, 3, start, 1), "pointwise_kernel": (1, 1, start, end)}
        yield Slot(name, "separable_conv2d", f"backbone.{ours}", shapes)
        yield list(plain(name, ours, norm, end))[1]

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


SLOTS = {slot.name: slot for slot in _slots()}
_UNNAMED = [slot for name, slot in SLOTS.items() if "residual" in name]
_NUMBERED = {  # by class and number, as Keras 3's own format calls layers
    f"{kind}_{number}".removesuffix("_0"): slot
    for kind in KINDS
    for number, slot in enumerate(slot for slot in SLOTS.values() if slot.kind == kind)
}


class KerasArray(NamedTuple):
    """An array that found its place: its path in the file, its name in our state dict."""

    theirs: str
    ours: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class XceptionConfig:
    """What a model's configuration says beside its arrays.

    Attributes:
        size: Height and width of the input; None where the file does not say.
        classes: Units of the head: 2, 1, 1000 (ImageNet), or 0 without a head.
        activation: That of the head: ``softmax``, ``sigmoid`` or ``linear``.
        normalisation: What a Rescaling layer in the model makes of pixels (``unit`` or
            ``centred``); None where it has none.
        bn_eps: Epsilon of batch normalisation; Keras's own where there is no configuration.
        bn_momentum: Weight of the newest batch in its statistics (1 - Keras's momentum).
    """

    size: int | None = None
    classes: int = 0
    activation: str = "linear"
    normalisation: Normalisation | None = None
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01


@dataclass(frozen=True, kw_only=True)
class KerasReport(XceptionConfig):
    """What was found in a file.

    Attributes:
        source: The file's name.
        format: Which format, and the version of Keras.
        arrays: Those of Xception and of the head.
        notes: What was assumed because the file does not say it, and what looks wrong.
    """

    source: str
    format: str
    arrays: tuple[KerasArray, ...]
    notes: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The head, such as ``Dense(2, softmax)``; ``none`` without one."""
        return f"Dense({self.classes}, {self.activation})" if self.classes else "none"

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
        sha256: Of the Keras file.
    """

    state: dict[str, Tensor]
    report: KerasReport
    size: int
    fake_index: int | None
    sha256: str

    @property
    def settings(self) -> dict[str, float | str]:
        """The arguments of :class:`~deepregions.detectors.Xception` that make this network."""
        return {
            "size": self.size,
            "bn_momentum": self.report.bn_momentum,
            "bn_eps": self.report.bn_eps,
            "padding": "same",
            "normalisation": self.report.normalisation or "unit",
        }

    def detector(self) -> Xception:
        """Returns the network, in eval mode; a backbone only is unreadable."""
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
            partial.write_bytes(save(self.state, metadata))


def inspect_keras(path: Path) -> KerasReport:
    """Returns what is in a Keras file, without reading its numbers.

    The file and the errors are those of :func:`convert_keras`.
    """
    with _opened(path) as (report, _):
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
    index = fake_index
    with _opened(path) as (report, arrays):
        if report.size is not None and size not in (None, report.size):
            raise UsageError(f"{path} takes images of {report.size} pixels, not of {size}")
        if fake_index is not None and not report.detects:
            raise UsageError(
                f"{path} has no class for fakes: its head is {report.head}", "leave fake_index out"
            )
        if fake_index is None and report.detects:
            index = DEFAULT_FAKE_INDEX
        state, odd = _state(arrays, index)
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
    report = replace(report, notes=tuple(notes))
    return KerasXception(state, report, report.size or size or DEFAULT_SIZE, index, sha256(path))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[KerasReport, dict[KerasArray, h5py.Dataset]]]:
    """Opens a file and finds its arrays; errors in it and in what follows name the file."""
    with naming(path), open_keras(path) as file:
        config = None if file.config is None else read_config(file.config)
        arrays = _assign(file.layers)
        yield _report(path.name, file.format, config, tuple(arrays)), arrays


def _report(
    source: str, form: str, config: XceptionConfig | None, arrays: tuple[KerasArray, ...]
) -> KerasReport:
    classes = sum(array.shape[1] for array in arrays if array.ours == "classifier.weight")
    if classes not in (0, 1, 2, IMAGENET_CLASSES):
        raise UnreadableError(f"its head has {classes} classes", "1, 2 or 1000 are wanted")
    notes = []
    if config is None:
        activation = {0: "linear", 1: "sigmoid"}.get(classes, "softmax")
        config = XceptionConfig(classes=classes, activation=activation)
        notes.append(
            f"the file has no configuration: epsilon {config.bn_eps:g}"
            + (f" and {activation} are assumed" if classes else " is assumed")
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
        **vars(config), source=source, format=form, arrays=arrays, notes=tuple(notes)
    )


# What a configuration says


class ConfigLayer(NamedTuple):
    """A layer in a configuration: its name, its class and its arguments."""

    name: str
    kind: str
    config: Mapping[str, Any]

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


_MODELS = ("Model", "Functional", "Sequential")
_CONVOLVING = ("Conv2D", "SeparableConv2D", "MaxPooling2D")
_OTHERS = ("InputLayer", "BatchNormalization", "Activation", "ReLU", "Add", "Dropout", "Flatten")
_AT_MOST_ONE = ("Rescaling", "GlobalAveragePooling2D", "Dense")
_PROGRAMS = ("keras", "tf_keras", "tensorflow")


def read_config(config: Mapping[str, Any]) -> XceptionConfig:
    """Reads a model's configuration; the error names the layer that is no Xception's."""
    try:
        layers = list(_layers(config))
        kinds = [layer.kind for layer in layers]
        end = kinds.index("Dense") if "Dense" in kinds else len(layers)
        last = [layer for layer in layers[end + 1 :] if layer.kind in ("Activation", "Softmax")]
        rest = [layer for layer in layers[end + 1 :] if layer.kind not in ("Activation", "Softmax")]
        for layer in (*layers[: end + 1], *rest):
            _check_layer(layer)
        if repeated := [kind for kind in _AT_MOST_ONE if kinds.count(kind) > 1]:
            raise UnreadableError(f"it has {kinds.count(repeated[0])} {repeated[0]} layers")
        norms = {_norm(layer) for layer in layers if layer.kind == "BatchNormalization"}
        if len(norms) != 1:
            raise UnreadableError("its batch normalisations differ in epsilon or momentum")
        ((eps, momentum),) = norms
        classes, activation = _head(layers[end], last) if "Dense" in kinds else (0, "linear")
        scales = [_rescaling(layer) for layer in layers if layer.kind == "Rescaling"]
        return XceptionConfig(
            size=next(filter(None, map(_input_size, layers)), None),
            classes=classes,
            activation=activation,
            normalisation=scales[0] if scales else None,
            bn_eps=eps,
            bn_momentum=momentum,
        )
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"its configuration is not that of a Keras model: {type(error).__name__} {error}"
        ) from error


def _layers(model: Mapping[str, Any]) -> Iterator[ConfigLayer]:
    """Yields the layers of a model and of the models in it."""
    config = model["config"]
    for layer in config if isinstance(config, list) else config["layers"]:
        kind, settings = str(layer["class_name"]), layer["config"]
        if kind in _MODELS:
            yield from _layers(layer)
            continue
        if str(layer.get("module") or "keras").partition(".")[0] not in _PROGRAMS:
            kind = f"{layer['module']}.{kind}"
        # In an old Sequential only the settings have the name.
        name = layer.get("name") or settings.get("name") or kind
        yield ConfigLayer(str(name), kind.removesuffix("V1"), settings)


def _check_layer(layer: ConfigLayer) -> None:
    """Checks what the shapes of arrays do not show: class, strides and activation."""
    if layer.kind not in (*_CONVOLVING, *_OTHERS, *_AT_MOST_ONE):
        hint = "Xception has none like it"
        if "Lambda" in layer.kind:
            hint = "its program code is not run; save the model without it"
        raise UnreadableError(f"unexpected {layer}", hint)
    wanted: dict[str, Any] = {}
    if layer.kind in _CONVOLVING:
        single = layer.kind == "SeparableConv2D" or layer.name.startswith("block1_conv2")
        wanted = {"strides": [1 if single else 2] * 2, "dilation_rate": [1, 1]}
        wanted["data_format"] = "channels_last"
    if layer.kind == "Activation":
        wanted = {"activation": "relu"}
    for key, value in wanted.items():
        if (found := layer.config.get(key, value)) != value:
            raise UnreadableError(f"{layer}: {key} is {found}, not {value}")


def _input_size(layer: ConfigLayer) -> int | None:
    shape = layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
    _, height, width, channels = shape or (None, None, None, 3)
    if channels != 3 or height != width or type(height) not in (int, type(None)):
        raise UnreadableError(f"its input is {shape}", "square RGB images are wanted")
    return height


def _norm(layer: ConfigLayer) -> tuple[float, float]:
    """Returns epsilon and torch's momentum of a batch normalisation."""
    axis = layer.config.get("axis", -1)
    if axis not in (-1, 3, [-1], [3]):
        raise UnreadableError(f"{layer}: axis is {axis}", "colours come last")
    eps, momentum = float(layer.config["epsilon"]), float(layer.config["momentum"])
    if not (0 < eps < 1 and 0 <= momentum <= 1):
        raise UnreadableError(f"{layer}: epsilon is {eps}, momentum is {momentum}")
    return eps, round(1 - momentum, 12)


def _rescaling(layer: ConfigLayer) -> Normalisation:
    scale, offset = layer.config["scale"], layer.config["offset"]
    if abs(scale * 255.0 - 1) < 1e-6 and offset == 0:
        return "unit"
    if abs(scale * 127.5 - 1) < 1e-6 and offset == -1:
        return "centred"
    raise UnreadableError(
        f"{layer} multiplies by {scale} and adds {offset}",
        "pixels from 0 to 255 are wanted as [0, 1] or as [-1, 1]",
    )


def _head(dense: ConfigLayer, last: Sequence[ConfigLayer]) -> tuple[int, str]:
    """Returns the head's classes and activation, which may be a layer of its own."""
    classes, activation = int(dense.config["units"]), dense.config["activation"]
    if activation == "linear" and len(last) == 1:
        activation = last[0].config.get("activation", "softmax")
    elif last:
        raise UnreadableError(f"unexpected {last[0]}", "it comes after the head")
    allowed = {1: ("sigmoid", "linear"), 2: ("softmax", "linear")}
    if classes != IMAGENET_CLASSES and activation not in allowed.get(classes, ()):
        raise UnreadableError(
            f"its head is Dense({classes}, {activation}), layer {dense.name!r}",
            "Dense(2, softmax), Dense(1, sigmoid) or ImageNet's 1000 classes are wanted",
        )
    return classes, str(activation)


# Which arrays belong to which layer


def _assign(layers: StoredLayers) -> dict[KerasArray, h5py.Dataset]:
    """Gives every layer of Xception, and the head if there is one, its arrays; none is left."""
    _refuse_other_networks(layers)
    slots = dict(SLOTS)
    stored: dict[str, str] = {}
    left = []
    for name, arrays in layers.items():
        slot = _slot_of(name, arrays)
        if slot is None:
            left.append(name)
        elif slot.name in stored:
            raise UnreadableError(f"two layers can be {slot.name!r}: {stored[slot.name]}, {name}")
        else:
            stored[slot.name] = name
            slots[slot.name] = slot
    for slot in slots.values():
        if slot.name not in stored:
            shapes = ", ".join(f"{kind} {list(shape)}" for kind, shape in slot.shapes.items())
            raise UnreadableError(f"layer {slot.name!r} is missing in the file: {shapes}")
    if left:
        names = ", ".join(left[:5]) + (" and others" if len(left) > 5 else "")
        raise UnreadableError(
            f"{len(left)} of its layers with arrays are not Xception's: {names}",
            "nothing may be left over",
        )
    return {
        array: dataset
        for slot in slots.values()
        for array, dataset in _fitting(slot, stored[slot.name], layers[stored[slot.name]])
    }


def _refuse_other_networks(layers: StoredLayers) -> None:
    """Says what other networks are, where that is known."""
    kernels = [arrays["kernel"].shape for arrays in layers.values() if "kernel" in arrays]
    widths = [shape[0] for shape in kernels if len(shape) == 2]
    only = "of Keras's networks only Xception is read"
    if 1024 in widths and 16 in widths:
        raise UnreadableError("it is a MesoNet (Afchar et al. 2018)", only)
    if len(widths) > 1:
        raise UnreadableError(f"it has {len(widths)} fully connected layers", "one is wanted")
    if not any("block1_conv1" in name or "/" in name for name in layers):
        names = f"its layers are {', '.join([*layers][:4])} and so on"
        raise UnreadableError(f"it is no Xception: {names if layers else 'it has no layers'}", only)


def _slot_of(name: str, arrays: Mapping[str, h5py.Dataset]) -> Slot | None:
    """Returns which layer of Xception, or its head, a stored layer is."""
    shapes = {kind: array.shape for kind, array in arrays.items()}
    kernel = shapes.get("kernel", ())
    if len(kernel) == 2:
        bias = {"bias": kernel[1:]} if "bias" in shapes else {}
        return Slot("predictions", "dense", "classifier", {"kernel": (2048, kernel[1]), **bias})
    if "/" in name:  # a place, as the file has no name
        return _NUMBERED.get(name.rpartition("/")[2])
    plain = re.sub(r"(_\d+)+$", "", name)  # a session may have added a number: block1_conv1_3
    return SLOTS.get(plain) or next((slot for slot in _UNNAMED if slot.shapes == shapes), None)


def _fitting(
    slot: Slot, name: str, arrays: Mapping[str, h5py.Dataset]
) -> Iterator[tuple[KerasArray, h5py.Dataset]]:
    """Yields a layer's arrays, which must be the slot's and no others."""
    for kind, shape in slot.shapes.items():
        if kind not in arrays:
            raise UnreadableError(f"layer {name!r} lacks its array {kind}")
        dataset = arrays[kind]
        path = dataset.name.strip("/")
        if dataset.shape != shape:
            raise UnreadableError(
                f"array {path} of layer {name!r} is {list(dataset.shape or ())}, not {list(shape)}",
                "it is no Xception's",
            )
        if dataset.dtype.kind != "f":
            raise UnreadableError(f"array {path} of layer {name!r} holds {dataset.dtype}")
        yield KerasArray(path, f"{slot.ours}.{_OURS[kind]}", shape), dataset
    if extra := sorted(arrays.keys() - slot.shapes.keys()):
        raise UnreadableError(f"layer {name!r} has an array {extra[0]}, which Xception's has not")


def _state(
    arrays: Mapping[KerasArray, h5py.Dataset], fake_index: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state dict, and the arrays whose numbers are not all finite."""
    state: dict[str, Tensor] = {}
    odd = []
    for array, dataset in arrays.items():
        if fake_index is None and array.ours.startswith("classifier."):
            continue
        try:
            values = np.asarray(dataset[()], dtype=np.float32)
        except BROKEN as error:
            raise UnreadableError(
                f"array {array.theirs} cannot be read: {first_line(error)}"
            ) from error
        if not np.isfinite(values).all():
            odd.append(array.theirs)
        if values.ndim == 4:  # (height, width, in, out), of depthwise kernels out is 1
            values = values.transpose((2, 3, 0, 1) if values.shape[3] == 1 else (3, 2, 0, 1))
        elif values.ndim == 2:
            values = values.T
        state[array.ours] = torch.from_numpy(np.ascontiguousarray(values))
        if array.ours.endswith(".running_var"):
            state[f"{array.ours.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)
    if fake_index is None:
        return {key.removeprefix("backbone."): value for key, value in state.items()}, odd
    weight = state["classifier.weight"]
    state.setdefault("classifier.bias", torch.zeros(len(weight)))  # a head may have none
    for key in ("classifier.weight", "classifier.bias"):
        if len(weight) == 1:  # one logit, of class 1: that of class 0 is 0
            state[key] = torch.cat([torch.zeros_like(state[key]), state[key]])
        if fake_index == 0:
            state[key] = state[key].flip(0)
    return state, odd
