"""From genuine faces to pairs: each face as it is, and forged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.data.draws import Draws
from deepregions.data.forge.faces import Blend, Faces, Method, runs
from deepregions.data.forge.fwa import FWA
from deepregions.data.forge.masks import CONFINED
from deepregions.data.forge.self_blend import SelfBlend
from deepregions.data.forge.swap import Swap, choose_donors
from deepregions.errors import UsageError
from deepregions.types import REGIONS

METHODS = ("fwa", "self_blend", "swap")

_ROWS_AT_A_TIME = 16  # on a CPU: near its caches
_FAR = 1e5  # landmarks are clamped to this many pixels, so that nothing overflows


def make_method(name: str, detail: int | None = None, target_p: float = 0.5) -> Method:
    """Makes a method by its name.

    Args:
        name: One of :data:`METHODS`.
        detail: Side in pixels of a face as it will be looked at; see :class:`FWA`.
        target_p: See :class:`SelfBlend`.

    Raises:
        UsageError: There is no such method.
    """
    if name == FWA.name:
        return FWA(detail)
    if name == SelfBlend.name:
        return SelfBlend(detail, target_p)
    if name == Swap.name:
        return Swap()
    raise UsageError(f"there is no forgery {name!r}", f"one of {', '.join(METHODS)}")


def draw_parts(draws: Draws, region_p: float) -> Tensor:
    """Draws to which region forgeries are confined, evenly among ``CONFINED``.

    Args:
        draws: Of B faces.
        region_p: Share of forgeries that are confined to a region.

    Returns:
        (B, 3) bool on the host; all false for a forgery of the whole face.
    """
    region = functional.one_hot(draws.choice(len(CONFINED)), len(CONFINED)).bool()
    return region & draws.chance(region_p)[:, None]


@dataclass(frozen=True)
class Forged:
    """Pairs: row i of both is the same face.

    Attributes:
        genuine: (B, 3, H, W) uint8. Mostly the picture as it was given; where a method changes
            what is around the forgery, this has changed alike.
        image: (B, 3, H, W) uint8, the forgery: equal to ``genuine`` where ``mask`` is 0.
        mask: (B, 1, H, W) float32 in [0, 1], how much of the forgery shows.
        touched: (B, 5) bool in the order of ``REGIONS``: which regions were forged. All are
            false where nothing could be forged (landmarks that are no face, nobody to swap
            with); ``image`` is ``genuine`` there.
    """

    genuine: Tensor
    image: Tensor
    mask: Tensor
    touched: Tensor


class Forge:
    """Forges batches of faces.

    Args:
        methods: The forgeries to make.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self.methods = tuple(methods)

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        landmarks: Tensor,
        draws: Draws,
        *,
        which: Tensor,
        parts: Tensor,
        person: Tensor,
        donors: tuple[Tensor, Tensor] | None = None,
    ) -> Forged:
        """Forges every face.

        Nothing is read back from the device. The same draws give the same forgeries, but for
        swaps among the batch, which depend on who else is in it.

        Args:
            image: (B, 3, H, W) uint8 RGB.
            landmarks: (B, 68, 2) float32 pixels.
            draws: Of B faces.
            which: (B,) int64 on the host, the method of each face.
            parts: (B, 3) bool on the host, to which of ``CONFINED`` it is confined; none: a
                forgery of the whole face.
            person: (B,) int64, who is who.
            donors: Images and landmarks of B others, for swaps; chosen from the batch by default.
        """
        tame = landmarks.detach().float().nan_to_num(0.0).clamp(-_FAR, _FAR)
        usable = (tame == landmarks).flatten(1).all(1)
        faces, others = Faces(image, tame), None
        if donors is not None:
            others = Faces(*donors)
        elif any(method.needs_donors for method in self.methods):
            row, found = choose_donors(tame, person, draws.stream("donors"))
            others = faces.rows(row)
        result = Forged(
            genuine=torch.empty_like(image),
            image=torch.empty_like(image),
            mask=torch.empty_like(image[:, :1], dtype=torch.float32),
            touched=usable.new_empty(len(image), len(REGIONS)),
        )
        for number, method in enumerate(self.methods):
            possible = usable & found if method.needs_donors and donors is None else usable
            rows = (which == number).nonzero()[:, 0]
            own = draws[rows].stream(method.name)
            for chunk in _chunks(method.kinds(own), image.device.type):
                place = rows[chunk].to(image.device, non_blocking=True)
                some = faces.rows(place)
                blend = method(
                    given := some.floating(),
                    others.rows(place).floating() if others and method.needs_donors else None,
                    parts[rows[chunk]],
                    own[chunk],
                )
                genuine = some.pixels if blend.target is given.pixels else _bytes(blend.target)
                finished = _finished(blend, possible.index_select(0, place))
                for name, part in (("genuine", genuine), *finished.items()):
                    getattr(result, name).index_copy_(0, place, part)
        return result


def _chunks(kinds: Tensor, device: str) -> list[Tensor]:
    """The rows that go together, of kinds (B,) on the host."""
    order = kinds.argsort(stable=True)
    if device != "cpu":  # few and large kernels
        return [order] if len(order) else []
    parts = [order[run] for _, run in runs(kinds[order])]
    return [chunk for part in parts for chunk in torch.split(part, _ROWS_AT_A_TIME)]


def _finished(blend: Blend, possible: Tensor) -> dict[str, Tensor]:
    """Image, mask and regions of :class:`Forged`, for faces that can be forged, (B,) bool."""
    possible = possible & blend.touched[:, 0]
    mask = blend.mask.mul_(possible[:, None, None, None])
    # In place: on a CPU, fresh memory costs more than what is computed in it.
    forged = torch.lerp(blend.target, blend.source, mask.expand_as(blend.target), out=blend.source)
    touched = blend.touched & possible[:, None]
    return {"image": forged.add_(0.5).to(torch.uint8), "mask": mask, "touched": touched}


def _bytes(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).to(torch.uint8)  # rounded: they are in [0, 255]
