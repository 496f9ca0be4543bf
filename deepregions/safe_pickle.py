"""Pickled checkpoints from strangers, safely: tensors and plain containers, and never any code.

``torch.load(weights_only=True)`` reads them. Whole pickled networks name classes, which it
refuses: known names get inert stand-ins (:class:`StandIn`), whatever else a file names stays
refused, and nothing of a file is looked up, imported or run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError, naming, printable
from deepregions.files import refuse_stand_in

MAX_INSTRUCTIONS = 5_000_000
MAX_WORD = 4000  # letters without a space
MAX_MODULES = 20_000
MAX_DIMENSIONS = 8
_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_PICKLES = 5  # of the format before torch 1.6: three of its head, the tree, the storages
_WRAPPERS = ("net", "state_dict", "model_state_dict", "model", "params")

# Classes of known networks, and what checkpoints hold beside arrays (options, best scores).
_KNOWN = re.compile(
    r"(torch\.nn\.(modules|parallel)\.\w+|torchvision\.models\.(resnet|vgg)"
    r"|pretrainedmodels\.models\.xception|network\.(models|xception)"
    r"|(src\.Capsule\.)?model_big|(src\.DSP\.)?classifier"
    r"|py_utils\.DL\.pytorch_utils\.models\.classifier"
    r"|(training\.)?networks\.(xception|base_backbone)"
    r"|(training\.)?detectors\.(base|xception|fwa|capsule_net)_detector)\.[A-Za-z_]\w*"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend"  # in all modules until torch 1.3
    r"|argparse\.Namespace|pathlib\.\w*Path|numpy\.(dtype|ndarray)"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)",
    re.ASCII,
)
_CLASS_OF = "deepregions.class_of"
_BROKEN = (  # what torch and zipfile raise for files that are broken, or that they do not read
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, SafetensorError),
    *(RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, ImportError, SyntaxError),
)


class StandIn:
    """Stands for an object of a known class, and keeps the attributes that the file gives it."""

    __slots__ = ("state",)
    state: dict[Any, Any]

    def __new__(cls, *_: Any) -> StandIn:  # noqa: D102
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        if type(state) is dict:
            self.state.update(state)


def format_of(path: Path) -> Literal["keras", "safetensors", "torch"]:
    """Tells which program reads a file of weights, by how it begins.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It cannot be opened, or is what is often saved in a file's stead.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            head = stream.read(256)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise UnreadableError(f"{path}: the file is empty", "get another copy")
    refuse_stand_in(path, head, "the weights themselves")
    if head.startswith(_ZIP):
        # What is wrong with an archive is for its reader to say.
        with suppress(*_BROKEN), zipfile.ZipFile(path) as archive:
            return "keras" if "config.json" in archive.namelist() else "torch"
    if head.startswith(_HDF5):
        return "keras"
    return "safetensors" if head[8:9] == b"{" else "torch"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of a safetensors file or of any torch checkpoint, by name, on the CPU."""
    with naming(path):
        return state_dict_of(read_checkpoint(path))


def read_checkpoint(path: Path) -> Any:
    """Returns what a checkpoint holds: tensors on the CPU in plain containers.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is broken, is no such file, or names classes or functions other than
            the known ones; the message has the name.
    """
    names: dict[str, None] = {}
    form = format_of(path)
    try:
        if form == "safetensors":
            return load_file(path)
        with path.open("rb") as stream:
            zipped = stream.read(4) == _ZIP
        if not zipped:
            return _load(_without_sources(path.read_bytes(), names), names)
        for _ in _instructions(io.BytesIO(_pickle_of_zip(path)), names):
            pass
        return _load(path, names)
    except (UnreadableError, *_BROKEN) as error:
        reason = str(error.args[-1]).partition("\n")[0]
        raise UnreadableError(
            f"{path} cannot be read as weights: {reason}", "nothing of it was run"
        ) from error


def state_dict_of(tree: Any) -> dict[str, Tensor]:
    """Returns the arrays by name of a checkpoint: a state dict, one with other facts, a network.

    Raises:
        UnreadableError: It holds no arrays by name.
    """
    arrays: dict[str, Tensor] = {}
    if isinstance(tree, StandIn):
        arrays = dict(_flattened(tree))
    elif isinstance(tree, Mapping):
        arrays = {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if len(arrays) < len(tree):
            for key in _WRAPPERS:
                if isinstance(tree.get(key), Mapping | StandIn):
                    return state_dict_of(tree[key])
            arrays = {}
    if not arrays:
        raise UnreadableError("it holds no arrays by name", "a state dict or a network is wanted")
    for key, value in arrays.items():
        plain = value.layout == torch.strided and not value.is_quantized
        if not plain or value.device.type != "cpu" or value.dim() > MAX_DIMENSIONS:
            raise UnreadableError(f"the array {key} is not a plain one")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UnreadableError(f"the array {key} has more numbers than are stored")
    return {key: value.detach() for key, value in arrays.items()}


def _flattened(network: StandIn) -> Iterator[tuple[str, Tensor]]:
    waiting = [("", network)]
    for _ in range(MAX_MODULES):
        prefix, module = waiting.pop()
        hidden = module.state.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers", "_modules"):
            members = module.state.get(kind, {})
            for name, value in members.items() if isinstance(members, dict) else ():
                if isinstance(value, StandIn):
                    waiting.append((f"{prefix}{name}.", value))
                elif isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                    yield f"{prefix}{name}", value
        if not waiting:
            return
    raise UnreadableError("a network that contains itself, or is far too large")


def _load(file: Path | IO[bytes], names: Iterable[str]) -> Any:
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_class_of, _CLASS_OF)]
    for name in filter(_KNOWN.fullmatch, names):
        module, _, own = name.rpartition(".")
        allowed.append((type(own, (StandIn,), {"__slots__": (), "__module__": module}), name))
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # old formats, which are why one imports
            return torch.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise UnreadableError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    text = str(error)
    if name := re.search(r"GLOBAL (\S+)", text):
        return f"the pickle asks for {name[1][:200]!r}, which is refused"
    # torch's own first line says no more than that it refuses.
    reason = text.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return f"a broken pickle is refused: {printable(reason[:300]) or type(error).__name__}"


def _class_of(kind: str, cls: type, *_: object) -> type:
    """Returns a class that a file names together with its source text, which is not looked at."""
    if kind != "module" or not (isinstance(cls, type) and issubclass(cls, StandIn)):
        raise TypeError("something that is no storage")
    return cls


def _pickle_of_zip(path: Path) -> bytes:
    """Returns the pickle in an archive; compressed parts, which torch would unpack, are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            for entry in entries.values():
                stored = entry.compress_type == zipfile.ZIP_STORED
                if not stored or entry.file_size != entry.compress_size:
                    raise UnreadableError(
                        f"its part {entry.filename!r} is compressed, as torch never does"
                    )
            if len(entries) < len(archive.infolist()):
                raise UnreadableError("an archive with two parts of the same name")
            if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
                raise UnreadableError("an archive that claims to hold more than the file's size")
            found = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
            if not found:
                raise UnreadableError("an archive without a data.pkl is not torch's")
            return archive.read(found[0])
    except _BROKEN as error:
        raise UnreadableError(f"a broken archive: {error}") from error


def _without_sources(content: bytes, names: dict[str, None]) -> IO[bytes]:
    """Respells a file of the format before torch 1.6 for ``weights_only``; adds what it names."""
    # There a network's class is a persistent id, ("module", class, file name, source text), which
    # becomes a call of _class_of. Long texts of Python 2 become texts of Python 3.
    edits: list[tuple[int, int, bytes]] = []  # place, bytes taken away, bytes put in their stead
    stream = io.BytesIO(content)
    module, _, function = _CLASS_OF.rpartition(".")
    call = pickle.GLOBAL + f"{module}\n{function}\n".encode()
    for _ in range(_PICKLES):
        operands: deque[tuple[str, int]] = deque([("", 0)] * 6, maxlen=6)
        for opcode, place in _instructions(stream, names):
            if opcode == "BINSTRING":
                edits.append((place, 1, pickle.BINUNICODE))
            elif opcode == "BINPERSID" and operands[0][0] == "MARK":  # a tuple of four
                edits += [(operands[0][1], 0, call), (place, 1, pickle.REDUCE)]
            if "PUT" not in opcode:
                operands.append((opcode, place))
    pieces, done = [], 0
    for place, length, instead in sorted(edits):
        pieces += [content[done:place], instead]
        done = place + length
    return io.BytesIO(b"".join([*pieces, content[done:]]))


def _instructions(stream: IO[bytes], names: dict[str, None]) -> Iterator[tuple[str, int]]:
    """Yields name and place of a pickle's instructions, and adds the names that it asks for."""
    # Long words would keep torch busy for hours: its messages repeat whatever is called, and are
    # searched in quadratic time.
    try:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise UnreadableError(f"a pickle of more than {count} instructions is refused")
            if isinstance(argument, str) and len(argument) > MAX_WORD:
                word = max(argument.split(), key=len, default="")
                if len(word) > MAX_WORD:
                    raise UnreadableError(f"a word of {len(word)} letters is refused")
            if opcode.name == "GLOBAL":
                name = str(argument).replace(" ", ".")
                names[name] = None
                if name.endswith("builtin__.bytearray") or name == "builtins.bytearray":
                    raise UnreadableError(f"the pickle asks for {name!r}, which is refused")
            yield opcode.name, place or 0
    except ValueError as error:
        asks = f" that asks for {', '.join(map(repr, [*names][:3]))}" if names else ""
        reason = printable(str(error).partition("\n")[0][:200])
        raise UnreadableError(f"a broken pickle{asks} is refused: {reason}") from error
