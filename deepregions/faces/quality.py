"""The quality of faces: size, pose, light, sharpness, and how sure their landmarks are.

All is measured on the pixels that detectors see: the face's canvas, stretched to a square of
``SIDE`` pixels, grey. Sharpness is the root mean square of the Laplacian over that of the gradient:
a mean spatial frequency, whatever contrast and brightness; noise adds to it.
"""

import torch
from torch import Tensor

from deepregions.faces.cropping import (
    canvas_masks,
    centred,
    check_faces,
    full_extent,
    shifted,
    tame,
    window,
)
from deepregions.faces.judgement import Quality
from deepregions.faces.pose import head_pose
from deepregions.faces.regions import canvas, outlines
from deepregions.faces.resampling import box_taps, resample

SIDE = 128  # pixels per side of the square on which light and sharpness are measured

DARK, BRIGHT = 8.0, 247.0  # grey values, of 255, up to and from which a pixel counts as clipped

_FLOOR = 1.0  # grey values: slopes of this size come of rounding to 8 bits, and are no detail


def measure(
    image: Tensor,
    landmarks: Tensor,
    *,
    scale: Tensor | None = None,
    extent: Tensor | None = None,
    confidence: Tensor | None = None,
) -> Quality[Tensor]:
    """Measures faces: images (B, 3, H, W) uint8 RGB, landmarks (B, 68, 2) in their pixels.

    ``scale`` (B,) is pixels of the image per pixel of the frame, where patches were made smaller;
    ``extent`` (B, 2) each image's width and height without its padding, right and below;
    ``confidence`` (B,) the landmarks', NaN where unknown.
    """
    check_faces(image, landmarks)
    points, finite = tame(landmarks)
    points, origin = centred(points)
    pose = head_pose(points)
    whole, shape = canvas(points), outlines(points)
    extent = full_extent(image) if extent is None else extent
    grids = canvas_masks(shape, whole, window(extent, origin), SIDE)
    masks, seen = (part.permute(0, 2, 3, 1).float() for part in grids)
    grey, known = _canvas_pixels(image, shifted(whole, origin), extent)
    total, visible = (part.sum(dim=(2, 3)) for part in (masks, seen))

    def mean(values: Tensor) -> Tensor:
        return (values[:, None] * seen).sum(dim=(2, 3)) / visible.clamp(min=1)

    unknown = torch.full_like(pose.width, float("nan"))
    return Quality(
        size=pose.width if scale is None else pose.width / scale,
        yaw=pose.yaw,
        pitch=pose.pitch,
        roll=pose.roll,
        misfit=pose.misfit,
        confidence=unknown if confidence is None else confidence.float(),
        finite=finite,
        inside=visible / total.clamp(min=1),
        light=mean(grey) / 255,
        dark=mean((grey <= DARK).float()),
        bright=mean((grey >= BRIGHT).float()),
        sharpness=_sharpness(grey, seen, known),
    )


def _canvas_pixels(image: Tensor, whole: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
    """Grey values of the stretched canvas, and where the image has any, both (B, SIDE, SIDE)."""
    red, green, blue = image.unbind(dim=1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # luma of ITU-R BT.601
    start, length = whole[:, :2], whole[:, 2:] - whole[:, :2]
    taps = [
        box_taps(start[:, axis], length[:, axis], image.shape[3 - axis], SIDE, extent[:, axis])
        for axis in (0, 1)
    ]
    table = grey.transpose(1, 2).unsqueeze(2).contiguous()
    # Weights outside the image are 0: their sum makes up for it where a canvas is cut.
    across, down = (weight.sum(dim=-1) for _, weight in taps)
    share = down[:, :, None] * across[:, None, :]
    pixels = resample(table, taps[0], taps[1])[:, 0] / share.clamp(min=1e-3)
    return pixels, share > 0.1


def _sharpness(grey: Tensor, seen: Tensor, known: Tensor) -> Tensor:
    """(B, S, S), (B, 5, S, S), (B, S, S) -> (B, 5); only pixels whose four neighbours are known."""
    here = grey[:, 1:-1, 1:-1]
    near = [slice(0, -2), slice(2, None)]
    around = [grey[:, rows, 1:-1] for rows in near] + [grey[:, 1:-1, columns] for columns in near]
    steps = torch.stack([other - here for other in around])
    full = known[:, near[0], 1:-1] & known[:, near[1], 1:-1]
    full = full & known[:, 1:-1, near[0]] & known[:, 1:-1, near[1]]
    weight = seen[:, :, 1:-1, 1:-1] * full[:, None]
    count = weight.sum(dim=(2, 3)).clamp(min=1)

    def rms(squares: Tensor) -> Tensor:
        return ((squares[:, None] * weight).sum(dim=(2, 3)) / count).sqrt()

    slope = rms(steps.square().sum(dim=0) / 2)  # forward and backward differences, averaged
    return rms(steps.sum(dim=0).square()) / (slope + _FLOOR)
