"""ImageNet weights of timm's networks from where they can be had: a file, a package, timm."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import timm
from torch import Tensor

from deepregions.detectors.pretrained import fetch, read_state_dict
from deepregions.errors import UnreadableError, UsageError

_SUFFIXES = (".pth", ".pt", ".safetensors")
_COUNTER = "num_batches_tracked"


def imagenet_weights(name: str, source: str | None) -> dict[str, Tensor]:
    """Returns the weights of a network by timm's names of arrays.

    Args:
        name: timm's name of the network.
        source: A file, or the name of an installed package that holds one; None asks timm's
            cache, then the network.

    Raises:
        UsageError: It is neither a file nor an installed package.
        UnreadableError: What it holds are not the weights of this network.
        AssetError: The weights cannot be fetched.
    """
    if source is None:
        return fetch(name)
    if Path(source).exists() or "/" in source or Path(source).suffix in _SUFFIXES:
        return read_state_dict(Path(source))
    return in_order(read_state_dict(packaged(source)), name, source)


def packaged(package: str) -> Path:
    """Returns the one file of weights that an installed package brings; it is not imported.

    Raises:
        UsageError: It is not installed.
        UnreadableError: It brings no such file, or several.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"{package} is neither a file nor an installed package",
            f"pip install {package}, or give the path of a file",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix in _SUFFIXES]
    if len(found) != 1:
        raise UnreadableError(
            f"the package {package} brings {len(found)} files of weights, not one",
            "give the path of the file instead",
        )
    return found[0]


def in_order(state: dict[str, Tensor], name: str, source: str) -> dict[str, Tensor]:
    """Gives arrays that come in timm's order timm's names; every shape must be the same.

    Counters of batches, which some writers leave out, are left out.

    Raises:
        UnreadableError: They are not as many, or one has another shape.
    """
    theirs = [(key, value) for key, value in state.items() if not key.endswith(_COUNTER)]
    model = timm.create_model(name).state_dict()
    wanted = [(key, value.shape) for key, value in model.items() if not key.endswith(_COUNTER)]
    hint = f"it should hold the weights of {name}"
    if len(theirs) != len(wanted):
        raise UnreadableError(f"{source} has {len(theirs)} arrays, not {len(wanted)}", hint)
    for (key, value), (own, shape) in zip(theirs, wanted, strict=True):
        if value.shape != shape:
            shapes = f"{list(value.shape)}, not {list(shape)} as {own}"
            raise UnreadableError(f"{source}: {key} is {shapes}", hint)
    return {own: value for (_, value), (own, _) in zip(theirs, wanted, strict=True)}
