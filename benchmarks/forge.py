"""Forged faces a second, against OpenCV: ``python benchmarks/forge.py [--device cuda]``.

The reference below does the same steps one face at a time with OpenCV and NumPy, as programs of
this kind usually do: bytes for pictures, float32 for masks, everything at the picture's size.
Wall times are the best of several runs; ``CPU ms`` is processor time per face over all threads,
which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from drawn_faces import draw_face
from torch import Tensor

from deepregions.forge import METHODS, Forger, fwa, make_method, self_blend, swap
from deepregions.forge.alignment import INNER, mean_face
from deepregions.forge.masks import MaskRecipe
from deepregions.pixels.face_rng import FaceRng, seeds_of

Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


class Reference:
    """The forge's steps with OpenCV and NumPy, one face at a time."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def fwa(self, image: Picture, points: Array, *_: object) -> Picture:
        """Aligns, reduces, enlarges, warps back, blends."""
        height, width = image.shape[:2]
        side = round(fwa.ALIGNED * max(height, width))
        matrix = _umeyama(points[INNER], mean_face(side).numpy())
        aligned = _warp(image, matrix, (side, side))
        few = round(side * self._random.choice(fwa.SCALES))
        reduced = cv2.resize(aligned, (few, few), interpolation=cv2.INTER_AREA)
        enlarged = cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR)
        source = _warp(
            np.asarray(enlarged, np.uint8), matrix, (width, height), cv2.WARP_INVERSE_MAP
        )
        return _blend(image, source, self._mask(image, points, fwa.MASKS))

    def self_blend(self, image: Picture, points: Array, *_: object) -> Picture:
        """Recolours, sharpens or reduces, moves, blends."""
        random, (height, width) = self._random, image.shape[:2]
        shift = random.uniform(-self_blend.SHIFT, self_blend.SHIFT, 3).astype(np.float32)
        gain = np.float32(1 + random.uniform(-0.1, 0.1))
        changed = np.clip(image * gain + shift, 0, 255).astype(np.uint8)
        if random.uniform() < 0.5:
            weight = random.uniform(*self_blend.SHARPEN)
            kernel = np.full((3, 3), -weight, np.float32)
            kernel[1, 1] = 1 + 8 * weight
            changed = np.asarray(cv2.filter2D(changed, -1, kernel), np.uint8)
        else:
            factor = int(random.choice(self_blend.REDUCED))
            few = (width // factor, height // factor)
            reduced = cv2.resize(changed, few, interpolation=cv2.INTER_AREA)
            changed = np.asarray(cv2.resize(reduced, (width, height)), np.uint8)
        source, target = (changed, image) if random.uniform() < 0.5 else (image, changed)
        zoom = random.uniform(0.95, 1 / 0.95)
        matrix = np.array([[zoom, 0, random.uniform(-3, 3)], [0, zoom, random.uniform(-2, 2)]])
        source = _warp(source, matrix.astype(np.float32), (width, height))
        moved = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        ratio = np.float32(random.choice(self_blend.RATIOS))
        return _blend(target, source, self._mask(image, moved, self_blend.MASKS) * ratio)

    def swap(self, image: Picture, points: Array, donor: Picture, others: Array) -> Picture:
        """Warps another face by a thin-plate spline, transfers colours, blends."""
        height, width = image.shape[:2]
        unit = float(np.ptp(points, 0).max()) / 2
        centre = points.mean(0)
        knots = (points - centre) / unit
        count = len(points)
        system = np.zeros((count + 3, count + 3), np.float32)
        system[:count] = _basis(knots, knots)
        system[count:, :count] = system[:count, count:].T
        system[:count, :count] += 1e-3 * np.eye(count, dtype=np.float32)
        right = np.concatenate([others - points, np.zeros((3, 2), np.float32)])
        weights = np.linalg.solve(system, right)
        rows, columns = np.mgrid[:32, :32].reshape(2, -1).astype(np.float32) / 31
        grid = np.stack([columns * (width - 1), rows * (height - 1)], 1)
        field = (_basis((grid - centre) / unit, knots) @ weights + grid).reshape(32, 32, 2)
        flow = cv2.resize(field.astype(np.float32), (width, height))
        x, y = np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1])
        source = cv2.remap(donor, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = self._mask(image, points, swap.MASKS)
        one, two = (
            cv2.cvtColor(x, cv2.COLOR_RGB2YCrCb).astype(np.float32) for x in (source, image)
        )
        inside = mask > 0.5
        mean, wanted = one[inside].mean(0), two[inside].mean(0)
        gain = (two[inside].std(0) + 1) / (one[inside].std(0) + 1)
        coloured = np.clip((one - mean) * gain + wanted, 0, 255).astype(np.uint8)
        source = cv2.cvtColor(coloured, cv2.COLOR_YCrCb2RGB)
        return _blend(image, np.asarray(source, np.uint8), mask)

    def _mask(self, image: Picture, points: Array, recipe: MaskRecipe) -> Array:
        """A hull, deformed by two smooth fields, and blurred in two stages."""
        random, (height, width) = self._random, image.shape[:2]
        face = float(np.ptp(points, 0).max())
        mask: npt.NDArray[Any] = np.zeros((height, width), np.float32)
        corners = cv2.convexHull(points.round().astype(np.int32))
        cv2.fillConvexPoly(mask, corners, 1.0)
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        shift = np.zeros((height, width, 2), np.float32)
        for knots, strength in ((5, recipe.coarse), (16, recipe.fine)):
            field = random.standard_normal((knots, knots, 2), np.float32)
            smooth = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
            shift += np.float32(strength * face * random.uniform()) * smooth
        mask = cv2.remap(mask, columns + shift[..., 0], rows + shift[..., 1], cv2.INTER_LINEAR)
        if recipe.erode[1]:
            mask = _gaussian(mask, random.uniform(*recipe.erode) * face, 0.0)
            mask = np.where(mask >= 0.98 * mask.max(), np.float32(1), np.float32(0))
        mask = _gaussian(
            mask, random.uniform(*recipe.blur) * face, random.uniform(0.05, 0.4) * face
        )
        return np.asarray(mask / mask.max(), np.float32)


def _gaussian(mask: npt.NDArray[Any], width: float, sigma: float) -> Array:
    side = 2 * int(width / 2) + 1
    return np.asarray(cv2.GaussianBlur(mask, (side, side), sigma), np.float32)


def _umeyama(source: Array, target: Array) -> Array:
    mean, goal = source.mean(0), target.mean(0)
    a, b = source - mean, target - goal
    u, spread, v = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ v))])
    turn = (u * sign) @ v
    scale = (spread * sign).sum() / a.var(0).sum()
    offset = goal - scale * turn @ mean
    return np.concatenate([scale * turn, offset[:, None]], 1).astype(np.float32)


def _warp(image: Picture, matrix: Array, size: tuple[int, int], flag: int = 0) -> Picture:
    flags = cv2.INTER_LINEAR | flag
    warped = cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _basis(at: Array, points: Array) -> Array:
    square = ((at[:, None] - points) ** 2).sum(-1)
    kernel = 0.5 * square * np.log(np.maximum(square, 1e-12))
    return np.concatenate([kernel, np.ones((len(at), 1)), at], 1).astype(np.float32)


def _blend(target: Picture, source: Picture, mask: Array) -> Picture:
    mixed = target + (source.astype(np.float32) - target) * mask[..., None]
    return (mixed + 0.5).astype(np.uint8)


def timed(run: Callable[[], object], faces: int, repeat: int, cuda: bool) -> tuple[float, float]:
    """Best faces/s, and least processor time per face in milliseconds."""
    wall, processor = [], []
    for _ in range(repeat + 1):
        start, used = time.perf_counter(), time.process_time()
        run()
        if cuda:
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return faces / min(wall[1:]), 1e3 * min(processor[1:]) / faces


def drawn(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Faces (count, 3, size, size) and landmarks, a few drawn ones over and over."""
    few = [draw_face(np.random.default_rng(seed), size) for seed in range(min(count, 16))]
    images = np.stack([few[i % len(few)][0] for i in range(count)])
    landmarks = np.stack([few[i % len(few)][1] for i in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(landmarks)


def one_by_one(name: str, images: Sequence[Picture], landmarks: Sequence[Array]) -> None:
    """Forges with the reference; the donor is the next face."""
    forge = getattr(Reference(), name)
    for number, (image, points) in enumerate(zip(images, landmarks, strict=True)):
        other = (number + 1) % len(images)
        forge(image, points, images[other], landmarks[other])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    images, landmarks = drawn(options.batch, options.size)
    pictures = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    points = [face.numpy() for face in landmarks]
    images, landmarks = images.to(device), landmarks.to(device)
    count = options.batch
    draws = FaceRng(seeds_of(map(str, range(count))))
    print(f"{device}, {options.threads} threads, {count} faces of {options.size} pixels")
    print("method       faces/s  CPU ms   OpenCV faces/s  CPU ms   ratio")
    for name in METHODS:
        forge = partial(
            Forger([make_method(name)]),
            images,
            landmarks,
            draws,
            which=torch.zeros(count, dtype=torch.int64),
            parts=torch.zeros(count, 3, dtype=torch.bool),
            person=torch.arange(count, device=device),
        )
        rate, used = timed(forge, count, options.repeat, cuda)
        reference = partial(one_by_one, name, pictures, points)
        other, other_used = timed(reference, count, max(2, options.repeat // 2), False)
        print(
            f"{name:11s} {rate:8.0f} {used:7.2f} {other:16.0f} {other_used:7.2f} "
            f"{rate / other:7.2f}"
        )


if __name__ == "__main__":
    main()
