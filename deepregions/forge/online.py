"""Makes batches of both classes from genuine faces: each forgery comes with its original.

Only the forgery then separates the classes, not the person, the camera or the file format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from deepregions.errors import UsageError
from deepregions.forge.forger import METHODS, ForgedBatch, Forger, draw_parts, make_method
from deepregions.pixels.face_rng import FaceRng
from deepregions.types import ORIGINAL, FaceBatch


@dataclass(frozen=True)
class ForgeConfig:
    """How fakes are made from genuine faces during training.

    Attributes:
        methods: The forgeries to train and validate with: ``fwa``, ``self_blend``,
            ``swap``.
        held_out: Forgeries used only for validation and testing; the best epoch is chosen by
            them too.
        region_p: Share of forgeries confined to eyes, nose or mouth; the others cover the whole
            face.
        share: Share of fakes made here; the others come from the store.
        detail: Side of the face in pixels to which lost and added sharpness are relative; by
            default the detector's.
    """

    methods: tuple[str, ...] = ("fwa", "self_blend")
    held_out: tuple[str, ...] = ()
    region_p: float = 0.25
    share: float = 1.0
    detail: int | None = None

    def __post_init__(self) -> None:
        everything = (*self.methods, *self.held_out)
        for name in everything:
            make_method(name)  # refuses what there is not
        if not self.methods or len(set(everything)) < len(everything):
            raise UsageError(
                f"forgeries {list(self.methods)} and {list(self.held_out)}",
                f"give at least one of {', '.join(METHODS)} to train with, each once",
            )
        if not 0 <= self.region_p <= 1:
            raise UsageError(f"region_p must be from 0 to 1, not {self.region_p}")
        if not 0 < self.share <= 1:
            raise UsageError(f"share must be above 0 and at most 1, not {self.share}")
        if self.detail is not None and self.detail < 8:
            raise UsageError(f"detail must be at least 8 pixels, not {self.detail}")

    def settings(self) -> dict[str, Any]:
        """Returns the attributes as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


class OnlineForger:
    """Adds forged twins to batches of genuine faces.

    Twins, and their videos, are numbered from ``count`` on, the number of faces in the store;
    ``detail`` is the side of the face in pixels as the detector sees it.
    """

    def __init__(self, forging: ForgeConfig, count: int, detail: int | None) -> None:
        self.forging = forging
        self._count = count
        detail = forging.detail or detail
        self._training = Forger([make_method(name, detail) for name in forging.methods])
        self.names = (*forging.methods, *forging.held_out)
        # Genuine faces by which a detector is judged are left as they are.
        self._evaluation = Forger([make_method(name, detail, 0.0) for name in self.names])

    def train(self, batch: FaceBatch, draws: FaceRng) -> tuple[FaceBatch, Tensor]:
        """Adds a forged twin of each genuine face; also returns the row of ``batch`` each is from.

        If some fakes come from the store, genuine and fake faces alternate in the batch: some fakes
        are replaced by twins of the genuine face before. A genuine face that comes twice always
        gets a twin.
        """
        genuine = torch.arange(len(batch.key))
        forged, kept = genuine, genuine[:0]
        if self.forging.share < 1:
            genuine = genuine[::2]
            made = draws[genuine].stream("share").chance(self.forging.share)
            # A genuine face that comes twice is one of which there is no fake in the store.
            twice = [batch.key[row] == batch.key[row + 1] for row in genuine.tolist()]
            made |= torch.tensor(twice, dtype=torch.bool)
            forged, kept = genuine[made], genuine[~made] + 1
        parts = [_rows(batch, kept)] if len(kept) else []
        if len(forged):
            which = draws[forged].stream("method").choice(len(self.forging.methods))
            pairs, twins = self._forge(self._training, batch, draws, forged, which)
            place = forged.to(batch.image.device, non_blocking=True)
            batch = replace(batch, image=batch.image.index_copy(0, place, pairs.genuine))
            parts.insert(0, twins)
        return _joined([_rows(batch, genuine), *parts]), torch.cat((genuine, forged, kept))

    def evaluate(self, batch: FaceBatch, draws: FaceRng) -> FaceBatch:
        """Adds one twin per method for each genuine face of a batch."""
        genuine = torch.tensor([row for row, name in enumerate(batch.method) if name == ORIGINAL])
        parts = [batch]
        for number in range(len(self.names) if len(genuine) else 0):
            which = torch.full((len(genuine),), number)
            parts.append(self._forge(self._evaluation, batch, draws, genuine, which)[1])
        return _joined(parts)

    def _forge(
        self, forge: Forger, batch: FaceBatch, draws: FaceRng, rows: Tensor, which: Tensor
    ) -> tuple[ForgedBatch, FaceBatch]:
        """Forges some rows of a batch; returns the pairs, and the twins as a batch."""
        some, own = _rows(batch, rows), draws[rows]
        pairs = forge(
            some.image,
            some.landmarks,
            own,
            which=which,
            parts=draw_parts(own.stream("region"), self.forging.region_p),
            person=some.video if some.person is None else some.person,
        )
        done = pairs.touched[:, 0]
        apart = 1 + which.to(done.device, non_blocking=True)
        names = [self.names[number] for number in which.tolist()]
        twins = FaceBatch(
            image=pairs.image,
            landmarks=some.landmarks,
            extent=some.extent,
            label=done.long(),
            video=some.video + self._count * apart,
            # What could not be forged is its original once more, and does not count.
            index=torch.where(done, some.index + self._count * apart, -1),
            key=tuple(f"{key}~{name}" for key, name in zip(some.key, names, strict=True)),
            person=some.person,
            region_label=pairs.touched.long(),
            method=tuple(names),
        )
        return pairs, twins


def _rows(batch: FaceBatch, rows: Tensor) -> FaceBatch:
    """Some faces of a batch, by their rows on the host."""
    place, chosen = rows.to(batch.image.device, non_blocking=True), rows.tolist()

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.index_select(0, place)
        return tuple(value[row] for row in chosen) if value else value

    return FaceBatch(**{item.name: pick(getattr(batch, item.name)) for item in fields(batch)})


def _joined(batches: Sequence[FaceBatch]) -> FaceBatch:

    def join(values: list[Any]) -> Any:
        return torch.cat(values) if isinstance(values[0], Tensor) else tuple(chain(*values))

    names = [item.name for item in fields(FaceBatch)]
    return FaceBatch(**{name: join([getattr(b, name) for b in batches]) for name in names})
