"""Several face stores as one, to train on."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepregions.data.store import FaceRecord, FaceStore
from deepregions.errors import UsageError


class MergedStore:
    """The faces of several stores, one store's after the other's, as a :class:`FaceStore` has them.

    People and videos of one store are others than those of the next, whatever they are called:
    stores of the same people must have been divided together.

    Args:
        paths: The stores' folders, each once.

    Attributes:
        info: How the first one was made: networks are named after its database, and judged on its
            development part.

    Raises:
        UsageError: One is given twice, or their landmarks are of different backends.
        StoreError: One is missing or broken.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        if len({Path(path).resolve() for path in paths}) < len(paths):
            raise UsageError("a store is given twice", "give each once")
        self.stores = [FaceStore(path) for path in paths]
        self.info = self.stores[0].info
        backends = {(each.info.landmarks, each.info.landmarks_version) for each in self.stores}
        if len(backends) > 1:
            raise UsageError(
                f"stores with landmarks of {' and '.join(sorted(name for name, _ in backends))}",
                "regions would be cut differently: prepare them with the same --landmarks",
            )
        self._starts = [0, *accumulate(map(len, self.stores))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> FaceRecord:
        """Returns the face of a row."""
        row = range(len(self))[index]
        number = bisect_right(self._starts, row) - 1
        return self.stores[number][row - self._starts[number]]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,), 1 is fake."""
        return np.concatenate([store.labels for store in self.stores])

    @property
    def splits(self) -> npt.NDArray[np.object_]:
        """(N,) of ``"train"``, ``"val"``, ``"test"``."""
        return np.concatenate([store.splits for store in self.stores])

    @property
    def videos(self) -> npt.NDArray[np.int64]:
        """(N,) numbers, equal for faces of one photo or video."""
        return _numbered([store.videos for store in self.stores])

    @property
    def persons(self) -> npt.NDArray[np.int64]:
        """(N,) numbers, equal for faces of one person of one store."""
        return _numbered([store.persons for store in self.stores])

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of the stores' own."""
        return hashlib.sha256("\n".join(s.fingerprint for s in self.stores).encode()).hexdigest()


def _numbered(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Numbers those of each store after those of the one before."""
    starts = [0, *accumulate(int(part.max()) + 1 for part in parts)]
    return np.concatenate([part + start for part, start in zip(parts, starts, strict=False)])
