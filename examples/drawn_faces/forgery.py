"""Manipulating one face at a time, for the example data; the batched forge will replace it."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import Delaunay

from deepregions.types import Region
from drawn_faces.people import Array, Picture, blur, f32

_POINTS = {
    Region.ENTIRE: np.arange(68),
    Region.EYES: np.r_[17:28, 36:48],
    Region.NOSE: np.arange(27, 36),
    Region.MOUTH: np.arange(48, 68),
}


def forge(
    image: Picture,
    landmarks: Array,
    rng: np.random.Generator,
    donor: tuple[Picture, Array] | None = None,
    region: Region = Region.ENTIRE,
) -> tuple[Picture, str]:
    """Manipulates a face within its hull; nothing outside changes.

    With a donor it is a ``swap``: the donor's face warped onto this one, with this one's colours.
    Else it is a ``warp``, the face at a lower resolution, as face warping leaves it (Li and Lyu
    2019), or a ``self_blend``, a slightly moved and recoloured copy of itself (Shiohara and
    Yamasaki 2022).

    Args:
        image: (H, W, 3) uint8 RGB, drawn or a photograph.
        landmarks: (68, 2) float32 pixels, iBUG order.
        rng: Draws the method and its parameters: the same state gives the same picture.
        donor: Somebody else's picture and landmarks, as ``image`` and ``landmarks``.
        region: What to manipulate; ``rest`` is the face without eyes, nose and mouth.

    Returns:
        The manipulated picture, a new (H, W, 3) uint8 array, and the name of the method.
    """
    method = "swap" if donor else str(rng.choice(("warp", "self_blend")))
    mask = _mask(image.shape[:2], landmarks, rng, region)
    if donor:
        fake = _match_colours(_warp(*donor, landmarks, image.shape[:2]), image, mask)
    else:
        fake = f32(image) if method == "warp" else _move(image, landmarks, rng)
    widest = (16, 36) if method == "warp" else (24, 48)
    fake = _recolour(_soften(fake, landmarks, rng, *widest), rng)
    blended = image + mask[..., None] * np.float32(rng.uniform(0.85, 1)) * (fake - image)
    return np.round(np.clip(blended, 0, 255)).astype(np.uint8), method


def _span(landmarks: Array) -> float:
    """Distance of the outer eye corners, in pixels: what face sizes are measured in."""
    return max(4.0, float(np.linalg.norm(landmarks[45] - landmarks[36])))


def _mask(
    shape: tuple[int, ...], landmarks: Array, rng: np.random.Generator, region: Region
) -> Array:
    """(H, W) in [0, 1]: the hull of a region's landmarks, its shape varied, its edge feathered."""
    span = _span(landmarks)
    lift = span * rng.uniform(0.16, 0.32)  # some way up the forehead
    grow, feather = span * rng.uniform(-0.06, 0.02), span * rng.uniform(0.01, 0.05)
    wobble = rng.normal(0, 0.015, (68, 2)) * span

    def hull(part: Region, growth: float) -> Array:
        points = landmarks + wobble
        points[17:27, 1] -= lift if part == Region.ENTIRE else 0.4 * lift
        corners = cv2.convexHull(points[_POINTS[part]].astype(np.float32))[:, 0]
        inside = np.zeros(shape, np.uint8)
        cv2.fillConvexPoly(inside, np.round(corners * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
        radius = max(1, round(abs(growth)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        reshape = cv2.dilate if growth > 0 else cv2.erode
        return blur(f32(reshape(inside, kernel) / 255.0), feather)

    if region != Region.REST:
        return hull(region, grow)
    rest = hull(Region.ENTIRE, grow)
    for part in (Region.EYES, Region.NOSE, Region.MOUTH):
        rest = rest * (1 - hull(part, abs(grow) + 2 * feather))  # the parts are left whole
    return rest


def _soften(
    image: Array, landmarks: Array, rng: np.random.Generator, fewest: float, most: float
) -> Array:
    """The picture as if the face had been only so many pixels wide."""
    height, width = image.shape[:2]
    scale = min(0.7, rng.uniform(fewest, most) / (1.6 * _span(landmarks)))
    small = max(2, round(width * scale)), max(2, round(height * scale))
    enlarge = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return f32(cv2.resize(shrunk, (width, height), interpolation=enlarge))


def _move(image: Picture, landmarks: Array, rng: np.random.Generator) -> Array:
    """Turned, scaled and shifted by a few percent of the face."""
    centre = landmarks[27:36].mean(0).tolist()
    matrix = cv2.getRotationMatrix2D(centre, rng.uniform(-3, 3), np.exp(rng.uniform(-0.05, 0.05)))
    shift = np.zeros((2, 3))
    shift[:, 2] = rng.uniform(-0.03, 0.03, 2) * _span(landmarks)
    size = image.shape[1], image.shape[0]
    return f32(cv2.warpAffine(f32(image), matrix + shift, size, borderMode=cv2.BORDER_REFLECT))


def _recolour(image: Array, rng: np.random.Generator) -> Array:
    gain = np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.03, 3)).astype(np.float32)
    grey = image.mean(2, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.8, 1.2))
    return f32(np.clip(image * gain + rng.normal(0, 6), 0, 255))


def _warp(image: Picture, source: Array, target: Array, shape: tuple[int, ...]) -> Array:
    """Moves each triangle between landmarks of a picture to where the target has it."""
    ring = np.array(((-2, -2), (0, -2), (2, -2), (2, 0), (2, 2), (0, 2), (-2, 2), (-2, 0)))
    source, target = (np.concatenate([p, p.mean(0) + ring * _span(p)]) for p in (source, target))
    mesh = Delaunay(target)
    y, x = np.mgrid[: shape[0], : shape[1]].reshape(2, -1)
    pixels = np.stack([x, y], 1).astype(np.float64)
    triangle = mesh.find_simplex(pixels)
    edges = mesh.transform[triangle]
    weights = np.einsum("nij,nj->ni", edges[:, :2], pixels - edges[:, 2])
    weights = np.concatenate([weights, 1 - weights.sum(1, keepdims=True)], 1)
    origin = (source[mesh.simplices[triangle]] * weights[..., None]).sum(1)
    origin[triangle < 0] = 0  # far outside the face, where nothing is used
    u, v = f32(origin.reshape(*shape, 2).transpose(2, 0, 1))
    return f32(cv2.remap(f32(image), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _match_colours(fake: Array, image: Picture, mask: Array) -> Array:
    """Gives the fake the image's mean and spread of each channel within the mask."""
    inside = mask > 0.5
    if not inside.any():
        return fake
    mean, spread = fake[inside].mean(0), fake[inside].std(0) + 1
    wanted = image[inside].astype(np.float32)
    return f32(np.clip((fake - mean) / spread * (wanted.std(0) + 1) + wanted.mean(0), 0, 255))
