"""Xceptions trained in Keras, converted to ours without Keras or TensorFlow.

The files are read with h5py and json alone (:mod:`~deepregions.weights.convert.keras_files`); their
layers are found by the graph in their configuration
(:mod:`~deepregions.weights.convert.keras_graph`),
or by name where they have none (:mod:`~deepregions.weights.convert.keras_mapping`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError
from deepregions.files import atomic_file, sha256
from deepregions.weights.convert.keras_files import KerasFile, open_keras
from deepregions.weights.convert.keras_graph import (
    IMAGENET_CLASSES,
    Normalisation,
    XceptionLayers,
    find_xception,
)
from deepregions.weights.convert.keras_layers import LAYERS, Slot
from deepregions.weights.convert.keras_mapping import Assigned, assign

if TYPE_CHECKING:
    from deepregions.detectors import Xception

DEFAULT_FAKE_INDEX = 0  # BiDA's: its folders are called fake and real, and Keras sorts them
DEFAULT_SIZE = 200  # BiDA's
BN_EPS = 1e-3
BN_MOMENTUM = 0.01
_MODULES = {  # Keras's kind of array: our module's suffix and array
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
            found = None if file.config is None else find_xception(file.config)
            assigned = assign(file, found)
            yield file, _report(path, file, found, assigned), assigned
    except UnreadableError as error:
        raise UnreadableError(f"{path}: {error.args[0]}", error.hint) from error


def _report(
    path: Path, file: KerasFile, found: XceptionLayers | None, assigned: Assigned
) -> KerasReport:
    heads = [slot for slot in assigned if slot.kind == "dense"]
    classes = heads[0].shapes["kernel"][1] if heads else 0
    activation = {1: "sigmoid"}.get(classes, "softmax") if found is None else found.activation
    if classes not in (0, 1, 2, IMAGENET_CLASSES):
        raise UnreadableError(f"its head has {classes} classes", "1, 2 or 1000 are wanted")
    notes = []
    if found is None:
        notes.append(
            f"the file has no configuration: epsilon {BN_EPS:g}"
            + (f" and {activation} are assumed" if heads else " is assumed")
        )
    elif classes and activation == "linear":
        notes.append("the head has no activation: its numbers are taken as logits")
    if classes in (1, 2) and (found is None or found.normalisation is None):
        notes.append("pixels are taken as x/255, as BiDA's program gives them")
    if classes == IMAGENET_CLASSES:
        notes.append("the head is ImageNet's: only the backbone is converted, it scores no fakes")
    return KerasReport(
        source=path.name,
        format=file.format,
        size=found.size if found else None,
        head=f"Dense({classes}, {activation})" if heads else "none",
        classes=classes,
        normalisation=found.normalisation if found else None,
        bn_eps=found.bn_eps if found else BN_EPS,
        bn_momentum=found.bn_momentum if found else BN_MOMENTUM,
        arrays=tuple(
            KerasArray(layer.arrays[kind].path, _our_name(slot, kind), shape)
            for slot, layer in assigned.items()
            for kind, shape in slot.shapes.items()
        ),
        notes=tuple(notes),
    )


def _our_name(slot: Slot, kind: str) -> str:
    return f"{slot.ours}.{_MODULES[kind]}"


def _state(
    file: KerasFile, assigned: Assigned, fake_index: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state dict, and the arrays whose numbers are not all finite."""
    state: dict[str, Tensor] = {}
    odd = []
    for slot in (*LAYERS, *(slot for slot in assigned if slot.kind == "dense")):
        if slot.kind == "dense" and fake_index is None:
            continue
        for kind in slot.shapes:
            array = assigned[slot].arrays[kind]
            values = file.read(array)
            if not np.isfinite(values).all():
                odd.append(array.path)
            state[_our_name(slot, kind)] = torch.from_numpy(_ours(kind, values))
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


def _ours(kind: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns an array in torch's layout."""
    if values.ndim == 2:
        values = values.T
    elif kind == "depthwise_kernel":
        height, width, channels, multiplier = values.shape
        values = values.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    elif values.ndim == 4:
        values = values.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(values)
