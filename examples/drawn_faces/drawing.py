"""Drawing a person: a head as a height field under one lamp, and a simple camera.

Colours are reflectances or radiances in linear light until :func:`_take_picture`.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from drawn_faces.people import (
    JAW,
    LEFT_EYE,
    RIGHT_EYE,
    Array,
    Person,
    Picture,
    View,
    blur,
    curve,
    draw_person,
    draw_view,
    f32,
    noise,
)


def draw_face(
    rng: np.random.Generator, size: int = 160, person: Person | None = None
) -> tuple[Picture, Array]:
    """Draws a picture of a person.

    Args:
        rng: Draws pose, expression, light, background and camera; and the person if need be.
        size: Width and height, in pixels; the face is about 0.6 of it wide.
        person: Who it is; someone new if None.

    Returns:
        (size, size, 3) uint8 RGB, and (68, 2) float32 landmarks in its pixels, iBUG order.
    """
    person = person or draw_person(rng)
    view = draw_view(rng, person, size)
    strands = _strands(rng, view, person)
    image = _draw_background(rng, view)
    _draw_body(rng, view, person, strands, image)
    _mix(image, *_draw_head(rng, view, person))
    _mix(image, strands, _hair_in_front(view, person, strands))
    return _take_picture(rng, image), view.pixels(view.points)


def _mix(image: Array, colour: npt.NDArray[np.floating], mask: Array) -> None:
    """Paints over an image in place: ``colour`` (3,) or (H, W, 3), ``mask`` (H, W) in [0, 1]."""
    image += (colour.astype(np.float32, copy=False) - image) * mask[..., None]


def _below(points: Array, distance: float) -> Array:
    """Points (..., 2) moved down the face."""
    return points + np.array((0, distance), np.float32)


def _draw_background(rng: np.random.Generator, view: View) -> Array:
    colours = rng.uniform(0.02, 0.7, (3, 1)) * np.exp(rng.normal(0, 0.15, (3, 3)))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + 0.4 * (view.u * np.cos(angle) + view.v * np.sin(angle)), 0, 1)
    image = (colours[0] + (colours[1] - colours[0]) * ramp[..., None]).astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        u, v, wide, high = rng.uniform((-1.6, -1.6, 0.1, 0.1), (1.6, 1.6, 1.0, 1.5))
        sides = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (wide, high)
        box = view.fill(np.add(sides, (u, v)), rng.uniform(0, 0.1))
        _mix(image, colours[2] * rng.uniform(0.5, 1.5), box)
    clouds = noise(rng, len(image), rng.uniform(1.1, 2.2))
    return f32(image * np.exp(rng.uniform(0.05, 0.35) * clouds)[..., None])


def _strands(rng: np.random.Generator, view: View, person: Person) -> Array:
    """Hair that radiates from the crown, everywhere: (H, W, 3)."""
    own = np.random.default_rng(person.seed)
    u, v = view.u - own.uniform(-0.3, 0.3), view.v - own.uniform(-1.0, -0.6)
    radius = np.sqrt(u * u + v * v)
    angle = np.arctan2(u, v) / (2 * np.pi) + own.uniform(-0.1, 0.1) * radius
    texture = rng.standard_normal((8, 512), dtype=np.float32)
    locks = cv2.GaussianBlur(rng.standard_normal((8, 512), dtype=np.float32), (0, 0), 4)
    texture = blur(texture, 0.6) + 4 * locks
    across, along = (angle % 1 * 511).astype(np.float32), np.minimum(3 * radius, 7)
    strand = cv2.remap(texture, across, along, cv2.INTER_LINEAR) * np.clip(2 * radius, 0, 1)
    gloss = own.uniform() * np.exp(-(((radius - own.uniform(0.5, 0.9)) / 0.2) ** 2))
    light = np.exp(0.45 * strand + gloss - 0.6 * np.clip(view.v, 0, 1))
    return f32(person.hair * light[..., None])


def _draw_body(
    rng: np.random.Generator, view: View, person: Person, strands: Array, image: Array
) -> None:
    """Hair behind the head, ears, neck, shoulders."""
    left, right = view.points[0], view.points[16]
    middle, half = (left[0] + right[0]) / 2, (right[0] - left[0]) / 2
    turn = np.linspace(np.pi, 2 * np.pi, 24)
    hair = np.stack([(half + person.volume) * np.cos(turn), (1 + person.volume) * np.sin(turn)], 1)
    foot = np.array(((0.95 * half, person.length), (-0.95 * half, person.length)))
    hair = np.concatenate([hair, foot]) if person.length > 0 else hair * (0.97, 1)
    _mix(image, strands, view.fill(np.add(hair, (middle, 0)), 0.02))
    grain = noise(rng, len(image), 0.8)
    shadow = 0.8 - 0.45 * np.exp(-3 * np.clip(view.v - view.points[8, 1], 0, None))
    skin = person.skin * (shadow * (1 + 0.05 * grain))[..., None]
    wide = 0.68 * half
    _mix(
        image,
        skin,
        view.fill(((-wide, 0.6), (wide, 0.6), (1.1 * wide, 2.5), (-1.1 * wide, 2.5)), 0.02),
    )
    cloth = np.exp(rng.uniform(np.log(0.02), np.log(0.6), 3)) * (1 + 0.2 * grain)[..., None]
    shoulders = ((-2.5, 2.1), (-0.6, 1.62), (0, 1.85), (0.6, 1.62), (2.5, 2.1), (2.5, 3), (-2.5, 3))
    _mix(image, cloth, view.fill(shoulders, 0.01))
    if person.length < 0.3:
        turn = np.linspace(0, 2 * np.pi, 16)
        lobe = np.stack([0.1 * np.cos(turn), 0.12 + 0.2 * np.sin(turn)], 1)
        for ear, side in ((left, -1), (right, 1)):
            _mix(image, skin, view.fill(np.add(lobe + ear, (0.02 * side, 0)), 0.015))


def _hair_in_front(view: View, person: Person, strands: Array) -> Array:
    """Where hair covers the head, (H, W): above the hairline, frayed, with a few loose strands."""
    middle, half = view.points[[0, 16], 0].mean(), np.ptp(view.points[[0, 16], 0]) / 2
    across = (view.u - middle) / half
    fray = np.log(strands[..., 1] / person.hair[1] + 1e-6)
    line = person.hairline + 0.45 * np.abs(across) ** 3 - 0.06 * fray
    above = np.clip((line - view.v) * view.unit * 0.25 + 0.5, 0, 1) * (view.v < 0.15)
    edge = 1 + person.volume
    radius = np.sqrt((across * half / (half + person.volume)) ** 2 + (view.v / edge) ** 2)
    own = np.random.default_rng(person.seed)
    loose = []
    for u in own.uniform(-0.7, 0.7, own.integers(0, 6)):
        tip = u + own.normal(0, 0.15), own.uniform(-0.4, 0.2)
        bend = (u + tip[0]) / 2 + own.normal(0, 0.08), (person.hairline + tip[1]) / 2
        loose.append(curve([(u, person.hairline), bend, tip], closed=False))
    covered = above * np.clip((1 - radius) * view.unit, 0, 1)
    return f32(np.maximum(covered, 0.6 * view.stroke(loose, 0.01)))


def _draw_head(rng: np.random.Generator, view: View, person: Person) -> tuple[Array, Array]:
    """The lit head, (H, W, 3), and where it is, (H, W)."""
    points = view.points
    middle, half = points[[0, 16], 0].mean(), np.ptp(points[[0, 16], 0]) / 2
    turn = np.linspace(0, np.pi, 14)[1:-1]
    scalp = np.stack([middle + half * np.cos(turn), 0.02 - 0.95 * np.sin(turn)], 1)
    inside = view.fill(curve(np.concatenate([points[JAW], scalp]), closed=True), 0.012)
    skin = _draw_skin(rng, view, person)
    relief = _draw_relief(rng, view, person)
    glints = np.zeros_like(relief)
    for brow, side in ((slice(17, 22), -1), (slice(22, 27), 1)):
        near, part = view.around(points[brow], 0.1)
        hairs = points[brow] if side < 0 else points[brow][::-1]
        _draw_brow(rng, near, person, skin[part], points=hairs, side=side)
    near, part = view.around(points[48:60], 0.1)
    _draw_mouth(rng, near, person, skin[part])
    near, part = view.around(points[31:36], 0.12)
    _draw_nostrils(near, skin[part])
    gaze, glint = rng.normal(0, (0.02, 0.008)), (rng.uniform(-0.03, 0.03), -0.025)
    for eye in (LEFT_EYE, RIGHT_EYE):
        near, part = view.around(points[eye], 0.12)
        glints[part] += _draw_eye(
            rng, near, person, skin[part], lids=points[eye], gaze=gaze, glint=glint
        )
    return _shade(rng, view, skin, relief) + glints[..., None], inside


def _draw_skin(rng: np.random.Generator, view: View, person: Person) -> Array:
    own, points = np.random.default_rng(person.seed), view.points
    blotches, grain = noise(rng, len(view.u), 1.1), noise(rng, len(view.u), 0.4)
    flush = np.zeros_like(grain)
    for place in ((-0.42, 0.4), (0.42, 0.4), points[33]):
        flush += view.bump(place, 0.2, 0.15)
    redness = np.array((0.3, 1.0, 0.9), np.float32)  # blood takes green and blue away
    red = 0.1 * blotches + 0.3 * own.uniform(0, 0.6) * flush
    dark = 0.04 * grain
    for lid in (41, 46):
        dark += own.uniform(0, 0.15) * view.bump(_below(points[lid], 0.1), 0.13, 0.04)
    spots = own.poisson(3 + 40 * own.uniform() ** 2)  # moles and freckles
    for place in own.uniform((-0.75, -0.75), (0.75, 1.2), (spots, 2)):
        near, part = view.around(place, 0.08)
        width = own.uniform(0.008, 0.022)
        dark[part] += own.uniform(0.15, 0.8) * near.bump(place, width, width)
    if person.beard:
        chin = np.zeros_like(grain)
        for place in ((-0.45, 0.9), (0.45, 0.9), (0, 1.05)):
            chin += view.bump(place, 0.35, 0.2)
        hairs = noise(rng, len(view.u), 0.2)
        dark += person.beard * np.minimum(chin, 1) * np.maximum(0.45 + 0.2 * hairs, 0)
    return person.skin * np.exp(-redness * red[..., None] - dark[..., None])


def _draw_relief(rng: np.random.Generator, view: View, person: Person) -> Array:
    """Height over the plane of the picture, (H, W), in units."""
    points = view.points
    middle, half = points[[0, 16], 0].mean(), np.ptp(points[[0, 16], 0]) / 2
    distance = ((view.u - middle) / (1.1 * half)) ** 2 + ((view.v - 0.3) / 1.25) ** 2
    relief = 0.75 * np.sqrt(1 - np.minimum(distance, 0.97))
    rise = (0.03, 0.07, 0.11, 0.13)
    bumps = [(points[27 + i], 0.075 + 0.006 * i, 0.09, rise[i]) for i in range(4)]
    bumps += [(_below(points[30], 0.04), 0.09, 0.065, 0.09)]
    bumps += [(_below(points[i], -0.03), 0.05, 0.05, 0.07) for i in (31, 35)]
    for eye, brow, side in ((LEFT_EYE, 19, -1), (RIGHT_EYE, 24, 1)):
        centre = points[eye].mean(0)
        bumps += [(_below(centre, -0.03), 0.17, 0.1, -0.10), (centre, 0.1, 0.06, 0.05)]
        bumps += [(_below(centre, 0.1), 0.12, 0.03, 0.015 * person.age)]
        bumps += [(_below(points[brow], 0.03), 0.2, 0.08, 0.04)]
        bumps += [((middle + side * 0.45, 0.42), 0.18, 0.18, 0.09)]
    bumps += [
        (_below(points[51], 0.03), 0.17, 0.04, 0.05),
        (_below(points[57], -0.06), 0.15, 0.04, 0.06),
    ]
    bumps += [
        (_below(points[57], 0.06), 0.16, 0.04, -0.05),
        (_below(points[8], -0.15), 0.16, 0.1, 0.07),
    ]
    bumps += [((points[33] + points[51]) / 2, 0.025, 0.06, -0.015)]
    for place, width, height, amount in bumps:
        near, part = view.around(place, 3.5 * max(width, height))
        relief[part] += amount * near.bump(place, width, height)
    for wing, corner, side in ((31, 48, -1), (35, 54, 1)):
        outward = np.array(((0.05, -0.06), (0.12, -0.08), (0.11, 0.08))) * (side, 1)
        fold = curve(points[[wing, corner, corner]] + outward, closed=False)
        relief -= (0.01 + 0.03 * person.age) * view.stroke([fold], 0.03, 0.025)
    wrinkles = [
        curve([(-0.4, v), (0, v - 0.04), (0.4, v)], closed=False) for v in (-0.42, -0.52, -0.6)
    ]
    relief -= 0.015 * person.age**2 * view.stroke(wrinkles, 0.015, 0.012)
    pores = noise(rng, len(relief), 0.6, low=12)
    return f32(relief + 0.003 * rng.uniform(0.3, 1.0) * pores)


def _draw_brow(
    rng: np.random.Generator, view: View, person: Person, image: Array, *, points: Array, side: int
) -> None:
    """``points`` go from the temple to the nose."""
    spine, along = curve(points, closed=False, steps=8), rng.uniform(0, 1, 80)
    at = spine[(along * (len(spine) - 1)).astype(int)]
    thick = person.brow * (0.4 + 0.6 * along)
    root = at + np.stack([rng.normal(0, 0.01, 80), rng.uniform(-1, 1, 80) * thick], 1)
    steep = np.deg2rad(rng.normal(10 + 50 * along**2, 8))
    tip = root + 0.08 * np.stack([side * np.cos(steep), -np.sin(steep)], 1)
    shape = np.concatenate([_below(spine, -person.brow), _below(spine, person.brow)[::-1]])
    _mix(image, person.hair * 0.6, 0.5 * view.fill(shape, 0.02))
    _mix(image, person.hair * 0.5, 0.8 * view.stroke(list(np.stack([root, tip], 1)), 0.013))


def _draw_mouth(rng: np.random.Generator, view: View, person: Person, image: Array) -> None:
    outer, inner = view.points[48:60], view.points[60:68]
    middle = inner[[2, 6]].mean(0)
    lines = (1 + 0.08 * _speckle(rng, view)) * np.where(view.v < middle[1], 0.8, 1.0)
    lips = person.lips * lines[..., None].astype(np.float32)
    _mix(image, lips, 0.85 * view.fill(curve(outer, closed=True), 0.012))
    gap = view.fill(curve(inner, closed=True), 0.006)
    _mix(image, person.lips * 0.08, gap)
    if view.opening > 0.02:
        upper = curve(inner[:5], closed=False)
        teeth = np.concatenate([upper, _below(upper, 0.8 * view.opening)[::-1] * (0.92, 1)])
        between = np.abs(np.sin(np.pi * (view.u - middle[0]) / 0.075)) ** 0.3
        shade = between * np.exp(-((view.u - middle[0]) ** 2) / 0.06)
        white = np.array((0.62, 0.56, 0.47)) * shade[..., None]
        _mix(image, white, gap * view.fill(teeth, 0.008))


def _draw_nostrils(view: View, image: Array) -> None:
    base = view.points[33]
    dark = 0.35 * view.bump(_below(base, 0.04), 0.12, 0.03)
    for wing in (31, 35):
        hole = _below(0.45 * view.points[wing] + 0.55 * base, -0.015)
        dark += 1.8 * view.bump(hole, 0.03, 0.014)
    image *= np.exp(-dark)[..., None]


def _draw_eye(
    rng: np.random.Generator,
    view: View,
    person: Person,
    image: Array,
    *,
    lids: Array,
    gaze: npt.ArrayLike,
    glint: npt.ArrayLike,
) -> Array:
    """Paints an eye; returns the light that it mirrors, (H, W)."""
    rim, upper = curve(lids, closed=True), curve(lids[:4], closed=False)
    opened = view.fill(rim, 0.005)
    centre = _below(lids.mean(0) + np.asarray(gaze), -0.006)
    radius = np.hypot(view.u - centre[0], view.v - centre[1])

    def disc(size: float) -> Array:
        return f32(np.clip((size - radius) * view.unit + 0.5, 0, 1))

    round_off = np.clip(1 - 0.25 * (radius / 0.15) ** 2, 0.3, 1)
    ball = (np.array((0.55, 0.50, 0.47)) * round_off[..., None]).astype(np.float32)
    _mix(ball, person.iris * 0.35, disc(0.074))
    fibres = np.clip(1 + 0.3 * _speckle(rng, view) + 0.8 * (view.v - centre[1]) / 0.07, 0.1, 3)
    _mix(ball, person.iris * fibres[..., None], disc(0.064))
    _mix(ball, np.full(3, 0.004), disc(0.03))
    ball *= (1 - 0.6 * view.stroke([_below(upper, 0.01)], 0.03, 0.012))[..., None]
    _mix(image, person.skin * 0.4, 0.4 * view.stroke([_below(upper, -0.055)], 0.014, 0.01))
    _mix(image, ball, opened)
    _mix(image, person.hair * 0.25, 0.9 * view.stroke([_below(upper, -0.005)], 0.022, 0.006))
    lower = curve(lids[[0, 5, 4, 3]], closed=False)
    _mix(image, person.skin * 0.35, 0.4 * view.stroke([lower], 0.012, 0.006))
    place = centre + np.asarray(glint)
    return opened * view.bump(place, 0.014, 0.014) * np.float32(rng.uniform(0.4, 1))


def _speckle(rng: np.random.Generator, view: View) -> Array:
    """Noise of about unit variance, (H, W), a pixel or two wide."""
    grain = rng.standard_normal(view.u.shape, dtype=np.float32)
    return 0.7 * grain + 1.6 * blur(grain, 0.8)


def _shade(rng: np.random.Generator, view: View, reflectance: Array, relief: Array) -> Array:
    """Light on the head: one lamp, light from all around, a little gloss."""
    down, right = np.gradient(relief * np.float32(view.unit))
    length = np.sqrt(down * down + right * right + 1)

    def towards(direction: npt.NDArray[np.floating]) -> Array:
        x, y, z = (direction / np.linalg.norm(direction)).astype(np.float32)
        return f32((z - right * x - down * y) / length)

    azimuth, height = rng.uniform(-1.0, 1.0), rng.uniform(0.0, 1.0)
    lamp = np.array((np.sin(azimuth), -height, np.cos(azimuth)))
    soft = np.array((0.35, 0.22, 0.18), np.float32)  # red light goes furthest under the skin
    diffuse = np.maximum((towards(lamp)[..., None] + soft) / (1 + soft), 0)
    ambient = np.float32(rng.uniform(0.15, 0.6))
    halfway = lamp / np.linalg.norm(lamp) + (0, 0, 1)
    gloss = np.maximum(towards(halfway), 0) ** np.float32(rng.uniform(10, 40))
    gloss *= np.float32(rng.uniform(0, 0.25)) * np.sqrt(reflectance[..., 0])
    return f32(reflectance * (ambient + (1.15 - ambient) * diffuse) + gloss[..., None])


def _take_picture(rng: np.random.Generator, image: Array) -> Picture:
    """Linear light to a camera's picture: exposure, lens, noise, tone, sharpening, colour."""
    ramp = np.linspace(-1, 1, len(image))
    slope = rng.normal(0, 0.25, 2)
    light = np.exp(slope[0] * ramp + slope[1] * ramp[:, None]) * rng.uniform(0.35, 0.75)
    balance = np.exp(rng.normal(0, 0.06, 3)) / np.percentile(image[::4, ::4], 90)
    image = image * light[..., None].astype(np.float32) * balance.astype(np.float32)
    image = blur(np.minimum(image, 1.2), rng.uniform(0.3, 0.65))
    strength = np.float32(np.exp(rng.uniform(np.log(0.006), np.log(0.03))))
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    grain = 0.6 * grain + blur(grain, 0.7)
    image = image + strength * grain * np.sqrt(np.clip(image, 0.01, 1))
    image = np.clip(image, 0, 1) ** np.float32(1 / 2.2)
    image += np.float32(rng.uniform(0, 0.7)) * (image - blur(image, 1.0))
    grey = image.mean(2, keepdims=True)
    image = grey + (image - grey) * np.float32(rng.uniform(0.7, 1.2))
    picture: Picture = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return picture
