"""Calibration: from a video's log-odds to a likelihood ratio, and to words.

A likelihood ratio (LR) says how many times likelier a score is if the video is manipulated than if
it is genuine, among videos like those of the development part. LLR is its natural logarithm here;
what is printed is log10, as forensic reports have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np

from deepregions.errors import UsageError
from deepregions.fusion.pooling import Pooling
from deepregions.people import Numbers, too_few
from deepregions.roc import Bools, Floats, tally
from deepregions.types import Level

Kind = Literal["logistic", "isotonic"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_PENALTY = 0.01  # / (2 * videos) * slope^2: too weak to matter, but classes that do not overlap
_LN10 = math.log(10)

# ENFSI guideline for evaluative reporting in forensic science (2015), appendix: the verbal
# equivalents of LRs above 1; up to each number, and below 1 the same for the other proposition.
SCALE: tuple[tuple[float, str], ...] = (
    (2, "no"),
    (10, "weak"),
    (100, "moderate"),
    (1_000, "moderately strong"),
    (10_000, "strong"),
    (1_000_000, "very strong"),
    (math.inf, "extremely strong"),
)


@dataclass(frozen=True)
class LikelihoodRatio:
    """What a score is worth: a natural logarithm, within the bounds that the data supports."""

    ln: float
    lower: float
    upper: float

    @property
    def ratio(self) -> float:
        """How many times likelier such a score is for a fake than for a genuine face."""
        return math.exp(self.ln)

    @property
    def log10(self) -> float:
        """The logarithm to base 10."""
        return self.ln / _LN10

    @property
    def bounds_log10(self) -> tuple[float, float]:
        """The bounds to base 10."""
        return self.lower / _LN10, self.upper / _LN10

    @property
    def limited(self) -> bool:
        """Whether it lies at a bound: more data might support a stronger statement."""
        return self.ln <= self.lower or self.ln >= self.upper

    @property
    def verbal(self) -> str:
        """In the words of :data:`SCALE`; exactly on a border, the weaker ones."""
        word = next(word for most, word in SCALE if abs(self.ln) <= math.log(most) + 1e-12)
        if word == "no":
            return "no support for either"
        return f"{word} support for {'manipulated' if self.ln > 0 else 'genuine'}"


@dataclass(frozen=True)
class Quantity:
    """The scores that a calibration was found for, and says nothing beyond.

    The rules over the faces of a track and the tracks of a file are in words, and empty at the
    level of frames. The rule over networks, and the SHA-256 of their weights, sorted, are empty if
    they are not known.
    """

    level: Level
    faces: str
    tracks: str
    fusion: str = ""
    networks: tuple[str, ...] = ()

    @classmethod
    def pooled(
        cls, level: Level, pooling: Pooling, fusion: str = "", networks: Iterable[str] = ()
    ) -> Self:
        """Returns what is scored at a level under some rules."""
        rules = (pooling.frame_rule, pooling.track_rule) if level == "video" else ("", "")
        return cls(level, *rules, fusion, tuple(sorted(networks)))

    def mismatch(self, wanted: Quantity) -> str:
        """Returns why a calibration of this does not hold for another quantity; empty if it does.

        What one of the two does not say is not compared.
        """
        units = {"frame": "single faces", "video": "whole photos and videos"}
        if self.level != wanted.level:
            return f"the calibration is for {units[self.level]}, not for {units[wanted.level]}"
        for name in ("faces", "tracks", "fusion"):
            own, other = getattr(self, name), getattr(wanted, name)
            if own and other and own != other:
                return f"the calibration is for the {own}, not for the {other}"
        if self.networks and wanted.networks and self.networks != wanted.networks:
            return "the calibration is for other networks"
        return ""


@dataclass(frozen=True)
class Development:
    """What a calibration was found on.

    Attributes:
        methods: How the fakes were made, with how many videos of each.
        landmarks: The landmark backend, name and version; None if the scores do not say.
        cross_validation: What was never parted in the cross-validation behind scores and bounds
            (``by``), and in how many ``folds``.
        people: How many people, or groups of people who share videos, it rests on; 0 if unknown.
    """

    database: str
    store: str
    split: str
    genuine: int
    fake: int
    methods: Mapping[str, int] = field(default_factory=dict)
    landmarks: Mapping[str, Any] | None = None
    cross_validation: Mapping[str, Any] = field(default_factory=dict)
    people: int = 0

    def __post_init__(self) -> None:
        if min(self.genuine, self.fake) < 1:
            raise ValueError(f"a calibration on {self.genuine} genuine and {self.fake} fake videos")


@dataclass(frozen=True)
class Calibration:
    """A rising function from log-odds to LLR, within bounds.

    Attributes:
        kind: ``logistic``: ``slope * log_odds + offset``. ``isotonic``: straight lines between
            ``log_odds`` and ``llr``, constant beyond.
        lower: The least LLR that the data supports, at or below 0.
        upper: The most, at or above 0.

    Raises:
        ValueError: No such kind, parameters that make no rising function, or bounds on the wrong
            side.
    """

    kind: Kind
    parameters: Mapping[str, Any]
    lower: float
    upper: float
    quantity: Quantity
    development: Development

    def __post_init__(self) -> None:
        _check(self.kind)
        if not (-math.inf < self.lower <= 0 <= self.upper < math.inf):
            raise ValueError(f"bounds of {self.lower} and {self.upper} on a log-likelihood ratio")
        if self.kind == "logistic":
            slope, offset = self.parameters["slope"], self.parameters["offset"]
            rising = 0 <= slope < math.inf and math.isfinite(offset)
        else:
            x, y = (np.asarray(self.parameters[key], np.float64) for key in ("log_odds", "llr"))
            rising = len(x) == len(y) > 0 and bool(np.isfinite([x, y]).all())
            rising = rising and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        if not rising:
            raise ValueError(f"the parameters of a {self.kind} calibration do not rise")

    def llr(self, log_odds: Floats) -> Floats:
        """Returns natural LLRs within the bounds, NaN for NaN."""
        given = self.parameters
        if self.kind == "logistic":
            raw = given["slope"] * log_odds + given["offset"]
        else:
            raw = np.interp(log_odds, given["log_odds"], given["llr"])
        return np.asarray(np.clip(raw, self.lower, self.upper), dtype=np.float64)

    def likelihood_ratio(self, log_odds: float | None) -> LikelihoodRatio | None:
        """Returns what a track's or a file's log-odds say; None for none."""
        if log_odds is None:
            return None
        return LikelihoodRatio(float(self.llr(np.array(log_odds))), self.lower, self.upper)

    def for_networks(self, digests: Iterable[str]) -> Self:
        """Returns the same for networks whose files have other SHA-256, as copies have."""
        quantity = replace(self.quantity, networks=tuple(sorted(digests)))
        return replace(self, quantity=quantity)

    def settings(self) -> dict[str, Any]:
        """Returns all of it as JSON values."""
        values = asdict(self)
        values["rule"] = self.quantity.faces  # all that earlier versions know of the quantity
        values["quantity"]["networks"] = list(self.quantity.networks)
        return values

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Makes a calibration of :meth:`settings`, maybe a stranger's; unknown keys are ignored.

        Raises:
            ValueError: As the class, or there is no such level; or KeyError, TypeError,
                AttributeError or OverflowError where one is missing, of another kind or too large.
        """
        kind, given = settings["kind"], settings["parameters"]
        _check(kind)
        if kind == "logistic":
            parameters: dict[str, Any] = {key: float(given[key]) for key in ("slope", "offset")}
        else:
            parameters = {key: [float(x) for x in given[key]] for key in ("log_odds", "llr")}
        return cls(
            kind,
            parameters,
            float(settings["lower"]),
            float(settings["upper"]),
            _quantity(settings),
            _development(settings["development"]),
        )

    @property
    def withheld(self) -> str:
        """Why it gives no likelihood ratio: its bounds are an interval, and need enough people."""
        return too_few(self.development.people) if self.development.people else ""

    def facts(self) -> dict[str, Any]:
        """Returns what results say of it."""
        return {
            "kind": self.kind,
            "log10_llr_bounds": [self.lower / _LN10, self.upper / _LN10],
            "rule": self.quantity.faces or "each face by itself",
            "quantity": asdict(self.quantity),
            **asdict(self.development),
        }


def calibrate(
    kind: Kind,
    log_odds: Floats,
    fake: Bools,
    fold: Numbers,
    *,
    quantity: Quantity,
    development: Development,
) -> Calibration:
    """Fits a calibration on one score per video.

    The classes weigh the same, so that what comes out is an LLR whatever their numbers. The bounds
    are those of :func:`support_bounds`, of :func:`cross_calibrated` LLRs. Log-odds (V,) must come
    from fusions that did not see the video either; without any one fold (V,) both classes must
    remain.

    Raises:
        UsageError: A score is not finite, or a class is absent.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no calibration {kind!r}", f"one of {', '.join(KINDS)}")
    lower, upper = support_bounds(cross_calibrated(kind, log_odds, fake, fold), fake)
    parameters: dict[str, Any]
    if kind == "logistic":
        slope, offset = _logistic(log_odds, fake)
        parameters = {"slope": slope, "offset": offset}
    else:
        x, y = _pooled(log_odds, fake)
        parameters = {"log_odds": x.tolist(), "llr": np.clip(y, lower, upper).tolist()}
    return Calibration(kind, parameters, lower, upper, quantity, development)


def cross_calibrated(kind: Kind, log_odds: Floats, fake: Bools, fold: Numbers) -> Floats:
    """Returns (V,) LLRs without bounds, each by a calibration that did not see its fold.

    They may be infinite where an isotonic calibration saw one class only.
    """
    llrs = np.full(len(log_odds), np.nan)
    for number in np.unique(fold):
        rest, own = fold != number, fold == number
        if kind == "logistic":
            slope, offset = _logistic(log_odds[rest], fake[rest])
            llrs[own] = slope * log_odds[own] + offset
        else:
            llrs[own] = _between(log_odds[own], *_pooled(log_odds[rest], fake[rest]))
    return llrs


def support_bounds(llrs: Floats, fake: Bools) -> tuple[float, float]:
    """Returns the least and the greatest LLR that a set of natural LLRs (V,) supports, both finite.

    The empirical lower and upper bounds (ELUB) of P. Vergeer et al., Science & Justice 56 (2016)
    482-491: with one more fake at -infinity and one more genuine video at +infinity, both as
    misleading as can be, deciding by the LLRs must cost no more than deciding without them, at any
    threshold between 0 and the bound. So n genuine videos never support an LR above n + 1.
    """
    return -_upper_bound(-llrs, ~fake), _upper_bound(llrs, fake)


def _upper_bound(llrs: Floats, fake: Bools) -> float:
    """Goes up through the LLRs above 0; between two neighbours both error rates are constant.

    At threshold t, errors cost ``misses + t * false alarms``, and 1 without LLRs (t > 1).
    """
    fakes, genuine = np.sort(llrs[fake]), np.sort(llrs[~fake])
    bound = 0.0
    for value in np.unique(llrs[llrs > 0]):
        found = (len(fakes) - np.searchsorted(fakes, value)) / (len(fakes) + 1)
        accused = (len(genuine) - np.searchsorted(genuine, value) + 1) / (len(genuine) + 1)
        most = math.log(found / accused) if found > 0 else -math.inf
        if most < value:
            return max(bound, most)
        bound = float(value)
    return bound


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"calibration {kind!r} is none of {', '.join(KINDS)}")


def _quantity(settings: Mapping[str, Any]) -> Quantity:
    """Reads a stranger's quantity; calibrations of earlier versions know the rule over faces."""
    stored = settings.get("quantity")
    if stored is None:
        return Quantity("video", str(settings["rule"]), Pooling().track_rule)
    if stored["level"] not in get_args(Level):
        raise ValueError(f"a calibration of the level {stored['level']!r}")
    faces, tracks, fusion = (str(stored[key]) for key in ("faces", "tracks", "fusion"))
    networks = tuple(sorted(map(str, stored["networks"])))
    return Quantity(stored["level"], faces, tracks, fusion, networks)


def _development(stored: Mapping[str, Any]) -> Development:
    landmarks, folds = stored["landmarks"], stored["cross_validation"]
    database, store, split = (str(stored[key]) for key in ("database", "store", "split"))
    return Development(
        database,
        store,
        split,
        genuine=int(stored["genuine"]),
        fake=int(stored["fake"]),
        methods={str(name): int(count) for name, count in stored["methods"].items()},
        landmarks=None if landmarks is None else {k: str(v) for k, v in landmarks.items()},
        cross_validation={"folds": int(folds["folds"]), "by": str(folds["by"])},
        people=int(stored.get("people", 0)),
    )


def _require_classes(log_odds: Floats, fake: Bools) -> None:
    if not np.isfinite(log_odds).all():
        raise UsageError("a score to calibrate is not finite", "leave such videos out")
    if fake.all() or not fake.any():
        raise UsageError("a calibration needs genuine and fake videos", "both, in each part")


def _logistic(log_odds: Floats, fake: Bools) -> tuple[float, float]:
    """Returns the slope, which is not negative, and the offset."""
    from deepregions.fusion.fitting import balanced, logistic_regression  # noqa: PLC0415 - torch

    _require_classes(log_odds, fake)
    share = balanced(fake)
    centre = float(share @ log_odds)
    spread = math.sqrt(float(share @ (log_odds - centre) ** 2)) or 1.0
    scaled = ((log_odds - centre) / spread)[:, None]
    (raw,), offset = logistic_regression(scaled, fake, share, _PENALTY / (2 * len(fake)), least=0)
    slope = float(raw) / spread
    return slope, offset - slope * centre


def _pooled(log_odds: Floats, fake: Bools) -> tuple[Floats, Floats]:
    """Returns the ends of each pool of adjacent violators, and its LLR, infinite in a pure one."""
    from deepregions.fusion.fitting import isotonic_llr  # noqa: PLC0415 - torch

    _require_classes(log_odds, fake)
    counts = tally(log_odds, fake)
    x, llr = counts.values[::-1], isotonic_llr(counts)[::-1]
    other = llr[1:] != llr[:-1]
    ends = np.append(True, other) | np.append(other, True)
    return x[ends], llr[ends]


def _between(values: Floats, x: Floats, y: Floats) -> Floats:
    """Straight lines, with y that may be infinite: so is what lies next to that.

    Between minus and plus infinity nothing is known, which is 0.
    """
    after = np.clip(np.searchsorted(x, values), 1, max(len(x) - 1, 1))
    low, high = y[after - 1], y[np.minimum(after, len(x) - 1)]
    inside = np.interp(values, x, np.nan_to_num(y, posinf=0, neginf=0))
    inside = np.where(np.isinf(low), low, np.where(np.isinf(high), high, inside))
    inside = np.where(np.isinf(low) & np.isinf(high) & (low < high), 0.0, inside)
    return np.where(values <= x[0], y[0], np.where(values >= x[-1], y[-1], inside))
