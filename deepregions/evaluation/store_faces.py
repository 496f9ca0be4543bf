"""Faces out of a store: to check an exported file on, and to show behind decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepregions.data.store import FaceStore, decode_image
from deepregions.deploy.drift import Faces, Part
from deepregions.errors import StoreError, UndefinedMetricError, UsageError
from deepregions.evaluation.protocols import EVALUATION
from deepregions.evaluation.report.grid import Example, Pick, heat_picture
from deepregions.evaluation.store_scorer import Progress
from deepregions.pipeline.explain.gradcam import heats
from deepregions.pixels.tensors import stack
from deepregions.system import System


@dataclass(frozen=True)
class FacesOfStore:
    """Draws at most ``most`` faces of a store's parts; a :class:`~deepregions.deploy.drift.Source`.

    Raises:
        UndefinedMetricError: The evaluation part is empty, or has one class.
    """

    store: FaceStore
    most: int = 1000
    batch_size: int = 16
    seed: int = 0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        labels = self.store.labels[self._rows(EVALUATION, self.most)]
        if len(np.unique(labels)) < 2:
            absent = "face" if not len(labels) else "genuine face" if labels.all() else "fake face"
            raise UndefinedMetricError(
                f"the evaluation part of {self.store.path} has no {absent}",
                "AUC needs both classes; deepregions forge makes fakes of a store of genuine faces",
            )

    @property
    def facts(self) -> dict[str, Any]:
        """The store's name and fingerprint, and the seed."""
        name, fingerprint = self.store.info.database, self.store.fingerprint
        return {"store": name, "fingerprint": fingerprint, "seed": self.seed}

    def faces(self, part: Part, most: int | None = None) -> Iterator[Faces]:
        """Yields batches of a part, see :class:`~deepregions.deploy.drift.Source`."""
        rows = self._rows(part, most or self.most)
        for first in range(0, len(rows), self.batch_size):
            records = [self.store[int(row)] for row in rows[first : first + self.batch_size]]
            image, extent = stack([decode_image(record.image) for record in records])
            yield Faces(
                image,
                torch.stack([torch.from_numpy(record.landmarks) for record in records]),
                extent,
                torch.tensor([record.label == 1 for record in records]),
            )
            if self.progress is not None:
                self.progress(first + len(records), len(rows))

    def _rows(self, part: str, most: int) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero(self.store.splits == part)
        drawn = np.random.default_rng(self.seed).permutation(rows)[:most]
        return np.sort(drawn)


def load_examples(
    picks: Sequence[Pick], store: FaceStore, system: System, *, device: torch.device | str = "cpu"
) -> list[Example]:
    """Reads the faces of decisions by their keys, and computes where the networks looked.

    Raises:
        StoreError: A face is not in the store.
    """
    system = system.to(device)
    cells = {
        (system.rows[row], system.regions[column]): member
        for member, (row, column) in zip(system.members, system.cells, strict=True)
    }
    places = {str(key): row for row, key in enumerate(store.column("key"))}
    examples = []
    for pick in picks:
        if pick.key not in places:
            raise StoreError(f"{store.path} has no face {pick.key}", "give the store it is from")
        member = cells.get((pick.detector, pick.region))
        if member is None:
            known = ", ".join(sorted(f"{row} {region}" for row, region in cells))
            raise UsageError(f"no network {pick.detector} {pick.region}", f"there is {known}")
        face = store[places[pick.key]]
        (heat,) = heats(
            System([member]),
            decode_image(face.image)[None].to(device),
            torch.from_numpy(face.landmarks)[None].to(device),
        )
        examples.append(Example(pick, *heat_picture(heat)))
    return examples
