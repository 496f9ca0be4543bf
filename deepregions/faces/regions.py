"""Where the five regions of a face are: from 68 landmarks to outlines and boxes.

The geometry was measured on region images that the authors of the paper publish, and fitted there
to round constants. Mean IoU with their masks: entire 0.97, eyes 0.86, nose 0.90, mouth 0.92, rest
0.88. :func:`outlines` gives four closed outlines; nose comes before mouth, mouth before eyes, eyes
before rest, which is the face's: they share no pixel, and together are the entire face. All of it
lies on the face's :func:`canvas`, and ends there.

Landmarks are (B, 68, 2) float32, finite. A box is (x0, y0, x1, y1) int64, the upper ends exclusive,
at least 1 pixel wide and high; it may reach out of the image. Lengths come from the face: ``u`` is
the bridge of the nose, |27-30|; ``iod`` the distance of the outer eye corners, |36-45|. Outlines
turn with a rolled face; the canvas is upright, as the original's.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deepregions.faces.patches import CONTEXT, FOREHEAD

# In units of u.
FOREHEAD_SPARE = 0.3  # how much further the outline goes: the canvas cuts a rolled face flat
BROW_LIFT = 0.38  # upper border of the eyes above the brows
# In units of iod.
TEMPLE_OUT = 0.05  # the face's side beyond the brow's end; as much within it at the canvas's top
EYES_OUT = 0.07  # the eyes' side beyond the brow's end
EYES_BELOW = 0.21  # lower border of the eyes below the middle of the eye
MOUTH_OUT = 0.11  # border of the mouth beyond the lips, above and at the corners
MOUTH_DOWN = 0.055  # the same, below
# Fractions of a way between landmarks.
NOSE_NECK = 0.66  # narrowest place of the nose: from 27 towards the inner corners of the eyes
NOSE_WING = 2.1  # widest place: from 33 through 31 and 35
NOSE_TIP = 0.5  # lower end: from 33 towards 51

TIGHT_MARGIN = 0.05  # of the longer side: space around a region in its own box

MIRROR: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)
"""Landmark i of a mirrored face is landmark MIRROR[i] of the face."""


class Outlines(NamedTuple):
    """Closed outlines of the parts of B faces, each (B, V, 2) float32 xy pixels."""

    face: Tensor
    eyes: Tensor
    nose: Tensor
    mouth: Tensor


def mirror(landmarks: Tensor, width: int | Tensor) -> Tensor:
    """Landmarks (..., 68, 2) of a mirrored image, whose width is in pixels, or (B, 1) of each."""
    points = landmarks.unbind(dim=-2)  # indexing with a list would wait for a copy to the device
    swapped = torch.stack([points[index] for index in MIRROR], dim=-2)
    return torch.stack((width - 1 - swapped[..., 0], swapped[..., 1]), dim=-1)


def outlines(landmarks: Tensor) -> Outlines:
    """Outlines of face, eyes, nose and mouth, of 21, 14, 7 and 12 points; they may overlap."""
    right, down, u, iod = _frame(landmarks)
    upright = torch.stack(((landmarks * right).sum(-1), (landmarks * down).sum(-1)), dim=-1)
    parts = (_face(upright, u, iod), _eyes(upright, u, iod), _nose(upright), _mouth(upright, iod))
    return Outlines(*(part[..., :1] * right + part[..., 1:] * down for part in parts))


def canvas(landmarks: Tensor) -> Tensor:
    """The boxes (B, 4) that all regions of a face share: landmarks and forehead, no margin."""
    _, down, u, _ = _frame(landmarks)
    forehead = landmarks[:, 17:27] - FOREHEAD * u * down
    return _box(torch.cat((landmarks, forehead), dim=1))


def context_box(landmarks: Tensor) -> Tensor:
    """Squares (B, 4) around landmarks, enlarged by 1.3, as whole-face detectors are trained on."""
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    reach = CONTEXT / 2 * (high - low).amax(dim=-1, keepdim=True)
    centre = (low + high) / 2
    return _box(torch.stack((centre - reach, centre + reach), dim=1))


def region_boxes(landmarks: Tensor) -> Tensor:
    """Each region's own box, with a small margin, within the canvas: (B, 5, 4) of ``REGIONS``."""
    whole = canvas(landmarks)
    shape = outlines(landmarks)
    own = []
    for points in (shape.eyes, shape.nose, shape.mouth):
        low, high = points.amin(dim=1), points.amax(dim=1)
        margin = TIGHT_MARGIN * (high - low).amax(dim=-1, keepdim=True)
        own.append(_box(torch.stack((low - margin, high + margin), dim=1)))
    boxes = torch.stack((whole, *own, whole), dim=1)
    low = torch.minimum(torch.maximum(boxes[..., :2], whole[:, None, :2]), whole[:, None, 2:] - 1)
    high = torch.maximum(torch.minimum(boxes[..., 2:], whole[:, None, 2:]), low + 1)
    return torch.cat((low, high), dim=-1)


def _frame(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors right and down, and the lengths u and iod; (B, 1, 2) twice, (B, 1, 1) twice."""
    across = landmarks[:, 42:48].mean(dim=1) - landmarks[:, 36:42].mean(dim=1)
    right = across / torch.linalg.vector_norm(across, dim=-1, keepdim=True).clamp(min=1e-6)
    down = torch.stack((-right[:, 1], right[:, 0]), dim=-1)
    u = torch.linalg.vector_norm(landmarks[:, 27] - landmarks[:, 30], dim=-1)
    iod = torch.linalg.vector_norm(landmarks[:, 36] - landmarks[:, 45], dim=-1)
    return right[:, None], down[:, None], u[:, None, None], iod[:, None, None]


def _face(p: Tensor, u: Tensor, iod: Tensor) -> Tensor:
    """The jaw, then straight up the temples to above the canvas."""
    out, lift = TEMPLE_OUT * iod, BROW_LIFT * u
    top = p[:, 17:27, 1:].amin(dim=1, keepdim=True) - (FOREHEAD + FOREHEAD_SPARE) * u
    left, right = p[:, 17:18], p[:, 26:27]
    sides = (
        (right[..., :1] + out, right[..., 1:] - lift),
        (right[..., :1] - out, top),
        (left[..., :1] + out, top),
        (left[..., :1] - out, left[..., 1:] - lift),
    )
    return torch.cat((p[:, :17], *(torch.cat(side, dim=-1) for side in sides)), dim=1)


def _eyes(p: Tensor, u: Tensor, iod: Tensor) -> Tensor:
    """Along the lifted brows, and a straight lower border; the nose is taken out later."""
    brows = torch.cat((p[:, 17:27, :1], p[:, 17:27, 1:] - BROW_LIFT * u), dim=-1)
    right_x, left_x = p[:, 26:27, :1] + EYES_OUT * iod, p[:, 17:18, :1] - EYES_OUT * iod
    right_y = p[:, 42:48, 1:].mean(dim=1, keepdim=True) + EYES_BELOW * iod
    left_y = p[:, 36:42, 1:].mean(dim=1, keepdim=True) + EYES_BELOW * iod
    corners = (
        (right_x, brows[:, 9:, 1:]),
        (right_x, right_y),
        (left_x, left_y),
        (left_x, brows[:, :1, 1:]),
    )
    return torch.cat((brows, *(torch.cat(corner, dim=-1) for corner in corners)), dim=1)


def _nose(p: Tensor) -> Tensor:
    """From between the brows through the narrow bridge to the wings and a pointed lower end."""

    def aside(origin: int, towards: int, factor: float, level: int) -> Tensor:
        x = p[:, origin, 0] + factor * (p[:, towards, 0] - p[:, origin, 0])
        return torch.stack((x, p[:, level, 1]), dim=-1)

    tip = p[:, 33] + NOSE_TIP * (p[:, 51] - p[:, 33])
    right = (aside(27, 42, NOSE_NECK, 27), aside(33, 35, NOSE_WING, 35))
    left = (aside(33, 31, NOSE_WING, 31), aside(27, 39, NOSE_NECK, 27))
    return torch.stack((p[:, 21], p[:, 22], *right, tip, *left), dim=1)


def _mouth(p: Tensor, iod: Tensor) -> Tensor:
    """The outer lips, each point moved outwards in its own fixed direction, 30 degrees apart."""
    # 48 is the left corner.
    angle = torch.arange(12, dtype=p.dtype, device=p.device) * (math.pi / 6)
    x, y = -MOUTH_OUT * angle.cos(), -angle.sin()
    y = torch.where(y < 0, MOUTH_OUT * y, MOUTH_DOWN * y)
    return p[:, 48:60] + iod * torch.stack((x, y), dim=-1)


def _box(points: Tensor) -> Tensor:
    """Smallest box around the pixels that (..., N, 2) points fall into; ties go outwards."""
    low = torch.ceil(points.amin(dim=-2) - 0.5)
    high = torch.floor(points.amax(dim=-2) + 0.5) + 1
    return torch.cat((low, torch.maximum(high, low + 1)), dim=-1).long()
