"""ImageNet weights to start a backbone from: timm's, or a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import timm
import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from deepregions.errors import AssetError, UnreadableError, UsageError

WEIGHTS = "model.safetensors"  # what timm's repositories call it


def load_backbone(
    module: nn.Module, name: str, file: str | None, prefix: str = "", own: str = "backbone."
) -> None:
    """Loads ImageNet weights into a backbone; arrays that it lacks, as a classifier's, are left.

    Args:
        module: The backbone.
        name: timm's name of the weights, with their tag, such as ``vgg19.tv_in1k``.
        file: A safetensors or torch file of these weights, with timm's or torchvision's names of
            arrays, or of a bundle, whose network is then gone on with; ``None`` fetches them as
            timm does, if they are not in its cache.
        prefix: What timm's names have before those of the module.
        own: What a bundle's names have.

    Raises:
        UsageError: There is no such file.
        UnreadableError: The file is broken, or arrays are missing in it or of another shape.
        AssetError: The weights cannot be fetched.
    """
    state = fetch(name) if file is None else read_state_dict(Path(file))
    source = name if file is None else file
    if any(key.startswith(own) for key in state):
        prefix = own
    wanted = module.state_dict()
    found = {key: state[prefix + key] for key in wanted if prefix + key in state}
    # Older files lack the counters of batch normalisation, which nothing here uses.
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    if missing:
        raise UnreadableError(
            f"{source} lacks {len(missing)} of {len(wanted)} arrays, {prefix}{missing[0]} first",
            f"it should hold the weights of {name}",
        )
    for key, value in found.items():
        if value.shape != wanted[key].shape:
            raise UnreadableError(
                f"{source}: {prefix}{key} is {list(value.shape)}, not {list(wanted[key].shape)}",
                f"it should hold the weights of {name}",
            )
    module.load_state_dict(found, strict=False)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of a safetensors or torch file, by name, on the CPU.

    Raises:
        UsageError: There is no such file.
        UnreadableError: It is broken, is neither, or holds anything but arrays.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UnreadableError(f"{path} cannot be read as weights: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise UnreadableError(f"{path} is no state dict", "it should hold arrays by name")
    return state


def fetch(name: str) -> dict[str, Tensor]:
    """Returns timm's weights of that name, from its cache or the network.

    Raises:
        AssetError: They cannot be fetched.
    """
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
