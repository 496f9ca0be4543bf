"""Recognises the program that a checkpoint is from, and what it was trained on.

The content says which network it is, and often from which program; the name says the rest. What
neither says must be given: a wrong class order or input size would score nonsense without failing.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from deepregions.errors import UnreadableError, UnsupportedError, UsageError
from deepregions.types import Region
from deepregions.weights.convert.keras import IMAGENET_CLASSES, inspect_keras
from deepregions.weights.convert.profiles import (
    DATABASES,
    PROFILES,
    PROJECTS,
    REGION_ALIASES,
    database_of,
    plain_label,
    region_of,
)
from deepregions.weights.convert.safe_pickle import read_checkpoint, read_safetensors, state_dict_of
from deepregions.weights.convert.state_dicts import (
    plain_names,
    xception_classes,
    xception_prefix,
)

CADENE = "cadene"
SUFFIXES = (
    *(".pt", ".pth", ".p", ".pkl", ".ckpt", ".pth.tar", ".pt.tar", ".safetensors"),
    *(".h5", ".hdf5", ".keras"),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BIDA_NAME = re.compile(r"(dsp-fwa|capsule|xception)_(.+)_([a-z]+)", re.IGNORECASE)
_CAPSULE_V2_NAME = re.compile(r"capsule_\d+")
_DSP_FWA_NAME = re.compile(r"SPP-res\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Content:
    """What a checkpoint's content says.

    Attributes:
        format: ``torch``, ``safetensors`` or ``keras``.
        detector: The name of our detector of that network.
        arrays: Its arrays; empty for Keras, whose files are read elsewhere.
        classes: How many classes it tells apart; 0 if that is not known yet.
        project: The program it is from, if the content shows it; else empty.
        prefix: What stands before the names of an Xception's arrays.
    """

    format: str
    detector: str
    arrays: Mapping[str, Tensor]
    classes: int
    project: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Recognised:
    """What a checkpoint is.

    Attributes:
        project: A key of :data:`~deepregions.weights.convert.profiles.PROJECTS`, or ``cadene``.
        detector: ``capsule``, ``dsp-fwa`` or ``xception``.
        region: What it was trained on; None if neither content nor name says it.
        database: What it was trained on; None likewise.
        classes: How many classes it tells apart; 0 if that is not known yet (Keras).
        format: ``torch``, ``safetensors`` or ``keras``.
    """

    project: str
    detector: str
    region: Region | None
    database: str | None
    classes: int
    format: str


def recognise(path: Path, project: str | None = None) -> Recognised:
    """Tells what a checkpoint is, first from its content, then from its name.

    Args:
        path: The file.
        project: The program it is from, where content and name do not say.

    Raises:
        UsageError: There is no such file, or no such project.
        UnreadableError: The file is broken, or would run code.
        UnsupportedError: It is none of the known ones, or it could be several.
    """
    return identify(path, examine(path), project)


def examine(path: Path) -> Content:
    """Reads a checkpoint and tells which network it is.

    Raises:
        UsageError: There is no such file.
        UnreadableError: The file is broken, or would run code.
        UnsupportedError: It holds none of the known networks.
    """
    if _is_keras(path):
        return Content("keras", "xception", {}, 0)
    arrays = read_safetensors(path)
    if arrays is not None:
        return _examine(path, arrays, "safetensors", wrapped=False)
    tree = read_checkpoint(path)
    try:
        arrays = state_dict_of(tree)
    except UnreadableError as error:
        raise UnreadableError(f"{path}: {error.args[0]}", error.hint) from error
    return _examine(path, arrays, "torch", wrapped=isinstance(tree, dict) and "net" in tree)


def identify(path: Path, content: Content, project: str | None = None) -> Recognised:
    """Tells which program a checkpoint is from.

    Args:
        path: The file; its name and its folder's name are used.
        content: What it holds.
        project: The program it is from, where that is known.

    Raises:
        UsageError: There is no such project.
        UnsupportedError: It is none of the known ones, or it could be several.
    """
    if project is not None and project not in PROJECTS:
        raise UsageError(f"there is no project {project!r}", f"one of {', '.join(PROJECTS)}")
    name = _bida_match(path)
    whose = project or content.project or _project_of_name(path, content, named=name is not None)
    if whose == CADENE:
        return Recognised(CADENE, content.detector, None, None, content.classes, content.format)
    if (whose, content.detector) not in PROFILES:
        raise UnsupportedError(
            f"{path}: it holds the network {content.detector}, which "
            f"{PROJECTS[whose].title} does not have"
        )
    region: Region | None = Region.ENTIRE
    database: str | None = PROJECTS[whose].database
    if whose == "bida":
        region, database = _bida_name(path, name, content) if name else (None, None)
    elif project is None:
        _check_suitable(path, whose, content, named=name is not None)
    if whose == "deepfakebench" and "fwa" in stem_of(path).lower():
        database = "ffpp-fwa"  # fakes blended from FaceForensics++'s genuine faces
    return Recognised(whose, content.detector, region, database, content.classes, content.format)


def stem_of(path: Path) -> str:
    """Returns a checkpoint's name without its ending, ``.pth.tar`` too."""
    name = path.name
    if name.lower().endswith((".pth.tar", ".pt.tar")):
        name = name[: -len(".tar")]
    return Path(name).stem


def _is_keras(path: Path) -> bool:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_HDF5))
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}") from error
    if head == _HDF5:
        return True
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" in archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return False  # whoever reads it says what is wrong


def _examine(path: Path, arrays: Mapping[str, Tensor], form: str, *, wrapped: bool) -> Content:
    arrays = plain_names(arrays)
    if "routing_stats.route_weights" in arrays:
        routes = arrays["routing_stats.route_weights"]
        stored = any(name.startswith("vgg_ext.") for name in arrays)
        project = "deepfakebench" if stored else ""
        return Content(form, "capsule", arrays, len(routes) if routes.dim() else 0, project)
    if "resnet.resnet.conv1.weight" in arrays:
        return Content(form, "dsp-fwa", arrays, 2, "dsp-fwa" if wrapped else "")
    prefix = xception_prefix(arrays)
    if prefix is not None:
        try:
            classes = xception_classes(arrays, prefix)
        except UnreadableError as error:
            raise UnreadableError(f"{path}: {error}") from error
        project = {"model.": "faceforensics", "backbone.": "deepfakebench"}.get(prefix, "")
        if classes == IMAGENET_CLASSES:
            project = CADENE
        return Content(form, "xception", arrays, classes, project, prefix)
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


def _project_of_name(path: Path, content: Content, *, named: bool) -> str:
    if named:
        return "bida"
    if content.detector == "capsule" and _CAPSULE_V2_NAME.fullmatch(stem_of(path)):
        return "capsule-v2"
    if content.detector == "dsp-fwa" and _DSP_FWA_NAME.fullmatch(stem_of(path)):
        return "dsp-fwa"
    if content.format == "keras":
        inspect_keras(path)  # which says so if it is no Xception at all
    able = [project for project, detector in PROFILES if detector == content.detector]
    raise UnsupportedError(
        f"{path}: neither content nor name says which program this {content.detector} network is "
        "from",
        f"--project {' or '.join(able)}",
    )


def _bida_name(path: Path, name: re.Match[str], content: Content) -> tuple[Region, str]:
    detector, database, region = name.groups()
    if detector.lower() != content.detector:
        raise UnsupportedError(f"{path}: it is named {detector} but holds {content.detector}")
    try:
        return region_of(region), database_of(database)
    except UsageError as error:
        raise UnsupportedError(f"{path}: {error.args[0]}", error.hint) from error


def _check_suitable(path: Path, project: str, content: Content, *, named: bool) -> None:
    """Refuses what is not what its kind usually is.

    Raises:
        UnsupportedError: It is such a file.
    """
    if named:
        raise UnsupportedError(
            f"{path}: it is named like BiDA's files, but its arrays are those of "
            f"{PROJECTS[project].title}",
            f"--project {project} if the name is wrong",
        )
    if project == "capsule-v2" and path.parent.name in ("cgvsphoto", "replay_attack"):
        raise UnsupportedError(f"{path}: its folder says that it is not about manipulated faces")
    if project == "faceforensics" and stem_of(path).startswith("full_"):
        raise UnsupportedError(
            f"{path}: its name says that it was trained on whole frames, not on faces",
            f"--project {project} if the name is wrong",
        )
    if content.detector == "xception" and content.classes != 2:
        raise UnsupportedError(f"{path}: an Xception of {content.classes} classes, 2 are wanted")
