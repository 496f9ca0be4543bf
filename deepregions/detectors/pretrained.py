"""Pretrained weights to start a backbone from: timm's, a file's, or an installed package's."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import timm
import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from deepregions.errors import AssetError, UnreadableError, UsageError
from deepregions.safe_pickle import read_state_dict

WEIGHTS = "model.safetensors"  # what timm's repositories call it

_SUFFIXES = (".pth", ".pt", ".safetensors")
_COUNTER = "num_batches_tracked"  # some writers leave it out, and nothing here uses it


def load_backbone(
    module: nn.Module, name: str, file: str | None, prefix: str = "", own: str = "backbone."
) -> None:
    """Loads ImageNet weights into a backbone; arrays that it lacks, as a classifier's, are left.

    ``name`` is timm's, with a tag, such as ``vgg19.tv_in1k``, whose weights are fetched as timm
    does where there is no ``file``. That has timm's or torchvision's names of arrays, which begin
    with ``prefix``, or is of a bundle, where they begin with ``own``.

    Raises:
        UnreadableError: The file is broken, or arrays are missing in it or of another shape.
        AssetError: The weights cannot be fetched.
    """
    state = fetch(name) if file is None else read_state_dict(Path(file))
    fill_backbone(module, state, name, file or name, prefix=prefix, own=own)


def fill_backbone(
    module: nn.Module,
    state: dict[str, Tensor],
    name: str,
    source: str,
    *,
    prefix: str = "",
    own: str = "backbone.",
) -> None:
    """Puts arrays, which come from a source, into a backbone as :func:`load_backbone` does."""
    if any(key.startswith(own) for key in state):
        prefix = own
    wanted = module.state_dict()
    found = {key: state[prefix + key] for key in wanted if prefix + key in state}
    hint = f"it should hold the weights of {name}"
    missing = [key for key in wanted if key not in found and not key.endswith(_COUNTER)]
    if missing:
        raise UnreadableError(
            f"{source} lacks {len(missing)} of {len(wanted)} arrays, {prefix}{missing[0]} first",
            hint,
        )
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise UnreadableError(
                f"{source}: {prefix}{key} is {list(value.shape)}, not {list(wanted[key].shape)}",
                hint,
            )
    module.load_state_dict(found, strict=False)


def imagenet_weights(name: str, source: str | None) -> dict[str, Tensor]:
    """Returns the weights of a network by timm's names of arrays.

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
    """Returns the one file of weights in an installed package, which is not imported.

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


def fetch(name: str) -> dict[str, Tensor]:
    """Returns timm's weights of that name, from its cache or the network."""
    repository = timm.models.get_pretrained_cfg_value(name, "hf_hub_id")
    url = timm.models.get_pretrained_cfg_value(name, "url")
    file = f"{repository}/{WEIGHTS}" if repository else str(url)
    try:
        if not repository:
            weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                file, map_location="cpu", check_hash=True, weights_only=True
            )
            return weights
        # Unlike timm's own loading this gives up at once, not after half a minute of retries.
        folder = snapshot_download(repository, allow_patterns=[WEIGHTS])
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise AssetError(
            f"the ImageNet weights {name} ({file}) cannot be fetched: {reason}",
            "have them as a file: --model.init_args.backbone_file FILE; "
            "or start without: --model.init_args.pretrained false",
        ) from error
    return read_state_dict(Path(folder) / WEIGHTS)
