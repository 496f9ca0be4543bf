"""What happens to training images on the device: flips, turns, colours, blur, noise, JPEG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import kornia.augmentation as K  # noqa: N812
import torch
from kornia.geometry.linalg import transform_points
from kornia.geometry.transform import get_affine_matrix2d, warp_affine
from torch import Tensor, nn

from deepregions.errors import UsageError
from deepregions.faces.regions import mirror


@dataclass(frozen=True)
class Strengths:
    """How often (``*_p``, per face, 0 to 1) and how strongly faces are altered.

    Real and fake faces are altered alike. The defaults are moderate: manipulations leave fine
    traces, which strong blur and compression would take away.

    Attributes:
        flip_p: Mirrored left to right.
        warp_p: Turned and zoomed about the middle of the face.
        rotation: At most this many degrees either way.
        zoom: At most this share larger or smaller.
        colour_p: Brightness, contrast and saturation changed, each by its own factor.
        brightness: The factor is between 1 - this and 1 + this.
        contrast: As above.
        saturation: As above.
        blur_p: Gaussian blur.
        blur_sigma: Its standard deviation is at most this many pixels.
        noise_p: Gaussian noise.
        noise_std: Its standard deviation, where the image's range is 1.
        jpeg_p: JPEG compression.
        jpeg_quality: The lowest quality, 1 to 100; the highest is 100.
    """

    flip_p: float = 0.5
    warp_p: float = 0.3
    rotation: float = 10.0
    zoom: float = 0.05
    colour_p: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    blur_p: float = 0.1
    blur_sigma: float = 1.5
    noise_p: float = 0.2
    noise_std: float = 0.02
    jpeg_p: float = 0.3
    jpeg_quality: float = 50.0

    def __post_init__(self) -> None:
        for name in ("flip_p", "warp_p", "colour_p", "blur_p", "noise_p", "jpeg_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        for name in ("zoom", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be from 0 to below 1, not {getattr(self, name)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise UsageError(f"jpeg_quality must be from 1 to 100, not {self.jpeg_quality}")
        if self.rotation < 0 or self.noise_std < 0 or self.blur_sigma <= 0.1:
            raise UsageError("rotation and noise_std must not be negative, blur_sigma above 0.1")


class Augmenter(nn.Module):
    """Alters a batch of faces at random, landmarks with their pixels.

    Which faces, and how much, is drawn on the CPU from torch's global generator, so a seed gives
    the same on any device (but for the noise itself). Each operation sees only the faces that were
    drawn for it: kornia would compute it for all, and keep some.

    Args:
        strengths: How often and how strongly.
    """

    def __init__(self, strengths: Strengths) -> None:
        super().__init__()
        self.strengths = s = strengths
        kernel = 2 * math.ceil(3 * s.blur_sigma) + 1
        self.colour = K.ColorJitter(s.brightness, s.contrast, s.saturation)
        self.blur = K.RandomGaussianBlur((kernel, kernel), (0.1, s.blur_sigma), p=1.0)
        self.noise = K.RandomGaussianNoise(std=s.noise_std, p=1.0)
        self.jpeg = K.RandomJPEG((s.jpeg_quality, 100.0), p=1.0)

    @torch.no_grad()
    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Returns altered copies.

        Args:
            image: (B, 3, H, W) uint8 RGB.
            landmarks: (B, 68, 2) float32 pixels of ``image``, iBUG order.

        Returns:
            The image (B, 3, H, W) uint8, and its landmarks, again in iBUG order: the first eye is
            the one on the image's left, mirrored or not.
        """
        s = self.strengths
        pixels = image.float() / 255
        pixels, landmarks = _sometimes(s.flip_p, _flip, pixels, landmarks)
        pixels, landmarks = _sometimes(s.warp_p, self._warp, pixels, landmarks)
        for chance, alter in (
            (s.colour_p, self.colour),
            (s.blur_p, self.blur),
            (s.noise_p, self.noise),
            (s.jpeg_p, self.jpeg),
        ):
            (pixels,) = _sometimes(chance, lambda some, alter=alter: (alter(some),), pixels)
        return pixels.mul(255).round().clamp(0, 255).to(torch.uint8), landmarks

    def _warp(self, pixels: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        angle, zoom = (2 * torch.rand(2, len(pixels)) - 1).to(pixels.device)
        centre = landmarks.mean(1)
        matrix = get_affine_matrix2d(
            torch.zeros_like(centre),
            centre,
            (1 + self.strengths.zoom * zoom)[:, None].expand(-1, 2),
            self.strengths.rotation * angle,
        )
        size = (pixels.shape[2], pixels.shape[3])
        # align_corners: the matrix is in pixels between centres, and so are the landmarks.
        turned = warp_affine(pixels, matrix[:, :2], size, padding_mode="border", align_corners=True)
        return turned, transform_points(matrix, landmarks)


def _flip(pixels: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    return pixels.flip(-1), mirror(landmarks, pixels.shape[-1])


def _sometimes(
    chance: float, alter: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Applies ``alter`` to the batch's elements that are drawn for it."""
    rows = (torch.rand(len(tensors[0])) < chance).nonzero()[:, 0]
    if not len(rows):
        return tensors
    rows = rows.to(tensors[0].device, non_blocking=True)
    altered = alter(*(tensor.index_select(0, rows) for tensor in tensors))
    return tuple(a.index_copy(0, rows, b) for a, b in zip(tensors, altered, strict=True))
