"""Xceptions of PyTorch programs, renamed to ours.

All descend from Cadene's (pretrained-models.pytorch), whose names timm's ``legacy_xception``
kept, but for the last layer: ``fc`` in the file, ``last_linear`` in the program. Their arrays
were made with batch normalisation's epsilon at torch's 1e-5 and pooling padded at both ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import timm
import torch
from torch import Tensor

from deepregions.errors import UnreadableError
from deepregions.weights.convert.state_dicts import Arrays, fake_last

PREFIXES = ("model.", "backbone.", "")  # FaceForensics++, DeepfakeBench, Cadene
_LANDMARK = "block1.rep.0.conv1.weight"
_HEADS = ("last_linear.1.", "last_linear.", "fc.")  # .1: behind a dropout layer


def xception_prefix(upstream: Mapping[str, Tensor]) -> str | None:
    """Returns what stands before the names of an Xception's arrays, or None if there is none."""
    names = {key.removeprefix("module.") for key in upstream}
    return next((prefix for prefix in PREFIXES if f"{prefix}{_LANDMARK}" in names), None)


def xception_classes(upstream: Mapping[str, Tensor], prefix: str) -> int:
    """Returns how many classes an Xception tells apart.

    Raises:
        UnreadableError: It has no last layer.
    """
    weight, _ = _head(_arrays(upstream), prefix)
    return len(weight) if weight.dim() else 0


def xception_state_dict(
    upstream: Mapping[str, Tensor], *, prefix: str = "", fake_index: int = 1
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.Xception`.

    Args:
        upstream: That of FaceForensics++'s or DeepfakeBench's Xception, with or without
            ``module.`` before the names.
        prefix: What then stands before them, one of :data:`PREFIXES`.
        fake_index: Which of the original's two classes is fake.

    Raises:
        UnreadableError: An array is missing, or there are not two classes.
    """
    arrays = _arrays(upstream)
    state = {f"backbone.{key}": value for key, value in _backbone(arrays, prefix)}
    weight, bias = _head(arrays, prefix)
    state["classifier.weight"] = fake_last(weight, fake_index)
    state["classifier.bias"] = fake_last(bias, fake_index)
    return state


def xception_backbone(upstream: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """Returns an Xception without its last layer, in timm's names.

    A file of it is what ``--model.init_args.backbone_file`` of Xception takes.

    Args:
        upstream: Such as Cadene's ImageNet weights, also with pointwise kernels of two dimensions.
        prefix: What stands before the names.

    Raises:
        UnreadableError: An array is missing.
    """
    return dict(_backbone(_arrays(upstream), prefix))


def _arrays(upstream: Mapping[str, Tensor]) -> Arrays:
    return Arrays(upstream, "an Xception checkpoint")


def _backbone(arrays: Arrays, prefix: str) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"):
        wanted = timm.create_model("legacy_xception", num_classes=0).state_dict()
    for key in wanted:
        name = f"{prefix}{key}"
        if key.endswith("num_batches_tracked"):  # not in files from before torch 0.4.1; unused
            yield key, arrays.get(name, torch.tensor(0))
        elif key.endswith("pointwise.weight") and arrays[name].dim() == 2:
            yield key, arrays[name][:, :, None, None]
        else:
            yield key, arrays[name]


def _head(arrays: Arrays, prefix: str) -> tuple[Tensor, Tensor]:
    for head in _HEADS:
        if f"{prefix}{head}weight" in arrays:
            return arrays[f"{prefix}{head}weight"], arrays[f"{prefix}{head}bias"]
    raise UnreadableError(f"this is not {arrays.kind}: it has no array {prefix}last_linear.weight")
