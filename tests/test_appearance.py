"""What faces look like: equal for one person, different for two."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pose import seen

from deepregions.faces.appearance import appearance
from deepregions.faces.landmarks import Face
from deepregions.media.images import read_image


def face(points: np.ndarray) -> Face:
    return Face(np.concatenate([points.min(0), points.max(0)]), points, 1.0)


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return small.repeat(20, 0).repeat(20, 1)


def test_it_is_a_histogram_and_moves_with_the_face() -> None:
    image, points = picture(0), seen(10, 0, 5, 150)[0].numpy()
    one = appearance(image, face(points))
    assert one is not None
    assert (one.shape, one.dtype) == ((72,), np.float32)
    assert np.square(one).sum() == pytest.approx(1, abs=1e-5)
    shifted = np.zeros((700, 900, 3), np.uint8)
    shifted[100:580, 37:677] = image
    there = appearance(shifted, face(points + np.float32([37, 100])))
    np.testing.assert_allclose(there, one, atol=0.03, rtol=0)
    assert np.linalg.norm(one - appearance(picture(1), face(points))) > 0.1


def test_faces_that_are_none() -> None:
    image, points = picture(0), seen(0, 0, 0)[0].numpy()
    assert appearance(image, face(np.zeros_like(points))) is None
    assert appearance(image, face(np.full_like(points, np.nan))) is None
    assert appearance(image, face(points - 5000)) is None
    assert appearance(image, face(points * 1e9)) is None
    assert appearance(image[:1, :1], face(points)) is None


@given(st.integers(0, 10**6), st.floats(-3, 5), st.integers(1, 50), st.integers(1, 50))
def test_any_landmarks_give_a_histogram_or_none(
    seed: int, size: float, height: int, width: int
) -> None:
    points = np.random.default_rng(seed).normal(size=(68, 2)) * 10**size
    found = appearance(picture(1)[:height, :width], face(points.astype(np.float32)))
    assert found is None or (np.isfinite(found).all() and np.square(found).sum() < 1.001)


def test_people_in_one_light_are_told_apart(shared: Path, detector: Any) -> None:
    """Who is who of two people, each seen twice: what a tracker needs to know."""
    people = []
    for path in sorted((shared / "faces/london").glob("*_neutral.jpg"))[::4]:
        pair = [path, path.with_name(path.name.replace("neutral", "smiling"))]
        images = [read_image(one) for one in pair]
        seen_twice = [appearance(image, detector([image])[0][0]) for image in images]
        people.append([one for one in seen_twice if one is not None])
    assert all(len(own) == 2 for own in people)
    for (a, b), (c, d) in combinations(people, 2):
        apart = [np.linalg.norm(x - y) for x, y in ((a, b), (c, d), (a, d), (c, b))]
        assert sum(apart[:2]) < sum(apart[2:])
