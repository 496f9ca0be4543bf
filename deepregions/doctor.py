"""The doctor: what works on this machine, what does not, and what to do about it."""

import os
import platform
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import av
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from packaging.requirements import Requirement
from PIL import features

from deepregions import __version__, assets
from deepregions.deploy.runtimes import NAMES
from deepregions.detectors.pretrained import WEIGHTS
from deepregions.devices import import_runtime
from deepregions.errors import DeepregionsError
from deepregions.weights.bundle_folder import default_bundle, find_bundles, models_folders

_PACKAGE = "deepregions"
_IMAGENET = ("legacy_xception.tf_in1k", "resnet50.tv_in1k", "vgg19.tv_in1k")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_ENCODERS = ("libx264", "mpeg4")
_IMAGES = {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif", "JPEG 2000": "jpg_2000"}


class State(StrEnum):
    """How something is; what is optional is not needed by the main job."""

    OK = "ok"
    OPTIONAL = "optional"
    BROKEN = "broken"


class Check(NamedTuple):
    """One thing that was looked at: in which group, what was found, and what to do about it."""

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
    yield from _weights_and_landmarks()
    for name in NAMES:
        works = f"detect --runtime {name} works"
        yield _tried("runtimes", name, works, partial(import_runtime, name), needed=False)
    yield from _bundles()


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


def _there(
    group: str, name: str, there: object, detail: str, *, otherwise: str, advice: str = ""
) -> Check:
    """Something optional, which is there or not."""
    if there:
        return Check(group, name, State.OK, detail)
    return Check(group, name, State.OPTIONAL, otherwise, advice)


def _program() -> Iterator[Check]:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("program", _PACKAGE, State.OK, f"{__version__}; {where}; {os.cpu_count()} cores")
    folder = assets.cache_dir()
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    writable, unwritable = os.access(existing, os.W_OK), f"{folder} (cannot be written)"
    advice = "DEEPREGIONS_CACHE names another one"
    yield _there(
        "program", "cache folder", writable, str(folder), otherwise=unwritable, advice=advice
    )
    if assets.offline():
        yield Check("program", "DEEPREGIONS_OFFLINE", State.OK, "set: nothing is downloaded")


def _packages() -> Iterator[Check]:
    for text in metadata.requires(_PACKAGE) or []:
        requirement = Requirement(text)
        extra = re.search(r"extra == ['\"](\w+)['\"]", str(requirement.marker or ""))
        if extra is not None and (extra[1] == "dev" or requirement.name == _PACKAGE):
            continue
        group = "packages" if extra is None else f"extra {extra[1]}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        if version and requirement.specifier.contains(version, prereleases=True):
            yield Check(group, requirement.name, State.OK, version)
            continue
        found = f"{version or 'not installed'} (wanted: {requirement.specifier or 'any'})"
        brings = f"{_PACKAGE}[{extra[1]}]" if extra else requirement.name
        state = State.OPTIONAL if extra else State.BROKEN
        yield Check(group, requirement.name, state, found, f"pip install --upgrade '{brings}'")


def _devices() -> Iterator[Check]:
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    yield Check("devices", "cpu", State.OK, threads)
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


def _multiply(device: str) -> None:
    a = torch.ones(64, 64, device=device)
    if (a @ a).cpu()[0, 0].item() != 64:
        raise RuntimeError("it multiplies wrongly")


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
    yield _there(
        "formats", "video encoder", encoder, encoder, otherwise="none: no annotated videos"
    )
    for name, module in _IMAGES.items():
        there, advice = features.check(module), "pip install --upgrade pillow, or convert to PNG"
        yield _there("formats", name, there, "read", otherwise="not in this Pillow", advice=advice)


def _weights_and_landmarks() -> Iterator[Check]:
    # Imported here, as they take seconds that nothing else in this module needs.
    from deepregions.faces.backends import landmark_detector  # noqa: PLC0415
    from deepregions.faces.backends.fan import FAN_2D, S3FD  # noqa: PLC0415
    from deepregions.faces.finders import YUNET  # noqa: PLC0415

    cache, packages = assets.cache_dir(), Path(torch.hub.get_dir()) / "checkpoints"
    states = {}
    for name, asset, places in (
        ("yunet", YUNET, (cache,)),
        ("fan", FAN_2D, (packages, cache)),
        ("s3fd", S3FD, (packages, cache)),
    ):
        try:
            found = next((path for at in places if (path := assets.find(asset, folder=at))), None)
        except DeepregionsError as error:
            states[name] = State.BROKEN
            yield Check("weights", name, State.BROKEN, str(error.args[0]), error.hint)
            continue
        advice = f"deepregions models fetch {name}; or put {asset.name} into {cache}"
        right = f"{found}, SHA-256 is right"
        check = _there("weights", name, found, right, otherwise="not cached", advice=advice)
        states[name] = check.state
        yield check
    for name in _IMAGENET:
        repository = timm.models.get_pretrained_cfg_value(name, "hf_hub_id")
        there = repository and isinstance(try_to_load_from_cache(repository, WEIGHTS), str)
        detail = "in the cache of the Hugging Face Hub"
        advice = "only to train from ImageNet: fetched then, or backbone_file: FILE"
        yield _there("weights", name, there, detail, otherwise="not cached", advice=advice)
    for backend, needs in (
        ("dlib-hog", ()),
        ("dlib", ("yunet",)),
        ("face_alignment", ("fan", "s3fd")),
    ):
        missing = [name for name in needs if states[name] is not State.OK]
        if missing:  # or making one would fetch it
            detail = f"without {' and '.join(missing)} (fetched when first used)"
            advice = f"deepregions models fetch {missing[0]}"
            yield Check("landmarks", backend, State.OPTIONAL, detail, advice)
        else:
            make = partial(landmark_detector, backend, "cpu")
            yield _tried("landmarks", backend, "works", make, needed=not needs)


def _bundles() -> Iterator[Check]:
    try:
        own = default_bundle()
        found = find_bundles([*models_folders(), *([own] if own else [])])
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
