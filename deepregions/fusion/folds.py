"""Videos dealt into parts that share no people, to test on what was not learned from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deepregions.errors import UsageError

Strings = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SPLITTINGS = ("people", "target", "video")


@dataclass(frozen=True, eq=False)
class Folds:
    """Videos dealt into parts that are tested in turn.

    Attributes:
        number: (V,) the fold of each video.
        by: What is never parted: ``"people"`` (all that hang together through fakes of two),
            ``"target"`` (the first person of each video) where everybody hangs together, or
            ``"video"`` where nobody is known.
    """

    number: Numbers
    by: str


def deal(fake: Bools, identities: Strings, count: int = 5) -> Folds:
    """Deals videos into folds with about the same share of each class, people kept together.

    Args:
        fake: (V,) which videos are fake.
        identities: (V,) tuples of who is in each; of a fake the target, then the source.
        count: How many folds at most.

    Raises:
        UsageError: There are fewer than two videos of a class, or fewer than two folds are asked
            for.
    """
    genuine, fakes = int((~fake).sum()), int(fake.sum())
    if count < 2:
        raise UsageError(f"{count} folds are too few to cross-validate", "2 or more")
    if min(genuine, fakes) < 2:
        raise UsageError(
            f"the development part has {genuine} genuine and {fakes} fake videos with a score",
            "at least two of each are needed to cross-validate; many more to learn from",
        )
    for by in _SPLITTINGS:
        number = _dealt(_groups(identities, by), fake, count)
        if number is not None:
            return Folds(number, by)
    raise AssertionError("two videos of each class can always be parted")


def _groups(identities: Strings, by: str) -> Numbers:
    """Returns (V,) numbers, equal for videos that may not be parted."""
    videos = len(identities)
    if by == "video":
        return np.arange(videos)
    edges: list[tuple[int, int]] = []
    people: dict[str, int] = {}
    for number, names in enumerate(identities):
        known = tuple(names) or (f"\0{number}",)  # nobody is known: a group of its own
        chosen: Iterable[str] = known if by == "people" else known[:1]
        edges += [(number, people.setdefault(name, len(people))) for name in chosen]
    video, person = np.array(edges, dtype=np.int64).T
    size = videos + len(people)
    graph = coo_array((np.ones(len(video)), (video, person + videos)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return np.asarray(component[:videos], dtype=np.int64)


def _dealt(group: Numbers, fake: Bools, count: int) -> Numbers | None:
    """Returns (V,) folds; None where the rest of a fold would lack a class."""
    _, group = np.unique(group, return_inverse=True)
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
