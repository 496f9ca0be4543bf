"""Forges batches of genuine faces, and returns pairs of genuine and forged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.errors import UsageError
from deepregions.faces.cropping import tame
from deepregions.forge.faces import Method, Scene, runs
from deepregions.forge.fwa import FWA
from deepregions.forge.masks import CONFINED
from deepregions.forge.self_blend import SelfBlend
from deepregions.forge.swap import Swap, choose_donors
from deepregions.pixels.face_rng import FaceRng
from deepregions.pixels.tensors import chunks, put
from deepregions.types import REGIONS

METHODS = ("fwa", "self_blend", "swap")


def make_method(name: str, detail: int | None = None, target_p: float = 0.5) -> Method[Any]:
    """Makes a method by its name; see :class:`FWA` and :class:`SelfBlend` for the numbers."""
    if name == FWA.name:
        return FWA(detail)
    if name == SelfBlend.name:
        return SelfBlend(detail, target_p)
    if name == Swap.name:
        return Swap()
    raise UsageError(f"there is no forgery {name!r}", f"one of {', '.join(METHODS)}")


def draw_parts(draws: FaceRng, region_p: float) -> Tensor:
    """Draws the region that each forgery is confined to, evenly among ``CONFINED``: (B, 3) bool.

    On the host; a row is all false for a forgery of the whole face, as the share 1 - ``region_p``
    is.
    """
    region = functional.one_hot(draws.choice(len(CONFINED)), len(CONFINED)).bool()
    return region & draws.chance(region_p)[:, None]


@dataclass(frozen=True)
class ForgedBatch:
    """Pairs: row i of both is the same face.

    Attributes:
        genuine: (B, 3, H, W) uint8. Usually the picture as given; where a method changes what is
            around the forgery, its genuine counterpart changes too.
        image: (B, 3, H, W) uint8, the forgery: equal to ``genuine`` where ``mask`` is 0.
        mask: (B, 1, H, W) float32 in [0, 1]; None if not asked for.
        touched: (B, 5) bool in the order of ``REGIONS``: which regions were forged; none where
            nothing could be forged (no face, nobody to swap with).
        donors: (B,) int64 rows, whose face each one got; None if nothing was swapped.
    """

    genuine: Tensor
    image: Tensor
    mask: Tensor | None
    touched: Tensor
    donors: Tensor | None = None


class Forger:
    """Forges batches of faces by some methods; returns masks only if asked for them."""

    def __init__(self, methods: Sequence[Method[Any]], *, masks: bool = False) -> None:
        self.methods = tuple(methods)
        self._masks = masks

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        landmarks: Tensor,
        draws: FaceRng,
        *,
        which: Tensor,
        parts: Tensor,
        person: Tensor,
    ) -> ForgedBatch:
        """Forges every face of (B, 3, H, W) uint8 RGB; nothing is read back from the device.

        The same draws give the same forgeries, but for swaps, which depend on who else is in the
        batch. ``which`` (B,), the method, and ``parts`` (B, 3), those of ``CONFINED`` that a
        forgery is confined to, are on the host; a row of no part is the whole face. ``person`` (B,)
        is a number of each.
        """
        points, usable = tame(landmarks)
        batch = _Batch(image, points, masks=self._masks)
        for number, method in enumerate(self.methods):
            rows = (which == number).nonzero()[:, 0]
            if not len(rows):
                continue
            possible = usable
            if method.needs_donors:
                batch.donors, found = choose_donors(points, person, draws.stream("donors"))
                possible = usable & found
            own = draws[rows].stream(method.name)
            order = method.kinds(own).argsort(stable=True)
            batch.forge(method, rows[order], own[order], parts[rows[order]], possible)
        return ForgedBatch(batch.genuine, batch.forged, batch.mask, batch.touched, batch.donors)


class _Batch:
    """Pictures to forge, and the results so far."""

    def __init__(self, image: Tensor, landmarks: Tensor, *, masks: bool) -> None:
        self.image = self.genuine = image
        self.landmarks = landmarks
        self.donors: Tensor | None = None  # (B,) rows
        self.forged = torch.empty_like(image, memory_format=torch.contiguous_format)
        self.mask = torch.empty_like(image[:, :1], dtype=torch.float32) if masks else None
        self.touched = torch.zeros(len(image), len(REGIONS), dtype=torch.bool, device=image.device)

    def forge(
        self, method: Method[Any], rows: Tensor, draws: FaceRng, parts: Tensor, possible: Tensor
    ) -> None:
        """Forges some rows, sorted by kind, where ``possible`` (B,) is true."""
        size = (self.image.shape[2], self.image.shape[3])
        place = rows.to(self.image.device, non_blocking=True)
        scene = Scene(self.landmarks.index_select(0, place), size, parts)
        donors = None
        if method.needs_donors and self.donors is not None:
            donors = self.donors.index_select(0, place)
            others = self.landmarks.index_select(0, donors)
            scene = replace(scene, donors=others, donor_size=size)
        plan = method.plan(scene, draws)
        touched = plan.masks.touched & possible.index_select(0, place)[:, None]
        self.touched.index_copy_(0, place, touched)
        kinds = method.kinds(draws)
        # On a CPU those of one kind only, so that none of their results must be put together.
        on_cpu = self.image.device.type == "cpu"
        same = [run for _, run in runs(kinds)] if on_cpu else [slice(0, len(kinds))]
        for some in chain(*(chunks(run.start, run.stop, self.image.device) for run in same)):
            pixels = self.image.index_select(0, place[some]).float()
            other = None if donors is None else self.image.index_select(0, donors[some]).float()
            blend = method.blend(pixels, other, plan[some])
            if blend.target is not pixels:
                if self.genuine is self.image:
                    self.genuine = self.image.clone(memory_format=torch.contiguous_format)
                put(self.genuine, place[some], (blend.target + 0.5).to(torch.uint8))
            mask = blend.mask.mul_(touched[some, :1, None, None])
            # In place: on a CPU, fresh memory costs more than what is computed in it.
            torch.lerp(blend.target, blend.source, mask.expand_as(pixels), out=blend.source)
            put(self.forged, place[some], blend.source.add_(0.5).to(torch.uint8))
            if self.mask is not None:
                put(self.mask, place[some], mask)
