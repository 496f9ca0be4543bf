"""Draws the faces of a training epoch, balanced by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from deepregions.people import Numbers
from deepregions.types import BONA_FIDE, FAKE


class BalancedSampler(DistributedSampler[int]):
    """Draws as many genuine as fake faces, the same on every rank but for the share that it takes.

    An epoch goes through each class in random order, again from the start when it is used up. A
    genuine and a fake face follow each other, so batches of even size are balanced too; ranks take
    turns by such pairs. An epoch has ``draws`` faces over all ranks, by default as many as there
    are; what does not divide into a face of each class per rank is left out.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        labels: Numbers,
        num_replicas: int = 1,
        rank: int = 0,
        *,
        draws: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        classes = [np.flatnonzero(labels == label) for label in (BONA_FIDE, FAKE)]
        self._classes = [rows for rows in classes if len(rows)]
        wanted = len(labels) if draws is None else draws
        self._pairs = max(1, wanted // (len(self._classes) * num_replicas))  # of this rank
        self.num_samples = len(self._classes) * self._pairs
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        count = self._pairs * self.num_replicas
        pairs = np.stack([_drawn(rows, count, generator) for rows in self._classes], 1)
        return iter(pairs[self.rank :: self.num_replicas].ravel().tolist())


class PairSampler(DistributedSampler[int]):
    """Draws a genuine face, then a fake of the same person, in turns.

    So neither who is shown nor, mostly, the scene tells the classes apart. An epoch goes through
    the genuine faces in random order, again from the start when they are used up; the fakes of a
    person are taken in turns too. A genuine face of somebody who is in no fake comes twice: the
    second is for a forgery to be made of. An epoch has ``draws`` faces over all ranks, by default
    two for each genuine one; ``persons`` has a number for who is in each.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        labels: Numbers,
        persons: Numbers,
        num_replicas: int = 1,
        rank: int = 0,
        *,
        draws: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        self._genuine = np.flatnonzero(labels == BONA_FIDE)
        self._persons = persons
        fakes = np.flatnonzero(labels == FAKE)
        fakes = fakes[np.argsort(persons[fakes], kind="stable")]
        numbers, starts = np.unique(persons[fakes], return_index=True)
        self._fakes = dict(zip(numbers.tolist(), np.split(fakes, starts[1:]), strict=True))
        wanted = 2 * len(self._genuine) if draws is None else draws
        self._pairs = max(1, wanted // (2 * num_replicas))
        self.num_samples = 2 * self._pairs
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        genuine = _drawn(self._genuine, self._pairs * self.num_replicas, generator)
        fakes = {person: generator.permutation(rows) for person, rows in self._fakes.items()}
        taken: Counter[int] = Counter()
        drawn: list[int] = []
        for face in genuine.tolist():
            person = int(self._persons[face])
            rows = fakes.get(person)
            drawn += [face, face if rows is None else int(rows[taken[person] % len(rows)])]
            taken[person] += 1
        pairs = np.array(drawn).reshape(-1, 2)
        return iter(pairs[self.rank :: self.num_replicas].ravel().tolist())


def _drawn(rows: Numbers, count: int, generator: np.random.Generator) -> Numbers:
    """Draws rows in random order, again from the start when they are used up."""
    rounds = -(-count // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:count]
