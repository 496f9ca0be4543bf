"""Blending masks: hulls and regions of landmarks, deformed and softened.

Made on a grid of :data:`GRID` cells a side over the face, and then enlarged to the picture: (B, 1,
H, W) float32 in [0, 1], how much of the forgery shows. What is drawn at random (:class:`Shape`) is
on the host, the rest on the device of the landmarks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.faces.rasterise import part_masks
from deepregions.faces.regions import canvas, outlines
from deepregions.forge.faces import Rows
from deepregions.pixels.face_rng import FaceRng
from deepregions.types import Region

CONFINED: tuple[Region, ...] = (Region.EYES, Region.NOSE, Region.MOUTH)
"""The regions that a forgery can be confined to."""

TOUCHED = 0.05
"""A region counts as forged if at least this share of it is replaced."""

GRID = 64  # cells a side
_SPAN = 1.5  # of the grid's side over the face's: room for what is deformed and softened
_FACE = GRID / _SPAN  # cells that a face takes
_DIRECTIONS = 48  # sides of the polygon that a hull is taken for: 0.2 % of it too large
_SOFTEST = 1.25  # cells: half the blur of a region's edge, at least
_COARSE, _FINE = 5, 16  # knots a side of the fields that deform masks

# Landmarks of each hull: 78 are those above the brows.
_HULLS: tuple[tuple[int, ...], ...] = (
    tuple(range(78)),  # the whole face with the forehead
    tuple(range(68)),  # the landmarks
    tuple(range(17, 68)),  # the features, from the brows down
    (*range(2, 15), *range(27, 68), *range(68, 78)),  # the face, without its widest part
)


@dataclass(frozen=True)
class MaskRecipe:
    """How a method varies its masks; widths are shares of a face.

    Attributes:
        deform_p: Share of masks that are deformed.
        coarse: How far at most (one standard deviation) the whole outline bends; ``fine``: the
            same, for small waves.
        erode: Narrowest and widest blur of a first stage: what it leaves whole is the mask.
        blur: Narrowest and widest blur of the share ``blur_p`` that is softened.
        lift: How far up the forehead at most, in lengths of the nose's bridge.
    """

    deform_p: float
    coarse: float
    fine: float
    erode: tuple[float, float]
    blur_p: float
    blur: tuple[float, float]
    lift: float = 0.8


@dataclass(frozen=True)
class Shape:
    """What was drawn for B masks, on the host.

    Attributes:
        hull: (B,) which of the hulls.
        parts: (B, 3) bool, the regions of :data:`CONFINED` to which it is confined; none: a hull.
        lift: (B,) how far up the forehead, in lengths of the nose's bridge.
        coarse: (B, 2, 5, 5) by how much to deform, in cells; ``fine`` (B, 2, 16, 16).
        erode: (B,) half the width of the first blur, in cells; ``blur`` of the second.
        sigma: (B,) the second's standard deviation.
    """

    hull: Tensor
    parts: Tensor
    lift: Tensor
    coarse: Tensor
    fine: Tensor
    erode: Tensor
    blur: Tensor
    sigma: Tensor


def draw_shape(draws: FaceRng, parts: Tensor, recipe: MaskRecipe) -> Shape:
    """Draws the shapes of masks of B faces, confined to ``parts`` (see :class:`Shape`)."""
    deformed = draws.chance(recipe.deform_p)[:, None, None, None] * _FACE
    strength = draws.uniform(0, 1)[:, None, None, None] * deformed
    coarse = recipe.coarse * strength * draws.normal(2, _COARSE, _COARSE)
    fine = recipe.fine * strength * draws.normal(2, _FINE, _FINE)
    softened = draws.chance(recipe.blur_p)
    # A region is some times narrower than a face, and so are its margins. It fades out inside.
    confined = parts.any(1)
    scale = _FACE / 2 * torch.where(confined, 0.4, 1.0)
    erode = scale * draws.uniform(*recipe.erode)
    blur = scale * softened * draws.uniform(*recipe.blur)
    blur = torch.where(confined, blur.clamp(min=_SOFTEST), blur)
    erode = torch.where(confined, torch.maximum(erode, blur), erode)
    return Shape(
        hull=draws.choice(len(_HULLS)),
        parts=parts,
        lift=draws.uniform(0, recipe.lift),
        coarse=coarse,
        fine=fine,
        erode=erode,
        blur=blur,
        # SBI: 5 to 45 pixels, most of them past the edge.
        sigma=2 * scale * draws.uniform(0.045, 0.4),
    )


@dataclass(frozen=True)
class Masks(Rows):
    """Masks of B forgeries, on a grid over each face.

    Attributes:
        values: (B, G, G) float32 in [0, 1].
        origin: (B, 1, 2) where on the picture the grid's top left corner is.
        cell: (B, 1, 1) the side of a cell in pixels.
        landmarks: (B, 68, 2) of the faces.
        chosen: (B, 4) float32, 1 for the parts (eyes, nose, mouth, rest) that may be touched.
        confined: (B,) bool on the host, whether some part may not be touched.
        touched: (B, 5) bool in the order of ``REGIONS``, which regions are replaced.
    """

    values: Tensor
    origin: Tensor
    cell: Tensor
    landmarks: Tensor
    chosen: Tensor
    confined: Tensor
    touched: Tensor

    def enlarged(self, size: tuple[int, int]) -> Tensor:
        """Returns masks (B, 1, H, W) of pictures; confined ones are 0 outside their regions."""
        full = _enlarge(self.values, self.origin, self.cell, size)
        rows = self.confined.nonzero()[:, 0]
        if len(rows):  # to the pixel, what the enlarging has smeared over a region's edge
            rows = rows.to(full.device, non_blocking=True)
            landmarks, chosen = (x.index_select(0, rows) for x in (self.landmarks, self.chosen))
            inside = _chosen(_parts(landmarks, *size), chosen)[:, None]
            full = full.index_copy(0, rows, full.index_select(0, rows) * inside)
        return full


def make_masks(landmarks: Tensor, shape: Shape, source: Tensor | None = None) -> Masks:
    """Makes masks of B shapes; where a source was moved, the hull of its landmarks is the mask."""
    origin, cell = _frame(landmarks)
    points = (landmarks - origin) / cell - 0.5
    own = points if source is None else (source - origin) / cell - 0.5
    parts = _parts(points, GRID, GRID)  # (B, 4, G, G)
    confined = shape.parts.any(1)
    chosen = functional.pad(shape.parts.float(), (0, 1))
    chosen = torch.where(confined[:, None], chosen, 1.0).to(landmarks.device, non_blocking=True)
    mask, rows = _hulls(own, shape), confined.nonzero()[:, 0]
    allowed = torch.ones_like(mask)
    if len(rows):
        rows = rows.to(landmarks.device, non_blocking=True)
        inside = _chosen(parts.index_select(0, rows), chosen.index_select(0, rows))
        mask, allowed = mask.index_copy(0, rows, inside), allowed.index_copy(0, rows, inside)
    mask = _soften(_deform(mask, shape) * allowed, shape) * allowed
    whole = parts.flatten(2)
    shares = (whole @ mask.flatten(1)[..., None])[..., 0] / whole.sum(-1).clamp(min=1)
    touched = (shares > TOUCHED) & (chosen > 0)
    touched = torch.cat((touched.any(1, keepdim=True), touched), dim=1)
    return Masks(mask, origin, cell, landmarks, chosen, confined, touched)


def _frame(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The top left corner (B, 1, 2) of the grid on the picture and the side (B, 1, 1) of a cell."""
    box = canvas(landmarks).float()
    side = _SPAN * (box[:, 2:] - box[:, :2]).amax(1)
    corner = (box[:, :2] + box[:, 2:]) / 2 - side[:, None] / 2 - 0.5
    return corner[:, None], (side / GRID)[:, None, None]


def _parts(points: Tensor, height: int, width: int) -> Tensor:
    """(B, 4, height, width) float32, the masks of ``PARTS``."""
    return part_masks(outlines(points), width, height).permute(0, 2, 3, 1).float()


def _chosen(parts: Tensor, chosen: Tensor) -> Tensor:
    """(B, h, w), those of the parts (B, 4, h, w) that are chosen, (B, 4)."""
    return (parts * chosen[..., None, None]).sum(1)


def _hulls(points: Tensor, shape: Shape) -> Tensor:
    """(B, G, G): convex hulls, each as the polygon of its support lines, rows at a time."""
    lift = shape.lift.to(points.device, non_blocking=True)[:, None, None]
    up = points[:, 27:28] - points[:, 8:9]
    up = up / torch.linalg.vector_norm(up, dim=-1, keepdim=True).clamp(min=1e-6)
    u = torch.linalg.vector_norm(points[:, 27] - points[:, 30], dim=-1)[:, None, None]
    points = torch.cat((points, points[:, 17:27] + lift * u * up), dim=1)
    chosen = _table().index_select(0, shape.hull).to(points.device, non_blocking=True)
    # Half of the directions point right, the others left; none straight up or down.
    angle = (torch.arange(_DIRECTIONS, device=points.device) + 0.5) * (2 * math.pi / _DIRECTIONS)
    cos, sin = angle.sin(), -angle.cos()
    reach = points[..., :1] * cos + points[..., 1:] * sin
    reach = reach.masked_fill(~chosen[..., None], -torch.inf).amax(1)  # (B, T)
    step = torch.arange(GRID, device=points.device, dtype=points.dtype)
    bound = (reach[..., None] - sin[:, None] * step) / cos[:, None]  # x at each row
    right, left = bound[:, : _DIRECTIONS // 2].amin(1), bound[:, _DIRECTIONS // 2 :].amax(1)
    inside = torch.minimum(right[..., None] - step, step - left[..., None])
    return (inside + 0.5).clamp(0, 1)


@cache
def _table() -> Tensor:
    """(hulls, 78) bool, which landmarks are of which hull."""
    return torch.tensor([[point in hull for point in range(78)] for hull in _HULLS])


def _deform(mask: Tensor, shape: Shape) -> Tensor:
    shift = _field(shape.coarse, mask.device) + _field(shape.fine, mask.device)
    step = torch.arange(GRID, device=mask.device, dtype=mask.dtype)
    x, y = shift[:, 0] + step, shift[:, 1] + step[:, None]
    grid = torch.stack((x, y), dim=-1) * (2 / (GRID - 1)) - 1
    moved = functional.grid_sample(mask[:, None], grid, "bilinear", "zeros", align_corners=True)
    return moved[:, 0]


def _field(knots: Tensor, device: torch.device) -> Tensor:
    """(B, 2, G, G) between (B, 2, K, K) knots."""
    weights = _between(knots.shape[-1], device)
    return weights @ knots.to(device, non_blocking=True) @ weights.mT


@lru_cache(maxsize=8)
def _between(knots: int, device: torch.device) -> Tensor:
    """(G, knots), which cells' values are made of which knots', bicubically."""
    line = torch.eye(knots)[None, None]
    size = (GRID, knots)
    return functional.interpolate(line, size, mode="bicubic", align_corners=True)[0, 0].to(device)


def _soften(mask: Tensor, shape: Shape) -> Tensor:
    """SBI's two stages: what a first blur leaves whole, blurred again; the highest is 1."""
    device = mask.device
    erode, blur, sigma = (
        value.to(device, non_blocking=True) for value in (shape.erode, shape.blur, shape.sigma)
    )
    # OpenCV's sigma of a kernel's width, which SBI uses in the first stage.
    first = _normal(_blur(mask, erode, 0.3 * erode + 0.3))
    whole = (first - 0.98).clamp(min=0) / 0.02
    mask = torch.where(erode[:, None, None] > 0, whole, mask)
    return _normal(_blur(mask, blur, sigma))


def _normal(mask: Tensor) -> Tensor:
    return mask / mask.amax((1, 2), keepdim=True).clamp(min=1e-6)


def _blur(mask: Tensor, half: Tensor, sigma: Tensor) -> Tensor:
    """Blurs (B, G, G) with Gaussians that end ``half`` (B,) cells from their middle."""
    away = torch.arange(1 - GRID, GRID, device=mask.device, dtype=mask.dtype).abs()
    profile = torch.exp(-0.5 * (away / sigma[:, None]).square())
    profile = profile * (half[:, None] + 0.5 - away).clamp(0, 1)
    profile = torch.where(away == 0, 1.0, profile)
    profile = profile / profile.sum(1, keepdim=True)
    # Its windows are the rows of the blur's matrix, last row first: two products turn the mask
    # upside down and left to right.
    windows = profile.unfold(1, GRID, 1)
    return (windows @ mask @ windows).flip((1, 2))


def _enlarge(mask: Tensor, origin: Tensor, cell: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear: (B, G, G) on the grid to (B, 1, H, W) on the picture, 0 beyond the grid."""

    def weights(count: int, start: Tensor) -> Tensor:
        pixel = torch.arange(count, device=mask.device, dtype=mask.dtype)
        place = (pixel - start) / cell[..., 0] - 0.5  # (B, count)
        step = torch.arange(GRID, device=mask.device, dtype=mask.dtype)
        return (1 - (place[..., None] - step).abs()).clamp(min=0)

    rows, columns = weights(size[0], origin[..., 1]), weights(size[1], origin[..., 0])
    return (rows @ mask @ columns.mT)[:, None].clamp(0, 1)
