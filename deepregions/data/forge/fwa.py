"""Face warping artefacts (Li and Lyu 2019): the face at a lower resolution, warped back.

Generated faces have a fixed size and are warped to where they belong; what that leaves behind can
be had without generating anything. As in FWA the features are aligned to a mean face, and as in
DSP-FWA the loss has several strengths and the mask several shapes; the scales 0.2 to 0.8 are
DeepfakeBench's (``fwa_blend``), the Gaussian of 5 pixels FWA's.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.data.draws import Draws
from deepregions.data.forge.alignment import INNER, inverse, mean_face, similarity, warp
from deepregions.data.forge.faces import FACE_SHARE, Blend, Faces
from deepregions.data.forge.masks import Recipe, blend_masks, draw_shape

SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of the aligned face's sides
ALIGNED = 0.75  # sides of the aligned face over the picture's
BLURS = (1.1, 1.6, 2.2)  # standard deviations in pixels of an aligned face of 256; 1.1 is 5 x 5's

MASKS = Recipe(deform_p=0.9, coarse=0.04, fine=0.01, erode=(0.0, 0.0), blur_p=0.9, blur=(0.03, 0.2))


class FWA:
    """Makes faces lose detail.

    Args:
        detail: Side in pixels of a face as it will be looked at: the loss is relative to that. By
            default it is relative to the picture.
    """

    name = "fwa"
    needs_donors = False

    def __init__(self, detail: int | None = None) -> None:
        self._detail = detail

    def __call__(self, faces: Faces, donors: Faces | None, parts: Tensor, draws: Draws) -> Blend:  # noqa: ARG002
        """Forges; see :class:`deepregions.data.forge.faces.Method`."""
        shape = draw_shape(draws, parts, MASKS)
        side = round(ALIGNED * max(faces.size))
        losses, mean = _constants(side, self._detail, faces.pixels.device)
        which = draws.choice(len(losses)).to(losses.device, non_blocking=True)
        there = similarity(faces.landmarks[:, INNER], mean)
        aligned = warp(faces.pixels, inverse(there), (side, side))
        loss = losses.index_select(0, which)[:, None]
        source = warp(loss @ aligned @ loss.mT, there, faces.size)
        mask, touched = blend_masks(faces.landmarks, shape, faces.size)
        return Blend(faces.pixels, source, mask, touched)


@lru_cache(maxsize=8)
def _constants(side: int, detail: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each strength what it makes of a line of pixels, (K, side, side), and the mean face."""
    full = min(FACE_SHARE * detail, side) if detail is not None else side
    line = torch.eye(side)[None, None]
    losses = []
    for scale in SCALES:
        fewer = (max(2, round(full * scale)), side)
        reduced = functional.interpolate(line, fewer, mode="bilinear", antialias=True)
        losses.append(functional.interpolate(reduced, (side, side), mode="bilinear")[0, 0])
    step = torch.arange(side)
    for blur in BLURS:
        sigma = blur * side / 256 * side / full
        kernel = torch.exp(-0.5 * ((step[:, None] - step) / sigma).square())
        losses.append(kernel / kernel.sum(1, keepdim=True))
    return torch.stack(losses).to(device), mean_face(side).to(device)
