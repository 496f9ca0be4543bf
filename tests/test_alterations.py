"""Alterations of pictures: what the codecs themselves do."""

import io

import cv2
import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepregions.errors import UsageError
from deepregions.evaluation.alterations import LEVELS, Alteration
from deepregions.faces.pose import head_pose
from deepregions.pipeline.results import FacePatch

KINDS = sorted(set(LEVELS) - {"size"})  # what keeps the picture's size


def alter(kind: str, level: float, images: list[np.ndarray], keys: list[str]):
    faces = [FacePatch(image, None) for image in images]
    return [face.image for face in Alteration(kind, level)(faces, keys)]


def face(seed: int = 0, height: int = 120, width: int = 100) -> np.ndarray:
    return draw_face(np.random.default_rng(seed), 128)[0][:height, :width]


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.square(one.astype(float) - two).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_stay_and_stronger_levels_change_more(kind):
    images = [face(0), face(0, 111, 97), face(0, 128, 128)]
    keys = ["a", "b", "c"]
    changes = []
    for level in LEVELS[kind]:
        altered = alter(kind, level, images, keys)
        assert [x.shape for x in altered] == [x.shape for x in images]
        assert all(x.dtype == np.uint8 for x in altered)
        again = alter(kind, level, images, keys)
        assert all(np.array_equal(x, y) for x, y in zip(altered, again, strict=True))
        changes.append(distance(altered[0], images[0]))
    assert min(changes) > 0
    if kind != "gamma":  # both ways from 1
        assert changes == sorted(changes)


def test_jpeg_is_pillows():
    image = face()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    expected = np.asarray(Image.open(buffer))
    (altered,) = alter("jpeg", 50, [image], ["a"])
    np.testing.assert_array_equal(altered, expected)


def test_faces_are_made_as_narrow_as_asked_and_their_landmarks_follow():
    image, landmarks = draw_face(np.random.default_rng(0), 256)[:2]
    points = landmarks.astype(np.float32)
    whole = FacePatch(image, points, scale=0.5)
    width = float(head_pose(torch.from_numpy(points)[None]).width)
    (narrow,) = Alteration("size", width / 2)([whole], ["a"])
    assert narrow.image.shape == (128, 128, 3)
    assert narrow.scale == 1  # the pixels are the frame's own
    assert narrow.landmarks.dtype == np.float32
    np.testing.assert_allclose(narrow.landmarks, (points + 0.5) / 2 - 0.5, rtol=0, atol=0.3)
    assert Alteration("size", 2 * width)([whole], ["a"]) == [whole]


def test_gamma_and_blur_in_closed_form():
    (altered,) = alter("gamma", 2, [face()], ["a"])
    assert np.array_equal(altered, (255 * (face() / 255) ** 2).round())
    point = np.zeros((101, 101, 3), np.uint8)
    point[50, 50] = 255
    (altered,) = alter("blur", 1, [point], ["a"])
    kernel = cv2.getGaussianKernel(9, 1.01)
    assert abs(int(altered[50, 50, 0]) - 255 * float(kernel[4, 0]) ** 2) < 1


def test_noise_depends_on_the_face_only():
    images = [face(0), face(1)]
    both = alter("noise", 5, images, ["a", "b"])
    assert np.array_equal(alter("noise", 5, images[1:], ["b"])[0], both[1])
    assert not np.array_equal(alter("noise", 5, images[1:], ["c"])[0], both[1])
    noise = (both[0] - images[0].astype(float))[(images[0] > 20) & (images[0] < 235)]
    assert noise.std() == pytest.approx(5, rel=0.05)


def test_the_frames_of_a_video_stay_in_order():
    images = [np.full((64, 64, 3), value, np.uint8) for value in (30, 120, 220, 60)]
    altered = alter("h264", 30, images, list("abcd"))
    np.testing.assert_allclose([x.mean() for x in altered], [30, 120, 220, 60], atol=6)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
)
def test_any_size_will_do(kind, sizes):
    images = [np.full((h, w, 3), 100, np.uint8) for h, w in sizes]
    altered = alter(kind, LEVELS[kind][-1], images, [str(n) for n in range(len(sizes))])
    assert [x.shape for x in altered] == [x.shape for x in images]


@pytest.mark.parametrize(("kind", "level"), [("rain", 1), ("jpeg", 0), ("h264", 52), ("resize", 2)])
def test_what_there_is_not_is_refused(kind, level):
    with pytest.raises(UsageError, match=kind):
        Alteration(kind, level)
