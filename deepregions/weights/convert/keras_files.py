"""Keras's files as plain data: a configuration, and which arrays each layer has.

Reads HDF5 of Keras 2, tf.keras and Keras 3, and ``.keras`` archives, through h5py alone. Nothing
in a file is run, and nothing outside it is read: links are not followed, external storage and
virtual datasets are refused. Broken files can make the HDF5 library loop or crash, so a process of
its own reads each file first (``python -m deepregions.weights.convert.keras_files FILE``).
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from deepregions.errors import UnreadableError, UsageError

# Far above any Xception (84 MB, or 252 MB with Adam's state; 150 kB of configuration).
MAX_CONFIG = 16 << 20
MAX_ARRAYS = 20_000
TRIAL_SECONDS = 60
TRIAL_BYTES = 4 << 30
MEMBERS = {"config.json": MAX_CONFIG, "metadata.json": 1 << 20, "model.weights.h5": 1 << 30}
BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError)
_OUT_OF_MEMORY = 4
_BUILT_IN_FILTERS = range(7)  # deflate, shuffle, checksum and the like; no plugin is loaded

KINDS = {  # the order of a layer's arrays in Keras 3's own format
    "conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}
_KIND = re.compile(rf"({'|'.join(kind for kinds in KINDS.values() for kind in kinds)})[_:\d]*")

StoredLayers = dict[str, dict[str, h5py.Dataset]]
"""By a layer's name, its arrays by kind: ``kernel``, ``gamma`` and so on."""


class KerasFile(NamedTuple):
    """An open file.

    Attributes:
        config: The model's configuration, parsed; None where the file has none.
        layers: All layers of the model that have arrays. One of which the file has no name is
            called by its place, such as ``layers/functional/layers/conv2d_2``.
    """

    format: str
    config: dict[str, Any] | None
    layers: StoredLayers


@contextmanager
def open_keras(path: Path) -> Iterator[KerasFile]:
    """Opens a Keras model or its weights.

    Raises:
        UnreadableError: It is no Keras file, is broken, or reaches outside itself. The message
            does not name the file.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    with tempfile.TemporaryDirectory(prefix="deepregions-") as name:
        config, version, weights = None, "", path
        if zipped:
            folder = Path(name)
            _extract(path, folder)
            weights = folder / "model.weights.h5"
            config = _json((folder / "config.json").read_bytes())
            if (folder / "metadata.json").is_file():
                about = _json((folder / "metadata.json").read_bytes())
                version = str(about.get("keras_version") or "")
        _try(weights)
        with _hdf5(weights) as file:
            yield _describe(file, config, version)


def _extract(archive: Path, folder: Path) -> None:
    """Unpacks the members that matter; of none comes more than the archive says."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, limit in MEMBERS.items():
                found = [member for member in opened.infolist() if member.filename == name]
                if not found and name == "metadata.json":
                    continue
                if len(found) != 1:
                    raise UnreadableError(f"the archive has {len(found)} members called {name}")
                known = found[0].compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                if not known or found[0].file_size > limit:
                    raise UnreadableError(
                        f"{name} in the archive unpacks to more than {limit >> 20} MiB, or in an "
                        "unknown way"
                    )
                opened.extract(found[0], folder)
    except (zipfile.BadZipFile, zlib.error, *BROKEN) as error:
        raise UnreadableError(f"cannot be read as an archive: {first_line(error)}") from error


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except BROKEN as error:
        raise UnreadableError(
            f"cannot be read as HDF5: {first_line(error)}", "is it a whole Keras file?"
        ) from error
    with file:
        yield file


def _try(path: Path) -> None:
    """Reads a file's structure in a process of its own, which may hang, crash or grow."""
    # Not the folder that it is started in (-P): a stranger's modules may lie beside the file.
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute())]
    environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **environment}
    try:
        tried = subprocess.run(
            command, timeout=TRIAL_SECONDS, env=environment, capture_output=True, check=False
        )
    except OSError:  # no interpreter of its own, as where Python is built into a program
        return
    except subprocess.TimeoutExpired:
        raise UnreadableError("its HDF5 is broken: reading it does not come to an end") from None
    if tried.returncode < 0 or tried.returncode == _OUT_OF_MEMORY:
        raise UnreadableError("its HDF5 is broken: reading it crashes")


def _trial(path: Path) -> int:
    """What the process does; an error that can be caught is for the first process to find."""
    with suppress(ImportError, OSError, ValueError):  # no limits on Windows
        resource = importlib.import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (TRIAL_BYTES, TRIAL_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Also if nobody waits for it any more.
        resource.setrlimit(resource.RLIMIT_CPU, (TRIAL_SECONDS, TRIAL_SECONDS))
    try:
        with suppress(UnreadableError), _hdf5(path) as file:
            _describe(file, None, "")
    except MemoryError:
        return _OUT_OF_MEMORY
    return 0


def _describe(file: h5py.File, config: dict[str, Any] | None, version: str) -> KerasFile:
    unknown = "of unknown version"
    try:
        if config is not None:
            form = f"Keras 3's archive (.keras), Keras {version or unknown}"
            return KerasFile(form, config, _layers(file, ("layers/", "vars/")))
        if "layers" in file:
            form = "Keras 3's weights (.weights.h5)"
            return KerasFile(form, None, _layers(file, ("layers/", "vars/")))
        root = file.get("model_weights", file)
        if "model_config" in file.attrs:
            config = _json(_text(file, "model_config").encode())
        version = _text(root, "keras_version") or _text(file, "keras_version")
        form = f"HDF5, {'weights only' if config is None else 'a whole model'}"
        form += f", Keras {version or unknown}"
        return KerasFile(form, config, _layers(file, (root.name.strip("/"),)))
    except BROKEN as error:
        raise UnreadableError(f"its HDF5 is broken: {first_line(error)}") from error


def _layers(file: h5py.File, starts: tuple[str, ...]) -> StoredLayers:
    """Returns the layers whose paths have one of these starts: others are an optimizer's state.

    A path ends in ``LAYER/KIND:0`` in the format of Keras 2, which also Keras 3 writes as ``.h5``;
    in ``CLASS_NUMBER/vars/NUMBER`` in that of Keras 3, where ``vars`` may have the layer's name.
    """
    arrays: dict[str, h5py.Dataset] = {}

    def look(path: str, thing: Any) -> None:  # of links only hard ones lead here, each once
        if isinstance(thing, h5py.Dataset):
            _check_plain(path, thing)
            arrays[path] = thing
        if len(arrays) > MAX_ARRAYS:
            raise UnreadableError(f"it holds more than {MAX_ARRAYS} arrays")

    file.visititems(look)
    layers: StoredLayers = {}
    for path, array in arrays.items():
        if not path.startswith(starts) or "seed_generator" in path:  # the state of a dropout
            continue
        group, _, kind = path.rpartition("/")
        place = group.removesuffix("/vars")
        name = group.rpartition("/")[2] or path
        if place != group:
            name = _text(file[group], "name") or place
            kinds = KINDS.get(re.sub(r"_\d+$", "", place.rpartition("/")[2]), ())
            kind = dict(zip("0123", kinds, strict=False)).get(kind, kind)
        elif found := _KIND.fullmatch(kind):
            kind = found[1]
        if kind in layers.setdefault(name, {}):
            raise UnreadableError(f"layer {name} has two arrays called {kind}")
        layers[name][kind] = array
    return layers


def _check_plain(path: str, dataset: h5py.Dataset) -> None:
    if dataset.external or dataset.is_virtual:
        raise UnreadableError(
            f"array {path} has its numbers in another file", "Keras writes none, none is read"
        )
    settings = dataset.id.get_create_plist()
    for i in range(settings.get_nfilters()):
        if settings.get_filter(i)[0] not in _BUILT_IN_FILTERS:
            raise UnreadableError(f"array {path} is compressed in a way that Keras does not use")


def _text(thing: h5py.Group, attribute: str) -> str:
    """Returns a text that belongs to a group; empty if it has none."""
    value = thing.attrs.get(attribute, "")
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise UnreadableError(f"the attribute {attribute} holds {type(value).__name__}, not a text")
    return value


def _json(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_CONFIG:
        raise UnreadableError(f"its configuration is longer than {MAX_CONFIG >> 20} MiB")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"its configuration is no JSON: {first_line(error)}") from error
    if not isinstance(parsed, dict):
        raise UnreadableError("its configuration is not that of a Keras model")
    return parsed


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its name."""
    return str(error).partition("\n")[0] or type(error).__name__


if __name__ == "__main__":
    sys.exit(_trial(Path(sys.argv[1])))
