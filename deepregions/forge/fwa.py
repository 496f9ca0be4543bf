"""Face warping artefacts (Li and Lyu 2019): the face at a lower resolution, warped back.

As in FWA the features are aligned to a mean face, and as in DSP-FWA the loss has several strengths
and the mask several shapes; the scales 0.2 to 0.8 are DeepfakeBench's (``fwa_blend``), the Gaussian
of 5 pixels FWA's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.forge.alignment import INNER, mean_face
from deepregions.forge.faces import FACE_SHARE, Blend, Method, Rows, Scene, runs
from deepregions.forge.masks import MaskRecipe, Masks, draw_shape, make_masks
from deepregions.pixels.face_rng import FaceRng
from deepregions.pixels.warping import inverse, similarity, warp

SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the aligned face's sides
ALIGNED = 0.75  # sides of the aligned face over the picture's
BLURS = (1.1, 1.6, 2.2)  # standard deviations in pixels of an aligned face of 256; 1.1 is 5 x 5's

MASKS = MaskRecipe(
    deform_p=0.9, coarse=0.04, fine=0.01, erode=(0.0, 0.0), blur_p=0.9, blur=(0.03, 0.2)
)


@dataclass(frozen=True)
class FWAPlan(Rows):
    """The plan of :class:`FWA` for B faces.

    ``kinds`` (B,) on the host are strengths; ``there`` (B, 2, 3) is from the picture to the aligned
    one, ``back`` the other way.
    """

    masks: Masks
    kinds: Tensor
    there: Tensor
    back: Tensor


class FWA(Method[FWAPlan]):
    """Removes detail from faces by warping them to a lower resolution and back.

    The loss is relative to ``detail``, the side in pixels at which faces will be judged; by default
    to the picture.
    """

    name = "fwa"

    def __init__(self, detail: int | None = None) -> None:
        self._detail = detail

    def kinds(self, draws: FaceRng) -> Tensor:
        """Draws the strength of each loss, an index of ``SCALES`` and then ``BLURS``."""
        return draws.stream("strength").choice(len(SCALES) + len(BLURS))

    def plan(self, scene: Scene, draws: FaceRng) -> FWAPlan:
        """Aligns faces; see :class:`deepregions.forge.faces.Method`."""
        shape = draw_shape(draws, scene.parts, MASKS)
        mean = mean_face(round(ALIGNED * max(scene.size)))
        mean = mean.to(scene.landmarks.device, non_blocking=True)
        there = similarity(scene.landmarks[:, INNER], mean)
        masks = make_masks(scene.landmarks, shape)
        return FWAPlan(masks, self.kinds(draws), there, inverse(there))

    def blend(self, pixels: Tensor, donors: Tensor | None, plan: FWAPlan) -> Blend:  # noqa: ARG002
        """Forges; see :class:`deepregions.forge.faces.Method`."""
        size = (pixels.shape[2], pixels.shape[3])
        side = round(ALIGNED * max(size))
        full = side if self._detail is None else min(FACE_SHARE * self._detail, side)
        sources = []
        for kind, run in runs(plan.kinds):
            aligned = warp(pixels[run], plan.back[run], (side, side))
            small = _lessened(aligned, kind, full)
            # Warping back enlarges it too: both are bilinear.
            ratio = small.shape[-1] / side
            there = ratio * plan.there[run]
            there[..., 2:] += (ratio - 1) / 2  # pixels' centres are at whole numbers
            sources.append(warp(small, there, size))
        source = torch.cat(sources) if len(sources) > 1 else sources[0]
        return Blend(pixels, source, plan.masks.enlarged(size))


def _lessened(aligned: Tensor, strength: int, full: float) -> Tensor:
    """Square pictures with less detail, of which there are ``full`` pixels a side: smaller ones."""
    side = aligned.shape[-1]
    if strength < len(SCALES):
        size = max(2, round(full * SCALES[strength]))
        return functional.interpolate(aligned, (size, size), mode="bilinear", antialias=True)
    sigma = BLURS[strength - len(SCALES)] / 256 * side * side / full
    kernel = _gaussian(side, round(sigma, 6), aligned.device)
    return kernel @ aligned @ kernel.T


@lru_cache(maxsize=16)
def _gaussian(side: int, sigma: float, device: torch.device) -> Tensor:
    """(side, side), what blurs a line of pixels; at its ends it goes on as inside."""
    step = torch.arange(side)
    kernel = torch.exp(-0.5 * ((step[:, None] - step) / sigma).square())
    return (kernel / kernel.sum(1, keepdim=True)).to(device)
