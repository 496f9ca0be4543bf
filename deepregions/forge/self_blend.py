"""Self-blended images (Shiohara and Yamasaki 2022): a face blended with a changed copy of itself.

Source or target is recoloured and loses or gains sharpness, the source is moved a little, and a
hull of its landmarks is blended into the target, at the strengths of the authors' program. Unlike
there, where the target changes, its genuine counterpart changes with it, or sharpness and colour
outside the mask would tell the two apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from deepregions.faces.regions import canvas
from deepregions.forge.faces import FACE_SHARE, Blend, Method, Rows, Scene, runs
from deepregions.forge.masks import MaskRecipe, Masks, draw_shape, make_masks
from deepregions.pixels.face_rng import FaceRng
from deepregions.pixels.warping import warp

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
REDUCED = (2, 4)  # by how much the copy is made smaller, where it is not sharpened
SHARPEN = (0.2, 0.5)  # weight of the sharpened picture
SHIFT = 20  # levels, of each colour, in 3 of 10 copies
BRIGHTNESS = CONTRAST = 0.1
MOVE = (0.06, 0.036)  # across and down, in widths of a face; SBI's 3 and 1.5 % of its crop
ZOOM = 0.95  # smallest; the largest is its inverse

# Blurs of 5 to 25 pixels, in pictures whose faces are some 112 wide. The elastic deformation of
# alpha 50 and sigma 7 moves pixels by 1.2 (one standard deviation).
MASKS = MaskRecipe(
    deform_p=1.0, coarse=0.01, fine=0.015, erode=(0.045, 0.22), blur_p=1.0, blur=(0.045, 0.22)
)


@dataclass(frozen=True)
class SelfBlendPlan(Rows):
    """The plan of :class:`SelfBlend` for B faces; (B, 1, 1, 1) where no shape is given.

    Attributes:
        kinds: (B,) int64 on the host, how sharpness is changed.
        back: (B, 2, 3) from the picture's pixels to the source's.
        gain: Factor of colours, to which ``offset`` (B, 3, 1, 1) is then added.
        sharpness: Weight of the sharpened picture, if it is sharpened.
        target_changes: 1 where the target is the changed copy, 0 where the source is.
    """

    masks: Masks
    kinds: Tensor
    back: Tensor
    gain: Tensor
    offset: Tensor
    sharpness: Tensor
    target_changes: Tensor


class SelfBlend(Method[SelfBlendPlan]):
    """Blends faces with altered copies of themselves.

    Lost and added sharpness are relative to ``detail``, the side in pixels at which faces will be
    judged; by default to the picture. In the share ``target_p`` the target is altered, not the
    source; at 0 a forgery equals its original outside the mask.
    """

    name = "self_blend"

    def __init__(self, detail: int | None = None, target_p: float = 0.5) -> None:
        self._detail = detail
        self._target_p = target_p

    def kinds(self, draws: FaceRng) -> Tensor:
        """Draws whether each copy is reduced, by which of ``REDUCED``, or, half of them, not."""
        return draws.stream("kind").choice(2 * len(REDUCED)).clamp(max=len(REDUCED))

    def plan(self, scene: Scene, draws: FaceRng) -> SelfBlendPlan:
        """Draws the changes; see :class:`deepregions.forge.faces.Method`."""
        device = scene.landmarks.device
        shape = draw_shape(draws, scene.parts, MASKS)
        # A small patch shows a change of colour more than a face does.
        most = SHIFT * torch.where(scene.parts.any(1), 0.5, 1.0)
        shift = (most * draws.chance(0.3))[:, None] * draws.uniform(-1, 1, 3)
        gain = 1 + draws.uniform(-CONTRAST, CONTRAST)[:, None]
        offset = gain * shift + 255 * draws.uniform(-BRIGHTNESS, BRIGHTNESS)[:, None]
        ratio = torch.tensor(RATIOS)[draws.choice(len(RATIOS)), None]
        sharpness = draws.uniform(*SHARPEN)[:, None]
        targets = draws.chance(self._target_p)[:, None].float()
        drawn = torch.cat((gain, offset, sharpness, targets, ratio), dim=1)
        drawn = drawn.to(device, non_blocking=True)
        back, moved = _moved(scene.landmarks, draws)
        masks = make_masks(scene.landmarks, shape, moved)
        masks = replace(masks, values=masks.values * drawn[:, 6:, None])
        return SelfBlendPlan(
            masks=masks,
            kinds=self.kinds(draws),
            back=back,
            gain=drawn[:, :1, None, None],
            offset=drawn[:, 1:4, None, None],
            sharpness=drawn[:, 4:5, None, None],
            target_changes=drawn[:, 5:6, None, None],
        )

    def blend(self, pixels: Tensor, donors: Tensor | None, plan: SelfBlendPlan) -> Blend:  # noqa: ARG002
        """Forges; see :class:`deepregions.forge.faces.Method`."""
        size = (pixels.shape[2], pixels.shape[3])
        changed = torch.addcmul(plan.offset, pixels, plan.gain).clamp_(0, 255)
        scale = 1.0
        if self._detail is not None:
            scale = max(1.0, max(size) / (FACE_SHARE * self._detail))
        for kind, run in runs(plan.kinds):
            if kind < len(REDUCED):
                changed[run] = _reduced(changed[run], REDUCED[kind] * scale)
            else:
                _sharpen(changed[run], plan.sharpness[run], scale)
        source = warp(torch.lerp(changed, pixels, plan.target_changes), plan.back, size)
        target = pixels
        if self._target_p:  # in place: on a CPU, fresh memory costs more than computing
            target = torch.lerp(pixels, changed, plan.target_changes, out=changed)
        return Blend(target, source, plan.masks.enlarged(size))


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
    pixels.addcmul_(difference, weight, value=9).clamp_(0, 255)


def _moved(landmarks: Tensor, draws: FaceRng) -> tuple[Tensor, Tensor]:
    """How to move the source: from its pixels to the picture's, and where landmarks go."""
    zoom = ZOOM * draws.uniform(0, 1).mul(-2 * math.log(ZOOM)).exp()
    shift = draws.uniform(-1, 1, 2) * torch.tensor(MOVE)
    drawn = torch.cat((zoom[:, None], shift), dim=1).to(landmarks.device, non_blocking=True)
    zoom, shift = drawn[:, :1, None], drawn[:, None, 1:]
    box = canvas(landmarks).float()
    width = (box[:, 2] - box[:, 0])[:, None, None]
    centre = ((box[:, :2] + box[:, 2:]) / 2)[:, None]
    moved = (landmarks - centre) * zoom + centre + shift * width
    offset = centre - (centre + shift * width) / zoom  # where a pixel comes from
    eye = torch.eye(2, device=zoom.device) / zoom
    return torch.cat((eye, offset.mT), dim=-1), moved
