"""What ``bundle.json`` says, checked where it is read: it may come from a stranger.

Names are plain (they never lead out of a folder), and numbers are finite and within a range: what
a value may be is its type annotation, which :func:`checked` enforces.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from deepregions.errors import BundleError
from deepregions.people import too_few
from deepregions.types import Layout, Level, Region, Resample

MANIFEST = "bundle.json"
GRAPH = "graph.onnx"
"""Its system as ONNX, if it is there; see :mod:`deepregions.deploy.bundle_graph`."""
GRAPH_HINT = "deepregions export --into-bundle writes it again"
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
_SINCE = {  # the versions from which keys mean something
    **dict.fromkeys(("fusion", "calibration"), 3),
    **dict.fromkeys(("trained_on_kind", "operating_points", "recipe", "people"), 4),
    **dict.fromkeys(("limits", "degradation", "answers"), 4),
}


class Span(NamedTuple):
    """The least and the greatest of a number, or of a text's length."""

    low: float
    high: float


class Form(NamedTuple):
    """What a text looks like, as a regular expression and in words."""

    pattern: str
    words: str


Text = Annotated[str, Span(1, 200)]
Name = Annotated[str, Form(r"\w[\w .,+@=()-]{0,99}", "a plain name")]
LongName = Annotated[str, Form(r"\w[\w .,+@=()-]{0,249}", "a plain name")]
Rate = Annotated[float, Span(0, 1)]
LogOdds = Annotated[float, Span(-1e4, 1e4)]
Count = Annotated[int, Span(0, 1e9)]
_Fingerprint = Annotated[str, Form("[0-9a-f]{8,64}", "8 to 64 hexadecimal digits")]
_STORED = {  # of a network or a fusion
    "file": Annotated[
        str, Form(r"[A-Za-z0-9_+-][\w.+-]{0,119}(?<=\.safetensors)", "a safetensors file beside it")
    ],
    "sha256": Annotated[str, Form("[0-9a-f]{64}", "a SHA-256")],
}
_MEMBER = {
    **_STORED,
    "database": Name,
    "name": LongName,
    "class": Text,
    "settings": dict[str, Any],
    "training": dict[str, Any],
    "region": Region,
    "layout": Layout,
}


def checked(value: Any, kind: Any, what: str) -> Any:
    """Returns a JSON value as a type has it: dataclasses of objects, tuples of lists.

    Args:
        value: The value; keys that a dataclass does not have are left out.
        kind: A type annotation; texts and numbers are annotated with a :class:`Form` or a
            :class:`Span`.
        what: What errors call it.

    Raises:
        ValueError: It is of another type, or not as its annotation says.
        TypeError: An object lacks what its dataclass must have.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if type(None) in inner:
        return None if value is None else checked(value, inner[0], what)
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind, include_extras=True)
        known = {key: checked(value[key], hints[key], key) for key in hints if key in value}
        return kind(**known)  # type: ignore[operator]
    if origin is dict and isinstance(value, dict):
        return {checked(k, inner[0], what): checked(v, inner[1], str(k)) for k, v in value.items()}
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if ... in inner else inner
        if len(kinds) == len(value):
            return tuple(checked(each, part, what) for each, part in zip(value, kinds, strict=True))
    wanted = _unlike(value, *(inner if origin is Annotated else (kind, None)))
    if wanted:
        raise ValueError(f"{what} is {str(value)[:60]!r}, not {wanted}")
    return value


def _unlike(value: Any, kind: Any, rule: Span | Form | None) -> str:
    """Returns what a single value should be, in words; empty if it is that."""
    text = isinstance(value, str)
    names = get_args(kind) if get_origin(kind) is Literal else ()
    if names := tuple(Region) if kind is Region else names:
        return "" if text and value in names else f"one of {', '.join(map(str, names))}"
    if isinstance(rule, Form):
        return "" if text and re.fullmatch(rule.pattern, value) else rule.words
    if kind is str:
        low, high = rule or (0, math.inf)
        fits = text and low <= len(value) <= high
        return "" if fits else f"a text of {low:g} to {high:g} characters"
    if rule is not None:
        whole = "whole " if kind is int else ""
        fits = type(value) in (int, kind) and rule.low <= value <= rule.high
        return "" if fits else f"a {whole}number from {rule.low:g} to {rule.high:g}"
    if kind is bool:
        return "" if isinstance(value, bool) else "true or false"
    return "" if kind is Any else "an object"


def false_alarms(rate: float) -> str:
    """Returns what the operating point is called that keeps false alarms within a rate."""
    return f"{100 * rate:g} % false alarms"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and how often it errs.

    Attributes:
        threshold: Fused log-odds, uncalibrated; at or above it a score says fake.
        false_positive_rate: The share of genuine ones at or above it there, if known.
        false_positive_interval: Its ends; None where people are too few or not known.
        people: How many genuine people these rest on; 0 if that is not known.
    """

    name: Text
    threshold: LogOdds
    level: Level
    found_on: Text
    false_positive_rate: Rate | None = None
    false_positive_interval: tuple[Rate, Rate] | None = None
    true_positive_rate: Rate | None = None
    people: Count = 0

    def __post_init__(self) -> None:
        interval = self.false_positive_interval
        if interval is not None and interval[0] > interval[1]:
            raise ValueError("an interval is two rates, the lower first")
        if too_few(self.people):
            object.__setattr__(self, "false_positive_interval", None)


@dataclass(frozen=True)
class Degradation:
    """How a bundle errs on faces that were altered in one way.

    Attributes:
        alteration: ``size``, ``jpeg``, ``blur``, or any words; empty for faces as they are.
        level: Strength of the alteration, on the scale of ``deepregions evaluate --robustness``.
        measure: Width in pixels, JPEG quality or sharpness at or below which a face counts as
            altered so; for faces as they are, their median width.
        false_positive_rate: At the operating point of 1 % false alarms.
        worse: Whether, on the same faces, AUC fell or false alarms rose by more than chance.
    """

    alteration: Annotated[str, Span(0, 200)]
    auc: Rate
    level: Annotated[float, Span(0, 1e6)] | None = None
    measure: Annotated[float, Span(0, 1e6)] | None = None
    false_positive_rate: Rate | None = None
    people: Count = 0
    worse: bool = False
    found_on: Annotated[str, Span(0, 200)] = ""


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says of itself as a whole; no score depends on it.

    Attributes:
        trained_on_kind: What its networks learned from; the least realistic, if they differ.
        people: Fingerprints of those it was trained on, so that an evaluation can tell whether
            it knows them.
        degradation: How it errs on altered faces, after those as they are.
        answers: Fused log-odds of the faces of `deepregions models verify --faces`, by name.
    """

    trained_on_kind: Kind | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    people: tuple[_Fingerprint, ...] = ()
    limits: Annotated[str, Span(0, 10_000)] = ""
    degradation: tuple[Degradation, ...] = ()
    answers: dict[Text, LogOdds] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Returns what is not empty, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value}

    def cautions(self) -> tuple[str, ...]:
        """Returns what must be said wherever a score of its networks is shown."""
        caution = _CAUTIONS.get(self.trained_on_kind or "real")
        return (caution,) if caution else ()

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


def facts_of(manifest: dict[str, Any]) -> BundleFacts:
    """Returns a manifest's facts; a ``ValueError`` or ``TypeError`` says what is wrong."""
    facts: BundleFacts = checked(manifest, BundleFacts, MANIFEST)
    return facts


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads a bundle's manifest, without looking at its networks.

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
    manifest = {key: v for key, v in manifest.items() if _SINCE.get(key, 1) <= version}
    try:
        check_entries(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(path, error) from error
    return manifest


def read_weights(folder: Path, entry: Mapping[str, Any]) -> bytes:
    """Reads one of a bundle's files of weights, as an entry of its manifest names it.

    Raises:
        BundleError: It is not there, or not the file that the bundle was written with.
    """
    file = folder / str(entry["file"])
    if not file.is_file():
        raise BundleError(f"{file} is missing", "copy the whole bundle folder")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise BundleError(
            f"{file} is not the file that the bundle was written with (SHA-256 differs)",
            "copy the bundle again",
        )
    return content


def check_entries(manifest: Mapping[str, Any]) -> None:
    """Checks what a manifest says of its networks and their fusion.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: Something is missing, or not as it should
            be.
    """
    members, fusion = manifest["members"], manifest.get("fusion")
    if not isinstance(members, list) or not members:
        raise ValueError("it names no network")
    for entry in members:
        for key, kind in _MEMBER.items():
            checked(entry[key], kind, key)
        checked(entry.get("resample", "bilinear"), Resample, "resample")  # version 1 had no other
    if fusion is not None:
        for key, kind in _STORED.items():
            checked(fusion[key], kind, key)
    files = [entry["file"] for entry in (*members, fusion or {"file": ""})]
    if len(set(files)) < len(files):
        raise ValueError("two of its entries are one file")


def malformed(path: Path, error: Exception) -> BundleError:
    """Returns the error of a bundle whose manifest does not say what it should."""
    what = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
    return BundleError(
        f"{path / MANIFEST} is not as a bundle's should be: {what[:300]}", "write the bundle again"
    )


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
