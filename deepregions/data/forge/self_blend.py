"""Self-blended images (Shiohara and Yamasaki 2022): a face blended with a changed copy of itself.

Source or target is recoloured and loses or gains sharpness, the source is moved a little, and a
hull of its landmarks is blended into the target. The strengths are those of the authors' program;
its colours in HSV change by a third of a level there, which is nothing, and are left out here. One
thing is different: where the target is the one that changes, its genuine counterpart changes with
it, or sharpness and colour outside the mask would tell the two apart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.data.draws import Draws
from deepregions.data.forge.alignment import warp
from deepregions.data.forge.faces import FACE_SHARE, Blend, Faces, runs
from deepregions.data.forge.masks import Recipe, blend_masks, draw_shape
from deepregions.faces.regions import canvas

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
REDUCED = (2, 4)  # by how much the copy is made smaller, where it is not sharpened
SHARPEN = (0.2, 0.5)  # weight of the sharpened picture
SHIFT = 20  # levels, of each colour, in 3 of 10 copies
BRIGHTNESS = CONTRAST = 0.1
MOVE = (0.06, 0.036)  # across and down, in widths of a face; SBI's 3 and 1.5 % of its crop
ZOOM = 0.95  # smallest; the largest is its inverse

# Blurs of 5 to 25 pixels, in pictures whose faces are some 112 wide. The elastic deformation of
# alpha 50 and sigma 7 moves pixels by 1.2 (one standard deviation).
MASKS = Recipe(
    deform_p=1.0, coarse=0.01, fine=0.015, erode=(0.045, 0.22), blur_p=1.0, blur=(0.045, 0.22)
)


class SelfBlend:
    """Blends faces with themselves.

    Args:
        detail: Side in pixels of a face as it will be looked at: lost and added sharpness are
            relative to that. By default they are relative to the picture.
        target_p: Share of forgeries whose target changes and not the source. At 0 a forgery is
            its original outside the mask, to the pixel.
    """

    name = "self_blend"
    needs_donors = False

    def __init__(self, detail: int | None = None, target_p: float = 0.5) -> None:
        self._detail = detail
        self._target_p = target_p

    def __call__(self, faces: Faces, donors: Faces | None, parts: Tensor, draws: Draws) -> Blend:  # noqa: ARG002
        """Forges; see :class:`deepregions.data.forge.faces.Method`."""
        pixels, device = faces.pixels, faces.pixels.device
        shape = draw_shape(draws, parts, MASKS)
        # A small patch shows a change of colour more than a face does.
        shift = SHIFT * torch.where(parts.any(1), 0.5, 1.0)
        changed = self._sharpness(_recoloured(pixels, draws, shift), draws)
        ratio = torch.tensor(RATIOS)[draws.choice(len(RATIOS))]
        flags = torch.stack((draws.chance(self._target_p).float(), ratio), dim=1)
        flags = flags.to(device, non_blocking=True)[:, :, None, None, None]
        target_changes = flags[:, 0]
        back, landmarks = _moved(faces, draws)
        source = warp(torch.lerp(changed, pixels, target_changes), back, faces.size)
        target = pixels
        if self._target_p:  # in place: on a CPU, fresh memory costs more than computing
            target = torch.lerp(pixels, changed, target_changes, out=changed)
        mask, touched = blend_masks(faces.landmarks, shape, faces.size, landmarks)
        return Blend(target, source, mask * flags[:, 1], touched)

    def kinds(self, draws: Draws) -> Tensor:
        """Draws whether each copy is reduced, by which of ``REDUCED``, or, half of them, not."""
        return draws.stream("kind").choice(2 * len(REDUCED)).clamp(max=len(REDUCED))

    def _sharpness(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Reduces or sharpens each picture, in place."""
        scale = 1.0
        if self._detail is not None:
            scale = max(1.0, max(pixels.shape[2:]) / (FACE_SHARE * self._detail))
        weight = draws.uniform(*SHARPEN).to(pixels.device, non_blocking=True)
        for kind, run in runs(self.kinds(draws)):
            if kind < len(REDUCED):
                pixels[run] = _reduced(pixels[run], REDUCED[kind] * scale)
            else:
                _sharpen(pixels[run], weight[run], scale)
        return pixels


def _recoloured(pixels: Tensor, draws: Draws, most: Tensor) -> Tensor:
    """Shifts colours by at most ``most`` (B,), and changes brightness and contrast."""
    shift = (most * draws.chance(0.3))[:, None] * draws.uniform(-1, 1, 3)
    gain = 1 + draws.uniform(-CONTRAST, CONTRAST)[:, None]
    offset = gain * shift + 255 * draws.uniform(-BRIGHTNESS, BRIGHTNESS)[:, None]
    change = torch.cat((gain, offset), dim=1).to(pixels.device, non_blocking=True)
    change = change[..., None, None]
    return torch.addcmul(change[:, 1:], pixels, change[:, :1]).clamp_(0, 255)


def _reduced(pixels: Tensor, factor: float) -> Tensor:
    size = pixels.shape[2], pixels.shape[3]
    smaller = (max(2, round(size[0] / factor)), max(2, round(size[1] / factor)))
    for each in (smaller, size):  # "antialias" is the faster way to enlarge, too
        pixels = functional.interpolate(pixels, each, mode="bilinear", antialias=True)
    return pixels


def _sharpen(pixels: Tensor, weight: Tensor, scale: float) -> None:
    """Applies the usual 3 x 3 kernel (9 in the middle, -1 around), or a larger one, in place."""
    side = 2 * round((3 * scale - 1) / 2) + 1
    total = functional.pad(pixels, [side // 2] * 4, mode="replicate")
    for axis in (2, 3):  # sums of slices: pooling takes ten times as long on a CPU
        count = total.shape[axis] - side + 1
        slices = [total.narrow(axis, shift, count) for shift in range(side)]
        total = slices[0] + slices[1]
        for each in slices[2:]:
            total += each
    difference = torch.sub(pixels, total, alpha=1 / side**2, out=total)
    pixels.addcmul_(difference, weight[:, None, None, None], value=9).clamp_(0, 255)


def _moved(faces: Faces, draws: Draws) -> tuple[Tensor, Tensor]:
    """How to move the source: from its pixels to the picture's, and where landmarks go."""
    zoom = ZOOM * draws.uniform(0, 1).mul(-2 * torch.log(torch.tensor(ZOOM))).exp()
    shift = draws.uniform(-1, 1, 2) * torch.tensor(MOVE)
    drawn = torch.cat((zoom[:, None], shift), dim=1).to(faces.pixels.device, non_blocking=True)
    zoom, shift = drawn[:, :1, None], drawn[:, None, 1:]
    box = canvas(faces.landmarks).float()
    width = (box[:, 2] - box[:, 0])[:, None, None]
    centre = ((box[:, :2] + box[:, 2:]) / 2)[:, None]
    landmarks = (faces.landmarks - centre) * zoom + centre + shift * width
    offset = centre - (centre + shift * width) / zoom  # where a pixel comes from
    eye = torch.eye(2, device=zoom.device) / zoom
    return torch.cat((eye, offset.mT), dim=-1), landmarks
