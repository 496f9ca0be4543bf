"""Face swaps: somebody else's face, warped onto the landmarks, in the target's colours.

What classical face swapping does (FaceSwap in FaceForensics++; Face X-ray, Li et al. 2020). The
warp is a thin-plate spline through the landmarks (Bookstein 1989), relaxed a little, as these are
known to a pixel or so: it is smooth where a mesh of triangles folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.forge.alignment import INNER, mean_face
from deepregions.forge.faces import Blend, Method, Rows, Scene
from deepregions.forge.masks import MaskRecipe, Masks, draw_shape, make_masks
from deepregions.pixels.colour import recolour, transfer
from deepregions.pixels.face_rng import FaceRng
from deepregions.pixels.warping import moved, sample, similarity

MASKS = MaskRecipe(
    deform_p=1.0,
    coarse=0.01,
    fine=0.005,
    erode=(0.03, 0.1),
    blur_p=1.0,
    blur=(0.06, 0.2),
    lift=0.3,  # above is hair
)

_KNOTS = 24  # a side, where the spline is evaluated; between them it is nearly straight
_RELAXED = 1e-3  # added to the spline's diagonal, whose values are of the order of 1


@dataclass(frozen=True)
class SwapPlan(Rows):
    """The plan of :class:`Swap` for B faces.

    ``flow`` (B, 2, K, K) is the donor's point for each knot of the picture, edges at -1 and 1.
    """

    masks: Masks
    flow: Tensor


class Swap(Method[SwapPlan]):
    """Blends in other people's faces; with nobody else in the batch, nothing changes."""

    name = "swap"
    needs_donors = True

    def plan(self, scene: Scene, draws: FaceRng) -> SwapPlan:
        """Finds the warp; see :class:`deepregions.forge.faces.Method`."""
        if scene.donors is None:
            raise ValueError("a swap needs donors")
        masks = make_masks(scene.landmarks, draw_shape(draws, scene.parts, MASKS))
        return SwapPlan(masks, _flow(scene.landmarks, scene.size, scene.donors, scene.donor_size))

    def blend(self, pixels: Tensor, donors: Tensor | None, plan: SwapPlan) -> Blend:
        """Forges; see :class:`deepregions.forge.faces.Method`."""
        if donors is None:
            raise ValueError("a swap needs donors")
        size = (pixels.shape[2], pixels.shape[3])
        flow = functional.interpolate(plan.flow, size, mode="bilinear", align_corners=True)
        source = sample(donors, flow.permute(0, 2, 3, 1))
        mask = plan.masks.enlarged(size)
        return Blend(pixels, recolour(source, *transfer(source, pixels, mask)), mask)


def choose_donors(landmarks: Tensor, person: Tensor, draws: FaceRng) -> tuple[Tensor, Tensor]:
    """Chooses for each face of a batch another person with a similar pose; draws vary the choice.

    Returns rows (B,) int64, and whether there is another person, (B,) bool. ``person`` is (B,)
    int64, a number for each person.
    """
    shapes = moved(landmarks, similarity(landmarks[:, INNER], mean_face(256).to(landmarks.device)))
    away = torch.cdist(shapes.flatten(1), shapes.flatten(1))
    luck = draws.normal(len(draws)).to(landmarks.device, non_blocking=True)
    away = away * torch.exp(0.5 * luck)
    away = away.masked_fill(person[:, None] == person, torch.inf)
    nearest, row = away.min(1)
    return row, nearest < torch.inf


def _flow(
    target: Tensor, size: tuple[int, int], source: Tensor, source_size: tuple[int, int]
) -> Tensor:
    """From where of the source each knot on the target's picture comes, (B, 2, K, K) in -1 to 1."""
    there = similarity(target, source)  # the spline bends what a similarity leaves
    low, high = target.amin(1, keepdim=True), target.amax(1, keepdim=True)
    scale = ((high - low).amax(-1, keepdim=True) / 2).clamp(min=1e-3)
    centre = (low + high) / 2
    points = (target - centre) / scale
    weights = _spline(points, source - moved(target, there))
    y, x = (torch.linspace(0, side - 1, _KNOTS, device=target.device) for side in size)
    knots = torch.stack((x.expand(_KNOTS, -1), y[:, None].expand(-1, _KNOTS)), dim=-1)
    knots = knots.view(1, -1, 2)
    bent = _basis(((knots - centre) / scale).clamp(-2, 2), points) @ weights
    x, y = (moved(knots, there) + bent).unbind(-1)
    height, width = source_size
    field = torch.stack((x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1), dim=1)
    return field.view(-1, 2, _KNOTS, _KNOTS)


def _spline(points: Tensor, values: Tensor) -> Tensor:
    """The weights (B, N + 3, 2) of the splines that have values (B, N, 2) at points (B, N, 2)."""
    count = points.shape[1]
    upper = _basis(points, points)  # (B, N, N + 3)
    lower = torch.cat((upper[..., count:].mT, upper.new_zeros(len(points), 3, 3)), dim=-1)
    matrix = torch.cat((upper, lower), dim=1)
    matrix[:, :count, :count] += _RELAXED * torch.eye(count, device=points.device)
    right = torch.cat((values, values.new_zeros(len(points), 3, 2)), dim=1)
    weights: Tensor = torch.linalg.solve_ex(matrix, right)[0]  # solve would wait for the device
    return weights


def _basis(at: Tensor, points: Tensor) -> Tensor:
    """(B, M, N + 3): the thin plate's kernel of each point, then 1, x and y, at M places."""
    across, down = (at[..., axis, None] - points[:, None, :, axis] for axis in (0, 1))
    square = torch.addcmul(across.square_(), down, down)
    kernel = torch.log(square + 1e-12).mul_(square).mul_(0.5)
    ones = at.new_ones(*at.shape[:2], 1)
    return torch.cat((kernel, ones, at), dim=-1)
