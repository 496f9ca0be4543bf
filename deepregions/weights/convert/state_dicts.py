"""Networks of other PyTorch programs, renamed to ours; arrays are never changed.

All Xceptions descend from Cadene's (pretrained-models.pytorch), whose names timm's
``legacy_xception`` kept, except the last layer: ``fc`` in the file, ``last_linear`` in the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import timm
import torch
from torch import Tensor

from deepregions.errors import UnreadableError

_PREFIXES = ("model.", "backbone.", "")  # FaceForensics++, DeepfakeBench, Cadene
_XCEPTION = "block1.rep.0.conv1.weight"
_NETWORKS = (  # what names of arrays begin with in networks known here
    *(f"{prefix}{_XCEPTION}" for prefix in _PREFIXES),
    *("fea_ext.", "routing_stats.", "resnet.resnet.", "features."),
)
_HEADS = ("last_linear.1.", "last_linear.", "fc.")  # .1: behind a dropout layer
_CAPSULES = 10
_CAPSULE_LAYERS = {  # place in the original's nn.Sequential: our name
    **{0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2"},
    **{7: "conv3", 8: "bn3", 9: "conv4", 10: "bn4"},
}
_VGG_LAYERS = (0, 2, 5, 7, 10, 12, 14, 16)


class Arrays(dict[str, Tensor]):
    """Arrays by their plain names; a missing one is named."""

    def __init__(self, state: Mapping[str, Tensor], kind: str) -> None:
        super().__init__(plain_names(state))
        self.kind = kind

    def __missing__(self, key: str) -> Tensor:
        raise UnreadableError(f"this is not {self.kind}: it has no array {key}")


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns arrays under the names that the network itself gives them.

    Wrappers put their own before them: ``module.`` (DataParallel), ``_orig_mod.``
    (``torch.compile``), ``model.`` (Lightning modules, beside arrays of losses and metrics).
    """
    plain = {
        re.sub(r"^(module\.)+", "", re.sub(r"(^|\.)_orig_mod\.", r"\1", key)): value
        for key, value in state.items()
    }
    inner = _below("model.", plain)
    if inner and not any(key.startswith(_NETWORKS) for key in plain):
        return plain_names(inner)
    return plain


def capsule_state_dict(
    upstream: Mapping[str, Tensor], vgg: Mapping[str, Tensor], *, fake_index: int = 0
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.Capsule`.

    Most originals do not save their VGG-19, which has torchvision's or timm's names. Of more than
    two classes the first must be genuine and all others fake, which is written as ``fake_index`` 1.

    Raises:
        UnreadableError: An array is missing, or the classes are others.
    """
    arrays, trunk = Arrays(upstream, "a Capsule checkpoint"), Arrays(vgg, "a VGG-19 checkpoint")
    state = {
        f"trunk.{layer}.{kind}": trunk[f"features.{layer}.{kind}"]
        for layer in _VGG_LAYERS
        for kind in ("weight", "bias")
    }
    for place, name in _CAPSULE_LAYERS.items():
        kinds = ["weight", "bias"]
        if name.startswith("bn"):
            kinds += ["running_mean", "running_var"]
            counter = f"fea_ext.capsules.0.{place}.num_batches_tracked"  # unused; not in old files
            state[f"capsules.0.{name}.num_batches_tracked"] = arrays.get(counter, torch.tensor(0))
        for kind in kinds:
            parts = [arrays[f"fea_ext.capsules.{i}.{place}.{kind}"] for i in range(_CAPSULES)]
            if any(not part.dim() or part.shape != parts[0].shape for part in parts):
                raise UnreadableError(f"the capsules' arrays {place}.{kind} differ in shape")
            state[f"capsules.0.{name}.{kind}"] = torch.cat(parts)
    routes = arrays["routing_stats.route_weights"]
    several = routes.dim() and len(routes) > 2 and fake_index == 1  # already genuine first
    state["capsules.1.weight"] = routes if several else _fake_last(routes, fake_index)
    return state


def stored_vgg(upstream: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the VGG-19 that is stored with a Capsule, if any, in torchvision's names."""
    stored = _below("vgg_ext.vgg_1.", plain_names(upstream))
    return {f"features.{key}": value for key, value in stored.items()}


def dsp_fwa_state_dict(
    upstream: Mapping[str, Tensor], *, fake_index: int = 0, bgr: bool = False
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.DSPFWA` of the original's SPPNet.

    Its two unused classifiers are left out. If it takes blue, green and red in this order
    (``bgr``), the first layer's input channels are turned round for RGB.

    Raises:
        UnreadableError: An array is missing.
    """
    arrays = Arrays(upstream, "a DSP-FWA checkpoint")
    state = {
        f"backbone.{key}": value
        for key, value in _below("resnet.resnet.", arrays).items()
        if not key.startswith("fc.")
    }
    for kind in ("weight", "bias"):
        state[f"classifier.{kind}"] = _fake_last(arrays[f"classifier.{kind}"], fake_index)
    if bgr:
        kernels = arrays["resnet.resnet.conv1.weight"]
        if kernels.dim() != 4:
            raise UnreadableError(f"the first layer's kernels are {list(kernels.shape)}")
        state["backbone.conv1.weight"] = kernels.flip(1)
    return state


def xception_prefix(arrays: Mapping[str, Tensor]) -> str | None:
    """Returns what stands before the plain names of an Xception's arrays; None if it is none."""
    return next((prefix for prefix in _PREFIXES if f"{prefix}{_XCEPTION}" in arrays), None)


def xception_arrays(upstream: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns an Xception's arrays without a prefix, its last layer as ``classifier``."""
    arrays = _below(prefix, upstream)
    head = next((each for each in _HEADS if f"{each}weight" in arrays), None)
    last = _below(head, arrays) if head else {}
    return arrays | {f"classifier.{key}": value for key, value in last.items()}


def xception_state_dict(
    upstream: Mapping[str, Tensor], *, fake_index: int = 1
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.Xception`.

    Raises:
        UnreadableError: An array is missing, or there are not two classes.
    """
    arrays = Arrays(upstream, "an Xception checkpoint")
    backbone = {f"backbone.{key}": value for key, value in xception_backbone(upstream).items()}
    heads = [f"classifier.{kind}" for kind in ("weight", "bias")]
    return backbone | {key: _fake_last(arrays[key], fake_index) for key in heads}


def xception_backbone(upstream: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns an Xception without its last layer, as ``backbone_file`` of Xception takes it.

    Raises:
        UnreadableError: An array is missing.
    """
    arrays = Arrays(upstream, "an Xception checkpoint")
    with torch.device("meta"):
        wanted = timm.create_model("legacy_xception", num_classes=0).state_dict()
    state = {}
    for key in wanted:
        if key.endswith("num_batches_tracked"):  # not in files from before torch 0.4.1; unused
            state[key] = arrays.get(key, torch.tensor(0))
            continue
        value = arrays[key]
        flat = key.endswith("pointwise.weight") and value.dim() == 2
        state[key] = value[:, :, None, None] if flat else value
    return state


def _below(prefix: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the arrays whose names have a prefix, without it."""
    return {key.removeprefix(prefix): v for key, v in arrays.items() if key.startswith(prefix)}


def _fake_last(classes: Tensor, fake_index: int) -> Tensor:
    """Returns (2, ...) with the fake class second."""
    count = len(classes) if classes.dim() else 0
    if fake_index not in (0, 1) or count != 2:
        raise UnreadableError(
            f"class {fake_index} of {count} cannot be the fake one", "two classes are wanted"
        )
    return classes.flip(0) if fake_index == 0 else classes
