"""Shot changes: cuts are found; motion, zoom, light and flashes are none."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from decoding import frames
from hypothesis import given, settings
from hypothesis import strategies as st

from deepregions.faces.shots import ShotDetector
from deepregions.media.images import read_image


def cuts(*images: np.ndarray) -> list[int]:
    detector = ShotDetector()
    return [number for number, image in enumerate(images) if detector(image)]


def scene(seed: int, height: int = 270, width: int = 480) -> np.ndarray:
    """Blobs of one palette with edges and corners, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(0, 256, (5, 3))
    picture = np.full((height, width, 3), palette[0], np.uint8)
    for _ in range(60):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(side) for side in rng.integers(8, 80, 2))
        colour = tuple(int(c) for c in palette[rng.integers(0, 5)])
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(picture, (x, y), w // 2, colour, -1)
    noisy = picture.astype(float) + rng.normal(0, 3, picture.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def moved(image: np.ndarray, x: float, y: float, turn: float, zoom: float) -> np.ndarray:
    height, width = image.shape[:2]
    affine = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
    affine[:, 2] += (x * width, y * height)
    return cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT)


def lit(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return (image * gain + offset).clip(0, 255).astype(np.uint8)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
@settings(max_examples=20)
def test_two_scenes_are_a_cut_and_one_is_none(first: int, second: int) -> None:
    one, other = scene(first), scene(first + 1 + second)
    assert cuts(one, one, other, other, one) == [2, 4]


@given(
    st.integers(0, 1000),
    st.floats(-0.15, 0.15),
    st.floats(-0.15, 0.15),
    st.floats(-5, 5),
    st.floats(0.85, 1.3),
)
@settings(max_examples=30)
def test_camera_motion_is_no_cut(seed: int, x: float, y: float, turn: float, zoom: float) -> None:
    image = scene(seed)
    assert cuts(image, moved(image, x, y, turn, zoom), image) == []


def test_someone_who_walks_through_the_picture_is_no_cut() -> None:
    images = []
    for step in range(8):
        image = scene(3)
        left = 60 * step
        image[40:, left : left + 140] = scene(4)[40:, :140][:, : 480 - left]
        images.append(image)
    assert cuts(*images) == []


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (1.5, 20), (0.3, 150), (0.15, 0)])
def test_light_is_no_cut(gain: float, offset: float) -> None:
    image = scene(5)
    assert cuts(image, lit(image, gain, offset), image) == []


@pytest.mark.parametrize("value", [0, 128, 255])
def test_frames_without_detail_are_passed_over(value: int) -> None:
    plain = np.full((270, 480, 3), value, np.uint8)
    one, other = scene(6), scene(7)
    assert cuts(plain, one, plain, plain, one) == []
    assert cuts(one, plain, other, plain) == [2]
    assert cuts(plain, plain) == []


def test_frames_with_hardly_a_corner_are_passed_over() -> None:
    """Somebody who leaves a plain picture changes its colours more than many a cut does."""
    plain = np.full((96, 96, 3), 200, np.uint8)
    there = plain.copy()
    there[4:52, 44:92] = (20, 220, 20)
    there[60:90, 4:40] = (220, 20, 20)
    gone = there.copy()
    gone[4:52, 44:92] = 200
    assert cuts(there, gone, there) == []
    one, other = scene(11, 96, 160), scene(12, 96, 160)
    assert cuts(one, there, other) == [2]


def test_a_fade_through_black_is_one_cut() -> None:
    one, other = scene(8), scene(9)
    out = [lit(one, gain, 0) for gain in (1, 0.6, 0.3, 0)]
    into = [lit(other, gain, 0) for gain in (0.3, 0.6, 1)]
    assert len(cuts(*out, *into)) == 1


def test_a_change_of_resolution_is_no_cut() -> None:
    image = scene(10, 540, 960)
    assert cuts(image, image[::2, ::2], image.repeat(2, 0)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (7, 5), (33, 40)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert cuts(image, image, image[::-1]) in ([], [2])


def test_clips_have_no_cut_and_their_joins_have_one(shared: Path) -> None:
    sampled = {
        path.stem: [frame.image for frame in frames(path, 16)]
        for path in sorted((shared / "videos").rglob("*.mp4"))
    }
    for name, images in sampled.items():
        for every in (1, 2):
            assert cuts(*images[::every]) == [], name
    for one, other in permutations(sampled, 2):
        found = cuts(*sampled[one][:4], *sampled[other][-4:])
        # 004_982 and 519_515 show what 004 and 519 show, with other faces.
        assert found == ([] if one[:3] == other[:3] else [4]), (one, other)


def test_portraits_of_the_same_framing_are_cuts(shared: Path) -> None:
    paths = sorted((shared / "faces/ffhq").glob("*.jpg"))[::20]
    images = [read_image(path) for path in paths]
    assert cuts(*images) == list(range(1, len(images)))
    for image in images:
        # Nearer, brighter and moved: the same.
        assert cuts(image, lit(moved(image, 0.1, -0.05, 4, 1.2), 1.2, 10)) == []
