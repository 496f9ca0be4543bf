"""Bundles: a trained system as a folder, ``bundle.json`` beside safetensors files.

Nothing in a bundle is executed, and it opens no file but its own: weights are safetensors, checked
by SHA-256 before they are parsed, and a network's class must be one of
:mod:`deepregions.detectors`.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import deepregions.detectors
from deepregions import __version__
from deepregions.detectors import RegionDetector
from deepregions.detectors.backbone import is_known
from deepregions.errors import BundleError, DeepregionsError, UsageError
from deepregions.files import atomic_file, atomic_folder, is_empty, sha256
from deepregions.fusion import rules
from deepregions.fusion.calibration import Calibration, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import Fusion, MeanFusion
from deepregions.system import System, TrainedNetwork, matrix_of
from deepregions.types import Level, Region
from deepregions.weights.hub import download, hub_name, push
from deepregions.weights.manifest import (
    GRAPH,
    GRAPH_HINT,
    MANIFEST,
    SCHEMA,
    VERSION,
    BundleFacts,
    LongName,
    Name,
    Span,
    checked,
    facts_of,
    malformed,
    read_manifest,
    read_weights,
)

logger = logging.getLogger(__name__)

_FUSION = "fusion.safetensors"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_BROKEN = (*_MALFORMED, DeepregionsError, RuntimeError, MemoryError)
_LARGEST_HALF = 65504.0
# Where weights come from and how they change: no settings of a network that has its weights.
_TRAINING = {"pretrained", "backbone_file", "optimizer", "lr_scheduler"}
_SETTINGS: dict[str, Any] = {"backbone": Name, "cells": tuple[tuple[Name, Region], ...]}
_RANGES = {
    "size": Span(1, 1024),
    "classes": Span(2, 256),
    "hidden": Span(1, 1024),
    "bn_eps": Span(1e-12, 1),
    "bn_momentum": Span(0, 1),
    "dropout": Span(0, 1),
}

Module = TypeVar("Module", bound=nn.Module)
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, eq=False)
class Bundle(Sequence[TrainedNetwork]):
    """Networks, and how to use them together; as a sequence, the networks.

    Attributes:
        members: The networks.
        fusion: How their answers become one; None for their mean.
        calibration: What the fused log-odds say; None if that is not known.
        notes: What a reader of their scores should know, such as a fusion that is not used.
        facts: What the bundle says of itself.
    """

    members: tuple[TrainedNetwork, ...]
    fusion: Fusion | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()
    facts: BundleFacts = field(default_factory=BundleFacts)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: Any) -> Any:
        return self.members[index]

    @property
    def is_fused(self) -> bool:
        """Whether it has something that holds for exactly its networks together."""
        return self.fusion is not None or self.calibration is not None

    def quantity(self, level: Level, pooling: Pooling) -> Quantity:
        """Returns what its scores are at a level under some rules, for its calibration to match."""
        digests = [member.sha256 for member in self.members]
        rule = (self.fusion or MeanFusion()).rule
        return Quantity.pooled(level, pooling, rule, digests if all(digests) else ())

    def system(self) -> System:
        """Returns the networks and their fusion as one module."""
        return System(self.members, self.fusion)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, revision: str | None = None) -> Bundle:
        """Loads a folder, or ``owner/name`` from the Hub; raises what :func:`load_bundle` does."""
        at = f"@{revision}" if revision else ""
        return load_bundle(name if Path(name).is_dir() else f"hf://{name}{at}")

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes a folder; raises what :func:`save_bundle` does."""
        save_bundle(
            self.members,
            Path(folder),
            fusion=self.fusion,
            calibration=self.calibration,
            facts=self.facts,
        )

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Uploads it; see :func:`~deepregions.weights.hub.push`."""
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push(Path(folder), repo_id, private=private)


def save_bundle(
    members: Sequence[TrainedNetwork],
    path: Path,
    *,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
    facts: BundleFacts | None = None,
    half: bool = False,
) -> None:
    """Writes members as one bundle: the whole folder, or nothing; an earlier bundle is replaced.

    Fusion and calibration are for exactly these networks; without a fusion, the calibration is of
    their mean. With ``half`` the networks' weights are stored in float16, at half the size; they
    are float32 again when they are loaded.

    Raises:
        UsageError: The folder holds something that is no bundle, the fusion is for others, two
            networks are one, or a database's name is none.
    """
    rows, regions, cells = matrix_of(members)
    if fusion is not None:
        deepcopy(fusion).bind(rows, regions, cells)
    taken = path.exists() and (path.is_file() or not is_empty(path))
    if taken and not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is there and is not a bundle", "name another folder")
    try:
        for member in members:
            checked(member.name, LongName, "the network")
            checked(member.database, Name, "the database")
    except ValueError as error:
        raise UsageError(str(error), "letters, digits, spaces and . , + @ = ( ) - _") from error
    with atomic_folder(path) as folder:
        entries = []
        for number, member in enumerate(members):
            stem = member.name
            plain = stem.isascii() and len(stem) <= 100 and " " not in stem
            file = folder / f"{stem if plain else f'network-{number}'}.safetensors"
            entries.append(
                {
                    "name": member.name,
                    "class": type(member.detector).__name__,
                    "settings": member.detector.settings(),
                    "region": str(member.region),
                    "database": member.database,
                    "layout": member.layout,
                    "resample": member.resample,
                    **_written(member.detector, file, half=half),
                    "precision": "float16" if half else "float32",
                    "training": member.training,
                }
            )
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "version": VERSION,
            "deepregions": __version__,
            "members": entries,
        }
        if fusion is not None:
            about = {"class": type(fusion).__name__, "settings": fusion.settings()}
            manifest["fusion"] = about | _written(fusion, folder / _FUSION)
        if calibration is not None:
            digests = [entry["sha256"] for entry in entries]
            manifest["calibration"] = calibration.for_networks(digests).settings()
        bundle = Bundle(tuple(members), fusion, calibration, facts=facts or BundleFacts())
        _write_texts(folder, manifest, bundle)


def write_facts(path: Path, facts: BundleFacts) -> None:
    """Replaces what a bundle says of itself, in its manifest and its card.

    Raises:
        BundleError: It is not there, or does not load.
    """
    bundle, manifest = replace(load_bundle(path), facts=facts), read_manifest(path)
    old = {each.name for each in fields(BundleFacts)}
    kept = {key: value for key, value in manifest.items() if key not in old}
    _write_texts(path, kept | {"version": VERSION}, bundle)
    if (path / GRAPH).is_file():
        said = "deepregions: the graph of %s is of the version before, and not used until %s"
        logger.warning(said, path, GRAPH_HINT)


def _write_texts(folder: Path, manifest: Mapping[str, Any], bundle: Bundle) -> None:
    """Writes the manifest, with the bundle's facts, and the card."""
    from deepregions.weights.card import CARD, model_card  # noqa: PLC0415 - for writers alone

    text = json.dumps({**manifest, **bundle.facts.settings()}, indent=2, allow_nan=False) + "\n"
    card = model_card(
        bundle.members,
        manifest["members"],
        fusion=bundle.fusion,
        calibration=bundle.calibration,
        facts=bundle.facts,
    )
    for name, content in ((MANIFEST, text), (CARD, card)):
        with atomic_file(folder / name) as partial:
            partial.write_text(content, encoding="utf-8")


def load_bundle(path: Path | str) -> Bundle:
    """Reads a bundle, maybe a stranger's.

    Args:
        path: Its folder, or ``hf://owner/name[@revision]`` on the Hugging Face Hub.

    Raises:
        BundleError: It is not there, not a bundle, incomplete, altered, or of a newer version.
        AssetError: It cannot be had from the Hub.
    """
    name = hub_name(path)
    path = Path(path) if name is None else download(name)
    manifest = read_manifest(path)
    try:
        members = tuple(_load_member(path, entry) for entry in manifest["members"])
        fusion = _load_fusion(path, manifest, members)
        calibration, facts = _calibration(manifest), facts_of(manifest)
        return Bundle(members, fusion, calibration, facts=facts)
    except _MALFORMED as error:
        raise malformed(path, error) from error


def check_bundle(path: Path) -> dict[str, str]:
    """Loads what a bundle holds one by one, going on after what fails.

    Returns:
        For each file, what is wrong with it; empty if it has its digest and loads.

    Raises:
        BundleError: Its manifest cannot be read.
    """
    problems: dict[str, str] = {}

    def tried(file: str, load: Callable[..., Loaded], *arguments: Any) -> Loaded | None:
        problems[file] = ""
        try:
            return load(*arguments)
        except BundleError as error:
            problems[file] = str(error)
        except _MALFORMED as error:
            problems[file] = f"it is not as it should be: {error}"
        return None

    manifest = read_manifest(path)
    members = [tried(entry["file"], _load_member, path, entry) for entry in manifest["members"]]
    if manifest.get("fusion") is not None:
        whole = [member for member in members if member is not None]
        tried(_FUSION, _load_fusion, path, manifest, whole if len(whole) == len(members) else None)
    if manifest.get("calibration") is not None:
        tried(f"{MANIFEST}: calibration", _calibration, manifest)
    tried(MANIFEST, facts_of, manifest)
    if not problems[MANIFEST]:
        del problems[MANIFEST]
    return problems


def known_detectors() -> dict[str, type[RegionDetector]]:
    """Returns the detectors that a bundle may name, by class name."""
    return {
        name: kind
        for name, kind in vars(deepregions.detectors).items()
        if isinstance(kind, type)
        and issubclass(kind, RegionDetector)
        and kind is not RegionDetector
    }


def check_settings(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with which a stranger's network or fusion may be built.

    Raises:
        ValueError: One is no argument that shapes a network, is of another type, or is out of
            range.
    """
    known = inspect.signature(kind, eval_str=True).parameters
    for name, value in settings.items():
        if name not in known or name in _TRAINING:
            raise ValueError(f"{name[:60]!r} is no setting of {kind.__name__}")
        annotation = _SETTINGS.get(name, known[name].annotation)
        if annotation in (int, float):
            annotation = Annotated[annotation, _RANGES.get(name, Span(-1e4, 1e4))]
        checked(value, annotation, name)
        if name == "backbone" and not is_known(value):
            # Never a file or the Hub, as create_model takes them.
            raise ValueError(f"timm has no network {value!r}")
    return dict(settings)


def _written(module: nn.Module, file: Path, *, half: bool = False) -> dict[str, Any]:
    """Writes a module's arrays, and returns what the manifest says of the file."""
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    if half:
        state = {key: value.half() if _halves(value) else value for key, value in state.items()}
    file.write_bytes(save(state))  # save_file's can be read by their owner alone
    return {"file": file.name, "sha256": sha256(file)}


def _halves(value: Tensor) -> bool:
    """Whether an array is large, and float16 holds its numbers; statistics stay as they are."""
    large = value.is_floating_point() and value.ndim > 1
    return large and bool(value.abs().max() < _LARGEST_HALF)


def _load_member(folder: Path, entry: dict[str, Any]) -> TrainedNetwork:
    detectors = known_detectors()
    if entry["class"] not in detectors:
        raise BundleError(
            f"{folder / entry['file']} is of an unknown network, {entry['class']}",
            f"known: {', '.join(detectors)}",
        )
    return TrainedNetwork(
        detector=_load(folder, entry, detectors[entry["class"]]),
        region=Region(entry["region"]),
        database=entry["database"],
        layout=entry["layout"],
        training=entry["training"],
        sha256=entry["sha256"],
        resample=entry.get("resample", "bilinear"),
    )


def _load_fusion(
    folder: Path, manifest: dict[str, Any], members: Sequence[TrainedNetwork] | None
) -> Fusion | None:
    """Loads the fusion, if there is one; where members are given, it must be for these."""
    entry = manifest.get("fusion")
    if entry is None:
        return None
    file = folder / entry["file"]
    kind = getattr(rules, str(entry["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, Fusion)):
        raise BundleError(f"{file} is of an unknown fusion, {entry['class']}", "update deepregions")
    fusion = _load(folder, entry, kind)
    if not all(bool(value.isfinite().all()) for value in fusion.state_dict().values()):
        raise BundleError(f"{file} has numbers that are not finite", "train the fusion again")
    fusion.sha256 = entry["sha256"]
    if members is not None:
        try:
            deepcopy(fusion).bind(*matrix_of(members))
        except UsageError as error:
            raise BundleError(f"{folder / MANIFEST}: {error.args[0]}") from error
    return fusion


def _calibration(manifest: dict[str, Any]) -> Calibration | None:
    entry = manifest.get("calibration")
    return None if entry is None else Calibration.of(entry)


def _load(folder: Path, entry: Mapping[str, Any], kind: type[Module]) -> Module:
    """Builds a module and gives it the arrays of its file, which is read once."""
    file, name = folder / entry["file"], kind.__name__
    content = read_weights(folder, entry)
    try:
        settings = check_settings(kind, entry["settings"])
        with _Hollow():
            module = kind(**settings)
        stored: dict[str, Any] = getattr(module, "settings", dict)()
        if extra := set(settings) - set(stored):
            raise ValueError(f"{', '.join(sorted(extra))} is no setting of {name}")
    except _BROKEN as error:
        raise BundleError(f"{file}: {name} cannot be built: {_line(error)}") from error
    try:
        wanted = module.state_dict()
        state = load(content)
        state |= {key: state[key].to(wanted[key].dtype) for key in state.keys() & wanted.keys()}
        module.load_state_dict(state, assign=True)
        if any(value.is_meta for value in (*module.parameters(), *module.buffers())):
            # Some networks, like Swin, fill buffers that no file holds where they were made.
            with torch.random.fork_rng(devices=[]):
                module = kind(**settings)
            module.load_state_dict(state)
    except (SafetensorError, *_BROKEN) as error:
        raise BundleError(f"{file} does not fit {name}: {_line(error)}") from error
    return module.eval()


class _Hollow(TorchFunctionMode):
    """Makes parameters without memory or values; what is computed, as buffers, is made as ever."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":  # nothing to fill, in seconds
            return args[0] if args else kwargs["tensor"]
        if func in (torch.empty, torch.randn, torch.rand) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
