"""Bundles: a trained system as a folder, ``bundle.json`` beside safetensors files.

Nothing in a bundle is executed: weights are safetensors, checked by SHA-256 before they are
opened, and a network's class must be one of :mod:`deepregions.detectors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import deepregions.detectors
from deepregions import __version__
from deepregions.detectors import RegionDetector
from deepregions.errors import BundleError, DeepregionsError, UsageError
from deepregions.faces.cropping import Layout
from deepregions.faces.resampling import Resample
from deepregions.files import atomic_folder, sha256
from deepregions.system import Member
from deepregions.types import Region
from deepregions.weights.card import CARD, model_card
from deepregions.weights.hub import download, hub_name

SCHEMA = "deepregions.bundle"
VERSION = 2  # 2 added "resample"
_MANIFEST = "bundle.json"
_PLAIN = re.compile(r"[\w.+-]{1,100}", re.ASCII)  # what is a file's name on every system


def save_bundle(members: Sequence[Member], path: Path) -> None:
    """Writes members as one bundle: the whole folder, or nothing.

    Args:
        members: Networks and where they come from.
        path: The folder; an earlier bundle there is replaced.

    Raises:
        UsageError: The folder holds something that is no bundle.
        OSError: It cannot be written.
    """
    if (
        path.exists()
        and not (path / _MANIFEST).is_file()
        and (path.is_file() or any(path.iterdir()))
    ):
        raise UsageError(f"{path} is there and is not a bundle", "name another folder")
    with atomic_folder(path) as folder:
        entries = []
        for number, member in enumerate(members):
            stem = member.name if _PLAIN.fullmatch(member.name) else f"network-{number}"
            file = folder / f"{stem}.safetensors"
            state = {key: value.contiguous() for key, value in member.detector.state_dict().items()}
            save_file(state, file)
            entries.append(_entry(member, file))
        manifest = {
            "schema": SCHEMA,
            "version": VERSION,
            "deepregions": __version__,
            "members": entries,
        }
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        (folder / _MANIFEST).write_text(text, encoding="utf-8")
        card = model_card(members, [entry["sha256"] for entry in entries])
        (folder / CARD).write_text(card, encoding="utf-8")


def load_bundle(path: Path | str) -> list[Member]:
    """Reads a bundle.

    Args:
        path: Its folder, or ``hf://owner/name[@revision]`` on the Hugging Face Hub.

    Returns:
        Its members, on the CPU, in eval mode.

    Raises:
        BundleError: It is not there, not a bundle, incomplete, altered, or of a newer version.
        AssetError: It cannot be had from the Hub.
    """
    name = hub_name(path)
    path = Path(path) if name is None else download(name)
    manifest = _read_manifest(path)
    try:
        return [_load_member(path, entry) for entry in manifest["members"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{path / _MANIFEST} is not as a bundle's should be: {error}", "write the bundle again"
        ) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns what a bundle's manifest says, without looking at its networks.

    Raises:
        BundleError: It is not there, not a bundle's, or of a newer version.
    """
    return _read_manifest(path)


def check_bundle(path: Path) -> dict[str, str]:
    """Loads a bundle's networks one by one, going on after those that fail.

    Args:
        path: Its folder.

    Returns:
        For each file, what is wrong with it; empty if it has its digest and loads.

    Raises:
        BundleError: Its manifest cannot be read.
    """
    problems = {}
    for number, entry in enumerate(_read_manifest(path)["members"]):
        file = str(entry.get("file", number)) if isinstance(entry, dict) else str(number)
        problems[file] = ""
        try:
            _load_member(path, entry)
        except BundleError as error:
            problems[file] = str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems[file] = f"it is not as a network of a bundle should be: {error}"
    return problems


def _entry(member: Member, file: Path) -> dict[str, Any]:
    return {
        "name": member.name,
        "class": type(member.detector).__name__,
        "settings": member.detector.settings(),
        "region": str(member.region),
        "database": member.database,
        "layout": member.layout,
        "resample": member.resample,
        "file": file.name,
        "sha256": sha256(file),
        "training": member.training,
    }


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    if not file.is_file():
        what = "is not there" if not path.exists() else f"holds no {_MANIFEST}"
        raise BundleError(
            f"bundle {path} {what}",
            "a bundle is the folder that `deepregions fit` prints at its end",
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}", "write the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise BundleError(f"{file} is not a bundle's manifest", f'its "schema" is not "{SCHEMA}"')
    version = manifest.get("version")
    if version not in range(1, VERSION + 1):
        raise BundleError(
            f"{file} is of version {version}; this program reads versions 1 to {VERSION}",
            "update deepregions" if isinstance(version, int) and version > VERSION else "",
        )
    if not isinstance(manifest.get("members"), list) or not manifest["members"]:
        raise BundleError(f"{file} names no network", "write the bundle again")
    return manifest


def _load_member(folder: Path, entry: dict[str, Any]) -> Member:
    file = folder / Path(entry["file"]).name  # never outside the bundle
    if not file.is_file():
        raise BundleError(f"{file} is missing", "copy the whole bundle folder")
    if sha256(file) != entry["sha256"]:
        raise BundleError(
            f"{file} is not the file that the bundle was written with (SHA-256 differs)",
            "copy the bundle again",
        )
    detector = _build(file, entry["class"], entry["settings"])
    try:
        detector.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise BundleError(f"{file} does not fit {entry['class']}: {first_line}") from error
    detector.eval()
    return Member(
        detector=detector,
        region=Region(entry["region"]),
        database=str(entry["database"]),
        layout=_one_of(Layout, entry["layout"]),
        training=dict(entry["training"]),
        sha256=str(entry["sha256"]),
        resample=_one_of(Resample, entry.get("resample", "bilinear")),  # version 1 had no other
    )


def _one_of(names: Any, name: object) -> Any:
    """Returns a name that is one of a Literal's."""
    if name not in get_args(names):
        raise ValueError(f"{name!r} is none of {', '.join(get_args(names))}")
    return name


def _build(file: Path, name: str, settings: dict[str, Any]) -> RegionDetector:
    detector = getattr(deepregions.detectors, name, None)
    if not (isinstance(detector, type) and issubclass(detector, RegionDetector)):
        known = [
            key
            for key in deepregions.detectors.__all__
            if isinstance(value := getattr(deepregions.detectors, key), type)
            and issubclass(value, RegionDetector)
            and value is not RegionDetector
        ]
        raise BundleError(f"{file} is of an unknown network, {name}", f"known: {', '.join(known)}")
    try:
        return detector(**settings)
    except (TypeError, DeepregionsError) as error:
        raise BundleError(f"{file}: {name} cannot be built with {settings}: {error}") from error
