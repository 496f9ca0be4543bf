"""Splits in which nobody is on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


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
