"""Xceptions trained in Keras, converted to ours without Keras or TensorFlow.

Arrays belong to layers by name (``block4_sepconv1``); the few layers that Keras numbers itself,
beside the blocks, by their shapes. A configuration, where there is one, gives epsilon, size and
head. Every array must have its place and none may be left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError, naming
from deepregions.files import sha256
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

Slot = dict[str, tuple[str, tuple[int, ...]]]
"""A layer's arrays by kind: the name here, and Keras's shape (height, width, in, out)."""


def _slots() -> Iterator[tuple[str, Slot]]:
    """Yields Xception's layers, by Keras's names, in the order in which Keras builds them.

    Keras numbers the layers that are called ``block<n>_residual`` here (``conv2d_1`` and so on).
    """

    def pair(
        name: str, ours: str, norm: str, *shapes: tuple[int, ...]
    ) -> Iterator[tuple[str, Slot]]:
        kinds = KINDS["separable_conv2d" if len(shapes) == 2 else "conv2d"]
        yield name, _slot(f"backbone.{ours}", dict(zip(kinds, shapes, strict=False)))
        kinds = KINDS["batch_normalization"]
        yield f"{name}_bn", _slot(f"backbone.{norm}", dict.fromkeys(kinds, shapes[-1][-1:]))

    yield from pair("block1_conv1", "conv1", "bn1", (3, 3, 3, 32))
    yield from pair("block1_conv2", "conv2", "bn2", (3, 3, 32, 64))
    width = 64
    for block in range(2, 14):
        widths = {2: [128] * 2, 3: [256] * 2, 4: [728] * 2, 13: [728, 1024]}.get(block, [728] * 3)
        ours, start = f"block{block - 1}", width
        for i, out in enumerate(widths):
            place = 3 * i + (block > 2)  # all but the first begin with a ReLU
            names = f"block{block}_sepconv{i + 1}", f"{ours}.rep.{place}", f"{ours}.rep.{place + 1}"
            yield from pair(*names, (3, 3, width, 1), (1, 1, width, out))
            width = out
        if len(widths) == 2:
            names = f"block{block}_residual", f"{ours}.skip", f"{ours}.skipbn"
            yield from pair(*names, (1, 1, start, width))
    yield from pair("block14_sepconv1", "conv3", "bn3", (3, 3, 1024, 1), (1, 1, 1024, 1536))
    yield from pair("block14_sepconv2", "conv4", "bn4", (3, 3, 1536, 1), (1, 1, 1536, 2048))


def _slot(ours: str, shapes: Mapping[str, tuple[int, ...]]) -> Slot:
    return {kind: (f"{ours}.{_OURS[kind]}", shape) for kind, shape in shapes.items()}


SLOTS = dict(_slots())
_NUMBERED = {  # by class and number, as Keras 3's own format calls layers
    f"{kind}_{number}".removesuffix("_0"): name
    for kind, kinds in KINDS.items()
    for number, name in enumerate(name for name, slot in SLOTS.items() if {*slot} <= {*kinds})
}


class KerasArray(NamedTuple):
    """An array that found its place: its path in the file, its name in the state dict."""

    theirs: str
    ours: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class KerasXception:
    """An Xception in a file of Keras, converted or only looked at.

    Attributes:
        size: Height and width of the input; None where the file does not say.
        classes: Units of the head: 2, 1, 1000 (ImageNet), or 0 without a head.
        activation: The head's activation: ``softmax``, ``sigmoid`` or ``linear``.
        normalisation: What a Rescaling layer in the model makes of pixels; None where it has none.
        bn_eps: Epsilon of batch normalisation; Keras's own where there is no configuration.
        bn_momentum: Weight of the newest batch in its statistics (1 - Keras's momentum).
        notes: What was assumed because the file does not say it, and what looks wrong.
        state: The state dict of :class:`~deepregions.detectors.Xception`, fake second; of a
            model without a fake class that of its backbone, as ``backbone_file`` takes it. Empty
            if the file was only looked at.
        fake_index: Which of the model's classes is fake; None for a backbone.
    """

    source: str
    format: str
    arrays: tuple[KerasArray, ...]
    size: int | None = None
    classes: int = 0
    activation: str = "linear"
    normalisation: Normalisation | None = None
    bn_eps: float = 1e-3
    bn_momentum: float = 0.01
    notes: tuple[str, ...] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict)
    fake_index: int | None = None
    sha256: str = ""

    @property
    def head(self) -> str:
        """The head, such as ``Dense(2, softmax)``; ``none`` without one."""
        return f"Dense({self.classes}, {self.activation})" if self.classes else "none"

    @property
    def detects(self) -> bool:
        """Whether it tells fake from real, other than ImageNet's classes or features."""
        return self.classes in (1, 2)

    @property
    def settings(self) -> dict[str, float | str]:
        """The arguments of :class:`~deepregions.detectors.Xception` that make this network."""
        return {
            "size": self.size or DEFAULT_SIZE,
            "bn_momentum": self.bn_momentum,
            "bn_eps": self.bn_eps,
            "padding": "same",
            "normalisation": self.normalisation or "unit",
        }

    def detector(self) -> Xception:
        """Returns the network, in eval mode; a backbone only is unreadable."""
        if self.fake_index is None:
            raise UnreadableError(f"{self.source} has no class for fakes: it scores nothing")
        # Converting needs no network, nor the half of its time and memory that importing one takes.
        from deepregions.detectors import Xception  # noqa: PLC0415

        detector = Xception(**self.settings)  # type: ignore[arg-type]
        detector.load_state_dict(self.state)
        return detector.eval()


def inspect_keras(path: Path) -> KerasXception:
    """Returns what is in a Keras file, without reading its numbers.

    The file and the errors are those of :func:`convert_keras`.
    """
    with _opened(path) as (found, _):
        return found


def convert_keras(
    path: Path, *, fake_index: int | None = None, size: int | None = None
) -> KerasXception:
    """Converts an Xception that was trained in Keras: a whole model or its weights alone.

    Fake is class 0 by default, as in the paper's program, whose folders ``fake`` and ``real`` sort
    so; a single sigmoid is class 1's probability. ``size`` is of the crops, in pixels, for a file
    that does not say.

    Raises:
        UnreadableError: It holds no Xception, or is broken; the message says what or which layer.
    """
    if fake_index not in (None, 0, 1):
        raise UsageError(f"class {fake_index} cannot be the fake one", "it is 0 or 1")
    with _opened(path) as (found, arrays):
        if found.size is not None and size not in (None, found.size):
            raise UsageError(f"{path} takes images of {found.size} pixels, not of {size}")
        if fake_index is not None and not found.detects:
            raise UsageError(
                f"{path} has no class for fakes: its head is {found.head}", "leave fake_index out"
            )
        index = DEFAULT_FAKE_INDEX if fake_index is None and found.detects else fake_index
        state, odd = _state(arrays, index)
    notes = list(found.notes)
    if found.detects and fake_index is None:
        notes.append(
            f"class {index} is taken as fake, as in BiDA's models, whose folders fake and real "
            "sort so; if that is wrong here, every score is turned around"
        )
    if odd:
        notes.append(f"{len(odd)} arrays hold numbers that are not finite, {odd[0]} first")
    if found.detects and not (found.size or size):
        notes.append(f"the file does not say its size: {DEFAULT_SIZE} is taken, as BiDA's")
    return replace(
        found,
        size=found.size or size,
        notes=tuple(notes),
        state=state,
        fake_index=index,
        sha256=sha256(path),
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[KerasXception, dict[KerasArray, h5py.Dataset]]]:
    """Opens a file and finds its arrays; errors in it and in what follows name the file."""
    with naming(path), open_keras(path) as file:
        config = None if file.config is None else read_config(file.config)
        arrays = _assign(file.layers)
        classes = sum(array.shape[1] for array in arrays if array.ours == "classifier.weight")
        notes = []
        if config is None:
            activation = {0: "linear", 1: "sigmoid"}.get(classes, "softmax")
            config = {"classes": classes, "activation": activation}
            assumed = f"{KerasXception.bn_eps:g}" + (f" and {activation} are" if classes else " is")
            notes.append(f"the file has no configuration: epsilon {assumed} assumed")
        elif config["activation"] == "linear" and classes:
            notes.append("the head has no activation: its numbers are taken as logits")
        if classes not in (0, 1, 2, IMAGENET_CLASSES) or classes != config["classes"]:
            raise UnreadableError(
                f"its head has {classes} classes, its configuration says {config['classes']}",
                "1, 2 or 1000 are wanted",
            )
        if classes in (1, 2) and config.get("normalisation") is None:
            notes.append("pixels are taken as x/255, as BiDA's program gives them")
        if classes == IMAGENET_CLASSES:
            notes.append(
                "the head is ImageNet's: only the backbone is converted, it scores no fakes"
            )
        about: dict[str, Any] = {
            "source": path.name,
            "format": file.format,
            "arrays": tuple(arrays),
        }
        yield KerasXception(**about, **config, notes=tuple(notes)), arrays


# What a configuration says


class ConfigLayer(NamedTuple):
    """A layer in a configuration: its name, its class and its arguments."""

    name: str
    kind: str
    config: Mapping[str, Any]

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


_LAST: dict[str, list[Any]] = {"data_format": ["channels_last"]}
_DENSE: dict[str, list[Any]] = {"dilation_rate": [[1, 1]], **_LAST}
_LAYERS: dict[str, dict[str, list[Any]]] = {  # of what the shapes of arrays do not show
    "Conv2D": {"strides": [[2, 2]], **_DENSE},
    "SeparableConv2D": {"strides": [[1, 1]], **_DENSE},
    "MaxPooling2D": {"strides": [[2, 2]], **_LAST},
    "BatchNormalization": {"axis": [-1, 3, [-1], [3]]},
    "Activation": {"activation": ["relu"]},
}
_OTHERS = ("InputLayer", "ReLU", "Add", "Dropout", "Flatten", "Rescaling", "Dense")


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a model's configuration, as fields of :class:`KerasXception`.

    The error names the layer that is no Xception's.
    """
    try:
        layers = list(_layers(config))
        kinds = [layer.kind for layer in layers]
        end = kinds.index("Dense") if "Dense" in kinds else len(layers)
        last = [layer for layer in layers[end + 1 :] if layer.kind in ("Activation", "Softmax")]
        for layer in layers:
            if layer not in last:
                _check_layer(layer)
        norms = {_norm(layer) for layer in layers if layer.kind == "BatchNormalization"}
        scales = [_rescaling(layer) for layer in layers if layer.kind == "Rescaling"]
        if len(norms) != 1 or len(scales) > 1:
            raise UnreadableError("its batch normalisations differ in epsilon or momentum")
        ((eps, momentum),) = norms
        classes, activation = _head(layers[end], last) if "Dense" in kinds else (0, "linear")
        return {
            "size": next(filter(None, map(_input_size, layers)), None),
            "classes": classes,
            "activation": activation,
            "normalisation": scales[0] if scales else None,
            "bn_eps": eps,
            "bn_momentum": momentum,
        }
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"its configuration is not that of a Keras model: {type(error).__name__} {error}"
        ) from error


def _layers(model: Mapping[str, Any]) -> Iterator[ConfigLayer]:
    """Yields the layers of a model and of the models in it."""
    config = model["config"]
    for layer in config if isinstance(config, list) else config["layers"]:
        kind, settings = str(layer["class_name"]), layer["config"]
        if kind in ("Model", "Functional", "Sequential"):
            yield from _layers(layer)
            continue
        program = str(layer.get("module") or "keras").partition(".")[0]
        if program not in ("keras", "tf_keras", "tensorflow"):
            kind = f"{layer['module']}.{kind}"
        # In an old Sequential only the settings have the name.
        name = layer.get("name") or settings.get("name") or kind
        yield ConfigLayer(str(name), kind.removesuffix("V1"), settings)


def _check_layer(layer: ConfigLayer) -> None:
    """Checks what the shapes of arrays do not show: class, strides and activation."""
    if layer.kind not in (*_LAYERS, *_OTHERS, "GlobalAveragePooling2D"):
        hint = "Xception has none like it"
        if "Lambda" in layer.kind:
            hint = "its program code is not run; save the model without it"
        raise UnreadableError(f"unexpected {layer}", hint)
    allowed = _LAYERS.get(layer.kind, {})
    if layer.name.startswith("block1_conv2"):
        allowed = allowed | {"strides": [[1, 1]]}
    for key, values in allowed.items():
        if (found := layer.config.get(key, values[0])) not in values:
            raise UnreadableError(f"{layer}: {key} is {found}, not {values[0]}")


def _input_size(layer: ConfigLayer) -> int | None:
    shape = layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
    _, height, width, channels = shape or (None, None, None, 3)
    if channels != 3 or height != width or type(height) not in (int, type(None)):
        raise UnreadableError(f"its input is {shape}", "square RGB images are wanted")
    return height


def _norm(layer: ConfigLayer) -> tuple[float, float]:
    """Returns epsilon and torch's momentum of a batch normalisation."""
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


def _head(dense: ConfigLayer, last: list[ConfigLayer]) -> tuple[int, str]:
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
    for name, arrays in layers.items():
        place = _place_of(name, arrays)
        if place is None:
            raise UnreadableError(f"its layer {name} is not Xception's", "nothing may be left over")
        if place in stored:
            raise UnreadableError(f"two layers can be {place!r}: {stored[place]}, {name}")
        stored[place] = name
        if place == "head":
            classes = arrays["kernel"].shape[1:]
            bias = {"bias": classes} if "bias" in arrays else {}
            slots[place] = _slot("classifier", {"kernel": (2048, *classes), **bias})
    found: dict[KerasArray, h5py.Dataset] = {}
    for place, slot in slots.items():
        name = stored.get(place, "")
        arrays = layers.get(name, {})
        if arrays.keys() != slot.keys():
            wanted = ", ".join(f"{kind} {list(shape)}" for kind, (_, shape) in slot.items())
            have = f"{name!r} has {', '.join(arrays)}" if name else f"{place!r} is missing"
            raise UnreadableError(f"layer {have}; Xception has {wanted} there")
        for kind, (ours, shape) in slot.items():
            array, path = arrays[kind], str(arrays[kind].name).strip("/")
            if array.shape != shape or array.dtype.kind != "f":
                raise UnreadableError(
                    f"array {path} of layer {name!r} is {array.dtype} {list(array.shape or ())}, "
                    f"not floats {list(shape)}",
                    "it is no Xception's",
                )
            found[KerasArray(path, ours, shape)] = array
    return found


def _refuse_other_networks(layers: StoredLayers) -> None:
    """Says what other networks are, where that is known."""
    kernels = [arrays["kernel"].shape for arrays in layers.values() if "kernel" in arrays]
    widths = [shape[0] for shape in kernels if len(shape) == 2]
    only = "of Keras's networks only Xception is read"
    if 1024 in widths and 16 in widths:
        raise UnreadableError("it is a MesoNet (Afchar et al. 2018)", only)
    if not any("block1_conv1" in name or "/" in name for name in layers):
        names = f"its layers are {', '.join([*layers][:4])} and so on"
        raise UnreadableError(f"it is no Xception: {names if layers else 'it has no layers'}", only)


def _place_of(name: str, arrays: Mapping[str, h5py.Dataset]) -> str | None:
    """Returns which layer of Xception, or the head, a stored layer is."""
    shapes = {kind: array.shape for kind, array in arrays.items()}
    if len(shapes.get("kernel", ())) == 2:
        return "head"
    if "/" in name:  # a place, as the file has no name
        return _NUMBERED.get(name.rpartition("/")[2])
    plain = re.sub(r"(_\d+)+$", "", name)  # a session may have added a number: block1_conv1_3
    if plain in SLOTS:
        return plain
    for place, slot in SLOTS.items():
        if "residual" in place and {kind: shape for kind, (_, shape) in slot.items()} == shapes:
            return place
    return None


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
