"""Reading pickles without running them.

A pickle is a program, and Python's unpickler runs it. Here its instructions are interpreted one
by one with nothing but plain containers, numbers, text and tensors to work on: no name in the
file is ever looked up, no object of a foreign class is ever made, and nothing is ever called but
the few functions of :mod:`deepregions.weights.convert.shells`. Objects of known networks' classes
become
:class:`~deepregions.weights.convert.shells.Shell`, which only keeps what the file says of them.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Hashable, Sequence
from typing import IO, Any

from deepregions.errors import UnreadableError
from deepregions.weights.convert.shells import (
    ClassName,
    Function,
    RefusedError,
    Shell,
    kind_of,
    named,
    plain_key,
)

MAX_INSTRUCTIONS = 5_000_000


class _Mark:
    """Where a group of operands starts on the stack."""


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
            raise RefusedError(f"appending to {kind_of(target)} is refused")
        target.extend(values)

    def add(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not set:
            raise RefusedError(f"adding to {kind_of(target)} is refused")
        target.update(plain_key(value) for value in values)

    def set_items(self, values: Sequence[Any]) -> None:
        target = self.top()
        if type(target) is not dict:
            raise RefusedError(f"setting items of {kind_of(target)} is refused")
        target.update(_pairs(values))

    def call(self) -> None:
        function, arguments = self.operands(2)
        if not isinstance(function, Function) or type(arguments) is not tuple:
            raise RefusedError(f"calling {kind_of(function)} is refused")
        self.stack.append(function.call(arguments))

    def new(self) -> None:
        kind, arguments = self.operands(2)
        if isinstance(kind, Function) and kind.name == "collections.OrderedDict":
            self.stack.append(kind.call(arguments))
        elif isinstance(kind, ClassName) and arguments == ():
            self.stack.append(Shell(kind))
        else:
            raise RefusedError(f"making {kind_of(kind)} with arguments is refused")

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Shell) and type(state) is dict:
            target.state.update(state)
        elif not (type(target) is dict and type(state) is dict):
            # A state dict's own attributes (``_metadata``) are of no use here, and passed over.
            raise RefusedError(f"setting the state of {kind_of(target)} is refused")


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
    return {plain_key(values[i]): values[i + 1] for i in range(0, len(values), 2)}


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
    "FROZENSET": _push(lambda m: {plain_key(value) for value in m.group()}),
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
