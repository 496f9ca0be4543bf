"""Who belongs together: people connected through fakes of two, and parts that share nobody.

And fingerprints of people, by which a bundle tells whom its networks learned from without names.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from deepregions.errors import UsageError

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FEW = 20  # of fewer people no interval is shown

FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}

_LEAST_PEOPLE = 10  # smaller components are never parted: too many fakes would be lost
_MOST_SWAPS = 400  # and people, in the search for a division that loses few fakes
_MOST_PEOPLE = 2000
_SPLITTINGS = {"people": None, "target": 1, "video": 0}  # how many people keep a video together


def too_few(count: int, unit: str = "people") -> str:
    """Returns why there is no interval over so many people; empty if there may be one."""
    return f"{count} {unit} are too few, at least {FEW} are needed" if count < FEW else ""


def connected(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Finds the component of each who shares clips, named by its alphabetically first member."""
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


def group_numbers(videos: Iterable[int], people: Iterable[Sequence[str]]) -> Numbers:
    """Numbers groups that share no person, directly or through others: (V,), from 0.

    ``videos`` may be repeated, as where people are told per face.
    """
    pairs = dict.fromkeys(zip(videos, map(tuple, people), strict=True))
    root = connected(
        [(f"v{video}", *(f"p{name}" for name in names if name)) for video, names in pairs]
    )
    count = max((video for video, _ in pairs), default=-1) + 1
    number: dict[str, int] = {}
    groups = [number.setdefault(root[f"v{video}"], len(number)) for video in range(count)]
    return np.array(groups, dtype=np.int64)


def person_numbers(videos: Iterable[int], people: Iterable[Sequence[str]]) -> Numbers:
    """Numbers people, given as for :func:`group_numbers`: (V, P) from 0, -1 in unused places."""
    pairs = sorted(set(zip(videos, people, strict=True)))
    of_video: list[dict[str, None]] = [{} for _ in range(pairs[-1][0] + 1 if pairs else 0)]
    for number, names in pairs:
        of_video[number] |= dict.fromkeys(f"p{name}" for name in names if name)
    known: dict[str, int] = {}
    most = max(map(len, of_video), default=0)
    result = np.full((len(of_video), max(1, most)), -1, dtype=np.int64)
    for number, own in enumerate(of_video):
        for place, name in enumerate(own or [f"v{number}"]):
            result[number, place] = known.setdefault(name, len(known))
    return result


def identity_splits(
    clips: Sequence[tuple[Sequence[str], int]],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> list[str]:
    """Splits clips, identities and label of each, at about the given fractions, sharing nobody.

    Connected identities stay together. Components of genuine clips, of fakes, and of both are dealt
    out apart, so that each split has its share of each class; largest first, each to the split that
    is furthest below its share, those of one size by a seeded hash of their first identity. The
    result does not depend on the order of the clips. While there are components enough, no split is
    left empty; too few fill the splits in their order.
    """
    component = connected(identities for identities, _ in clips)
    roots = [component[identities[0]] for identities, _ in clips]
    sizes = Counter(roots)
    labels: dict[str, set[int]] = {}
    for name, (_, label) in zip(roots, clips, strict=True):
        labels.setdefault(name, set()).add(label)
    strata: dict[frozenset[int], list[str]] = {}
    for name, own in labels.items():
        strata.setdefault(frozenset(own), []).append(name)
    split: dict[str, str] = {}
    for names in strata.values():
        names.sort(key=lambda name: (-sizes[name], _hash(seed, name)))
        split |= _deal({name: sizes[name] for name in names}, fractions)
    return [split[name] for name in roots]


def people_splits(
    clips: Sequence[tuple[Sequence[str], int]],
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, str]:
    """Divides people so that few clips have people on two sides: none where that is possible.

    Where nearly all people are connected through fakes, as in Celeb-DF, they are parted: first so
    that each side has its share, then by swapping two people as long as that loses fewer clips.
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
    weight = Counter(name for group in groups for name in group)
    # Heavy ones first, as light ones even the shares out; those about as heavy by seeded hash.
    order = sorted(weight, key=lambda name: (-weight[name].bit_length(), _hash(seed, name)))
    dealt = _deal({name: weight[name] for name in order}, fractions)
    names, splits = sorted(weight), list(fractions)
    if len(names) > _MOST_PEOPLE:
        return dealt
    place = {name: number for number, name in enumerate(names)}
    common = np.zeros((len(names), len(names)))
    for group in groups:
        for one, other in permutations(group, 2):
            common[place[one], place[other]] += 1
    side = np.array([splits.index(dealt[name]) for name in names])
    weights = np.array([weight[name] for name in names], dtype=np.float64)
    for _ in range(_MOST_SWAPS):
        swap = _best_swap(common, side, weights, len(splits))
        if swap is None:
            break
        side[swap] = side[swap[::-1]]
    return {name: splits[number] for name, number in zip(names, side, strict=True)}


def _best_swap(common: Floats, side: Numbers, weights: Floats, count: int) -> list[int] | None:
    """Returns the two whose swap saves the most clips; their weights must be alike."""
    inside = common @ np.eye(count)[side]  # of each person, the clips with each side
    gain = inside[:, side] - inside[np.arange(len(side)), side][:, None]  # if one went over
    gain = gain + gain.T - 2 * common
    alike = np.abs(weights[:, None] - weights) <= 0.5 * np.minimum(weights[:, None], weights)
    gain[(side[:, None] == side) | ~alike] = 0
    best = int(gain.argmax())
    return None if gain.flat[best] <= 0 else [*divmod(best, len(side))]


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


class Folds(NamedTuple):
    """Videos dealt into folds that are tested in turn."""

    number: Numbers  # (V,) the fold of each video
    # What stays together: "people" (everybody who is connected through fakes), "target" (the first
    # person of each video) where all people are connected, or "video".
    by: str


def deal_folds(
    fake: npt.NDArray[np.bool_], identities: npt.NDArray[np.object_], count: int = 5
) -> Folds:
    """Deals videos into folds with about the same share of each class, people kept together.

    ``fake`` is (V,) bool, ``identities`` (V,) tuples of who is in each, of a fake the target first.

    Raises:
        UsageError: There are fewer than two videos of a class, or fewer than two folds wanted.
    """
    genuine, fakes = int((~fake).sum()), int(fake.sum())
    if count < 2:
        raise UsageError(f"{count} folds are too few to cross-validate", "2 or more")
    if min(genuine, fakes) < 2:
        raise UsageError(
            f"the development part has {genuine} genuine and {fakes} fake videos with a score",
            "at least two of each are needed to cross-validate; many more to learn from",
        )
    for by, most in _SPLITTINGS.items():
        people = [tuple(names)[:most] for names in identities]
        number = _dealt(group_numbers(range(len(identities)), people), fake, count)
        if number is not None:
            return Folds(number, by)
    raise AssertionError("two videos of each class can always be parted")


def _dealt(group: Numbers, fake: npt.NDArray[np.bool_], count: int) -> Numbers | None:
    """Returns (V,) folds; None where the rest of a fold would lack a class."""
    classes = (~fake, fake)
    size = np.stack([np.bincount(group, which) for which in classes], 1)
    total = size.sum(0)
    count = min(count, *(int(each) for each in (size > 0).sum(0)))
    if count < 2:
        return None
    filled = np.zeros((count, 2))
    fold = np.zeros(len(size), dtype=np.int64)
    for each in np.argsort(-(size / total).sum(1), kind="stable"):
        after = (filled + size[each]) / total
        growth = (after**2 - (filled / total) ** 2).sum(1)
        fold[each] = int(growth.argmin())
        filled[fold[each]] += size[each]
    return fold[group] if bool((filled < total).all()) else None


def fingerprint(database: str, person: str) -> str:
    """Returns 16 hexadecimal digits for a person as a database calls them."""
    name = f"{database}\0{person}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(name).hexdigest()[:16]


def fingerprints(database: str, identities: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Returns the fingerprints, sorted, of everybody in some photographs or videos."""
    people = {person for names in identities for person in names if person}
    return tuple(sorted(fingerprint(database, person) for person in people))


def known_people(
    known: Collection[str], database: str, identities: Iterable[Iterable[str]]
) -> tuple[int, int]:
    """Counts whom a network learned from among the people of a database's part.

    Returns:
        How many of them are known, and how many people there are.
    """
    there = fingerprints(database, identities)
    return len(set(known).intersection(there)), len(there)
