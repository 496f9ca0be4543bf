"""Recognises the program that a checkpoint is from, and what it was trained on.

What neither content nor name says must be given: a wrong class order would score nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from deepregions.errors import UnsupportedError, UsageError, naming
from deepregions.safe_pickle import format_of, read_checkpoint, state_dict_of
from deepregions.types import Region
from deepregions.weights.convert.keras import IMAGENET_CLASSES, inspect_keras
from deepregions.weights.convert.profiles import (
    CADENE,
    DATABASES,
    PROFILES,
    PROJECTS,
    REGION_ALIASES,
    check_project,
    database_of,
    plain_label,
    region_of,
)
from deepregions.weights.convert.state_dicts import (
    Arrays,
    plain_names,
    xception_arrays,
    xception_prefix,
)

SUFFIXES = (
    *(".pt", ".pth", ".p", ".pkl", ".ckpt", ".pth.tar", ".pt.tar", ".safetensors"),
    *(".h5", ".hdf5", ".keras"),
)
_BIDA_NAME = re.compile(r"(dsp-fwa|capsule|xception)_(.+)_([a-z]+)", re.IGNORECASE)
_OWN_NAMES = {  # what their authors call them: the project
    "capsule": (re.compile(r"capsule_\d+"), "capsule-v2"),
    "dsp-fwa": (re.compile(r"SPP-res\d+", re.IGNORECASE), "dsp-fwa"),
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint is, as far as its content and then its name say.

    Attributes:
        format: ``torch``, ``safetensors`` or ``keras``.
        arrays: Its arrays; none for Keras, whose files are read elsewhere.
        classes: How many classes it tells apart; 0 if that is not known yet (Keras).
        project: The program it is from, a key of
            :data:`~deepregions.weights.convert.profiles.PROJECTS`; empty if nothing says it.
    """

    format: str
    detector: str
    arrays: Mapping[str, Tensor]
    classes: int
    project: str = ""
    region: Region | None = None
    database: str | None = None


def recognise(path: Path, project: str | None = None) -> Checkpoint:
    """Tells what a checkpoint is, first from its content, then from its name.

    Raises:
        UnreadableError: The file is broken, or would run code.
        UnsupportedError: It is none of the known ones, or it could be several.
    """
    form = format_of(path)
    if form == "keras":
        return identify(path, Checkpoint(form, "xception", {}, 0), project)
    tree = read_checkpoint(path)
    wrapped = isinstance(tree, dict) and "net" in tree
    with naming(path):
        content = _examine(path, plain_names(state_dict_of(tree)), form, wrapped=wrapped)
    return identify(path, content, project)


def identify(path: Path, content: Checkpoint, project: str | None = None) -> Checkpoint:
    """Tells which program a checkpoint is from, and what it was trained on.

    Raises:
        UnsupportedError: It is none of the known ones, or it could be several.
    """
    check_project(project)
    named = _bida_match(path)
    whose = project or content.project or _project_of_name(path, content, named=named is not None)
    if whose == CADENE:
        return replace(content, project=CADENE)
    title = PROJECTS[whose].title
    if (whose, content.detector) not in PROFILES:
        raise UnsupportedError(
            f"{path}: it holds the network {content.detector}, which {title} does not have"
        )
    region: Region | None = Region.ENTIRE
    database: str | None = PROJECTS[whose].database
    if whose == "bida":
        region, database = _trained_on(path, named, content) if named else (None, None)
    elif project is None:
        hint = f"--project {whose} if the name is wrong"
        for wrong, why, what_to_do in (
            (named, f"it is named like BiDA's files, but its arrays are those of {title}", hint),
            (
                whose == "capsule-v2" and path.parent.name in ("cgvsphoto", "replay_attack"),
                "its folder says that it is not about manipulated faces",
                "",
            ),
            (
                whose == "faceforensics" and path.name.startswith("full_"),
                "its name says that it was trained on whole frames, not on faces",
                hint,
            ),
            (
                content.detector == "xception" and content.classes != 2,
                f"an Xception of {content.classes} classes, 2 are wanted",
                "",
            ),
        ):
            if wrong:
                raise UnsupportedError(f"{path}: {why}", what_to_do)
    if whose == "deepfakebench" and "fwa" in stem_of(path).lower():
        database = "ffpp-fwa"  # fakes blended from FaceForensics++'s genuine faces
    return replace(content, project=whose, region=region, database=database)


def stem_of(path: Path) -> str:
    """Returns a checkpoint's name without its ending, ``.pth.tar`` too."""
    name = path.name
    return Path(name[:-4] if name.lower().endswith((".pth.tar", ".pt.tar")) else name).stem


def _examine(path: Path, arrays: Mapping[str, Tensor], form: str, *, wrapped: bool) -> Checkpoint:
    if "routing_stats.route_weights" in arrays:
        routes = arrays["routing_stats.route_weights"]
        stored = any(name.startswith("vgg_ext.") for name in arrays)
        project = "deepfakebench" if stored else ""
        return Checkpoint(form, "capsule", arrays, len(routes) if routes.dim() else 0, project)
    if "resnet.resnet.conv1.weight" in arrays:
        return Checkpoint(form, "dsp-fwa", arrays, 2, "dsp-fwa" if wrapped else "")
    prefix = xception_prefix(arrays)
    if prefix is not None:
        arrays = xception_arrays(arrays, prefix)
        weight = Arrays(arrays, "an Xception checkpoint")["classifier.weight"]
        classes = len(weight) if weight.dim() else 0
        project = {"model.": "faceforensics", "backbone.": "deepfakebench"}.get(prefix, "")
        if classes == IMAGENET_CLASSES:
            project = CADENE
        return Checkpoint(form, "xception", arrays, classes, project)
    if "features.0.weight" in arrays:
        raise UnsupportedError(f"{path}: a VGG alone scores nothing", "pass it with --vgg")
    raise UnsupportedError(
        f"{path} holds none of the networks known here (its first array is "
        f"{next(iter(arrays))[:80]!r})",
        "Capsule, DSP-FWA and Xception are",
    )


def _bida_match(path: Path) -> re.Match[str] | None:
    """Takes a name apart that is as BiDA's, with a database or a region that is known."""
    name = _BIDA_NAME.fullmatch(stem_of(path))
    if name is None:
        return None
    _, database, region = (part.lower() for part in name.groups())
    known = plain_label(database) in DATABASES or region in {*Region, *REGION_ALIASES}
    return name if known else None


def _project_of_name(path: Path, content: Checkpoint, *, named: bool) -> str:
    if named:
        return "bida"
    if content.detector in _OWN_NAMES:
        pattern, project = _OWN_NAMES[content.detector]
        if pattern.fullmatch(stem_of(path)):
            return project
    if content.format == "keras":
        inspect_keras(path)  # which says so if it is no Xception at all
    able = [project for project, detector in PROFILES if detector == content.detector]
    raise UnsupportedError(
        f"{path}: neither content nor name says which program this {content.detector} network is "
        "from",
        f"--project {' or '.join(able)}",
    )


def _trained_on(path: Path, name: re.Match[str], content: Checkpoint) -> tuple[Region, str]:
    detector, database, region = name.groups()
    if detector.lower() != content.detector:
        raise UnsupportedError(f"{path}: it is named {detector} but holds {content.detector}")
    try:
        return region_of(region), database_of(database)
    except UsageError as error:
        raise UnsupportedError(f"{path}: {error.args[0]}", error.hint) from error
