"""OpenFace 2's files: both layouts as its recorder writes them, and whatever else there may be."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import write_video as write_clip
from PIL import Image
from test_pose import seen

from deepregions.data.databases import Clip, Folder
from deepregions.data.extract import extract
from deepregions.data.prepare import prepare
from deepregions.data.store import FaceStore, StoreInfo
from deepregions.errors import UnreadableError
from deepregions.faces.backends import landmark_detector, openface
from deepregions.faces.backends.openface import OpenFaceLandmarks, read_openface
from deepregions.faces.landmarks import Place
from deepregions.media import MediaReader, Sampling

FRAMES = [np.zeros((8, 8, 3), np.uint8)]


def row(start: str, points: np.ndarray) -> str:
    """A row as RecorderCSV.cpp writes it: gaze, eyes, pose, 2D and 3D points, action units."""
    eyes = ["0.1"] * (8 + 5 * 56) + ["1.0"] * 3 + ["0.1"] * 3
    two = [f"{value:.1f}" for value in points.T.ravel()]
    three = ["9.9"] * (3 * 68)
    return ", ".join([start, *eyes, *two, *three, "0.50", "1.0"]) + "\n"


def header(start: str, space: str = " ") -> str:
    names = [start, *(f"gaze_{k}" for k in range(8))]
    names += [f"eye_lmk_{axis}_{k}" for axis in ("x", "y", "X", "Y", "Z") for k in range(56)]
    names += [f"pose_{k}" for k in ("Tx", "Ty", "Tz", "Rx", "Ry", "Rz")]
    names += [f"{axis}_{k}" for axis in ("x", "y", "X", "Y", "Z") for k in range(68)]
    return f",{space}".join([*names, "AU01_r", "AU01_c"]) + "\n"


def face(x: float = 300, width: float = 100) -> np.ndarray:
    points = seen(5, 0, 3, width)[0].numpy()
    return points - (300, 200) + (x, 200)


def write_image(path: Path, *faces: tuple[float, np.ndarray], space: str = " ") -> Path:
    rows = [row(f"{n}, {sure:.3f}", points) for n, (sure, points) in enumerate(faces)]
    path.write_text(header("face, confidence", space) + "".join(rows))
    return path


def write_video(path: Path, *faces: tuple[int, float, int, np.ndarray]) -> Path:
    """Faces of (frame from 1, confidence, success, points)."""
    rows = [
        row(f"{frame}, 0, {frame / 25:.3f}, {sure:.2f}, {success}", points)
        for frame, sure, success, points in faces
    ]
    path.write_text(header("frame, face_id, timestamp, confidence, success") + "".join(rows))
    return path


def test_a_photograph_with_two_people(tmp_path: Path) -> None:
    small, large = face(100, 60), face(400, 150)
    table = read_openface(write_image(tmp_path / "a.csv", (0.875, small), (0.975, large)))
    assert not table.video
    one, other = table.faces(0)
    assert (one.confidence, one.score) == (pytest.approx(0.975), pytest.approx(0.975))
    assert other.confidence == pytest.approx(0.875)
    assert np.abs(one.landmarks - large).max() < 0.051, "the largest first"
    assert np.abs(other.landmarks - small).max() < 0.051
    assert one.landmarks.dtype == one.box.dtype == np.float32
    assert table.faces(1) == []


def test_a_video_with_frames_from_one_failures_and_several_faces(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.csv",
        (1, 0.98, 1, face(100)),
        (2, 0.05, 0, face(110)),
        (4, 0.90, 1, face(400, 80)),
        (4, 0.80, 1, face(130, 120)),
        (3, 0.88, 1, face(120)),
    )
    table = read_openface(path)
    assert table.video
    assert table.frame.tolist() == [0, 2, 3, 3]
    assert [len(table.faces(number)) for number in range(5)] == [1, 0, 1, 2, 0]
    assert [f.confidence for f in table.faces(3)] == [pytest.approx(0.8), pytest.approx(0.9)]


def test_headers_with_and_without_spaces_and_in_any_order(tmp_path: Path) -> None:
    points = face()
    plain = read_openface(write_image(tmp_path / "a.csv", (0.5, points)))
    tight = read_openface(write_image(tmp_path / "b.csv", (0.5, points), space=""))
    assert np.array_equal(plain.landmarks, tight.landmarks)
    names = [*(f"y_{k}" for k in range(68)), "confidence", *(f"x_{k}" for k in range(68)), "face"]
    cells = [*(f"{v:.1f}" for v in points[:, 1]), "0.5", *(f"{v:.1f}" for v in points[:, 0]), "0"]
    (tmp_path / "c.csv").write_text(
        "\ufeff" + ",".join(names) + "\r\n" + ",".join(cells) + "\r\n\r\n"
    )
    other = read_openface(tmp_path / "c.csv")
    assert np.array_equal(plain.landmarks, other.landmarks)


def test_rows_may_lack_what_is_not_read(tmp_path: Path) -> None:
    """OpenFace leaves out action units that it could not measure, and their commas with them."""
    path = write_image(tmp_path / "a.csv", (0.5, face()))
    path.write_text(path.read_text().removesuffix(", 0.50, 1.0\n"))
    assert len(read_openface(path).faces(0)) == 1


def spoilt(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "no column confidence, face, x_0 and 135 more"),
        (lambda text: "\x89PNG\r\n\x1a\n" + text, "no column"),
        (lambda text: spoilt(text, ", x_7,", ", z_7,"), "no column x_7"),
        (lambda text: spoilt(text, "face,", "fac,"), "no column face"),
        (lambda text: spoilt(text, "0.500", "high"), "line 2: confidence is 'high'"),
        (lambda text: spoilt(text, "0.500", "nan"), "line 2: confidence is 'nan'"),
        (lambda text: text[: text.index(", 9.9") - 1], "line 2: cut short"),
        (lambda text: text[: text.index(", 9.9") - 700], "line 2: cut short"),
        (lambda text: text + "\n0, 0.9, 1\n", "line 4: x_0 is ''"),
        (lambda text: text + "7" * openface.MAX_LINE * 2, "a line of more than"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, change: Any, message: str) -> None:
    path = write_image(tmp_path / "a.csv", (0.5, face()))
    path.write_text(change(path.read_text()))
    with pytest.raises(UnreadableError) as caught:
        read_openface(path)
    assert message in str(caught.value)
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize("frame", ["0", "1.5", "-3", "1e9"])
def test_frames_that_are_none(tmp_path: Path, frame: str) -> None:
    path = write_video(tmp_path / "a.csv", (1, 0.9, 1, face()))
    path.write_text(spoilt(path.read_text(), "\n1, 0,", f"\n{frame}, 0,"))
    with pytest.raises(UnreadableError, match="frame"):
        read_openface(path)


def test_binary_text_and_what_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"face, confidence\xff\xfe\n")
    for one in (path, tmp_path / "absent.csv", tmp_path, Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(UnreadableError):
            read_openface(one)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UnreadableError, match="no regular file"):
        read_openface(tmp_path / "pipe.csv")


def test_there_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.csv", *((n + 1, 0.9, 1, face()) for n in range(5)))
    monkeypatch.setattr(openface, "MAX_FACES", 4)
    with pytest.raises(UnreadableError, match="more than 4 faces"):
        read_openface(path)


def test_a_folder_has_a_file_for_each_input(tmp_path: Path) -> None:
    write_image(tmp_path / "anna.csv", (0.9, face(100)))
    write_video(tmp_path / "ben.csv", (3, 0.8, 1, face(200)))
    detector = landmark_detector(f"openface:{tmp_path}")
    assert detector.name == "openface"
    (anna,) = detector(FRAMES, [Place(Path("x/anna.jpg"))])[0]
    assert float(anna.landmarks[:, 0].mean()) == pytest.approx(100, abs=2)
    ben = Path("y/ben.mp4")
    found = detector(FRAMES * 3, [Place(ben, n) for n in (1, 2, 3)])
    assert [len(faces) for faces in found] == [0, 1, 0]
    with pytest.raises(UnreadableError, match=r"carl\.jpg: no OpenFace landmarks: .*carl\.csv"):
        detector(FRAMES, [Place(Path("carl.jpg"))])
    with pytest.raises(ValueError, match="0 places for 1 frames"):
        detector(FRAMES)


@pytest.mark.parametrize("folder", [True, False])
def test_two_inputs_do_not_share_a_file(tmp_path: Path, folder: bool) -> None:
    path = write_image(tmp_path / "anna.csv", (0.9, face(100)))
    detector = OpenFaceLandmarks(tmp_path if folder else path)
    assert len(detector(FRAMES, [Place(Path("one/anna.jpg"))])[0]) == 1
    with pytest.raises(UnreadableError, match=r"other/.*: .*anna\.csv is for one/anna.jpg already"):
        detector(FRAMES, [Place(Path(f"other/{'anna' if folder else 'ben'}.jpg"))])


def test_a_photograph_s_layout_is_not_a_video_s(tmp_path: Path) -> None:
    write_image(tmp_path / "ben.csv", (0.9, face(100)))
    with pytest.raises(UnreadableError, match="has a photograph's layout"):
        OpenFaceLandmarks(tmp_path)(FRAMES, [Place(Path("ben.mp4"), 5)])


def test_versions_change_with_the_files(tmp_path: Path) -> None:
    write_image(tmp_path / "anna.csv", (0.9, face(100)))
    detector = OpenFaceLandmarks(tmp_path)
    before = detector.version
    assert OpenFaceLandmarks(tmp_path).version == before
    write_image(tmp_path / "ben.csv", (0.9, face(100)))
    assert detector.version != before
    assert pickle.loads(pickle.dumps(detector)).version == detector.version


def test_a_database_is_prepared_with_openface_s_landmarks(tmp_path: Path) -> None:
    """And an input without a file fails alone."""
    photos, files = tmp_path / "photos", tmp_path / "openface"
    files.mkdir()
    for name in ("anna", "ben", "carl"):
        for label in ("real", "fake"):
            (photos / label).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(0).integers(0, 255, (400, 600, 3), np.uint8)
            Image.fromarray(pixels).save(photos / label / f"{label}-{name}.png")
            if (name, label) != ("carl", "fake"):
                write_image(files / f"{label}-{name}.csv", (0.9, face()))
    report = prepare(Folder(photos), tmp_path / "store", detector=f"openface:{files}", workers=0)
    assert report.faces == 5
    assert [key for key, _ in report.failures] == ["fake/fake-carl.png"]
    assert FaceStore(tmp_path / "store").info.landmarks == "openface"


def test_a_video_s_landmarks_are_those_of_the_frames_that_were_sampled(tmp_path: Path) -> None:
    """A white square moves through grey; OpenFace's rows put a face around it in every frame."""
    path = tmp_path / "ben.mp4"
    places = [120 + 6 * number for number in range(60)]
    pictures = np.full((60, 400, 640, 3), 90, np.uint8)
    for picture, place in zip(pictures, places, strict=True):
        picture[190:210, place - 10 : place + 10] = 255
    write_clip(path, pictures, rate=25)
    rows = [(number + 1, 0.9, 1, face(place)) for number, place in enumerate(places)]
    write_video(tmp_path / "ben.csv", *rows)
    clip = Clip(path, "ben", 0, "original", "", ("ben",), "test")
    options = StoreInfo("test", "openface", "1", frames_per_video=7)
    with MediaReader() as reader:
        opened = reader.open_all([path], Sampling(count=7))
        records, report = extract(clip, opened, OpenFaceLandmarks(tmp_path), options)
    assert report.faces == 7
    for record in records:
        pixels = np.asarray(Image.open(io.BytesIO(record.image)).convert("L"))
        white = np.argwhere(pixels > 200).mean(axis=0)[::-1]
        assert np.abs(record.landmarks.mean(axis=0) - white).max() < 4  # a frame is 6 pixels
