"""Augmentation of training images on the device: flips, turns and degradations.

Labels are not used, so genuine and fake faces are altered in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from kornia.geometry.transform import get_affine_matrix2d
from torch import Tensor, nn
from torch.nn import functional

from deepregions.errors import UsageError
from deepregions.faces.cropping import full_extent
from deepregions.faces.regions import mirror
from deepregions.pixels.colour import LUMA, recolour, saturation
from deepregions.pixels.face_rng import FaceRng, noise
from deepregions.pixels.jpeg import compress
from deepregions.pixels.tensors import chunks
from deepregions.pixels.warping import inverse, moved, warp

_BLOCK = 16  # pixels: JPEG's largest
_SCALES = (1.0, 0.75, 0.5)  # of pictures that were part of a video: blocks are 8, 11 or 16 pixels


@dataclass(frozen=True)
class Strengths:
    """How often (``*_p``, per face, 0 to 1) and how strongly faces are altered.

    The defaults are moderate: strong blur and compression would remove the fine traces of
    manipulation.

    Attributes:
        flip_p: Mirrored left to right.
        warp_p: Turned and zoomed about the middle of the face.
        rotation: At most this many degrees either way.
        zoom: At most this share larger or smaller.
        misplace_p: Landmarks placed as another finder might, all of them alike: crops then show
            more or less of the face, here or there. Pixels stay.
        misplace: At most this share of the face's width aside, down, larger or smaller.
        erase_p: A rectangle made black, so that no one place is relied on.
        erase: Its sides are at most this share of the picture's.
        colour_p: Brightness, contrast and saturation changed, each by its own factor.
        brightness: The factor is between 1 - this and 1 + this.
        contrast: As above.
        saturation: As above.
        gamma_p: Gamma changed: the middle tones get lighter or darker.
        gamma: The exponent is at most 1 + this, at least its inverse.
        blur_p: Gaussian blur.
        blur_sigma: Its standard deviation is at most this many pixels.
        noise_p: Gaussian noise.
        noise_std: Its standard deviation, where the image's range is 1.
        video_p: What a video codec does, without a codec: made smaller, compressed in blocks,
            made larger again, so that blocks are soft and of several sizes.
        video_quality: The lowest quality of that compression, on JPEG's scale; the highest is 90.
        jpeg_p: JPEG compression, in half of the cases with chroma at half its size.
        jpeg_quality: The lowest quality, 1 to 100; the highest is 100.
    """

    flip_p: float = 0.5
    warp_p: float = 0.3
    rotation: float = 10.0
    zoom: float = 0.05
    misplace_p: float = 0.0
    misplace: float = 0.06
    erase_p: float = 0.0
    erase: float = 0.4
    colour_p: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    gamma_p: float = 0.0
    gamma: float = 0.25
    blur_p: float = 0.1
    blur_sigma: float = 1.5
    noise_p: float = 0.2
    noise_std: float = 0.02
    video_p: float = 0.0
    video_quality: float = 40.0
    jpeg_p: float = 0.3
    jpeg_quality: float = 50.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            fits, rule = value >= 0, "must be at least 0"
            if name.endswith("_p"):
                fits, rule = 0 <= value <= 1, "must be from 0 to 1"
            elif name in ("zoom", "misplace", "erase", "brightness", "contrast", "saturation"):
                fits, rule = 0 <= value < 1, "must be from 0 to below 1"
            elif name in ("jpeg_quality", "video_quality"):
                most = 100 if name == "jpeg_quality" else 90
                fits, rule = 1 <= value <= most, f"must be from 1 to {most}"
            elif name == "blur_sigma":
                fits, rule = value > 0.1, "must be above 0.1"
            if not fits:
                raise UsageError(f"{name} {rule}, not {value}")


class Augmenter(nn.Module):
    """Alters a batch of faces at random, landmarks with their pixels.

    Which faces, and how much, is drawn on the CPU, so a seed gives the same on any device. Each
    operation sees only the faces that were drawn for it.
    """

    def __init__(self, strengths: Strengths) -> None:
        super().__init__()
        self.strengths = strengths
        self._reach = math.ceil(3 * strengths.blur_sigma)  # of the blur, in pixels

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        landmarks: Tensor,
        draws: FaceRng | None = None,
        *,
        extent: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns altered copies, (B, 3, H, W) uint8, and their landmarks, again in iBUG order.

        What becomes of a face does not depend on how far its picture is padded. Padding stays
        black.

        Args:
            image: (B, 3, H, W) uint8 RGB.
            landmarks: (B, 68, 2) float32 pixels of ``image``, iBUG order.
            draws: What is drawn; from torch's global generator by default.
            extent: (B, 2) width and height of each picture without its padding; none by default.
        """
        if draws is None:
            draws = FaceRng(torch.randint(-(2**63), 2**63 - 1, (len(image),)))
        image, landmarks = self.move(image, landmarks, draws, extent=extent)
        return self.degrade(image, draws, extent=extent), self.misplace(landmarks, draws)

    @torch.no_grad()
    def move(
        self, image: Tensor, landmarks: Tensor, draws: FaceRng, *, extent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mirrors, turns and zooms; arguments and results as :meth:`forward`'s."""
        image, landmarks = image.clone(), landmarks.clone()
        extent = full_extent(image) if extent is None else extent
        s = self.strengths
        for name, chance, alter in (("flip", s.flip_p, _flip), ("warp", s.warp_p, self._warp)):
            own = draws.stream(name)
            for some in chunks(0, len(image), image.device):
                _sometimes(own[some], chance, alter, extent[some], image[some], landmarks[some])
        return image, landmarks

    @torch.no_grad()
    def misplace(self, landmarks: Tensor, draws: FaceRng) -> Tensor:
        """Moves landmarks, (B, 68, 2) pixels, a little off their faces; equal draws do the same."""
        own = draws.stream("misplace")
        drawn = own.uniform(-1, 1, 3) * own.chance(self.strengths.misplace_p)[:, None]
        amount = (self.strengths.misplace * drawn).to(landmarks.device, non_blocking=True)
        low, high = landmarks.amin(1), landmarks.amax(1)
        centre, width = (low + high) / 2, (high - low)[:, :1]
        larger = amount[:, None, :1] * (landmarks - centre[:, None])
        return landmarks + larger + (amount[:, 1:] * width)[:, None]

    @torch.no_grad()
    def degrade(self, image: Tensor, draws: FaceRng, *, extent: Tensor | None = None) -> Tensor:
        """Changes colours and quality as cameras, editors and websites do; nothing moves.

        As for :meth:`forward`; equal draws do the same.
        """
        s = self.strengths
        steps = (
            (draws.stream("erase"), s.erase_p, self._erase),
            (draws.stream("colour"), s.colour_p, self._colour),
            (draws.stream("gamma"), s.gamma_p, self._gamma),
            (draws.stream("blur"), s.blur_p, self._blur),
            (draws.stream("noise"), s.noise_p, self._noise),
            (draws.stream("video"), s.video_p, self._video),
            (draws.stream("jpeg"), s.jpeg_p, self._jpeg),
        )
        result = torch.empty_like(image)
        sizes = full_extent(image) if extent is None else extent
        for some in chunks(0, len(image), image.device):
            pixels = image[some] if extent is None else fill_padding(image[some], extent[some])
            pixels = pixels.float()
            for own, chance, alter in steps:
                _sometimes(own[some], chance, alter, sizes[some], pixels)
            result[some] = pixels.round_().clamp_(0, 255).to(torch.uint8)
        return result if extent is None else result.mul_(inside(result, extent))

    def _warp(
        self, draws: FaceRng, extent: Tensor, image: Tensor, landmarks: Tensor
    ) -> tuple[Tensor, Tensor]:
        angle, zoom = draws.uniform(-1, 1, 2).to(image.device, non_blocking=True).unbind(1)
        centre = landmarks.mean(1)
        scale = (1 + self.strengths.zoom * zoom)[:, None].expand(-1, 2)
        turn = self.strengths.rotation * angle
        matrix = get_affine_matrix2d(torch.zeros_like(centre), centre, scale, turn)[:, :2]
        filled = fill_padding(image, extent).float()
        turned = warp(filled, inverse(matrix), (image.shape[2], image.shape[3]))
        pixels = turned.add_(0.5).to(torch.uint8).mul_(inside(image, extent))
        return pixels, moved(landmarks, matrix)

    def _erase(self, draws: FaceRng, extent: Tensor, pixels: Tensor) -> tuple[Tensor]:
        half = self.strengths.erase / 2 * draws.uniform(0, 1, 2)
        middle = draws.uniform(0.2, 0.8, 2)  # faces are not at the edge
        low, high = (
            extent * (middle + way * half).to(pixels.device, non_blocking=True) for way in (-1, 1)
        )
        return (pixels * ~inside(pixels, high, low),)

    def _colour(self, draws: FaceRng, extent: Tensor, pixels: Tensor) -> tuple[Tensor]:
        s = self.strengths
        brightness, contrast, paleness = (
            1 + most * draws.uniform(-1, 1) for most in (s.brightness, s.contrast, s.saturation)
        )
        linear = (brightness * contrast)[:, None, None] * saturation(paleness)
        linear = linear.to(pixels.device, non_blocking=True)
        # Contrast is about the picture's mean luma.
        kept = (brightness * (1 - contrast)).to(pixels.device, non_blocking=True)
        means = (pixels * inside(pixels, extent)).sum((2, 3)) / extent.prod(1, keepdim=True)
        grey = sum(weight * mean for weight, mean in zip(LUMA, means.T, strict=True))
        return (recolour(pixels, linear, (kept * grey)[:, None].expand(-1, 3)),)

    def _gamma(self, draws: FaceRng, _: Tensor, pixels: Tensor) -> tuple[Tensor]:
        most = math.log(1 + self.strengths.gamma)
        exponent = draws.uniform(-most, most).exp().to(pixels.device, non_blocking=True)
        return ((pixels / 255).pow(exponent[:, None, None, None]).mul_(255),)

    def _blur(self, draws: FaceRng, _: Tensor, pixels: Tensor) -> tuple[Tensor]:
        sigma = draws.uniform(0.1, self.strengths.blur_sigma)[:, None]
        away = torch.arange(-self._reach, self._reach + 1.0)
        weights = torch.exp(-0.5 * (away / sigma).square())
        weights = weights / weights.sum(1, keepdim=True)
        weights = weights.T[..., None, None, None].to(pixels.device, non_blocking=True)
        pixels = functional.pad(pixels, [self._reach] * 4, mode="replicate")
        for axis in (2, 3):  # kornia's blur waits for the device, and takes longer on a CPU
            count = pixels.shape[axis] - 2 * self._reach
            total = pixels.narrow(axis, 0, count) * weights[0]
            for shift, weight in enumerate(weights[1:], 1):
                total.addcmul_(pixels.narrow(axis, shift, count), weight)
            pixels = total
        return (pixels,)

    def _noise(self, draws: FaceRng, _: Tensor, pixels: Tensor) -> tuple[Tensor]:
        seeds = draws.seeds.to(pixels.device, non_blocking=True)
        grain = noise(seeds, (pixels.shape[1], pixels.shape[2], pixels.shape[3]))
        return (torch.add(pixels, grain, alpha=255 * self.strengths.noise_std).clamp_(0, 255),)

    def _jpeg(self, draws: FaceRng, _: Tensor, pixels: Tensor) -> tuple[Tensor]:
        quality = draws.uniform(self.strengths.jpeg_quality, 101)
        halved = draws.choice(2)

        def alter(kind: int, rows: Tensor, some: Tensor) -> Tensor:
            return compress(some, quality[rows].clamp(max=100), halved=bool(kind))

        return (_by_kind(halved, alter, pixels),)

    def _video(self, draws: FaceRng, _: Tensor, pixels: Tensor) -> tuple[Tensor]:
        quality = draws.uniform(self.strengths.video_quality, 90)

        def alter(kind: int, rows: Tensor, some: Tensor) -> Tensor:
            size = some.shape[2:]  # multiples of 16: whole numbers of them are kept
            smaller = [round(side * _SCALES[kind]) for side in size]
            reduced = functional.interpolate(some, smaller, mode="bilinear", antialias=True)
            coded = compress(reduced.round(), quality[rows])
            return functional.interpolate(coded, size, mode="bilinear", antialias=True)

        return (_by_kind(draws.choice(len(_SCALES)), alter, pixels),)


def _flip(
    draws: FaceRng,  # noqa: ARG001
    extent: Tensor,
    image: Tensor,
    landmarks: Tensor,
) -> tuple[Tensor, Tensor]:
    width = extent[:, :1]
    place = torch.arange(image.shape[-1], device=image.device).expand(len(image), -1)
    place = torch.where(place < width, width - 1 - place, place)  # padding stays where it is
    flipped = image.gather(3, place[:, None, None].expand(image.shape))
    return flipped, mirror(landmarks, width)


def inside(image: Tensor, end: Tensor, start: Tensor | None = None) -> Tensor:
    """Where pictures are and not their padding, (B, 1, H, W) bool; ``end`` (B, 2) is their size.

    Or where a rectangle is that ends there, and begins at ``start`` (B, 2).
    """
    start = torch.zeros_like(end) if start is None else start
    across, down = (
        (place >= start[:, axis, None]) & (place < end[:, axis, None])
        for axis, place in enumerate(
            torch.arange(side, device=image.device) for side in (image.shape[3], image.shape[2])
        )
    )
    return (down[:, :, None] & across[:, None, :])[:, None]


def fill_padding(image: Tensor, extent: Tensor) -> Tensor:
    """Lets the edges of pictures (B, C, H, W) go on through their padding."""
    for axis, side in ((3, extent[:, 0]), (2, extent[:, 1])):
        place = torch.arange(image.shape[axis], device=image.device)
        place = place.minimum(side[:, None] - 1)
        place = place[:, None, None] if axis == 3 else place[:, None, :, None]
        image = image.gather(axis, place.expand(image.shape))
    return image


def _sometimes(
    draws: FaceRng,
    chance: float,
    alter: Callable[..., tuple[Tensor, ...]],
    extent: Tensor,
    *tensors: Tensor,
) -> None:
    """Applies ``alter`` to the batch's elements that are drawn for it, in place."""
    rows = draws.chance(chance).nonzero()[:, 0]
    if not len(rows):
        return
    place = rows.to(tensors[0].device, non_blocking=True)
    some = draws[rows].stream("how")
    altered = alter(
        some, extent.index_select(0, place), *(tensor.index_select(0, place) for tensor in tensors)
    )
    for whole, part in zip(tensors, altered, strict=True):
        whole.index_copy_(0, place, part)


def _by_kind(
    kinds: Tensor, alter: Callable[[int, Tensor, Tensor], Tensor], pixels: Tensor
) -> Tensor:
    """Alters the faces of each kind, (B,) on the host, together; edges go on for JPEG's blocks."""
    height, width = pixels.shape[2:]
    more = [_BLOCK + -side % _BLOCK for side in (width, height)]
    pixels = functional.pad(pixels, (0, more[0], 0, more[1]), mode="replicate")
    for kind in sorted(set(kinds.tolist())):
        rows = (kinds == kind).nonzero()[:, 0]
        place = rows.to(pixels.device, non_blocking=True)
        pixels.index_copy_(0, place, alter(kind, rows, pixels.index_select(0, place)))
    return pixels[..., :height, :width]
