"""Keras's files as plain data: a configuration, and which arrays each layer has.

Reads HDF5 of Keras 2, tf.keras and Keras 3, and ``.keras`` archives, through h5py alone. Nothing
in a file is run, and nothing outside it is read: links, external storage and virtual datasets are
refused. Broken files can make the HDF5 library loop or crash, so a process of its own reads each
file first (``python -m deepregions.weights.convert.keras_files FILE``).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from deepregions.errors import UnreadableError, UsageError

# Far above any Xception (84 MB, or 252 MB with Adam's state; 150 kB of configuration).
MAX_CONFIG = 16 << 20
MAX_WEIGHTS = 1 << 30
MAX_MEMBERS = 1000
MAX_OBJECTS = 20_000
MAX_NAMES = 10_000
TRIAL_SECONDS = 60.0
TRIAL_BYTES = 4 << 30
MEMBERS = {"config.json": MAX_CONFIG, "metadata.json": 1 << 20, "model.weights.h5": MAX_WEIGHTS}
_OUT_OF_MEMORY = 4
_BUILT_IN_FILTERS = range(7)  # deflate, shuffle, checksum and the like; no plugin is loaded
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError)

_KIND = re.compile(
    r"(depthwise_kernel|pointwise_kernel|kernel|bias|gamma|beta|moving_mean|moving_variance)"
    r"(?:_\d+)?(?::\d+)?"
)
_KINDS_BY_CLASS = {  # the order of a layer's arrays in Keras 3's own format
    "conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet.

    Attributes:
        path: Its full name in the HDF5 file.
        shape: Its shape.
        dtype: Its type as numpy sees it; ``object`` for what is no number.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class StoredLayer:
    """A layer's arrays.

    Attributes:
        place: Its group in the file, such as ``layers/functional/layers/conv2d_2``.
        name: Its name as its variables have it; empty where the file does not say.
        arrays: By kind: ``kernel``, ``gamma`` and so on.
    """

    place: str
    name: str
    arrays: Mapping[str, StoredArray]


@dataclass(frozen=True)
class KerasFile:
    """An open file.

    Attributes:
        format: What it is, in words.
        config: The model's configuration, parsed; None where the file has none.
        layers: All layers of the model that have arrays.
    """

    format: str
    config: dict[str, Any] | None
    layers: tuple[StoredLayer, ...]
    _file: h5py.File

    def read(self, array: StoredArray) -> npt.NDArray[np.float32]:
        """Returns an array as float32.

        Raises:
            UnreadableError: Its bytes are broken.
        """
        try:
            return np.asarray(self._file[array.path][()], dtype=np.float32)
        except _BROKEN as error:
            raise UnreadableError(f"array {array.path} cannot be read: {_line(error)}") from error


@contextmanager
def open_keras(path: Path) -> Iterator[KerasFile]:
    """Opens a Keras model or its weights.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is no Keras file, is broken, or reaches outside itself. The message
            does not name the file.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    if not zipped:
        _try(path)
        with _hdf5(path) as file:
            yield _describe(file, None, "")
        return
    with tempfile.TemporaryDirectory(prefix="deepregions-") as name:
        folder = Path(name)
        _extract(path, folder)
        config = _json((folder / "config.json").read_bytes())
        metadata = folder / "metadata.json"
        version = _json(metadata.read_bytes()).get("keras_version") if metadata.is_file() else ""
        weights = folder / "model.weights.h5"
        _try(weights)
        with _hdf5(weights) as file:
            yield _describe(file, config, str(version or ""))


def _extract(archive: Path, folder: Path) -> None:
    """Copies the members that matter, whatever the archive claims about their sizes."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            names = [member.filename for member in members]
            if len(names) > MAX_MEMBERS:
                raise UnreadableError(f"the archive has {len(names)} members")
            for name, limit in MEMBERS.items():
                if names.count(name) > 1:
                    raise UnreadableError(f"the archive has two members called {name}")
                if name in names:
                    _extract_member(opened, members[names.index(name)], limit, folder / name)
                elif name != "metadata.json":
                    raise UnreadableError(f"the archive has no {name}", "is it a Keras model?")
    except (zipfile.BadZipFile, zlib.error, *_BROKEN) as error:
        raise UnreadableError(f"cannot be read as an archive: {_line(error)}") from error


def _extract_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int, target: Path
) -> None:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableError(f"{member.filename} in the archive is compressed in an unknown way")
    size = 0
    with archive.open(member) as source, target.open("wb") as sink:
        while size <= limit and (chunk := source.read(1 << 20)):
            size += len(chunk)
            sink.write(chunk)
    if size > limit:
        raise UnreadableError(
            f"{member.filename} in the archive unpacks to more than {limit >> 20} MiB",
            "no Xception is that large",
        )


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableError(
            f"cannot be read as HDF5: {_line(error)}", "is it a whole Keras file?"
        ) from error
    with file:
        yield file


def _try(path: Path) -> None:
    """Reads a file's structure in a process of its own, which may hang, crash or grow."""
    # Not the folder that it is started in (-P): a stranger's modules may lie beside the file.
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute())]
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        code = subprocess.run(
            command,
            timeout=TRIAL_SECONDS,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        ).returncode
    except OSError:  # no interpreter of its own, as where Python is built into a program
        return
    except subprocess.TimeoutExpired:
        raise UnreadableError("its HDF5 is broken: reading it does not come to an end") from None
    if code < 0 or code == _OUT_OF_MEMORY:
        raise UnreadableError("its HDF5 is broken: reading it crashes")


def _trial(path: Path) -> int:
    """What the process does; an error that can be caught is for the first process to find."""
    with suppress(ImportError, OSError, ValueError):  # no limits on Windows
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (TRIAL_BYTES, TRIAL_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Also if nobody waits for it any more.
        resource.setrlimit(resource.RLIMIT_CPU, (int(TRIAL_SECONDS), int(TRIAL_SECONDS)))
    try:
        with suppress(UnreadableError), _hdf5(path) as file:
            _describe(file, None, "")
    except MemoryError:
        return _OUT_OF_MEMORY
    return 0


def _describe(file: h5py.File, config: dict[str, Any] | None, version: str) -> KerasFile:
    try:
        arrays = _scan(file)
        flat = "model_weights" in file or {"layer_names", "layer_names0"} & set(file.attrs)
        if config is not None or ("layers" in file and not flat):
            kind = "Keras 3's weights (.weights.h5)"
            if config is not None:
                kind = f"Keras 3's archive (.keras), Keras {version or 'of unknown version'}"
            return KerasFile(kind, config, tuple(_by_path(file, arrays)), file)
        root = file.get("model_weights", file)
        if "model_config" in file.attrs:
            config = _json(_text(_attribute(file, "model_config")).encode())
        for group in (file, root):
            if "keras_version" in group.attrs:
                version = _text(_attribute(group, "keras_version"))
        kind = f"HDF5, {'weights only' if config is None else 'a whole model'}"
        kind += f", Keras {version or 'of unknown version'}"
        return KerasFile(kind, config, tuple(_by_group(root, arrays)), file)
    except _BROKEN as error:
        raise UnreadableError(f"its HDF5 is broken: {_line(error)}") from error


def _scan(file: h5py.File) -> dict[str, StoredArray]:
    """Returns all arrays by path, after looking at every object for ways out of the file."""
    found: dict[str, StoredArray] = {}
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while groups:
        prefix, group = groups.pop()
        for name in group:
            path = f"{prefix}/{name}".removeprefix("/")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink) or name in ("", ".", "..") or "/" in name:
                raise UnreadableError(
                    f"{path} is a link to elsewhere ({type(link).__name__})",
                    "Keras writes none, and it is not followed",
                )
            thing = group[name]
            address = h5py.h5o.get_info(thing.id).addr
            if address in seen or len(seen) > MAX_OBJECTS:
                raise UnreadableError(f"{path} is one object too many, or an earlier one again")
            seen.add(address)
            if isinstance(thing, h5py.Group):
                groups.append((path, thing))
            elif isinstance(thing, h5py.Dataset):
                found[path] = _array(path, thing)
    return found


def _array(path: str, dataset: h5py.Dataset) -> StoredArray:
    if dataset.external or dataset.is_virtual:
        raise UnreadableError(
            f"array {path} has its numbers in another file", "Keras writes none, none is read"
        )
    settings = dataset.id.get_create_plist()
    for i in range(settings.get_nfilters()):
        if settings.get_filter(i)[0] not in _BUILT_IN_FILTERS:
            raise UnreadableError(f"array {path} is compressed in a way that Keras does not use")
    return StoredArray(path, tuple(dataset.shape or ()), dataset.dtype)


def _by_group(root: h5py.Group, arrays: Mapping[str, StoredArray]) -> Iterator[StoredLayer]:
    """Yields the layers of Keras 2's HDF5, which also Keras 3 writes as ``.h5``."""
    prefix = root.name.strip("/")
    places = _names(root, "layer_names")
    if not places:
        raise UnreadableError("it names no layers", "is it a Keras model or its weights?")
    if "top_level_model_weights" in root:
        places.append("top_level_model_weights")
    _refuse_repeated(places, "layers")
    for place in places:
        if not isinstance(root.get(place), h5py.Group):
            raise UnreadableError(f"layer {place} is named, but not there")
        layers: dict[str, dict[str, StoredArray]] = {}
        names = _names(root[place], "weight_names")
        _refuse_repeated(names, f"arrays of {place}")
        for name in names:
            path = PurePosixPath(prefix, place, name)
            array = arrays.get(str(path))
            if array is None:
                raise UnreadableError(f"array {name} of layer {place} is named, but not there")
            if "seed_generator" in name:  # the state of a dropout
                continue
            match = _KIND.fullmatch(path.name)
            kind = match[1] if match else path.name
            owner = PurePosixPath(name).parent.name or place
            if kind in layers.setdefault(owner, {}):
                raise UnreadableError(f"layer {owner} has two arrays called {kind}")
            layers[owner][kind] = array
        for owner, kinds in layers.items():
            yield StoredLayer(place, owner, kinds)


def _by_path(file: h5py.File, arrays: Mapping[str, StoredArray]) -> Iterator[StoredLayer]:
    """Yields the layers of Keras 3's own format, whatever their names."""
    layers: dict[str, dict[str, StoredArray]] = {}
    for path, array in arrays.items():
        if path.partition("/")[0] not in ("layers", "vars") or "/seed_generator/" in path:
            continue  # the state of an optimizer, of metrics, or of a dropout
        place, _, number = path.rpartition("/vars/")
        kinds = _KINDS_BY_CLASS.get(re.sub(r"_\d+$", "", place.rpartition("/")[2]), ())
        kind = kinds[int(number)] if number.isdecimal() and int(number) < len(kinds) else number
        layers.setdefault(place, {})[kind or path] = array
    for place, by_kind in layers.items():
        variables = file[f"{place}/vars"] if place else file
        name = _text(_attribute(variables, "name")) if "name" in variables.attrs else ""
        yield StoredLayer(place, name, by_kind)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Returns a list of names; Keras cuts what is longer than 64 kB into numbered pieces."""
    pieces = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(pieces)}" in group.attrs and attribute not in pieces:
        pieces.append(f"{attribute}{len(pieces)}")
    values = [np.asarray(_attribute(group, piece)).reshape(-1) for piece in pieces]
    return [_text(value) for piece in values for value in piece]


def _attribute(thing: h5py.Group, name: str) -> Any:
    if thing.attrs.get_id(name).get_space().get_simple_extent_npoints() > MAX_NAMES:
        raise UnreadableError(f"attribute {name} is longer than any that Keras writes")
    return thing.attrs[name]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return str(value)
    raise UnreadableError(f"an attribute holds {type(value).__name__}, where Keras has text")


def _refuse_repeated(names: list[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise UnreadableError(f"two {what} are called {name}")


def _json(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_CONFIG:
        raise UnreadableError(f"its configuration is longer than {MAX_CONFIG >> 20} MiB")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"its configuration is no JSON: {_line(error)}") from error
    if not isinstance(parsed, dict):
        raise UnreadableError("its configuration is not that of a Keras model")
    return parsed


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    sys.exit(_trial(Path(sys.argv[1])))
