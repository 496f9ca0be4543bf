"""Drawn faces, their forgeries, and the store made of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import FRAMES, draw_face, forge, write_drawn_store
from hypothesis import given, settings
from hypothesis import strategies as st

from deepregions.data.store import FaceStore, decode_image
from deepregions.errors import StoreError
from deepregions.types import Region


def inside(points, shape, grow=0.0):
    """(H, W) bool: the hull of points, grown (or shrunk) by some pixels."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, np.round(cv2.convexHull(points)[:, 0]).astype(np.int32), 1)
    size = 2 * round(abs(grow)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return (cv2.dilate if grow > 0 else cv2.erode)(mask, kernel) > 0


def span(points):
    return float(np.linalg.norm(points[45] - points[36]))


@pytest.fixture(scope="module")
def faces():
    return [draw_face(np.random.default_rng(seed)) for seed in range(10)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "store"
    write_drawn_store(path, count=60, seed=1, size=96)
    return FaceStore(path)


def test_faces_are_pictures_with_landmarks_in_them(faces):
    for image, points in faces:
        assert image.shape == (160, 160, 3) and image.dtype == np.uint8
        assert points.shape == (68, 2) and points.dtype == np.float32
        assert points.min() > 0 and points.max() < 159
        assert image.std() > 15


def test_landmarks_are_in_ibug_order(faces):
    for _, points in faces:
        for left, right in ((0, 16), (17, 26), (36, 45), (39, 42), (31, 35), (48, 54)):
            assert points[left, 0] < points[right, 0]
        assert points[27, 1] < points[30, 1] < points[33, 1] < points[51, 1] < points[8, 1]
        assert points[17:27, 1].mean() < points[36:48, 1].mean() < points[29, 1]


def test_eyes_are_dark_where_the_landmarks_have_them(faces):
    for image, points in faces:
        grey = image.mean(2)
        skin = np.median(grey[inside(points[[2, 31, 48]], grey.shape, -3)])
        for eye in (points[36:42], points[42:48]):
            x, y = np.round(eye.mean(0)).astype(int)
            assert grey[y - 3 : y + 4, x - 3 : x + 4].min() < 0.8 * skin
            sclera = grey[inside(eye, grey.shape)]
            assert sclera.max() - sclera.min() > 30


@pytest.mark.parametrize("donor", [False, True])
def test_forgery_stays_within_the_face(faces, donor):
    for seed, (image, points) in enumerate(faces):
        before, landmarks = image.copy(), points.copy()
        rng = np.random.default_rng(seed)
        fake, method = forge(image, points, rng, faces[seed - 1] if donor else None)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(points, landmarks)
        assert (method == "swap") == donor
        changed = np.abs(fake.astype(int) - image).max(2) > 0
        forehead = points[17:27] - (0, 0.35 * span(points))
        face = np.concatenate([points, forehead]).astype(np.float32)
        assert not changed[~inside(face, changed.shape, 0.3 * span(points))].any()
        for part in (points[36:42], points[42:48], points[27:36], points[48:60], points[2:15]):
            assert changed[inside(part, changed.shape)].mean() > 0.5


@pytest.mark.parametrize(
    ("region", "touched", "spared"),
    [
        (Region.EYES, slice(36, 48), slice(48, 60)),
        (Region.NOSE, slice(28, 36), slice(48, 60)),
        (Region.MOUTH, slice(48, 60), slice(36, 48)),
        (Region.REST, slice(2, 6), slice(61, 64)),
    ],
)
def test_forgery_can_be_confined_to_a_region(faces, region, touched, spared):
    for seed, (image, points) in enumerate(faces):
        fake, _ = forge(image, points, np.random.default_rng(seed), region=region)
        change = np.abs(fake.astype(int) - image).max(2)
        assert change[inside(points[touched], change.shape)].mean() > 1
        assert change[inside(points[spared], change.shape)].mean() < 0.5  # its soft edge


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.02, 3),
    x=st.floats(-200, 400),
    y=st.floats(-200, 400),
    seed=st.integers(0, 99),
    swap=st.booleans(),
)
def test_forgery_survives_any_place_and_size(scale, x, y, seed, swap):
    image, points = draw_face(np.random.default_rng(seed), 64)
    photo = np.random.default_rng(seed).integers(0, 256, (90, 130, 3), np.uint8)
    placed = (points * scale + (x, y)).astype(np.float32)
    donor = (image, points) if swap else None
    fake, _ = forge(photo, placed, np.random.default_rng(seed), donor)
    assert fake.shape == photo.shape and fake.dtype == np.uint8


def test_the_store_is_balanced_and_its_splits_share_nobody(store):
    assert len(store) == 60 and (store.labels == 1).sum() == 30
    people = {split: set() for split in ("train", "val", "test")}
    for face in store:
        people[face.split].update(face.identities)
        assert (face.method == "original") == (face.label == 0)
    for split, names in people.items():
        assert names, split
        assert store.labels[store.splits == split].mean() == 0.5
    assert not people["train"] & people["val"]
    assert not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    assert {"warp", "self_blend", "swap"} <= set(store.column("method"))
    assert (np.bincount(store.videos) == FRAMES).all()
    assert len(set(store.column("key"))) == 60


def test_a_pair_differs_in_the_face_only(store):
    faces = {face.key: face for face in store}
    for key, face in faces.items():
        if face.label:
            genuine = faces[key.replace("_fake", "")]
            np.testing.assert_array_equal(face.landmarks, genuine.landmarks)
            assert face.split == genuine.split
            pair = [decode_image(f.image).numpy().transpose(1, 2, 0) for f in (genuine, face)]
            change = np.abs(pair[0].astype(int) - pair[1]).mean(2)
            hull = inside(face.landmarks, change.shape, 0.4 * span(face.landmarks))
            assert change[~hull].mean() < 0.5  # neighbours in a JPEG block
            assert change[hull].mean() > 2 * change[~hull].mean()


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_drawn_store(tmp_path / name, count=24, seed=seed, size=64)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert FaceStore(tmp_path / "a").fingerprint != FaceStore(tmp_path / "c").fingerprint


def test_a_store_is_not_overwritten(tmp_path: Path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StoreError, match="is there already"):
        write_drawn_store(tmp_path, count=24, size=64)
