"""What stands for the classes and functions that a pickle names.

Nothing here is the class or function itself: names of known classes become inert objects, and the
few functions that rebuild tensors and containers have counterparts here that check what they get.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deepregions.errors import UnreadableError

MAX_DIMENSIONS = 8

# Modules whose classes may stand in a pickled network. Nothing of them is imported.
_KNOWN_MODULES = re.compile(
    r"(torch\.nn\.(modules|parallel)\.\w+|torch\.nn\.parameter"
    r"|torchvision\.models\.(resnet|vgg)"
    r"|pretrainedmodels\.models\.xception|network\.(models|xception)"
    r"|(src\.Capsule\.)?model_big|(src\.DSP\.)?classifier"
    r"|py_utils\.DL\.pytorch_utils\.models\.classifier"
    r"|(training\.)?networks\.(xception|base_backbone)"
    r"|(training\.)?detectors\.(base|xception|fwa|capsule_net)_detector)"
)
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class RefusedError(UnreadableError):
    """A pickle asks for something that is not done here; the message names it."""


@dataclass(frozen=True)
class ClassName:
    """The name of a known class, in place of the class."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Shell:
    """What a file says of an object: the name of its class, and its attributes."""

    kind: ClassName
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StorageKind:
    """The element type of a storage."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Function:
    """One of this module's functions, in place of what the file names."""

    name: str
    call: Callable[[Sequence[Any]], Any]


def plain_key(value: Any) -> Hashable:
    """Returns a key or an element of a set; only plain ones, whose hash is Python's own.

    Raises:
        RefusedError: It is another.
    """
    if value is None or type(value) in (str, bytes, int, float, bool):
        hashable: Hashable = value
        return hashable
    raise RefusedError(f"{kind_of(value)} as a key is refused")


def kind_of(value: Any) -> str:
    """Returns what an operand is called in messages."""
    if isinstance(value, Function | ClassName):
        return str(getattr(value, "name", value))
    return str(value.kind) if isinstance(value, Shell) else f"a {type(value).__name__}"


def named(module: str, name: str) -> Any:
    """Returns what stands here for a class or function that a file names.

    Raises:
        RefusedError: It is none of the known ones.
    """
    full = f"{module}.{name}"
    if full in _FUNCTIONS:
        return _FUNCTIONS[full]
    if module in ("torch", "torch.cuda") and name in _DTYPES:
        return StorageKind(_DTYPES[name])
    if full == "torch.storage.UntypedStorage":
        return StorageKind(torch.uint8)
    if _KNOWN_MODULES.fullmatch(module) and _CLASS_NAME.fullmatch(name):
        return ClassName(module, name)
    raise RefusedError(f"the pickle asks for {full[:200]!r}, which is refused")


def _tensor(arguments: Sequence[Any]) -> Tensor:
    """Lays a tensor over a storage, as ``torch._utils._rebuild_tensor_v2``, within its bounds."""
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, Tensor) or storage.dim() != 1:
        raise UnreadableError("a tensor without a storage")
    shape, steps = _numbers(size), _numbers(stride)
    (start,) = _numbers((offset,))
    if len(shape) != len(steps) or len(shape) > MAX_DIMENSIONS:
        raise UnreadableError(f"a tensor of {len(shape)} sides and {len(steps)} strides")
    count = math.prod(shape)
    last = start + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise UnreadableError(
            f"a tensor of {list(shape)} that does not lie within its {len(storage)} numbers"
        )
    if not count:
        return storage.new_empty(shape) if max(shape) < 1 << 40 else storage.new_empty(0)
    return torch.as_strided(storage, shape, steps, start)


def _numbers(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or not all(
        type(value) is int and 0 <= value < 1 << 40 for value in values
    ):
        raise UnreadableError("a tensor whose size is not made of numbers")
    return tuple(values)


def _parameter(arguments: Sequence[Any]) -> Tensor:
    if not arguments or not isinstance(arguments[0], Tensor):
        raise UnreadableError("a parameter that is no tensor")
    return arguments[0]


def _mapping(arguments: Sequence[Any]) -> dict[Any, Any]:
    """Makes a dict of nothing, or of pairs (as Python 2 wrote OrderedDict)."""
    if not arguments:
        return {}
    (entries,) = arguments
    if type(entries) is not list or not all(
        type(pair) in (list, tuple) and len(pair) == 2 for pair in entries
    ):
        raise RefusedError("a dict that is not made of pairs is refused")
    return {plain_key(key): value for key, value in entries}


def _set(arguments: Sequence[Any]) -> set[Any]:
    if not arguments:
        return set()
    (entries,) = arguments
    if type(entries) not in (list, tuple):
        raise RefusedError("a set that is not made of a list is refused")
    return {plain_key(value) for value in entries}


def _size(arguments: Sequence[Any]) -> tuple[int, ...]:
    (entries,) = arguments
    return _numbers(entries)


def _device(arguments: Sequence[Any]) -> str:
    return ":".join(str(part) for part in arguments if type(part) in (str, int))


def _nothing(_: Sequence[Any]) -> None:
    return None


_FUNCTIONS = {
    name: Function(name, call)
    for name, call in (
        ("collections.OrderedDict", _mapping),
        ("__builtin__.set", _set),
        ("builtins.set", _set),
        ("torch.Size", _size),
        ("torch.device", _device),  # in networks that ran on several
        ("torch.nn.backends.thnn._get_thnn_function_backend", _nothing),  # in all until torch 1.3
        ("torch._utils._rebuild_tensor", _tensor),
        ("torch._utils._rebuild_tensor_v2", _tensor),
        ("torch._utils._rebuild_parameter", _parameter),
        ("torch._utils._rebuild_parameter_with_state", _parameter),
    )
}
