"""Head pose: rotations that we make, mirrors, and real photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from deepregions.faces.pose import head_pose, mean_shape
from deepregions.faces.regions import MIRROR, mirror
from deepregions.media.images import read_image

angles = st.tuples(*(st.floats(-limit, limit) for limit in (80, 80, 170)))


def seen(yaw: float, pitch: float, roll: float, width: float = 120.0) -> Tensor:
    """The mean face, turned and laid flat by SciPy, (1, 68, 2)."""
    turn = (
        Rotation.from_euler("z", roll, degrees=True)
        * Rotation.from_euler("x", -pitch, degrees=True)
        * Rotation.from_euler("y", -yaw, degrees=True)
    )
    points = width * turn.apply(mean_shape().numpy())[:, :2] + (300, 200)
    return torch.from_numpy(points).float()[None]


@given(angles, st.floats(5, 2000))
def test_finds_the_rotation_that_was_made(turn: tuple[float, float, float], width: float) -> None:
    pose = head_pose(seen(*turn, width))
    assert [float(a) for a in pose[:3]] == pytest.approx(turn, abs=0.1)
    assert float(pose.width) == pytest.approx(width, rel=1e-3)
    assert float(pose.misfit) < 1e-3


def test_signs() -> None:
    def nose(points: Tensor) -> Tensor:  # from the middle between the eyes
        return points[0, 30] - points[0, 36:48].mean(0)

    assert nose(seen(30, 0, 0))[0] > 10
    assert nose(seen(0, 20, 0))[1] < nose(seen(0, 0, 0))[1] - 10
    across = seen(0, 0, 25)[0, 45] - seen(0, 0, 25)[0, 36]
    assert across[1] > 10  # the eye on the right is lower: clockwise


@given(angles, st.integers(0, 2**31))
def test_the_mirror_turns_yaw_and_roll_round(turn: tuple[float, float, float], seed: int) -> None:
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 68, 2))).float()
    points = seen(*turn) + noise
    plain, mirrored = head_pose(points), head_pose(mirror(points, 640))
    expected = torch.stack([-plain.yaw, plain.pitch, -plain.roll, plain.width, plain.misfit])
    torch.testing.assert_close(torch.stack(list(mirrored)), expected, atol=0.05, rtol=1e-3)


def test_the_mean_face_is_symmetric_and_in_proportion() -> None:
    shape = mean_shape()
    across, down, away = shape.T
    torch.testing.assert_close(shape[list(MIRROR)] * torch.tensor([-1, 1, 1]), shape)
    assert across[16] - across[0] == pytest.approx(1)
    # Anthropometry (Farkas 1994, adults): biocular 88 to 92 mm of 130 to 147 mm of face width, and
    # the nose's tip about 35 to 55 mm before the outer corners of the eyes.
    assert across[45] - across[36] == pytest.approx(0.64, abs=0.06)
    assert 0.25 < away[36] - away[30] < 0.42
    assert down[8] > down[57] > down[33] > down[36] > down[19]


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_anything_has_a_finite_pose(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(count, 68, 2)) * 10 ** rng.uniform(-2, 5)).float()
    pose = head_pose(points)
    assert all(value.isfinite().all() for value in pose)
    assert (pose.misfit > 0.3).all()  # and it is no face's


def test_points_that_coincide() -> None:
    pose = head_pose(torch.full((2, 68, 2), 7.0))
    assert all(value.isfinite().all() for value in pose)
    assert pose.width.abs().max() < 1e-3


def test_faces_do_not_influence_each_other() -> None:
    points = torch.cat([seen(10, 0, 5), seen(-40, 20, 0), seen(0, 0, 170)])
    together = torch.stack(list(head_pose(points)))
    singly = torch.cat([torch.stack(list(head_pose(one[None]))) for one in points], dim=1)
    torch.testing.assert_close(together, singly)


def test_real_photographs(shared: Path, detector: Any) -> None:
    """Studio portraits look into the camera; turned, mirrored pictures are turned, mirrored."""
    for path in sorted((shared / "faces/london").glob("*_neutral.jpg"))[::10]:
        image = read_image(path)
        turn = cv2.getRotationMatrix2D((319.5, 319.5), -20, 0.8)  # clockwise
        faces = detector([image, image[:, ::-1], cv2.warpAffine(image, turn, (640, 640))])
        points = torch.from_numpy(np.stack([own[0].landmarks for own in faces]))
        plain, mirrored, rolled = torch.stack(list(head_pose(points)), dim=1)
        assert plain[0].abs() < 10
        assert plain[1].abs() < 16
        assert plain[2].abs() < 7
        torch.testing.assert_close(
            mirrored[:3], plain[:3] * torch.tensor([-1, 1, -1]), atol=4, rtol=0
        )
        assert rolled[2] - plain[2] == pytest.approx(20, abs=3)
        assert rolled[3] / plain[3] == pytest.approx(0.8, abs=0.02)
