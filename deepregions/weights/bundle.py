"""Bundles: a trained system as a folder, ``bundle.json`` beside safetensors files.

Nothing in a bundle is executed: weights are safetensors, checked by SHA-256 before they are
opened, and a network's class must be one of :mod:`deepregions.detectors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, overload

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import deepregions.detectors
import deepregions.fusion
from deepregions import __version__
from deepregions.detectors import RegionDetector
from deepregions.errors import BundleError, DeepregionsError, UsageError
from deepregions.faces.cropping import Layout
from deepregions.faces.resampling import Resample
from deepregions.files import atomic_folder, sha256
from deepregions.fusion import Fusion, MeanFusion
from deepregions.fusion.calibration import Calibration, Quantity
from deepregions.fusion.pooling import Level, Pooling
from deepregions.system import System, TrainedNetwork
from deepregions.types import Region
from deepregions.weights.card import CARD, model_card
from deepregions.weights.hub import download, hub_name

SCHEMA = "deepregions.bundle"
VERSION = 3  # 2 added "resample", 3 "fusion" and "calibration"
_FUSED = 3  # from here on, these two keys mean something
_MANIFEST = "bundle.json"
_FUSION = "fusion.safetensors"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_PLAIN = re.compile(r"[\w.+-]{1,100}", re.ASCII)  # what is a file's name on every system


@dataclass(frozen=True, eq=False)
class Bundle(Sequence[TrainedNetwork]):
    """Networks, and how to use them together; as a sequence, the networks.

    Attributes:
        members: The networks.
        fusion: How their answers become one; None for their mean.
        calibration: What the fused log-odds say; None if that is not known.
        notes: What a reader of their scores should know, such as a fusion that is not used.
    """

    members: tuple[TrainedNetwork, ...]
    fusion: Fusion | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> TrainedNetwork: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TrainedNetwork, ...]: ...
    def __getitem__(self, index: int | slice) -> TrainedNetwork | tuple[TrainedNetwork, ...]:
        return self.members[index]

    def quantity(self, level: Level, pooling: Pooling) -> Quantity:
        """Returns what its scores are at a level under some rules, for its calibration to match."""
        digests = [member.sha256 for member in self.members]
        rule = (self.fusion or MeanFusion()).rule
        return Quantity.pooled(level, pooling, rule, digests if all(digests) else ())

    def system(self) -> System:
        """Returns the networks and their fusion as one module.

        Raises:
            UsageError: As :class:`~deepregions.system.System`.
        """
        return System(self.members, self.fusion)


def save_bundle(
    members: Sequence[TrainedNetwork],
    path: Path,
    *,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Writes members as one bundle: the whole folder, or nothing.

    Args:
        members: Networks and where they come from.
        path: The folder; an earlier bundle there is replaced.
        fusion: How their answers become one, for exactly these networks.
        calibration: Of the fused log-odds; without a fusion, of their mean.

    Raises:
        UsageError: The folder holds something that is no bundle, or the fusion is for others.
        OSError: It cannot be written.
    """
    if fusion is not None:
        System(members, fusion)
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
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "version": VERSION,
            "deepregions": __version__,
            "members": entries,
        }
        if fusion is not None:
            manifest["fusion"] = _fusion_entry(fusion, folder / _FUSION)
        if calibration is not None:
            digests = [entry["sha256"] for entry in entries]
            manifest["calibration"] = calibration.for_networks(digests).settings()
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        (folder / _MANIFEST).write_text(text, encoding="utf-8")
        digests = [entry["sha256"] for entry in entries]
        card = model_card(members, digests, fusion=fusion, calibration=calibration)
        (folder / CARD).write_text(card, encoding="utf-8")


def load_bundle(path: Path | str) -> Bundle:
    """Reads a bundle.

    Args:
        path: Its folder, or ``hf://owner/name[@revision]`` on the Hugging Face Hub.

    Returns:
        Its members, fusion and calibration, on the CPU, in eval mode.

    Raises:
        BundleError: It is not there, not a bundle, incomplete, altered, or of a newer version.
        AssetError: It cannot be had from the Hub.
    """
    name = hub_name(path)
    path = Path(path) if name is None else download(name)
    manifest = _read_manifest(path)
    try:
        members = tuple(_load_member(path, entry) for entry in manifest["members"])
        return Bundle(members, _load_fusion(path, manifest, members), _calibration(manifest))
    except _MALFORMED as error:
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
    """Loads what a bundle holds one by one, going on after what fails.

    Args:
        path: Its folder.

    Returns:
        For each file, what is wrong with it; empty if it has its digest and loads.

    Raises:
        BundleError: Its manifest cannot be read.
    """
    manifest = _read_manifest(path)
    problems: dict[str, str] = {}
    members = []
    for number, entry in enumerate(manifest["members"]):
        file = str(entry.get("file", number)) if isinstance(entry, dict) else str(number)
        with _noted(problems, file, "network"):
            members.append(_load_member(path, entry))
    if _fused(manifest, "fusion"):
        with _noted(problems, _FUSION, "fusion"):
            _load_fusion(path, manifest, members if not any(problems.values()) else None)
    if _fused(manifest, "calibration"):
        with _noted(problems, f"{_MANIFEST}: calibration", "calibration"):
            _calibration(manifest)
    return problems


@contextmanager
def _noted(problems: dict[str, str], file: str, what: str) -> Iterator[None]:
    """Writes down what goes wrong with a file, or that nothing does."""
    problems[file] = ""
    try:
        yield
    except BundleError as error:
        problems[file] = str(error)
    except _MALFORMED as error:
        problems[file] = f"it is not as a {what} of a bundle should be: {error}"


def _entry(member: TrainedNetwork, file: Path) -> dict[str, Any]:
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


def _fusion_entry(fusion: Fusion, file: Path) -> dict[str, Any]:
    save_file({key: value.contiguous() for key, value in fusion.state_dict().items()}, file)
    return {
        "class": type(fusion).__name__,
        "settings": fusion.settings(),
        "file": file.name,
        "sha256": sha256(file),
    }


def _load_member(folder: Path, entry: dict[str, Any]) -> TrainedNetwork:
    file = _whole_file(folder, entry)
    detector = _build(file, entry["class"], entry["settings"])
    _load_state(detector, file)
    return TrainedNetwork(
        detector=detector,
        region=Region(entry["region"]),
        database=str(entry["database"]),
        layout=_one_of(Layout, entry["layout"]),
        training=dict(entry["training"]),
        sha256=str(entry["sha256"]),
        resample=_one_of(Resample, entry.get("resample", "bilinear")),  # version 1 had no other
    )


def _load_fusion(
    folder: Path, manifest: dict[str, Any], members: Sequence[TrainedNetwork] | None
) -> Fusion | None:
    """Loads the fusion, if there is one; where members are given, it must be for these."""
    entry = _fused(manifest, "fusion")
    if entry is None:
        return None
    file = _whole_file(folder, entry)
    kind = getattr(deepregions.fusion, str(entry["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, Fusion)):
        raise BundleError(f"{file} is of an unknown fusion, {entry['class']}", "update deepregions")
    try:
        fusion = kind(**entry["settings"])
    except (TypeError, ValueError, DeepregionsError) as error:
        raise BundleError(f"{file}: {entry['class']} cannot be built: {error}") from error
    _load_state(fusion, file)
    if not all(bool(value.isfinite().all()) for value in fusion.state_dict().values()):
        raise BundleError(f"{file} has numbers that are not finite", "train the fusion again")
    fusion.sha256 = str(entry["sha256"])
    if members is not None:
        try:
            System(members, fusion)
        except UsageError as error:
            raise BundleError(f"{folder / _MANIFEST}: {error.args[0]}") from error
    return fusion


def _calibration(manifest: dict[str, Any]) -> Calibration | None:
    entry = _fused(manifest, "calibration")
    return None if entry is None else Calibration.of(entry)


def _fused(manifest: dict[str, Any], key: str) -> Any:
    """Returns what a manifest has at a key that older versions do not know."""
    return manifest.get(key) if manifest["version"] >= _FUSED else None


def _whole_file(folder: Path, entry: dict[str, Any]) -> Path:
    """Returns an entry's file, which has its digest."""
    file = folder / Path(entry["file"]).name  # never outside the bundle
    if not file.is_file():
        raise BundleError(f"{file} is missing", "copy the whole bundle folder")
    if sha256(file) != entry["sha256"]:
        raise BundleError(
            f"{file} is not the file that the bundle was written with (SHA-256 differs)",
            "copy the bundle again",
        )
    return file


def _load_state(module: nn.Module, file: Path) -> None:
    name = type(module).__name__
    try:
        module.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise BundleError(f"{file} does not fit {name}: {first_line}") from error
    module.eval()


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
