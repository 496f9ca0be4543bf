"""Splits in which nobody is on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from deepregions.data.clips import Clip
from deepregions.errors import UsageError

FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
CARVED: Mapping[str, float] = {"train": 0.875, "val": 0.125}  # of what is not for evaluation

Scheme = Literal["official", "paper", "kfold"]

UNOFFICIAL = "not in the official splits"
TWO_SIDES = "its two people are in different splits"
ELSEWHERE = "somebody in it is in another split"

_LEAST_PEOPLE = 10  # fewer that hang together are never parted: too many fakes would be lost
_MOST_SWAPS = 400  # and people, in the search for a division that loses few fakes
_MOST_PEOPLE = 2000


@dataclass(frozen=True)
class Splitting:
    """How a database is divided into train, val (development) and test (evaluation).

    Attributes:
        scheme: ``"official"``: as published; ``"paper"``: by people, about 80 % (of which an
            eighth for development) to 20 %; ``"kfold"``: by people, a K-th for evaluation. None
            is the database's own default.
        folds: K.
        fold: Which of the K is for evaluation, from 0.
        seed: Another seed divides people otherwise.

    Raises:
        UsageError: A value that makes no sense.
    """

    scheme: Scheme | None = None
    folds: int = 5
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in get_args(Scheme):
            raise UsageError(
                f"no split {self.scheme!r}", f"there are {', '.join(get_args(Scheme))}"
            )
        if self.folds < 2:
            raise UsageError(f"folds must be at least 2, not {self.folds}")
        if not 0 <= self.fold < self.folds:
            raise UsageError(f"fold must be from 0 to {self.folds - 1}, not {self.fold}")


def divide(
    clips: Sequence[Clip], splitting: Splitting, *, carve: bool = True
) -> tuple[list[Clip], dict[str, int]]:
    """Gives each clip its split; nobody is in two, and clips of people of two are dropped.

    What is for evaluation is settled first, what is for development next; who is in either is
    nowhere else. Where the official splits have no development part, one is taken out of the
    training part, by people. The result does not depend on the order of the clips.

    Args:
        clips: All that are there, with their official split or none.
        splitting: How; its scheme must be given.
        carve: Whether official splits without a development part get one.

    Returns:
        The clips that have a place, in their order, and how many have none, by reason.

    Raises:
        UsageError: There is no official split.
    """
    if splitting.scheme == "official":
        return _official(clips, splitting.seed, carve=carve)
    if splitting.scheme == "paper":
        return _placed(clips, _by_people(clips, FRACTIONS, splitting.seed))
    folds = {str(number): 1 / splitting.folds for number in range(splitting.folds)}
    numbers = _by_people(clips, folds, splitting.seed)
    held_out = {name: "test" for name, number in numbers.items() if number == str(splitting.fold)}
    rest = [clip for clip in clips if not held_out.keys() & set(clip.identities)]
    others = dict.fromkeys(numbers, "train") | _by_people(rest, CARVED, splitting.seed)
    return _placed(clips, others | held_out)


def _official(
    clips: Sequence[Clip], seed: int, *, carve: bool
) -> tuple[list[Clip], dict[str, int]]:
    splits = {clip.split for clip in clips}
    if splits == {""}:
        raise UsageError("what is there has no official split", "choose --split paper or kfold")
    side: dict[str, str] = {}
    for split in ("test", "val", "train"):
        people = (name for clip in clips if clip.split == split for name in clip.identities)
        side = dict.fromkeys(people, split) | side
    if carve and "val" not in splits:
        train = [c for c in clips if c.split == "train" and _sides(c, side) == {"train"}]
        side |= _by_people(train, CARVED, seed)
        carved = {clip.key for clip in train}
        clips = [replace(c, split=side[c.identities[0]]) if c.key in carved else c for c in clips]
    return _placed(clips, side, official=True)


def _placed(
    clips: Sequence[Clip], side: Mapping[str, str], *, official: bool = False
) -> tuple[list[Clip], dict[str, int]]:
    """Keeps the clips all of whose people are on one side (officially, on the clip's own)."""
    kept: list[Clip] = []
    dropped: Counter[str] = Counter()
    for clip in clips:
        sides = _sides(clip, side)
        (split,) = sides if len(sides) == 1 else ("",)
        if split and (not official or split == clip.split):
            kept.append(replace(clip, split=split))
        elif len(sides) > 1 and "" not in sides:
            dropped[TWO_SIDES] += 1
        else:
            dropped[UNOFFICIAL if official and not clip.split else ELSEWHERE] += 1
    return kept, dict(dropped)


def _sides(clip: Clip, side: Mapping[str, str]) -> set[str]:
    return {side.get(name, "") for name in clip.identities}


def _by_people(clips: Sequence[Clip], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Returns the side of each person; a clip's group stays with its people where it can."""
    nodes = [(*c.identities, *([f"group {c.group}"] if c.group else [])) for c in clips]
    return people_splits([(n, c.label) for n, c in zip(nodes, clips, strict=True)], fractions, seed)


def people_splits(
    clips: Sequence[tuple[Sequence[str], int]],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, str]:
    """Divides people so that few clips have people on two sides: none where that is possible.

    As :func:`identity_splits`, but people of whom almost everybody hangs together with everybody
    (each in fakes with others, as in Celeb-DF) are parted: first so that each side has its share,
    then by swaps of two people as long as a swap loses fewer clips.

    Args:
        clips: As for :func:`identity_splits`.
        fractions: As there.
        seed: As there.

    Returns:
        The split of each person. Clips whose people are in different ones belong to neither.
    """
    groups = [tuple(dict.fromkeys(identities)) for identities, _ in clips]
    component = connected(groups)
    sizes = Counter(component[group[0]] for group in groups)
    largest = max(fractions.values())
    parted = {
        name
        for name, size in sizes.items()
        if size > (largest + (1 - largest) / 2) * len(groups)
        and sum(other == name for other in component.values()) >= _LEAST_PEOPLE
    }
    if not parted:
        splits = identity_splits(clips, fractions, seed)
        return {n: split for group, split in zip(groups, splits, strict=True) for n in group}
    unit = {name: name if root in parted else root for name, root in component.items()}
    side = _parted([tuple({unit[name]: 0 for name in group}) for group in groups], fractions, seed)
    return {name: side[unit[name]] for name in component}


def _parted(
    groups: Sequence[Sequence[str]], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Divides units by their clips, then swaps them (Kernighan and Lin 1970) to lose fewer."""
    weight: Counter[str] = Counter()
    for group in groups:
        for name in group:
            weight[name] += 1
    # Heavy ones first, as light ones even the shares out; those about as heavy by seeded hash.
    order = sorted(weight, key=lambda name: (-weight[name].bit_length(), _hash(seed, name)))
    dealt = _deal({name: weight[name] for name in order}, fractions)
    names, splits = sorted(weight), list(fractions)
    if len(names) > _MOST_PEOPLE:
        return dealt
    place = {name: number for number, name in enumerate(names)}
    common = np.zeros((len(names), len(names)))
    for group in groups:
        for one in group:
            for other in group:
                common[place[one], place[other]] += one != other
    side = np.array([splits.index(dealt[name]) for name in names])
    weights = np.array([weight[name] for name in names], dtype=np.float64)
    for _ in range(_MOST_SWAPS):
        swap = _best_swap(common, side, weights, len(splits))
        if swap is None:
            break
        side[list(swap)] = side[list(swap)[::-1]]
    return {name: splits[number] for name, number in zip(names, side, strict=True)}


def _best_swap(
    common: npt.NDArray[np.float64],
    side: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    count: int,
) -> tuple[int, int] | None:
    """Returns the two whose swap saves the most clips; their weights must be alike."""
    inside = common @ np.eye(count)[side]  # of each person, the clips with each side
    gain = inside[:, side] - inside[np.arange(len(side)), side][:, None]  # if one went over
    gain = gain + gain.T - 2 * common
    alike = np.abs(weights[:, None] - weights) <= 0.5 * np.minimum(weights[:, None], weights)
    gain[(side[:, None] == side) | ~alike] = 0
    best = int(gain.argmax())
    return None if gain.flat[best] <= 0 else divmod(best, len(side))


def connected(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Returns who hangs together with whom, when the members of a group must not be parted.

    Args:
        groups: The identities of each clip: one, or two of a fake that shows two people's traits.

    Returns:
        For each identity the alphabetically first one of its connected component, which does not
        depend on the order of the groups.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]  # halve the path
            name = parent[name]
        return name

    for group in groups:
        for name in group:
            low, high = sorted((root(group[0]), root(name)))
            parent[high] = low
    return {name: root(name) for name in parent}


def identity_splits(
    clips: Sequence[tuple[Sequence[str], int]],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> list[str]:
    """Splits clips at about the given fractions so that no identity is in two splits.

    Connected identities stay together. Components of genuine clips, of fakes, and of both are
    dealt out apart, so that each split has its share of each class; largest first, each to the
    split that is furthest below its share, those of one size in the order of a seeded hash of
    their first identity. The result depends on the set of clips only, never on their order. While
    there are components enough, no split is left empty; too few fill the splits in their order.

    Args:
        clips: The identities (at least one) and the label of each clip.
        fractions: The share of each split; the order is the order in which few components fill.
        seed: Another seed gives another split.

    Returns:
        The split of each clip.
    """
    component = connected(identities for identities, _ in clips)
    roots = [component[identities[0]] for identities, _ in clips]
    sizes = Counter(roots)
    labels: dict[str, set[int]] = {name: set() for name in sizes}
    for name, (_, label) in zip(roots, clips, strict=True):
        labels[name].add(label)
    strata: dict[tuple[int, ...], list[str]] = {}
    for name in sizes:
        strata.setdefault(tuple(sorted(labels[name])), []).append(name)
    split: dict[str, str] = {}
    for names in strata.values():
        names.sort(key=lambda name: (-sizes[name], _hash(seed, name)))
        split |= _deal({name: sizes[name] for name in names}, fractions)
    return [split[name] for name in roots]


def _deal(sizes: Mapping[str, int], fractions: Mapping[str, float]) -> dict[str, str]:
    total = sum(sizes.values())
    room = {split: fraction * total for split, fraction in fractions.items()}
    empty = list(fractions)
    dealt: dict[str, str] = {}
    for name, size in sizes.items():
        must_fill = len(sizes) - len(dealt) <= len(empty)
        split = empty[0] if must_fill else max(room, key=lambda split: room[split])
        dealt[name] = split
        room[split] -= size
        if split in empty:
            empty.remove(split)
    return dealt


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
