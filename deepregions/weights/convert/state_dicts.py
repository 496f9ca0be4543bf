"""Networks of other PyTorch programs, renamed to ours.

Where classes are folders in alphabetical order ``fake`` is 0, as in the paper's own program
(BiDAlab/DeepFakes_FacialRegions); here it is 1. Arrays are renamed, put side by side and
reordered, never changed.

All Xceptions descend from Cadene's (pretrained-models.pytorch), whose names timm's
``legacy_xception`` kept, except the last layer: ``fc`` in the file, ``last_linear`` in the
program. They were trained with batch normalisation's epsilon at torch's 1e-5 and pooling padded
at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import timm
import torch
from torch import Tensor

from deepregions.errors import UnreadableError

PREFIXES = ("model.", "backbone.", "")  # FaceForensics++, DeepfakeBench, Cadene
_XCEPTION = "block1.rep.0.conv1.weight"
_NETWORKS = (  # what names of arrays begin with in networks known here
    *(f"{prefix}{_XCEPTION}" for prefix in PREFIXES),
    "fea_ext.",
    "routing_stats.",
    "resnet.resnet.",
    "features.",
)
_HEADS = ("last_linear.1.", "last_linear.", "fc.")  # .1: behind a dropout layer
CAPSULES = 10
_CAPSULE_LAYERS = {  # place in the original's nn.Sequential: our name
    0: "conv1",
    1: "bn1",
    3: "conv2",
    4: "bn2",
    7: "conv3",
    8: "bn3",
    9: "conv4",
    10: "bn4",
}


def capsule_state_dict(
    upstream: Mapping[str, Tensor], vgg: Mapping[str, Tensor], *, fake_index: int = 0
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.Capsule`.

    Args:
        upstream: That of a Capsule of BiDA, Capsule-Forensics-v2 or DeepfakeBench, with or without
            ``module.`` before the names of its arrays.
        vgg: That of a VGG-19 in torchvision's or timm's names, which most originals do not save.
        fake_index: Which of the original's two classes is fake. Of more than two the first must be
            genuine and all others fake, which is written as 1.

    Raises:
        UnreadableError: An array is missing, or the classes are others.
    """
    arrays = Arrays(upstream, "a Capsule checkpoint")
    trunk = Arrays(vgg, "a VGG-19 checkpoint")
    state = {}
    for layer in (0, 2, 5, 7, 10, 12, 14, 16):
        for kind in ("weight", "bias"):
            state[f"trunk.{layer}.{kind}"] = trunk[f"features.{layer}.{kind}"]
    for place, name in _CAPSULE_LAYERS.items():
        kinds = ["weight", "bias"]
        if name.startswith("bn"):
            kinds += ["running_mean", "running_var"]
            counter = f"fea_ext.capsules.0.{place}.num_batches_tracked"  # unused; not in old files
            state[f"capsules.0.{name}.num_batches_tracked"] = arrays.get(counter, torch.tensor(0))
        for kind in kinds:
            parts = [arrays[f"fea_ext.capsules.{i}.{place}.{kind}"] for i in range(CAPSULES)]
            if any(not part.dim() or part.shape != parts[0].shape for part in parts):
                raise UnreadableError(f"the capsules' arrays {place}.{kind} differ in shape")
            state[f"capsules.0.{name}.{kind}"] = torch.cat(parts)
    routes = arrays["routing_stats.route_weights"]
    several = routes.dim() and len(routes) > 2 and fake_index == 1  # already genuine first
    state["capsules.1.weight"] = routes if several else fake_last(routes, fake_index)
    return state


def stored_vgg(upstream: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the VGG-19 that DeepfakeBench stores with its Capsule, in torchvision's names.

    Empty where there is none.
    """
    prefix = "vgg_ext.vgg_1."
    arrays = Arrays(upstream, "a Capsule checkpoint")
    return {
        f"features.{key.removeprefix(prefix)}": value
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def dsp_fwa_state_dict(
    upstream: Mapping[str, Tensor], *, fake_index: int = 0, bgr: bool = False
) -> dict[str, Tensor]:
    """Returns the state dict of :class:`~deepregions.detectors.DSPFWA`.

    Args:
        upstream: That of the original's SPPNet on ResNet-50, with or without ``module.`` before
            the names; its two unused classifiers are left out.
        fake_index: Which of the original's classes is fake.
        bgr: The original takes blue, green and red in this order, so that the first layer's input
            channels are turned round for RGB.

    Raises:
        UnreadableError: An array is missing.
    """
    arrays = Arrays(upstream, "a DSP-FWA checkpoint")
    prefix = "resnet.resnet."
    state = {
        f"backbone.{key.removeprefix(prefix)}": value
        for key, value in arrays.items()
        if key.startswith(prefix) and not key.startswith(f"{prefix}fc.")
    }
    for kind in ("weight", "bias"):
        state[f"classifier.{kind}"] = fake_last(arrays[f"classifier.{kind}"], fake_index)
    if bgr:
        state["backbone.conv1.weight"] = _turned(arrays[f"{prefix}conv1.weight"])
    return state


def _turned(kernels: Tensor) -> Tensor:
    """Returns kernels (O, 3, H, W) for the colours in the opposite order."""
    if kernels.dim() != 4:
        raise UnreadableError(f"the first layer's kernels are {list(kernels.shape)}")
    return kernels.flip(1)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns arrays under the names that the network itself gives them.

    Wrappers put their own before them: ``module.`` (DataParallel), ``_orig_mod.``
    (``torch.compile``), ``model.`` (Lightning modules, beside arrays of losses and metrics).
    """
    plain = {
        re.sub(r"^(module\.)+", "", re.sub(r"(^|\.)_orig_mod\.", r"\1", key)): value
        for key, value in state.items()
    }
    inner = {
        key.removeprefix("model."): value
        for key, value in plain.items()
        if key.startswith("model.")
    }
    if inner and not any(key.startswith(_NETWORKS) for key in plain):
        return plain_names(inner)
    return plain


class Arrays(dict[str, Tensor]):
    """Arrays by their plain names; a missing one is named."""

    def __init__(self, state: Mapping[str, Tensor], kind: str) -> None:
        super().__init__(plain_names(state))
        self.kind = kind

    def __missing__(self, key: str) -> Tensor:
        raise UnreadableError(f"this is not {self.kind}: it has no array {key}")


def fake_last(classes: Tensor, fake_index: int) -> Tensor:
    """Returns (2, ...) with the fake class second.

    Raises:
        UnreadableError: There are not two classes.
    """
    count = len(classes) if classes.dim() else 0
    if fake_index not in (0, 1) or count != 2:
        raise UnreadableError(
            f"class {fake_index} of {count} cannot be the fake one",
            "two classes are wanted",
        )
    return classes.flip(0) if fake_index == 0 else classes


def xception_prefix(upstream: Mapping[str, Tensor]) -> str | None:
    """Returns what stands before the names of an Xception's arrays, or None if there is none."""
    names = plain_names(upstream)
    return next((prefix for prefix in PREFIXES if f"{prefix}{_XCEPTION}" in names), None)


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
