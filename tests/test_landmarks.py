"""Landmarks: backends, their order and convention, what happens offline, and files of landmarks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
import pytest
import torch
from face_alignment import FaceAlignment, LandmarksType, utils
from face_alignment.detection.sfd import FaceDetector
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from deepregions.errors import AssetError, UnreadableError, UsageError
from deepregions.faces import backends
from deepregions.faces.backends import fan, landmark_detector
from deepregions.faces.backends.dlib68 import DlibLandmarks, agreement
from deepregions.faces.backends.fan import FanLandmarks, peaks
from deepregions.faces.finders import FaceDetection, HogFinder, YuNetFinder
from deepregions.faces.finders import Image as Pixels
from deepregions.faces.landmarks import read_landmarks
from deepregions.faces.patches import crop_face
from deepregions.faces.regions import MIRROR
from deepregions.media.images import read_image


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean distance over that of the outer eye corners."""
    return float(
        np.linalg.norm(one - other, axis=-1).mean() / np.linalg.norm(other[36] - other[45])
    )


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPREGIONS_OFFLINE", "1")
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_photographs_have_landmarked_faces(
    photographs: list[Path], detector: DlibLandmarks
) -> None:
    paths = photographs[::14]
    missed = []
    for path in paths:
        (faces,) = detector([read_image(path)])
        if not faces:
            missed.append(path.name)
            continue
        points = faces[0].landmarks
        assert points[36, 0] < points[45, 0], "the eye on the image's left comes first"
        assert points[0, 0] < points[16, 0]
        assert points[48, 0] < points[54, 0]
        assert points[19, 1] < points[37, 1] < points[33, 1] < points[51, 1] < points[8, 1]
        low, high = points.min(0), points.max(0)
        middle = (faces[0].box[:2] + faces[0].box[2:]) / 2
        assert (low < middle).all()
        assert (middle < high).all()
    assert len(missed) <= 0.01 * len(paths), missed


def test_hog_takes_doubtful_faces_only_where_none_is_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Run:
        """Gives the scores of each size of the image in turn."""

        def __init__(self, *scores: list[float]) -> None:
            self.scores = list(scores)

        def run(self, image: Pixels, upsample: int, least: float) -> Any:
            own = [score for score in self.scores.pop(0) if score > least]
            return [dlib.rectangle(0, 0, 9, 9)] * len(own), own, [0] * len(own)

    finder, image = HogFinder(), np.zeros((2000, 1000, 3), np.uint8)
    for sizes, expected in (
        ([[0.4, -0.1]], [0.4]),
        ([[-0.1], [-0.2, 0.1]], [0.1]),
        ([[-0.2], [-0.1, -0.15], [-0.18]], [-0.1, -0.15]),
        ([[-0.3], [-0.3], [-0.3]], []),
    ):
        monkeypatch.setattr(finder, "_detector", Run(*sizes))
        assert [one.score for one in finder(image)] == expected


def test_yunet_and_hog_lead_to_the_same_landmarks(
    shared: Path, detector: DlibLandmarks, hog: DlibLandmarks
) -> None:
    errors = []
    for path in sorted((shared / "faces/london").glob("*_neutral.jpg"))[::5]:
        image = [read_image(path)]
        errors.append(distance(detector(image)[0][0].landmarks, hog(image)[0][0].landmarks))
    assert np.median(errors) < 0.02  # 0.013 is what shaking HOG's box by 3 % makes


def test_the_mirror_swaps_left_and_right(portrait: Path, hog: DlibLandmarks) -> None:
    image = read_image(portrait)
    face = hog([image])[0][0]
    assert face.confidence is None  # nobody looked a second time
    plain = face.landmarks
    mirrored = hog([image[:, ::-1]])[0][0].landmarks[list(MIRROR)]
    mirrored[:, 0] = image.shape[1] - 1 - mirrored[:, 0]
    assert distance(mirrored, plain) < 0.04
    assert plain[36, 0] < plain[45, 0]


def test_pixel_centres_stay_where_they_are_at_any_size(portrait: Path, hog: DlibLandmarks) -> None:
    scale, image = 3, read_image(portrait)
    plain = hog([image])[0][0].landmarks
    large = image.repeat(scale, 0).repeat(scale, 1)
    points = (hog([large])[0][0].landmarks + 0.5) / scale - 0.5
    assert distance(points, plain) < 0.03
    assert np.abs((points - plain).mean(0)).max() < 0.7  # no drift to one side


@given(st.integers(0, 2**31), st.floats(1, 500), st.floats(0, 0.5))
def test_confidence_is_relative_to_size_and_falls_with_distance(
    seed: int, size: float, distance: float
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(68, 2)) * 20
    points[45] = points[36] + (80, 0)
    five = np.stack(
        [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    )
    angle = rng.uniform(0, 2 * np.pi, 5)
    moved = five + distance * 80 * np.column_stack([np.cos(angle), np.sin(angle)])
    confidence = agreement(points, moved)
    assert 0 <= confidence <= 1
    assert agreement(points * size, moved * size) == pytest.approx(confidence, abs=1e-6)
    assert confidence == pytest.approx(1 / (1 + np.exp((distance - 0.11) / 0.02)), abs=1e-6)


def test_a_large_face_hides_no_small_ones(detector: DlibLandmarks, photographs: list[Path]) -> None:
    """Five faces some 48 pixels wide behind one of 1,100, in a photograph of 12 megapixels."""
    scene = np.full((3000, 4000, 3), 100, np.uint8)
    places = [(1000, 900, 2000), *((300 + 700 * n, 300 + 37 * n, 90) for n in range(5))]
    for path, (x, y, side) in zip(photographs[100:], places, strict=False):
        pasted = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        scene[y : y + side, x : x + side] = pasted
    faces = detector([scene])[0]
    assert len(faces) == len(places)
    assert all((face.confidence or 0) > 0.5 for face in faces)
    assert (faces[0].box[2:] - faces[0].box[:2]).min() > 900
    for x, y, side in places:
        middle = np.array([x + side / 2, y + 0.55 * side])
        assert any((one.box[:2] < middle).all() and (middle < one.box[2:]).all() for one in faces)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("number", [4, 201])  # 201 is found upside down too
def test_a_face_on_its_side_is_found_and_cut_out_upright(
    detector: DlibLandmarks, photographs: list[Path], number: int, turns: int
) -> None:
    image = read_image(photographs[number])
    (face,) = detector([image])[0]
    upright = crop_face(image, face)
    image = np.rot90(image, turns)
    (face,) = detector([image])[0]
    turned = crop_face(image, face)
    assert upright is not None
    assert turned is not None
    assert distance(turned[1], upright[1]) < 0.05


class Scripted:
    """A finder that gives, for each image, what the test says, by the image's first pixel."""

    name = "scripted"
    version = "scripted 1"

    def __init__(self, answers: list[list[FaceDetection] | Exception]) -> None:
        self.answers = answers

    def __call__(self, image: Pixels) -> list[FaceDetection]:
        answer = self.answers[int(image[0, 0, 0])]
        if isinstance(answer, Exception):
            raise answer
        return answer


def found(x: float, y: float, side: float, score: float = 1.0) -> FaceDetection:
    box = np.array([x, y, x + side, y + side])
    return FaceDetection(box, np.array([x + side / 2, y + side / 2, side]), 0.0, score)


def test_one_bad_frame_does_not_take_the_others_away(caplog: pytest.LogCaptureFixture) -> None:
    small, large = found(5, 5, 20, 0.9), found(30, 10, 60, 0.8)
    answers = [[small, large], RuntimeError("broken"), [], [found(-500, 0, 40), found(0, 0, 0)]]
    frames = np.zeros((4, 100, 120, 3), np.uint8)
    frames[:, 0, 0, 0] = range(4)
    faces = DlibLandmarks(Scripted(answers))(frames)
    assert [len(own) for own in faces] == [2, 0, 0, 1]  # a box without area is no face
    assert [face.score for face in faces[0]] == [0.8, 0.9]  # the largest first
    assert "frame 1: no faces, as the search failed: broken" in caplog.text
    for own in faces:
        for face in own:
            assert face.landmarks.shape == (68, 2)
            assert face.landmarks.dtype == face.box.dtype == np.float32
            assert np.isfinite(face.landmarks).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (1, 5000), (20, 640), (2000, 17)])
def test_odd_sizes_have_no_faces(
    detector: DlibLandmarks, hog: DlibLandmarks, size: tuple[int, int]
) -> None:
    for backend in (detector, hog):
        assert backend(np.zeros((2, *size, 3), np.uint8)) == [[], []]
        assert backend(np.zeros((0, *size, 3), np.uint8)) == []


# The choice of a backend


def test_without_yunet_hog_and_a_warning(offline: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = landmark_detector("dlib")
    assert backend.name == "dlib68+hog"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "yunet_n_640_640.onnx" in caplog.text
    caplog.clear()
    assert landmark_detector("dlib-hog").version == backend.version
    assert not caplog.records


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(40, 700), share=st.floats(0.3, 1))
def test_yunet_finds_what_opencvs_detector_finds(
    shared: Path, portrait: Path, seed: int, side: int, share: float
) -> None:
    """At any size: parts of a photograph, enlarged and reduced, mirrored or turned."""
    rng, model = np.random.default_rng(seed), shared / "weights/yunet_n_640_640.onnx"
    picture = np.asarray(Image.open(portrait).convert("RGB"))
    height, width = (max(40, int(share * length)) for length in picture.shape[:2])
    top, left = (
        rng.integers(0, 1 + a - b) for a, b in zip(picture.shape[:2], (height, width), strict=True)
    )
    part = np.rot90(picture[top : top + height, left : left + width], rng.integers(4))
    tile = np.asarray(Image.fromarray(part).resize((side, rng.integers(40, 700))))[..., ::-1]
    finder = YuNetFinder(model)
    theirs = cv2.FaceDetectorYN.create(
        str(model), "", tile.shape[1::-1], finder.doubtful, finder.overlap
    )
    found = theirs.detect(np.ascontiguousarray(tile))[1]
    found = np.empty((0, 15)) if found is None else found
    np.testing.assert_allclose(finder.rows(tile), found, atol=2e-3)


def test_with_yunet_names_and_versions(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(shared / "weights"))
    backend = landmark_detector("auto", "cpu")
    assert backend.name == "dlib68+yunet"
    for part in ("dlib ", "face_recognition_models ", "yunet 25a606a1"):
        assert part in backend.version


def test_an_altered_yunet_is_an_error(offline: Path) -> None:
    (offline / "cache").mkdir()
    (offline / "cache/yunet_n_640_640.onnx").write_bytes(b"altered")
    with pytest.raises(AssetError, match="is not yunet_n_640_640"):
        landmark_detector("dlib")


def test_auto_on_a_gpu_without_weights_is_dlib(
    offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert landmark_detector("auto").name == "dlib68+hog"
    assert "landmarks by dlib, not by face_alignment" in caplog.text


def test_a_listed_name_that_nobody_makes_is_not_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, "ghost"))
    with pytest.raises(UsageError, match="no landmark backend 'ghost'"):
        landmark_detector("ghost")


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("openface", "cpu"),
        ("openface:", "cpu"),
        ("openface:/nowhere/at/all", "cpu"),
        ("dlib:sfd", "cpu"),
        ("face_alignment:haar", "cpu"),
        ("dlib", "gpu"),
    ],
)
def test_misspelt_names_and_devices(name: str, device: str) -> None:
    with pytest.raises(UsageError) as caught:
        landmark_detector(name, device)
    assert caught.value.hint


# face_alignment, through its own networks


def fake_weights(path: Path, network: Callable[[], nn.Module]) -> str:
    """Saves a state dict that takes no room: each tensor one number, expanded."""
    with torch.device("meta"):
        shapes = network().state_dict()
    state = {
        key: torch.full((), float(key.endswith("running_var")), dtype=value.dtype)
        for key, value in shapes.items()
    }
    torch.save({key: state[key].expand(value.shape) for key, value in shapes.items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_face_alignment_loads_its_networks(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, cache = offline / "torch/hub/checkpoints", offline / "cache"
    checkpoints.mkdir(parents=True)
    cache.mkdir()
    # One where the package keeps its own, one in our cache.
    digest = fake_weights(checkpoints / fan.S3FD.name, s3fd)
    monkeypatch.setattr(fan, "S3FD", replace(fan.S3FD, sha256=digest))
    digest = fake_weights(cache / fan.FAN_2D.name, lambda: FAN(4))
    monkeypatch.setattr(fan, "FAN_2D", replace(fan.FAN_2D, sha256=digest))
    backend = landmark_detector("face_alignment", "cpu")
    assert backend.name == "fan+sfd"
    assert f"2DFAN4 {digest[:8]}" in backend.version
    # A network that says "half" everywhere finds nothing; then make it sure of large faces.
    frames = np.full((2, 64, 96, 3), 127, np.uint8)
    assert backend(frames) == [[], []]
    bias = backend._finder.face_detector.fc7_mbox_conf.bias  # type: ignore[attr-defined]
    with torch.no_grad():
        bias[1] = 5
    faces = backend(frames[:1])
    assert len(faces[0]) > 0
    assert all(face.landmarks.shape == (68, 2) for face in faces[0])
    assert faces[0][0].score == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-4)


def test_face_alignment_offline_names_file_and_place(offline: Path) -> None:
    with pytest.raises(AssetError) as caught:
        landmark_detector("face_alignment", "cpu")
    for part in (fan.FAN_2D.name, fan.FAN_2D.url, str(offline / "cache")):
        assert part in str(caught.value)


def test_face_alignment_refuses_other_files(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (offline / "cache").mkdir()
    path = offline / "cache" / fan.FAN_2D.name
    digest = fake_weights(path, lambda: nn.Linear(3, 4))
    with pytest.raises(AssetError, match="SHA-256"):
        FanLandmarks()
    monkeypatch.setattr(fan, "FAN_2D", replace(fan.FAN_2D, sha256=digest))
    with pytest.raises(AssetError, match="no FAN weights"):
        FanLandmarks()


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """The package's own decoding without numba, whose compiling takes longer than these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_get_preds_fromhm", "transform_np"):
            patch.setattr(utils, name, getattr(utils, name).py_func)
        yield


class SpotFinder(nn.Module):
    """Stands for S3FD's network: sure of a face where a window of 64 pixels is full of light."""

    def forward(self, batch: Tensor) -> list[Tensor]:
        light = (batch.mean(dim=1, keepdim=True) + 115) / 170  # S3FD's mean was taken away
        light = nn.functional.avg_pool2d(light, 64, stride=16, padding=24)
        surely = torch.cat([torch.zeros_like(light), 20 * (light - 0.5)], dim=1)
        nothing = torch.cat([torch.zeros_like(light), torch.full_like(light, -20.0)], dim=1)
        where = torch.zeros(len(batch), 4, *light.shape[2:])
        return [nothing, where, nothing, where, surely, where]  # strides of 4, 8 and 16 pixels


class SpotNetwork(nn.Module):
    """Stands for FAN: every landmark is the red spot, but 8 is the green one."""

    def forward(self, crops: Tensor) -> list[Tensor]:
        red, green = (
            nn.functional.avg_pool2d(crops[:, [one]] - crops[:, [other]], 4)
            for one, other in ((0, 1), (1, 0))
        )
        heat = red.repeat(1, 68, 1, 1)
        heat[:, 8] = green[:, 0]
        return [torch.zeros_like(heat), heat]


@pytest.fixture
def spots(offline: Path, monkeypatch: pytest.MonkeyPatch) -> FanLandmarks:
    """The backend with the package's finder and cropping, and simple networks in them."""

    def finder(name: str, device: str) -> Any:
        made = FaceDetector.__new__(FaceDetector)
        made.device, made.filter_threshold, made.face_detector = device, 0.5, SpotFinder()
        return made

    monkeypatch.setattr(fan, "_finder", finder)
    monkeypatch.setattr(fan, "_network", lambda device: SpotNetwork())
    return FanLandmarks("cpu")


def scene(width: int, height: int, x: int, y: int) -> Pixels:
    """A grey face of 60 pixels around (x, y), a red spot up left in it and a green one below."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[y - 30 : y + 30, x - 30 : x + 30] = 170
    frame[y - 12 : y - 8, x - 22 : x - 18] = (255, 0, 0)
    frame[y + 18 : y + 22, x + 3 : x + 7] = (0, 255, 0)
    return frame


def test_face_alignment_gives_pixels_of_the_frame(spots: FanLandmarks) -> None:
    places = [(200, 150), (90, 210), (400, 60)]
    frames = [scene(480, 270, x, y) for x, y in places]
    for (x, y), (face,) in zip(places, spots(frames), strict=True):
        middle = (face.box[:2] + face.box[2:]) / 2
        assert np.abs(middle - (x - 0.5, y - 0.5)).max() < 16
        assert (face.box[2:] - face.box[:2]).tolist() == pytest.approx([64, 64], abs=0.1)
        # The crop is 3 pixels a heat map's cell, and its edge is 1 pixel off in the package.
        assert np.abs(face.landmarks[36] - (x - 20.5, y - 10.5)).max() < 1.5
        assert np.abs(face.landmarks[8] - (x + 4.5, y + 19.5)).max() < 1.5


def test_face_alignment_in_large_frames(spots: FanLandmarks) -> None:
    small = scene(640, 270, 200, 150)
    large = small.repeat(3, 0).repeat(3, 1)  # searched at a third of this
    (face,) = spots([large])[0]
    for index, (x, y) in ((36, (179.5, 139.5)), (8, (204.5, 169.5))):
        expected = (np.array([x, y]) + 0.5) * 3 - 0.5
        assert np.abs(face.landmarks[index] - expected).max() < 5


@pytest.mark.usefixtures("interpreted")
def test_face_alignment_agrees_with_the_package_itself(spots: FanLandmarks) -> None:
    """The package's own way from image to landmarks rounds down; ours must lie within."""
    own = FaceAlignment.__new__(FaceAlignment)
    own.__dict__.update(
        device="cpu", flip_input=True, landmarks_type=LandmarksType.TWO_D, dtype=torch.float32
    )
    own.__dict__.update(max_batch_size=1, face_alignment_net=spots._network, verbose=False)
    own.face_detector = spots._finder
    frame = scene(480, 270, 300, 100)
    (face,) = spots([frame])[0]
    box = [*(face.box + 0.5).tolist(), 1.0]
    (theirs,) = own.get_landmarks_from_image(frame, [box])
    difference = face.landmarks + 0.5 - theirs
    assert difference.min() > -0.51  # ours are exact to the box's half pixel
    assert difference.max() < 1.51


def test_face_alignment_batches_are_the_frames_one_by_one(
    spots: FanLandmarks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [scene(320, 240, 60 + 15 * i, 120) for i in range(11)]
    frames[4][:] = 0
    together = spots(frames)
    for frame, faces in zip(frames, together, strict=True):
        for one, other in zip(spots([frame])[0], faces, strict=True):
            assert np.allclose(one.landmarks, other.landmarks, atol=1e-3)
    assert together[4] == []
    detect = spots._finder.detect_from_batch

    def failing(batch: Tensor) -> Any:
        if (batch[:, 0, 120] > 0).any(dim=1).logical_not().any():
            raise RuntimeError("out of memory")
        return detect(batch)

    monkeypatch.setattr(spots._finder, "detect_from_batch", failing)
    assert [len(faces) for faces in spots(frames)] == [len(faces) for faces in together]
    assert "out of memory" in caplog.text


@pytest.mark.usefixtures("interpreted")
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_peaks_are_those_of_the_package(seed: int) -> None:
    heat = np.random.default_rng(seed).normal(size=(2, 68, 64, 64)).astype(np.float32)
    heat[0, 0] = 0
    heat[0, 0, 0, 63] = 1  # a corner, where there is no neighbour to lean to
    expected, _, _ = utils.get_preds_fromhm(heat, np.zeros(2), 1.0)
    np.testing.assert_allclose(peaks(torch.from_numpy(heat)).numpy() * 64, expected, atol=1e-4)


# Landmarks from files


def points(offset: float = 0.0) -> list[list[float]]:
    return [[index + offset, 2 * index] for index in range(68)]


def test_reads_one_face_or_several(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"points": points(), "order": "iBUG-68", "source": "hand"}))
    assert np.array_equal(found := read_landmarks(path), [points()])
    assert found.dtype == np.float32
    path.write_text(json.dumps([{"points": points()}, {"points": points(0.5)}]))
    assert np.array_equal(read_landmarks(path), [points(), points(0.5)])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "[[1, 2]]",
        "[" * 100_000,
        '{"points": 5}',
        json.dumps({"points": points()[:67]}),
        json.dumps({"points": [*points()[:67], [1]]}),
        json.dumps({"points": [*points()[:67], [1, None]]}),
        json.dumps({"points": [*points()[:67], [1, float("nan")]]}),
        json.dumps({"points": [*points()[:67], [1, 1e30]]}),
        json.dumps({"points": [*points()[:67], [1, 10**400]]}),
        json.dumps({"points": [[True, False]] * 68}),
        json.dumps({"points": points(), "order": "dlib-81"}),
        json.dumps([{"points": points()}, {}]),
        "\udcff",
    ],
)
def test_other_files_are_unreadable(tmp_path: Path, content: str) -> None:
    (path := tmp_path / "a.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UnreadableError, match=r"a\.json"):
        read_landmarks(path)
    with pytest.raises(UnreadableError, match=r"absent\.json"):
        read_landmarks(tmp_path / "absent.json")
