"""Reading pickles without running them.

A pickle is a program, and Python's unpickler runs it. Here its instructions are interpreted one
by one with nothing but plain containers, numbers, text and tensors to work on: no name in the
file is ever looked up, no object of a foreign class is ever made, and nothing is ever called but
the few functions of this module. Classes of known networks become :class:`Shell` objects, which
only keep what the file says of them.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import torch
from torch import Tensor

from deepregions.errors import UnreadableError

MAX_INSTRUCTIONS = 5_000_000
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


class _Mark:
    """Where a group of operands starts on the stack."""


@dataclass(frozen=True)
class _Function:
    """One of the functions below, in place of what the file names."""

    name: str
    call: Callable[[Sequence[Any]], Any]


def unpickle(stream: IO[bytes], persistent: Callable[[Any], Any]) -> Any:
    """Reads one pickle.

    Args:
        stream: Left behind the pickle's last byte.
        persistent: What a persistent id, as torch writes them for storages, stands for.

    Returns:
        None, bool, int, float, str, bytes, tensors, :class:`Shell`, dict, list, tuple and set.

    Raises:
        RefusedError: It names a class or function that is not among the known ones, or does
            something that a checkpoint has no reason to do.
        UnreadableError: It is no pickle, or is broken.
    """
    machine = _Machine(persistent)
    try:
        return machine.run(stream)
    except (
        ValueError,  # of pickletools, and of numbers and text that are none
        pickle.UnpicklingError,
        TypeError,  # such as a list as a key
        LookupError,
        OverflowError,
        RuntimeError,  # of torch
        MemoryError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UnreadableError(f"a broken pickle: {reason}") from error


class _Machine:
    """A stack, a memo, and what each instruction does with them."""

    def __init__(self, persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent

    def run(self, stream: IO[bytes]) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise RefusedError(f"a pickle of more than {MAX_INSTRUCTIONS} instructions")
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _BUILT:
                self.stack.append(_BUILT[name]())
            elif name in _DONE:
                _DONE[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"the pickle instruction {name} is refused")
        raise UnreadableError("a pickle without an end")

    def pop(self) -> Any:
        """Takes the topmost operand, which must not be a mark."""
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise UnreadableError("a broken pickle: an operand is missing")
        return self.stack.pop()

    def top(self) -> Any:
        """Returns the topmost operand and leaves it."""
        value = self.pop()
        self.stack.append(value)
        return value

    def group(self) -> list[Any]:
        """Takes all operands down to the last mark, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                operands = self.stack[place + 1 :]
                del self.stack[place:]
                return operands
        raise UnreadableError("a broken pickle: a mark is missing")

    def operands(self, count: int) -> list[Any]:
        """Takes this many operands, the first one first."""
        return [self.pop() for _ in range(count)][::-1]

    def remember(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.top()

    def append(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise RefusedError(f"appending to {_kind(target)} is refused")
        target.extend(values)

    def add(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not set:
            raise RefusedError(f"adding to {_kind(target)} is refused")
        target.update(_key(value) for value in values)

    def set_items(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not dict:
            raise RefusedError(f"setting items of {_kind(target)} is refused")
        target.update(_pairs(values))

    def call(self) -> None:
        function, arguments = self.operands(2)
        if not isinstance(function, _Function) or type(arguments) is not tuple:
            raise RefusedError(f"calling {_kind(function)} is refused")
        self.stack.append(function.call(arguments))

    def new(self) -> None:
        kind, arguments = self.operands(2)
        if isinstance(kind, _Function) and kind.name == "collections.OrderedDict":
            self.stack.append(kind.call(arguments))
        elif isinstance(kind, ClassName) and arguments == ():
            self.stack.append(Shell(kind))
        else:
            raise RefusedError(f"making {_kind(kind)} with arguments is refused")

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Shell) and type(state) is dict:
            target.state.update(state)
        elif not (type(target) is dict and type(state) is dict):
            # A state dict's own attributes (``_metadata``) are of no use here, and passed over.
            raise RefusedError(f"setting the state of {_kind(target)} is refused")


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


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.stack.append(named(module, name))


def _stack_global(machine: _Machine, _: Any) -> None:
    module, name = machine.operands(2)
    if type(module) is not str or type(name) is not str:
        raise RefusedError("a class whose name is no text is refused")
    machine.stack.append(named(module, name))


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        machine.stack.append(make(machine))

    return step


def _recall(machine: _Machine, place: Any) -> None:
    if place not in machine.memo:
        raise UnreadableError("a broken pickle: it recalls what it never kept")
    machine.stack.append(machine.memo[place])


def _drop(machine: _Machine, _: Any) -> None:
    if not machine.stack:
        raise UnreadableError("a broken pickle: an operand is missing")
    machine.stack.pop()


def _pairs(values: Sequence[Any]) -> dict[Hashable, Any]:
    if len(values) % 2:
        raise UnreadableError("a broken pickle: a key without a value")
    return {_key(values[i]): values[i + 1] for i in range(0, len(values), 2)}


def _key(value: Any) -> Hashable:
    """Returns a key or an element of a set; only plain ones, whose hash is Python's own."""
    if value is None or type(value) in (str, bytes, int, float, bool):
        hashable: Hashable = value
        return hashable
    raise RefusedError(f"{_kind(value)} as a key is refused")


def _kind(value: Any) -> str:
    if isinstance(value, _Function | ClassName):
        return str(getattr(value, "name", value))
    return str(value.kind) if isinstance(value, Shell) else f"a {type(value).__name__}"


_LITERALS = {
    *("NONE", "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_BUILT: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": _Mark,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_DONE: dict[str, Callable[[_Machine, Any], None]] = {
    "APPEND": lambda m, _: m.append(m.operands(1)),
    "APPENDS": lambda m, _: m.append(m.group()),
    "ADDITEMS": lambda m, _: m.add(m.group()),
    "SETITEM": lambda m, _: m.set_items(m.operands(2)),
    "SETITEMS": lambda m, _: m.set_items(m.group()),
    "LIST": _push(lambda m: m.group()),
    "TUPLE": _push(lambda m: tuple(m.group())),
    "TUPLE1": _push(lambda m: tuple(m.operands(1))),
    "TUPLE2": _push(lambda m: tuple(m.operands(2))),
    "TUPLE3": _push(lambda m: tuple(m.operands(3))),
    "DICT": _push(lambda m: _pairs(m.group())),
    "FROZENSET": _push(lambda m: {_key(value) for value in m.group()}),
    "POP": _drop,
    "POP_MARK": lambda m, _: m.group().clear(),
    "DUP": _push(lambda m: m.top()),
    "MEMOIZE": lambda m, _: m.remember(None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": _push(lambda m: m.persistent(m.pop())),
}


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
    return {_key(key): value for key, value in entries}


def _set(arguments: Sequence[Any]) -> set[Any]:
    if not arguments:
        return set()
    (entries,) = arguments
    if type(entries) not in (list, tuple):
        raise RefusedError("a set that is not made of a list is refused")
    return {_key(value) for value in entries}


def _size(arguments: Sequence[Any]) -> tuple[int, ...]:
    (entries,) = arguments
    return _numbers(entries)


def _device(arguments: Sequence[Any]) -> str:
    return ":".join(str(part) for part in arguments if type(part) in (str, int))


def _nothing(_: Sequence[Any]) -> None:
    return None


_FUNCTIONS = {
    name: _Function(name, call)
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
