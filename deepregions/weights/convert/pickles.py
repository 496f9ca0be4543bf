"""Torch checkpoints from strangers: tensors and plain containers, and never any code.

What ``torch.load(weights_only=True)`` loads is loaded by it. Other files, such as whole pickled
networks, are read by :mod:`deepregions.weights.convert.inert`, from torch's zip format and from
the one before torch 1.6. Sizes are checked against the file's own before anything is read.
"""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deepregions.errors import UnreadableError, UsageError
from deepregions.weights.convert.inert import unpickle
from deepregions.weights.convert.shells import MAX_DIMENSIONS, Shell, StorageKind

MAX_ENTRIES = 100_000
MAX_ARRAYS = 20_000
MAX_DEPTH = 64
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_ZIP = b"PK\x03\x04"
_WRAPPERS = ("net", "state_dict", "model_state_dict", "model", "params")
_UNREADABLE = (  # what torch raises for files that are broken, or that it does not read
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    SyntaxError,
    struct.error,
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of a safetensors file or of any torch checkpoint, by name, on the CPU.

    Args:
        path: The file. Its content says what it is, not its name.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is broken, is neither, holds no arrays, or asks for code to be run.
    """
    arrays = read_safetensors(path)
    if arrays is not None:
        return arrays
    tree = read_checkpoint(path)
    try:
        return state_dict_of(tree)
    except UnreadableError as error:
        raise UnreadableError(f"{path}: {error.args[0]}", error.hint) from error


def read_safetensors(path: Path) -> dict[str, Tensor] | None:
    """Returns the arrays of a safetensors file, or None if it is no such file.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is broken, or holds no arrays.
    """
    with _opened(path) as stream:
        head = stream.read(9)
    if len(head) < 9 or head[8:] != b"{":
        return None
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UnreadableError(f"{path} cannot be read as safetensors: {reason}") from error
    if not arrays:
        raise UnreadableError(f"{path} holds no arrays")
    return arrays


def read_checkpoint(path: Path) -> Any:
    """Returns what a torch checkpoint holds: tensors on the CPU in plain containers.

    Nothing in the file is executed. Objects of known networks' classes come as
    :class:`~deepregions.weights.convert.shells.Shell`.

    Args:
        path: A file of ``torch.save``, of today's format or of the one before torch 1.6.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is broken, is no such file, or names classes or functions other than
            the known ones; the message has the name.
    """
    with _opened(path) as stream:
        zipped = stream.read(4) == _ZIP
    try:
        if zipped:
            _check_zip(path)
        try:
            return _load_with_torch(path)
        except _UNREADABLE:
            return _read_zip(path) if zipped else _read_legacy(path)
    except UnreadableError as error:
        raise UnreadableError(
            f"{path} cannot be read as a torch checkpoint: {error.args[0]}",
            "nothing of it was run",
        ) from error
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from error


def state_dict_of(tree: Any) -> dict[str, Tensor]:
    """Returns the arrays of a checkpoint: a state dict, one with other facts, or a network.

    Args:
        tree: What :func:`read_checkpoint` returns.

    Raises:
        UnreadableError: It holds no arrays by name.
    """
    if isinstance(tree, Shell):
        return dict(_flattened(tree))
    if isinstance(tree, Mapping):
        arrays = {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if arrays and len(arrays) == len(tree):
            return {key: _plain(key, value) for key, value in arrays.items()}
        for key in _WRAPPERS:
            if isinstance(tree.get(key), Mapping | Shell):
                return state_dict_of(tree[key])
    raise UnreadableError("it holds no arrays by name", "a state dict or a network is wanted")


def _flattened(network: Shell) -> Iterator[tuple[str, Tensor]]:
    """Yields what the state dict of a pickled network would hold."""
    waiting = [("", network, 0)]
    seen = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_ARRAYS:
            raise UnreadableError("a network that contains itself, or is far too large")
        hidden = module.state.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, value in _mapping(module, kind).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                    yield f"{prefix}{name}", _plain(f"{prefix}{name}", value)
        for name, child in _mapping(module, "_modules").items():
            if isinstance(child, Shell):
                waiting.append((f"{prefix}{name}.", child, depth + 1))


def _mapping(module: Shell, kind: str) -> dict[Any, Any]:
    value = module.state.get(kind, {})
    if not isinstance(value, dict):
        raise UnreadableError(f"{module.kind}: its {kind} are no dict")
    return value


def _plain(name: str, value: Tensor) -> Tensor:
    """Checks that an array is an ordinary one, of no more numbers than are stored."""
    if (
        value.layout != torch.strided
        or value.is_quantized
        or value.device.type != "cpu"
        or value.dim() > MAX_DIMENSIONS
    ):
        raise UnreadableError(f"the array {name} is not a plain one")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UnreadableError(f"the array {name} has more numbers than are stored")
    return value.detach()


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from error


def _load_with_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old formats, which are why one imports
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_zip(path: Path) -> list[zipfile.ZipInfo]:
    """Checks that an archive is as torch writes it: stored, and no larger than the file.

    Torch itself would unpack a compressed one, however much comes out.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise UnreadableError(f"a broken archive: {error}") from error
    if len(entries) > MAX_ENTRIES:
        raise UnreadableError(f"an archive of {len(entries)} parts")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnreadableError(f"its part {entry.filename!r} is compressed, as torch never does")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UnreadableError("an archive that claims to hold more than the file's own size")
    if len({entry.filename for entry in entries}) != len(entries):
        raise UnreadableError("an archive with two parts of the same name")
    return entries


def _read_zip(path: Path) -> Any:
    """Reads the format since torch 1.6: an archive of a pickle, and a part for each storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {entry.filename for entry in archive.infolist()}
            (main,) = [name for name in names if name.split("/")[1:] == ["data.pkl"]] or [""]
            if not main:
                raise UnreadableError("an archive without a data.pkl is not torch's")
            root = main.removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in names and archive.read(order) != b"little":
                raise UnreadableError("numbers in an unusual byte order")
            storages: dict[str, Tensor] = {}

            def persistent(key: Any) -> Tensor:
                kind, name, count = _storage_id(key)
                if name not in storages:
                    part = f"{root}data/{name}"
                    if part not in names:
                        raise UnreadableError(f"its part {part!r} is missing")
                    storages[name] = _numbers(bytearray(archive.read(part)), kind, count)
                if storages[name].dtype != kind.dtype or len(storages[name]) < count:
                    raise UnreadableError(f"two different accounts of the storage {name!r}")
                return storages[name]

            with archive.open(main) as stream:
                return unpickle(stream, persistent)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise UnreadableError(f"a broken archive: {error}") from error


def _storage_id(key: Any) -> tuple[StorageKind, str, int]:
    """Checks ``("storage", kind, name, device, count)``, as torch names a storage."""
    if type(key) is not tuple or len(key) not in (5, 6) or key[0] != "storage":
        raise UnreadableError("something that is no storage")
    _, kind, name, _, count = key[:5]
    if not isinstance(kind, StorageKind) or type(name) is not str or type(count) is not int:
        raise UnreadableError("a storage without type, name or size")
    return kind, name, count


def _numbers(data: bytearray, kind: StorageKind, count: int) -> Tensor:
    stored = len(data) // kind.dtype.itemsize
    if not 0 <= count <= stored:
        raise UnreadableError(f"a storage that claims {count} numbers and has {stored}")
    return torch.frombuffer(data, dtype=kind.dtype) if stored else torch.empty(0, dtype=kind.dtype)


class _Legacy:
    """The format before torch 1.6: four pickles, a list of keys, then the storages one by one.

    The tensors come before their numbers. So everything is read twice: first the pickles, which
    say what storages there are, then their numbers, then the pickles again.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream = stream
        self.size = size
        self.kinds: dict[str, tuple[StorageKind, int]] = {}
        self.storages: dict[str, Tensor] = {}

    def read(self) -> Any:
        self._read_header()
        start = self.stream.tell()
        unpickle(self.stream, self._note)
        keys = unpickle(self.stream, _no_storage)
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise UnreadableError("its list of storages is no list")
        for key in keys:
            self._read_storage(key)
        if self.kinds.keys() - self.storages.keys():
            raise UnreadableError("storages are missing at its end")
        self.stream.seek(start)
        return unpickle(self.stream, self._recall)

    def _read_header(self) -> None:
        if unpickle(self.stream, _no_storage) != LEGACY_MAGIC:
            raise UnreadableError("it does not begin as torch's files do")
        if unpickle(self.stream, _no_storage) != LEGACY_PROTOCOL:
            raise UnreadableError("an unknown version of torch's format")
        facts = unpickle(self.stream, _no_storage)
        if type(facts) is not dict or facts.get("little_endian", True) is not True:
            raise UnreadableError("numbers in an unusual byte order")

    def _note(self, key: Any) -> Any:
        """Stands in for a storage whose numbers are not read yet."""
        if _is_class_source(key):
            return key[1]
        kind, name, count = _storage_id(key)
        if not 0 <= count * kind.dtype.itemsize <= self.size:
            raise UnreadableError(f"a storage that claims {count} numbers, more than the file has")
        self.kinds.setdefault(name, (kind, count))
        return torch.empty(count, dtype=kind.dtype, device="meta")

    def _recall(self, key: Any) -> Any:
        if _is_class_source(key):
            return key[1]
        kind, name, count = _storage_id(key)
        storage = self.storages[name]
        if storage.dtype != kind.dtype or len(storage) != count:
            raise UnreadableError(f"two different accounts of the storage {name!r}")
        view = key[5] if len(key) == 6 else None
        if view is None:
            return storage
        if type(view) is not tuple or len(view) != 3 or not all(type(x) is int for x in view[1:]):
            raise UnreadableError("a view of a storage without place and size")
        _, first, length = view
        if not 0 <= first <= first + length <= count:
            raise UnreadableError("a view that does not lie within its storage")
        return storage[first : first + length]

    def _read_storage(self, key: str) -> None:
        if key not in self.kinds or key in self.storages:
            raise UnreadableError(f"numbers of the storage {key!r}, which nothing uses")
        kind, count = self.kinds[key]
        (stored,) = struct.unpack("<q", self.stream.read(8))
        length = count * kind.dtype.itemsize
        if stored != count or self.stream.tell() + length > self.size:
            raise UnreadableError(f"a storage that claims {count} numbers and has not as many")
        self.storages[key] = _numbers(bytearray(self.stream.read(length)), kind, count)


def _is_class_source(key: Any) -> bool:
    """Tells whether a persistent id is a class with its source text, which is not looked at."""
    return type(key) is tuple and len(key) == 4 and key[0] == "module"


def _no_storage(_: Any) -> Any:
    raise UnreadableError("a storage where none can be")


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            return _Legacy(_Bounded(stream, size), size).read()  # type: ignore[arg-type]
        except (struct.error, KeyError) as error:
            raise UnreadableError(f"it ends too early: {error}") from error


class _Bounded:
    """A file that allocates no more than it has, whatever length is asked for."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._size = size
        self.tell = stream.tell
        self.seek = stream.seek

    def read(self, length: int) -> bytes:
        return self._stream.read(min(length, self._size - self._stream.tell()))

    def readline(self) -> bytes:
        return self._stream.readline()
