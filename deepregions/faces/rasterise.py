"""Rasterises outlines to masks, for whole batches: which region each pixel belongs to.

A pixel is inside an outline if the outline winds around the pixel's centre, in either direction. A
centre that lies on an edge is inside if the outline's interior is to its right or below. Masks are
uint8, 0 or 1, and transposed, (B, W, P, H): the cropper resizes along x first.
"""

import torch
from torch import Tensor

from deepregions.faces.regions import Outlines
from deepregions.types import Region

PARTS: tuple[Region, ...] = (Region.EYES, Region.NOSE, Region.MOUTH, Region.REST)
"""The regions that partition the face, in the order of :func:`part_masks`."""

_BITS = 8  # of a winding number; an outline of 21 points winds at most 10 times
_BIAS = 64  # keeps each field of the packed winding numbers positive


def part_masks(
    shape: Outlines, width: int, height: int, corner: Tensor | tuple[int, int] = (0, 0)
) -> Tensor:
    """Masks of the parts of faces on a window of an image.

    Crossings of outlines with pixel columns are scattered and summed down the columns; the four
    winding numbers travel as fields of one integer.

    Args:
        shape: The outlines.
        width: Of the window in pixels.
        height: Of the window in pixels.
        corner: x and y of its left upper pixel in the outlines' coordinates, or (B, 2) of each.

    Returns:
        (B, width, 4, height) uint8, of ``PARTS``.
    """
    left, top = corner.T[..., None, None] if isinstance(corner, Tensor) else corner
    winding = _winding(shape, width, height, left, top)
    face, eyes, nose, mouth = (_nonzero(winding, field) for field in range(4))
    mouth = mouth & (nose ^ 1)
    features = mouth | nose
    eyes = eyes & (features ^ 1)
    rest = face & ((features | eyes) ^ 1)
    return torch.stack((eyes, nose, mouth, rest), dim=2)


def whole_mask(parts: Tensor) -> Tensor:
    """The entire face, (B, W, 1, H), from :func:`part_masks`."""
    eyes, nose, mouth, rest = parts.split_with_sizes([1, 1, 1, 1], dim=2)
    return eyes | nose | mouth | rest


def _nonzero(winding: Tensor, field: int) -> Tensor:
    """Where a field of packed winding numbers is not 0, as uint8, 0 or 1."""
    shift = _BITS * field
    if torch.compiler.is_exporting():  # ONNX has no shift of signed integers, and few bytes
        return ((winding & (0xFF << shift)) != (_BIAS << shift)).to(torch.uint8)
    # Arithmetic on bytes: comparisons and booleans take several times as long on a CPU.
    return ((winding >> shift).to(torch.uint8) ^ _BIAS).clamp(max=1)


def _winding(
    shape: Outlines, width: int, height: int, left: int | Tensor, top: int | Tensor
) -> Tensor:
    """Packed winding numbers, (B, width, height) int32, each field biased by ``_BIAS``."""
    start = torch.cat(shape, dim=1)[:, None]  # (B, 1, E, 2), the edges of all outlines
    end = torch.cat([outline.roll(-1, dims=1) for outline in shape], dim=1)[:, None]
    unit = torch.cat(
        [
            torch.full_like(outline[:, None, :, 0], 1 << (_BITS * field), dtype=torch.int32)
            for field, outline in enumerate(shape)
        ],
        dim=-1,
    )
    x0, y0, x1, y1 = start[..., 0], start[..., 1], end[..., 0], end[..., 1]
    column = torch.arange(width, dtype=x0.dtype, device=x0.device)[:, None] + left
    step = (x0 <= column).int() - (x1 <= column).int()  # 0 where the edge does not cross
    slope = (y1 - y0) / torch.where(x0 == x1, 1.0, x1 - x0)
    row = torch.ceil(y0 + (column - x0) * slope) - top  # (B, W, E)
    value = step * unit * (row < height)
    count = value.new_zeros(value.shape[0], width, height)
    count[..., 0] = sum(_BIAS << (_BITS * field) for field in range(4))
    count.scatter_add_(-1, row.clamp(0, height - 1).long(), value)
    return count.cumsum(-1, dtype=torch.int32)
