"""What works on this machine, what does not, and what to do about it. Nothing is fetched."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import av
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from packaging.requirements import Requirement
from PIL import features

from deepregions import __version__, assets
from deepregions.assets import Asset
from deepregions.deploy.runtimes import NAMES
from deepregions.detectors.pretrained import WEIGHTS
from deepregions.errors import DeepregionsError
from deepregions.weights.bundle_folder import find_bundles, models_folders

_PACKAGE = "deepregions"
_IMAGENET = ("legacy_xception.tf_in1k", "resnet50.tv_in1k", "vgg19.tv_in1k")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_ENCODERS = ("libx264", "mpeg4")


class State(StrEnum):
    """How something is."""

    OK = "ok"
    OPTIONAL = "optional"
    """Not there, and not needed by the main job."""
    BROKEN = "broken"
    """Not there, or not as it should be, and needed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: What kind of thing it is.
        name: Which.
        state: How it is.
        detail: What was found.
        advice: What to do about it; empty if nothing.
    """

    group: str
    name: str
    state: State
    detail: str
    advice: str = ""


def examine() -> Iterator[Check]:
    """Yields what is found, group by group."""
    yield from _program()
    yield from _packages()
    yield from _devices()
    yield from _formats()
    yield from _weights()
    yield from _backends()
    yield from _runtimes()
    yield from _bundles()


def _program() -> Iterator[Check]:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("program", _PACKAGE, State.OK, f"{__version__}; {where}; {os.cpu_count()} cores")
    folder = assets.cache_dir()
    writable = os.access(_existing(folder), os.W_OK)
    yield Check(
        "program",
        "cache folder",
        State.OK if writable else State.OPTIONAL,
        f"{folder}{'' if writable else ' (cannot be written)'}",
        "" if writable else "DEEPREGIONS_CACHE names another one",
    )
    if assets.offline():
        yield Check("program", "DEEPREGIONS_OFFLINE", State.OK, "set: nothing is downloaded")


def _existing(folder: Path) -> Path:
    """Returns the folder, or the first above it that is there."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _packages() -> Iterator[Check]:
    for text in metadata.requires(_PACKAGE) or []:
        requirement = Requirement(text)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        if extra is not None and (extra[1] == "dev" or requirement.name == _PACKAGE):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        right = bool(version) and requirement.specifier.contains(version, prereleases=True)
        wanted = f"wanted: {requirement.specifier or 'any'}"
        brings = f"{_PACKAGE}[{extra[1]}]" if extra else requirement.name
        yield Check(
            "packages" if extra is None else f"extra {extra[1]}",
            requirement.name,
            State.OK if right else State.OPTIONAL if extra else State.BROKEN,
            version if right else f"{version or 'not installed'} ({wanted})",
            "" if right else f"pip install --upgrade '{brings}'",
        )


def _devices() -> Iterator[Check]:
    yield Check("devices", "cpu", State.OK, f"{torch.get_num_threads()} threads, torch {_torch()}")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        detail = "no GPU that torch can use" if built else "this torch was built without"
        yield Check("devices", "cuda", State.OPTIONAL, detail)
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        detail = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
        yield _tried("devices", f"cuda:{index}", detail, partial(_multiply, f"cuda:{index}"))
    if torch.backends.mps.is_available():
        yield _tried("devices", "mps", "Apple GPU", partial(_multiply, "mps"))


def _torch() -> str:
    return str(torch.__version__)


def _multiply(device: str) -> None:
    a = torch.ones(64, 64, device=device)
    if (a @ a).cpu()[0, 0].item() != 64:
        raise RuntimeError("it multiplies wrongly")


def _tried(
    group: str, name: str, detail: str, attempt: Callable[[], object], *, needed: bool = True
) -> Check:
    try:
        attempt()
    except (DeepregionsError, RuntimeError, ImportError, OSError) as error:
        line = str(error.args[0] if error.args else error).partition("\n")[0]
        advice = error.hint if isinstance(error, DeepregionsError) else ""
        return Check(group, name, State.BROKEN if needed else State.OPTIONAL, line, advice)
    return Check(group, name, State.OK, detail)


def _formats() -> Iterator[Check]:
    known = av.codecs_available
    missing = [name for name in _DECODERS if name not in known]
    yield Check(
        "formats",
        "video decoders",
        State.BROKEN if "h264" in missing else State.OPTIONAL if missing else State.OK,
        f"{', '.join(name for name in _DECODERS if name in known)} (PyAV {av.__version__})",
        f"no {', '.join(missing)}: convert such videos to H.264" if missing else "",
    )
    encoder = next((name for name in _ENCODERS if name in known), "")
    detail = encoder or "none: no annotated videos"
    yield Check("formats", "video encoder", State.OK if encoder else State.OPTIONAL, detail)
    for name, module in (
        ("JPEG", "jpg"),
        ("WebP", "webp"),
        ("AVIF", "avif"),
        ("JPEG 2000", "jpg_2000"),
    ):
        there = bool(features.check(module))
        detail = "read" if there else "not in this Pillow"
        advice = "" if there else "pip install --upgrade pillow, or convert such images to PNG"
        yield Check("formats", name, State.OK if there else State.OPTIONAL, detail, advice)


def _weights() -> Iterator[Check]:
    # Imported here, as they take seconds that nothing else in this module needs.
    from deepregions.faces.backends.fan import FAN_2D, S3FD  # noqa: PLC0415
    from deepregions.faces.finders import YUNET  # noqa: PLC0415

    for name, asset in (("yunet", YUNET), ("fan", FAN_2D), ("s3fd", S3FD)):
        yield _cached(name, asset)
    for name in _IMAGENET:
        repository = timm.models.get_pretrained_cfg_value(name, "hf_hub_id")
        there = repository and isinstance(try_to_load_from_cache(repository, WEIGHTS), str)
        yield Check(
            "weights",
            name,
            State.OK if there else State.OPTIONAL,
            "in the cache of the Hugging Face Hub" if there else "not cached",
            "" if there else "only to train from ImageNet: fetched then, or backbone_file: FILE",
        )


def _cached(name: str, asset: Asset) -> Check:
    places = (assets.cache_dir(), Path(torch.hub.get_dir()) / "checkpoints")
    try:
        found = next((p for f in places if (p := assets.find(asset, folder=f))), None)
    except DeepregionsError as error:
        return Check("weights", name, State.BROKEN, str(error.args[0]), error.hint)
    if found is not None:
        return Check("weights", name, State.OK, f"{found}, SHA-256 is right")
    advice = f"deepregions models fetch {name}; or put {asset.name} into {places[0]}"
    return Check("weights", name, State.OPTIONAL, "not cached", advice)


def _backends() -> Iterator[Check]:
    from deepregions.faces.backends.dlib68 import dlib_landmarks  # noqa: PLC0415

    yield _tried("landmarks", "dlib-hog", "works", partial(dlib_landmarks, fetch_yunet=False))
    states = {check.name: check.state for check in _weights()}
    for backend, needs in (("dlib", ("yunet",)), ("face_alignment", ("fan", "s3fd"))):
        missing = [name for name in needs if states[name] is not State.OK]
        yield Check(
            "landmarks",
            backend,
            State.OPTIONAL if missing else State.OK,
            f"without {' and '.join(missing)} (fetched when first used)" if missing else "works",
            "deepregions models fetch " + missing[0] if missing else "",
        )


def _runtimes() -> Iterator[Check]:
    for name in NAMES:
        there = find_spec(name) is not None
        yield Check(
            "runtimes",
            name,
            State.OK if there else State.OPTIONAL,
            f"detect --runtime {name} works" if there else "not installed",
            "" if there else f"pip install '{_PACKAGE}[{name}]'",
        )


def _bundles() -> Iterator[Check]:
    try:
        found = find_bundles(models_folders())
    except DeepregionsError as error:
        yield Check("bundles", "folder", State.BROKEN, str(error.args[0]), error.hint)
        return
    if not found:
        advice = "deepregions fit or import makes one"
        yield Check("bundles", "-", State.OPTIONAL, "none in models or bundles here", advice)
    for each in found:
        names = ", ".join(str(entry.get("name")) for entry in each.members)
        state = State.BROKEN if each.problem else State.OK
        yield Check("bundles", each.name, state, each.problem or names)
