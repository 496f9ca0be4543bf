"""What faces look like: equal for one person, different for two."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_pose import seen
from torch import Tensor

from deepregions.faces.appearance import appearance
from deepregions.faces.landmarks import Face
from deepregions.media.images import read_image


def face(points: Tensor) -> Face:
    return Face(torch.cat([points.amin(0), points.amax(0)]), points, 1.0)


def picture(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (1, 3, 24, 32), generator=generator).float()
    return torch.nn.functional.interpolate(small, (480, 640))[0].byte()


def test_it_is_a_histogram_and_moves_with_the_face() -> None:
    image, points = picture(0), seen(10, 0, 5, 150)[0]
    one = appearance(image, face(points))
    assert one is not None
    assert one.shape == (72,)
    assert float(one.square().sum()) == pytest.approx(1, abs=1e-5)
    shifted = torch.zeros(3, 700, 900, dtype=torch.uint8)
    shifted[:, 100:580, 37:677] = image
    there = appearance(shifted, face(points + torch.tensor([37.0, 100.0])))
    torch.testing.assert_close(there, one, atol=0.03, rtol=0)
    assert float((one - appearance(picture(1), face(points))).norm()) > 0.1  # type: ignore[operator]


def test_faces_that_are_none() -> None:
    image, points = picture(0), seen(0, 0, 0)[0]
    assert appearance(image, face(torch.zeros(68, 2))) is None
    assert appearance(image, face(points.clone().fill_(float("nan")))) is None
    assert appearance(image, face(points - 5000)) is None
    assert appearance(image, face(points * 1e9)) is None
    assert appearance(image[:, :1, :1], face(points)) is None


@given(st.integers(0, 10**6), st.floats(-3, 5), st.integers(1, 50), st.integers(1, 50))
def test_any_landmarks_give_a_histogram_or_none(
    seed: int, size: float, height: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(68, 2, generator=generator) * 10**size
    found = appearance(picture(1)[:, :height, :width], face(points))
    assert found is None or (found.isfinite().all() and found.square().sum() < 1.001)


def test_people_in_one_light_are_told_apart(shared: Path, detector: Any) -> None:
    """Who is who of two people, each seen twice: what a tracker needs to know."""
    people = []
    for path in sorted((shared / "faces/london").glob("*_neutral.jpg"))[::4]:
        pair = [path, path.with_name(path.name.replace("neutral", "smiling"))]
        images = [read_image(one) for one in pair]
        seen_twice = [appearance(image, detector(image[None])[0][0]) for image in images]
        people.append([one for one in seen_twice if one is not None])
    assert all(len(own) == 2 for own in people)
    for (a, b), (c, d) in combinations(people, 2):
        assert (a - b).norm() + (c - d).norm() < (a - d).norm() + (c - b).norm()
