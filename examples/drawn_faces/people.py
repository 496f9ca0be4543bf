"""People who do not exist: their proportions and colours, and the geometry of a picture of them.

Convention: (u, v) have their origin between the eyes, u to the image's right, v down, and the
distance of the outer eye corners as their unit. Colours are RGB reflectances in linear light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

Array = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB

_LEFT_HALF = (  # landmark, u, v, depth towards the viewer
    (0, -0.80, 0.02, -0.72),
    (1, -0.79, 0.23, -0.69),
    (2, -0.76, 0.44, -0.62),
    (3, -0.71, 0.64, -0.52),
    (4, -0.63, 0.83, -0.40),
    (5, -0.50, 1.00, -0.27),
    (6, -0.34, 1.14, -0.16),
    (7, -0.17, 1.23, -0.09),
    (8, 0.00, 1.26, -0.06),
    (17, -0.66, -0.15, -0.22),
    (18, -0.56, -0.24, -0.10),
    (19, -0.42, -0.27, -0.03),
    (20, -0.27, -0.25, 0.02),
    (21, -0.13, -0.19, 0.05),
    (27, 0.00, -0.02, 0.06),
    (28, 0.00, 0.12, 0.15),
    (29, 0.00, 0.26, 0.24),
    (30, 0.00, 0.40, 0.32),
    (31, -0.16, 0.50, 0.05),
    (32, -0.08, 0.53, 0.12),
    (33, 0.00, 0.55, 0.15),
    (36, -0.50, 0.00, -0.17),
    (37, -0.41, -0.05, -0.10),
    (38, -0.31, -0.05, -0.07),
    (39, -0.21, 0.02, -0.09),
    (40, -0.31, 0.04, -0.07),
    (41, -0.41, 0.04, -0.10),
    (48, -0.31, 0.75, -0.05),
    (49, -0.20, 0.71, 0.04),
    (50, -0.08, 0.68, 0.09),
    (51, 0.00, 0.70, 0.10),
    (57, 0.00, 0.90, 0.09),
    (58, -0.09, 0.89, 0.08),
    (59, -0.20, 0.85, 0.04),
    (60, -0.27, 0.755, -0.03),
    (61, -0.09, 0.755, 0.07),
    (62, 0.00, 0.765, 0.08),
    (66, 0.00, 0.780, 0.08),
    (67, -0.09, 0.780, 0.07),
)
_MIRROR = {
    **{i: 16 - i for i in range(8)},
    **{17 + i: 26 - i for i in range(5)},
    **{31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},
    **{48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65},
}
JAW, EYES, NOSE, MOUTH = slice(0, 17), slice(36, 48), slice(27, 36), slice(48, 68)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)

_BITS = 4  # of a pixel's fractions in OpenCV's drawing


@dataclass(frozen=True)
class Person:
    """What stays the same from one picture of somebody to the next.

    Attributes:
        shape: (68, 3) float32, landmarks (u, v, depth) of the head facing the viewer.
        skin: (3,) RGB reflectance, linear light; likewise ``lips``, ``hair`` and ``iris``.
        hairline: Where the hair begins, v.
        length: Down to where the hair falls, v.
        volume: How far the hair stands off the head.
        brow: Half the thickness of the brows.
        beard: Density of a shaven beard's shadow, 0 to 1.
        age: Depth of folds, 0 to 1.
        seed: Seeds what is particular: moles, parting.
    """

    shape: Array
    skin: Array
    lips: Array
    hair: Array
    iris: Array
    hairline: float
    length: float
    volume: float
    brow: float
    beard: float
    age: float
    seed: int


def draw_person(rng: np.random.Generator) -> Person:
    """Returns somebody new: proportions, colours, hair."""
    tone = float(rng.uniform() ** 1.5)
    pale, dark = np.log((0.70, 0.48, 0.39)), np.log((0.12, 0.067, 0.046))
    skin = np.exp(pale * (1 - tone) + dark * tone) * rng.normal(1, 0.04, 3)
    fair, black = np.log((0.40, 0.28, 0.15)), np.log((0.014, 0.011, 0.010))
    darkness = 1.0 if tone > 0.5 else float(rng.uniform())
    hair = np.exp(fair * (1 - darkness) + black * darkness)
    if tone < 0.5 and rng.uniform() < 0.15:
        hair = np.full(3, rng.uniform(0.15, 0.5))  # grey
    irises = np.array(
        ((0.06, 0.03, 0.015), (0.11, 0.07, 0.03), (0.12, 0.18, 0.24), (0.1, 0.13, 0.08))
    )
    blood = rng.normal((0.85, 0.5, 0.54), 0.03).clip(None, (1, 0.55, 0.6))
    return Person(
        shape=_draw_shape(rng),
        skin=skin.astype(np.float32),
        lips=(skin * blood).astype(np.float32),
        hair=hair.astype(np.float32),
        iris=irises[rng.choice(4, p=(0.5, 0.2, 0.2, 0.1)) if tone < 0.5 else 0].astype(np.float32),
        hairline=float(rng.uniform(-0.85, -0.5)),
        length=float(rng.choice((-0.2, 0.4, 1.2, 2.0)) + rng.normal(0, 0.1)),
        volume=float(rng.uniform(0.04, 0.22)),
        brow=float(rng.uniform(0.02, 0.045)),
        beard=float(max(0.0, rng.uniform(-0.8, 1.0))),
        age=float(rng.uniform()),
        seed=int(rng.integers(2**31)),
    )


def _draw_shape(rng: np.random.Generator) -> Array:
    shape = np.zeros((68, 3))
    for index, *position in _LEFT_HALF:
        shape[index] = position
        shape[_MIRROR.get(index, index)] = np.multiply(position, (-1, 1, 1))
    near_one = np.exp(np.clip(rng.normal(size=8), -2, 2) * 0.06)
    shift = np.clip(rng.normal(size=4), -2, 2) * 0.03
    shape[JAW, 0] *= near_one[0]
    shape[JAW, 0] *= 1 + (near_one[1] - 1) * np.clip(shape[JAW, 1], 0, 1)
    shape[JAW, 1] += 2 * shift[0] * np.clip(shape[JAW, 1], 0, 1) ** 2
    shape[17:27, 1] += shift[1]
    shape[NOSE, 0] *= near_one[2] ** 2
    shape[NOSE] *= (1, near_one[3], near_one[4] ** 2)
    shape[MOUTH, 0] *= near_one[5]
    shape[MOUTH, 1] = 0.77 + shift[2] + (shape[MOUTH, 1] - 0.77) * near_one[6] ** 2
    lids = shape[EYES, 1]
    shape[EYES, 1] = np.where(lids < 0.01, lids * near_one[7] ** 2, lids)
    return shape.astype(np.float32)


@dataclass(frozen=True)
class View:
    """One picture's geometry: landmarks in (u, v), and how (u, v) become pixels.

    Attributes:
        points: (68, 2) landmarks in (u, v), turned and with an expression.
        matrix: (2, 3), (u, v, 1) to pixels.
        u: (H, W), u of every pixel; likewise ``v``.
        opening: How far the lips are apart.
    """

    points: Array
    matrix: Array
    u: Array
    v: Array
    opening: float

    def around(self, points: npt.ArrayLike, margin: float) -> tuple[View, tuple[slice, slice]]:
        """The part of the picture around some points, and where it is: rows, columns."""
        corners, edge = self.pixels(np.atleast_2d(points)), margin * self.unit
        low = np.clip(np.floor(corners.min(0) - edge), 0, len(self.u) - 8).astype(int)
        high = np.ceil(corners.max(0) + edge).astype(int)
        part = slice(low[1], max(high[1], low[1] + 8)), slice(low[0], max(high[0], low[0] + 8))
        matrix = self.matrix - np.array(((0, 0, low[0]), (0, 0, low[1])), np.float32)
        return replace(self, matrix=matrix, u=self.u[part], v=self.v[part]), part

    @property
    def unit(self) -> float:
        """Pixels per unit."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def pixels(self, points: npt.ArrayLike) -> Array:
        """(N, 2) in (u, v) to (N, 2) pixels."""
        pixels: Array = np.asarray(points, np.float32) @ self.matrix[:, :2].T + self.matrix[:, 2]
        return pixels

    def fill(self, points: npt.ArrayLike, soft: float = 0.0) -> Array:
        """The inside of a polygon given in (u, v): (H, W) in [0, 1], its edge ``soft`` wide."""
        mask = np.zeros(self.u.shape, np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_AA, _BITS)
        return self._blurred(mask, soft)

    def stroke(self, lines: Sequence[npt.ArrayLike], width: float, soft: float = 0.0) -> Array:
        """Lines given in (u, v), ``width`` wide, as :meth:`fill`."""
        mask = np.zeros(self.u.shape, np.uint8)
        corners = [self._fixed(line) for line in lines]
        thick = width * self.unit
        value = min(255, int(255 * thick))  # what is thinner than a pixel covers a part of it
        cv2.polylines(mask, corners, False, value, max(1, round(thick)), cv2.LINE_AA, _BITS)
        return self._blurred(mask, soft)

    def _fixed(self, points: npt.ArrayLike) -> npt.NDArray[np.int32]:
        return np.round(self.pixels(points) * (1 << _BITS)).astype(np.int32)

    def _blurred(self, mask: npt.NDArray[np.uint8], soft: float) -> Array:
        drawn, sigma = mask.astype(np.float32) / 255, soft * self.unit
        return f32(drawn if sigma < 0.2 else blur(f32(drawn), sigma))

    def bump(self, centre: npt.ArrayLike, width: float, height: float) -> Array:
        """A Gaussian of standard deviations ``width`` x ``height`` around (u, v), (H, W)."""
        u, v = np.asarray(centre, np.float32)
        x, y = (self.u - u) / np.float32(width), (self.v - v) / np.float32(height)
        return f32(np.exp(-0.5 * (x * x + y * y)))


def curve(points: npt.ArrayLike, closed: bool, steps: int = 6) -> Array:
    """Catmull-Rom spline through points: passes through each of them."""
    p = np.asarray(points, np.float32)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    cubic = (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    line = cubic.reshape(-1, 2) / 2
    return line if closed else np.concatenate([line, p[-1:]])


def noise(rng: np.random.Generator, size: int, slope: float, low: float = 1.0) -> Array:
    """(size, size) noise of unit variance whose amplitude falls as frequency ** -slope."""
    spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    fy, fx = fft.fftfreq(size) * size, fft.rfftfreq(size) * size
    spectrum *= np.maximum(fy[:, None] ** 2 + fx**2, low * low).astype(np.float32) ** (-slope / 2)
    spectrum[0, 0] = 0
    field: Array = fft.irfft2(spectrum, s=(size, size))
    field /= field.std()
    return field


def f32(values: npt.ArrayLike) -> Array:
    """As float32, a copy only if they were something else."""
    return np.asarray(values, np.float32)


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of (H, W) or (H, W, C), ``sigma`` in pixels."""
    return f32(cv2.GaussianBlur(image, (0, 0), sigma))


def draw_view(rng: np.random.Generator, person: Person, size: int) -> View:
    """Returns a person's landmarks in a picture: expression, pose, place and size."""
    shape, opening = _express(rng, person.shape)
    yaw, pitch, roll = np.clip(rng.normal(size=3), -2, 2) * (0.13, 0.08, 0.08)
    u = shape[:, 0] * np.cos(yaw) + shape[:, 2] * np.sin(yaw)
    v = shape[:, 1] * np.cos(pitch) + shape[:, 2] * np.sin(pitch)
    points = np.stack([u, v], 1).astype(np.float32)
    unit = size * rng.uniform(0.33, 0.43)
    centre = np.array((0.5, 0.41)) * size + rng.normal(0, 0.02, 2) * size
    cos, sin = unit * np.cos(roll), unit * np.sin(roll)
    matrix = np.array(((cos, -sin, centre[0]), (sin, cos, centre[1])), np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    (a, b, c), (d, e, f) = cv2.invertAffineTransform(matrix)
    return View(points, matrix, a * x + b * y + c, d * x + e * y + f, opening)


def _express(rng: np.random.Generator, neutral: Array) -> tuple[Array, float]:
    """Smile, open mouth, brows and lids, and how far the lips are apart."""
    shape = neutral.copy()
    smile, opening = rng.uniform(-0.2, 1), max(0.0, rng.uniform(-0.1, 0.16))
    outwards = np.abs(shape[:, 0] / shape[54, 0]) ** 2  # 0 in the middle, 1 at the lips' corners
    shape[MOUTH, 1] -= 0.07 * smile * (outwards[MOUTH] - 0.2)
    shape[MOUTH, 0] *= 1 + 0.16 * smile
    lower = np.array([55, 56, 57, 58, 59, 65, 66, 67])
    shape[lower, 1] += opening * (1 - outwards[lower])
    shape[JAW, 1] += 0.4 * opening * np.clip(shape[JAW, 1], 0, 1) ** 2
    shape[17:27, 1] += rng.normal(0, 0.02)
    lids, blink = shape[EYES, 1], rng.uniform(0.75, 1.1)
    shape[EYES, 1] = np.where(lids < 0.01, lids * blink, lids)
    return shape, opening
