"""What ``bundle.json`` says, checked where it is read: it may come from a stranger.

Names are plain (they never lead out of a folder), numbers are finite and within a range, and
settings are arguments that shape a network: none of them opens a file or the network.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

import timm

import deepregions.detectors
from deepregions.detectors import RegionDetector
from deepregions.errors import BundleError
from deepregions.faces.cropping import Layout
from deepregions.faces.resampling import Resample
from deepregions.fusion.pooling import Level
from deepregions.people import too_few
from deepregions.types import Region

MANIFEST = "bundle.json"
SCHEMA = "deepregions.bundle"
VERSION = 4  # 2 added "resample", 3 "fusion" and "calibration", 4 the facts and "precision"

Kind = Literal["drawn", "self-made", "real"]
"""What a network learned from: computer-drawn faces, forgeries that this package made of genuine
faces, or real manipulations."""

_CAUTIONS = {
    "drawn": "toy networks, trained on computer-drawn faces: do not rely on their scores",
    "self-made": "networks trained on forgeries that deepregions made, not on manipulations found "
    "in the wild",
}
_LARGEST = 16 << 20  # bytes of a manifest
_DEPTH = 32
_NAME = re.compile(r"\w[\w .,+@=()-]{0,249}")
_FILE = re.compile(r"[\w.+-]{1,120}\.safetensors", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
# Where weights come from and how they change: no settings of a network that has its weights.
_TRAINING = {"pretrained", "backbone_file", "optimizer", "lr_scheduler"}
_RANGES: dict[str, tuple[float, float]] = {
    "size": (1, 1024),
    "classes": (2, 256),
    "hidden": (1, 1024),
    "bn_eps": (1e-12, 1),
    "bn_momentum": (0, 1),
    "dropout": (0, 1),
}
_SINCE = {  # the versions from which keys mean something
    **dict.fromkeys(("fusion", "calibration"), 3),
    **dict.fromkeys(("trained_on_kind", "operating_points", "recipe", "people"), 4),
    **dict.fromkeys(("limits", "degradation", "answers"), 4),
}

Record = TypeVar("Record", "OperatingPoint", "Degradation")


def false_alarms(rate: float) -> str:
    """Returns what the operating point is called that keeps false alarms within a rate."""
    return f"{100 * rate:g} % false alarms"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and how often it errs.

    Attributes:
        name: What it is called, such as ``1 % false alarms``.
        threshold: Fused log-odds, uncalibrated; at or above it a score says fake.
        level: Of ``frame`` (single faces) or ``video`` scores.
        found_on: The data, in words.
        false_positive_rate: The share of genuine ones at or above it there, if known.
        false_positive_interval: Its ends; None where people are too few or not known.
        true_positive_rate: The share of fakes.
        people: How many genuine people these rest on; 0 if that is not known.

    Raises:
        ValueError: A number is outside its range, or a text is none.
    """

    name: str
    threshold: float
    level: Level
    found_on: str
    false_positive_rate: float | None = None
    false_positive_interval: tuple[float, float] | None = None
    true_positive_rate: float | None = None
    people: int = 0

    def __post_init__(self) -> None:
        _text(self.name, "the name of an operating point")
        _text(self.found_on, "what an operating point was found on")
        _number(self.threshold, "a threshold", -1e4, 1e4)
        if self.level not in get_args(Level):
            raise ValueError(f"an operating point of level {self.level!r}")
        _number(self.people, "a count of people", 0, 10**9, whole=True)
        interval = self.false_positive_interval
        if interval is not None:
            if len(interval) != 2 or interval[0] > interval[1]:
                raise ValueError("an interval is two rates, the lower first")
            shown = None if too_few(self.people) else (interval[0], interval[1])  # JSON has lists
            object.__setattr__(self, "false_positive_interval", shown)
        for rate in (self.false_positive_rate, self.true_positive_rate, *(interval or ())):
            if rate is not None:
                _number(rate, "a rate", 0, 1)


@dataclass(frozen=True)
class Degradation:
    """How a bundle errs on faces that were altered in one way.

    Attributes:
        alteration: ``size``, ``jpeg``, ``blur``, or any words; empty for faces as they are.
        auc: Of faces altered so.
        level: How strongly, as ``deepregions evaluate --robustness`` has it.
        measure: Faces at or below it are like these: in width in pixels, JPEG quality, or
            sharpness; of faces as they are, their median width.
        false_positive_rate: At the operating point of 1 % false alarms.
        people: How many it rests on.
        worse: Whether, on the same faces, AUC fell or false alarms rose by more than chance.
        found_on: The data, in words.

    Raises:
        ValueError: A number is outside its range, or a text is none.
    """

    alteration: str
    auc: float
    level: float | None = None
    measure: float | None = None
    false_positive_rate: float | None = None
    people: int = 0
    worse: bool = False
    found_on: str = ""

    def __post_init__(self) -> None:
        for text, what in ((self.alteration, "an alteration"), (self.found_on, "found_on")):
            if text != "":
                _text(text, what)
        for value, what in ((self.level, "a level"), (self.measure, "a measure")):
            if value is not None:
                _number(value, what, 0, 1e6)
        _number(self.auc, "an AUC", 0, 1)
        if self.false_positive_rate is not None:
            _number(self.false_positive_rate, "a rate", 0, 1)
        _number(self.people, "a count of people", 0, 10**9, whole=True)
        if not isinstance(self.worse, bool):
            raise ValueError("worse is true or false")


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says of itself as a whole; no score depends on it.

    Attributes:
        trained_on_kind: What its networks learned from; the least realistic, if they differ.
        operating_points: Thresholds that were found for it.
        recipe: How to train it again: configuration, as JSON values.
        people: Fingerprints (hexadecimal, 8 to 64 digits) of those it was trained on, so that an
            evaluation can tell whether it knows them.
        limits: What it cannot do, in words.
        degradation: How it errs on altered faces, after those as they are.
        answers: Fused log-odds of the faces of `deepregions models verify --faces`, by name.

    Raises:
        ValueError: A value is not as described.
    """

    trained_on_kind: Kind | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    people: tuple[str, ...] = ()
    limits: str = ""
    degradation: tuple[Degradation, ...] = ()
    answers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trained_on_kind not in (None, *get_args(Kind)):
            raise ValueError(f"trained_on_kind {self.trained_on_kind!r}")
        if not all(isinstance(each, str) and _FINGERPRINT.fullmatch(each) for each in self.people):
            raise ValueError("people are not fingerprints of 8 to 64 hexadecimal digits")
        if not isinstance(self.recipe, Mapping):
            raise ValueError("a recipe is an object")
        if self.limits:
            _text(self.limits, "limits", 10_000)
        for name, log_odds in self.answers.items():
            _text(name, "a face's name")
            _number(log_odds, name, -1e4, 1e4)

    def settings(self) -> dict[str, Any]:
        """Returns what is not empty, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value}

    def cautions(self) -> tuple[str, ...]:
        """Returns what must be said wherever a score of its networks is shown."""
        caution = _CAUTIONS.get(self.trained_on_kind or "real")
        return (caution,) if caution else ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """Reads them from a manifest; keys that are not there are empty.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: One is not as it should be.
        """
        known = {each.name: manifest[each.name] for each in fields(cls) if each.name in manifest}
        degradation = known.get("degradation", ())
        if isinstance(degradation, dict):  # as once: the AUC by what was done
            degradation = [{"alteration": name, "auc": auc} for name, auc in degradation.items()]
        known["operating_points"] = _records(OperatingPoint, known.get("operating_points", ()))
        known["degradation"] = _records(Degradation, degradation)
        known["people"] = tuple(known.get("people", ()))
        return cls(**known)

    @classmethod
    def together(cls, several: Iterable[BundleFacts]) -> BundleFacts:
        """Returns what holds of several bundles used together, or of a part of one."""
        each = list(several)
        kinds = {facts.trained_on_kind for facts in each}
        limits = dict.fromkeys(facts.limits for facts in each if facts.limits)
        return cls(
            next((kind for kind in get_args(Kind) if kind in kinds), None),
            people=tuple(dict.fromkeys(name for facts in each for name in facts.people)),
            limits=" ".join(limits),
            recipe=each[0].recipe if len(each) == 1 else {},
        )


def _records(kind: type[Record], entries: Iterable[Mapping[str, Any]]) -> tuple[Record, ...]:
    """Makes records of JSON objects; keys of later versions are left out."""
    names = [each.name for each in fields(kind)]
    return tuple(
        kind(**{key: value for key, value in entry.items() if key in names}) for entry in entries
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a bundle's manifest, without looking at its networks.

    Args:
        path: The bundle's folder.

    Returns:
        JSON values; names, files and digests of the members are as they should be. Keys of later
        versions than its own are left out.

    Raises:
        BundleError: It is not there, not a bundle's, of a newer version, or names what is no name.
    """
    file = path / MANIFEST
    if not file.is_file():
        what = "is not there" if not path.exists() else f"holds no {MANIFEST}"
        raise BundleError(
            f"bundle {path} {what}",
            "a bundle is the folder that `deepregions fit` prints at its end",
        )
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
        text = file.read_text(encoding="utf-8")
        manifest = json.loads(text, parse_constant=_finite, parse_float=_finite)
        _check_json(manifest)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read: {error}", "write the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise BundleError(f"{file} is not a bundle's manifest", f'its "schema" is not "{SCHEMA}"')
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise BundleError(
            f"{file} is of version {str(version)[:20]}; this program reads versions 1 to {VERSION}",
            "update deepregions" if isinstance(version, int) and version > VERSION else "",
        )
    if not isinstance(manifest.get("members"), list) or not manifest["members"]:
        raise BundleError(f"{file} names no network", "write the bundle again")
    try:
        for entry in manifest["members"]:
            _check_member(entry)
        manifest = {key: v for key, v in manifest.items() if _SINCE.get(key, 1) <= version}
        entries = (*manifest["members"], manifest.get("fusion"))
        names = [check_file(entry) for entry in entries if entry is not None]
        if len(set(names)) < len(names):
            raise ValueError("two of its entries are one file")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(path, error) from error
    return manifest


def malformed(path: Path, error: Exception) -> BundleError:
    """Returns the error of a bundle whose manifest does not say what it should."""
    what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return BundleError(
        f"{path / MANIFEST} is not as a bundle's should be: {what[:300]}", "write the bundle again"
    )


def check_name(name: object, what: str, longest: int = 100) -> str:
    """Returns a name that may stand in a file's name and in a line of text.

    Raises:
        ValueError: It is empty, long, or has characters other than letters, digits, spaces and
            ``. , + @ = ( ) - _``.
    """
    if isinstance(name, str) and len(name) <= longest and _NAME.fullmatch(name):
        return name
    raise ValueError(f"{what} {str(name)[:60]!r} is no plain name")


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

    Args:
        kind: The class.
        settings: Its arguments: numbers, booleans, names, and lists of pairs of names.

    Raises:
        ValueError: One is no argument that shapes a network, is of another type, or is out of
            range.
    """
    known = _annotations(kind)
    for name, value in settings.items():
        if name not in known or name in _TRAINING:
            raise ValueError(f"{str(name)[:60]!r} is no setting of {kind.__name__}")
        _check_setting(name, value, known[name])
    return dict(settings)


@cache
def _annotations(kind: type) -> dict[str, Any]:
    """Returns the types of a class's arguments; of "X | None" it is X."""
    types = {}
    for each in inspect.signature(kind, eval_str=True).parameters.values():
        inner = [part for part in get_args(each.annotation) if part is not type(None)]
        single = len(inner) == 1 and get_origin(each.annotation) is not Literal
        types[each.name] = inner[0] if single else each.annotation
    return types


def _check_setting(name: str, value: object, annotation: Any) -> None:
    low, high = _RANGES.get(name, (-1e4, 1e4))
    if get_origin(annotation) is Literal:
        one_of(annotation, value)
    elif annotation is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {str(value)[:60]!r}, not true or false")
    elif annotation in (int, float):
        _number(value, name, low, high, whole=annotation is int)
    elif name == "backbone" and annotation is str:
        check_name(value, "the backbone")
        if not timm.is_model(str(value)):  # never a file or the Hub, as create_model takes them
            raise ValueError(f"timm has no network {value!r}")
    elif name == "cells" and isinstance(value, list):
        for row, region in value:
            check_name(row, "the cell")
            Region(region)
    else:
        raise ValueError(f"{name} is no setting of a stranger's bundle")


def one_of(names: Any, name: object) -> Any:
    """Returns a name that is one of a Literal's; of others the error names them all."""
    if isinstance(name, str) and name in get_args(names):
        return name
    raise ValueError(f"{str(name)[:60]!r} is none of {', '.join(map(str, get_args(names)))}")


def _check_member(entry: Mapping[str, Any]) -> None:
    if not isinstance(entry, dict):
        raise TypeError(f"a network is {str(entry)[:60]!r}")
    check_name(entry["database"], "the database")
    check_name(entry["name"], "the network", 250)
    check_file(entry)
    for key in ("settings", "training"):
        if not isinstance(entry[key], dict):
            raise TypeError(f"{key} is no object")
    if not isinstance(entry["class"], str):
        raise TypeError("a class is no text")
    Region(entry["region"])
    one_of(Layout, entry["layout"])
    one_of(Resample, entry.get("resample", "bilinear"))  # version 1 had no other


def check_file(entry: Mapping[str, Any]) -> str:
    """Returns the file of a network or fusion, which must be a plain name, with a digest."""
    name, digest = entry["file"], entry["sha256"]
    if not isinstance(name, str) or not _FILE.fullmatch(name) or name.startswith("."):
        raise ValueError(f"{str(name)[:60]!r} is no safetensors file beside it")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{str(digest)[:70]!r} is no SHA-256")
    return name


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return value


def _check_json(value: object, depth: int = 0) -> None:
    """Refuses what is nested without end, and texts that are no text."""
    if depth > _DEPTH:
        raise ValueError(f"it is nested deeper than {_DEPTH}")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_json(each, depth + 1)


def _text(value: object, what: str, longest: int = 200) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ValueError(f"{what} is no text of 1 to {longest} characters")


def _number(value: object, what: str, low: float, high: float, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        number = "a whole number" if whole else "a number"
        raise ValueError(f"{what} is {str(value)[:60]}, not {number} from {low:g} to {high:g}")
