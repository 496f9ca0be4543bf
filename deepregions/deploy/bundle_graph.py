"""A bundle's graph: its system as ONNX beside its weights, which it shares.

``deepregions export --into-bundle`` writes it. ``detect`` runs it where it can, without PyTorch: it
starts sooner, and takes less memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import set_external_data

from deepregions.deploy.onnx_metadata import read_facts
from deepregions.devices import may_have_gpu
from deepregions.errors import BundleError, UnreadableError, UnsupportedError
from deepregions.files import sha256
from deepregions.weights.bundle_folder import implied_bundle
from deepregions.weights.hub import download, hub_name
from deepregions.weights.manifest import (
    GRAPH,
    GRAPH_HINT,
    MANIFEST,
    read_manifest,
    read_weights,
)

_LARGE = 1024  # bytes of an array that is worth a reference


def find_graph(bundles: Sequence[Path] | None) -> Path | None:
    """Returns the folder of the one bundle that is to score, if there is a graph in it.

    Raises:
        AssetError: The bundle cannot be had from the Hub.
    """
    folder = implied_bundle() if bundles is None else bundles[0] if len(bundles) == 1 else None
    if folder and (name := hub_name(folder)):
        folder = download(name)
    return folder if folder and (folder / GRAPH).is_file() else None


def takes_graph(runtime: str | None, device: str, precision: str = "fp32") -> bool:
    """Returns whether a bundle's graph may score where these are wanted; it does on the CPU."""
    if precision != "fp32" or device not in ("auto", "cpu"):
        return False
    wanted = runtime is None and (device == "cpu" or not may_have_gpu())
    return wanted or runtime == "onnxruntime"


def is_current(folder: Path) -> bool:
    """Returns whether a bundle's graph is whole, and was made of the bundle as it is."""
    try:
        about = read_facts(folder / GRAPH, weights_of(folder))
    except (UnreadableError, UnsupportedError):
        return False
    return about.get("manifest") == manifest_digest(folder)


def manifest_digest(folder: Path) -> str:
    """Returns what tells a bundle from any other: the SHA-256 of its manifest."""
    return sha256(folder / MANIFEST)


def weights_of(folder: Path) -> Collection[str]:
    """Returns the names of a bundle's files of weights, which its graph may read."""
    return {entry["file"] for entry in read_manifest(folder)["members"]}


def read_graph(folder: Path) -> dict[str, Any]:
    """Reads what a bundle's graph says of itself, and checks that all is as it was written.

    Raises:
        BundleError: The graph was made of another version of the bundle, or its weights are not
            those that the bundle was written with.
        UnreadableError: It is damaged.
        UnsupportedError: It would read other files than the bundle's weights.
    """
    try:
        about = read_facts(folder / GRAPH, weights_of(folder))
    except UnreadableError as error:
        raise UnreadableError(str(error.args[0]), GRAPH_HINT) from error
    if about.get("manifest") != manifest_digest(folder):
        raise BundleError(f"{folder / GRAPH} is of another version of the bundle", GRAPH_HINT)
    for entry in read_manifest(folder)["members"]:
        read_weights(folder, entry)
    return about


def share_weights(path: Path, folder: Path) -> None:
    """Leaves out of a file what is in a bundle's files of weights, and says where it is there."""
    files = sorted(weights_of(folder))
    places = {digest: place for file in files for digest, place in _arrays(folder / file)}
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        place = places.get(hashlib.sha256(tensor.raw_data).digest())
        if place is not None and len(tensor.raw_data) >= _LARGE:
            set_external_data(tensor, *place)
            tensor.ClearField("raw_data")
    onnx.save(model, path)


def _arrays(file: Path) -> Iterator[tuple[bytes, tuple[str, int, int]]]:
    """Yields the digest of each array of a safetensors file, and its file, offset and length."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, about in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in about["data_offsets"])
            yield hashlib.sha256(content[begin:end]).digest(), (file.name, begin, end - begin)
