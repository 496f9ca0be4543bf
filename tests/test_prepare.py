"""From clips to a store: what is kept, what is told, and the same bytes however it went."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from data_helpers import face_points, write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_media_reader import sabotage  # noqa: F401

from deepregions.data import prepare as prepare_module
from deepregions.data.databases import FaceForensics, Folder
from deepregions.data.databases.checking import check
from deepregions.data.prepare import prepare
from deepregions.data.splits import Splitting
from deepregions.data.store import FaceStore, shard_name
from deepregions.errors import StoreError, UsageError
from deepregions.faces.landmarks import Face, Frames, Place, largest_first
from deepregions.faces.patches import Pixels, crop_face

RED, GREEN = (220, 20, 20), (20, 220, 20)


@dataclass
class PaintedDetector:
    """Takes every red or green square of a frame for a face; as quick as it is stupid."""

    name: str = "painted"
    version: str = "1"

    def __call__(self, frames: Frames, places: Sequence[Place] = ()) -> list[list[Face]]:
        return [self._faces(frame) for frame in frames]

    def _faces(self, frame: Pixels) -> list[Face]:
        faces = []
        for channel in (0, 1):
            mask = (frame[..., channel] > 150) & (frame[..., 1 - channel] < 100)
            if mask.sum() < 50:
                continue
            places = np.argwhere(mask)[:, ::-1].astype(np.float32)
            low, high = places.min(0), places.max(0)
            points = face_points() * (high - low) + low
            faces.append(Face(np.concatenate([low, high]), points, 0.875, 0.75))
        return largest_first(faces)


@dataclass
class DyingDetector(PaintedDetector):
    """Takes its process down where something is blue, as a bad decoder might."""

    def _faces(self, frame: Pixels) -> list[Face]:
        if ((frame[..., 2] > 150) & (frame[..., 0] < 100)).sum() > 50:
            os._exit(139)
        return super()._faces(frame)


@dataclass
class SlowDetector(PaintedDetector):
    """Leaves time to be killed."""

    def _faces(self, frame: Pixels) -> list[Face]:
        time.sleep(0.05)
        return super()._faces(frame)


def paint(*boxes: tuple[tuple[int, int, int], int, int, int]) -> np.ndarray:
    """A grey picture (96, 96, 3) with squares of (colour, x, y, side)."""
    picture = np.full((96, 96, 3), 90, np.uint8)
    for colour, x, y, side in boxes:
        picture[y : y + side, x : x + side] = colour
    return picture


def write_photo(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=95)


@pytest.fixture
def ffpp(tmp_path: Path) -> Path:
    """FaceForensics++ with a pair of people per split; a red face that moves, 8 frames."""
    root = tmp_path / "ffpp"
    (root / "splits").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        one, two = f"{number}00", f"{number}01"
        (root / f"splits/{split}.json").write_text(json.dumps([[one, two]]))
        for place in (
            f"original_sequences/youtube/c23/videos/{one}.mp4",
            f"original_sequences/youtube/c23/videos/{two}.mp4",
            f"manipulated_sequences/Deepfakes/c23/videos/{one}_{two}.mp4",
        ):
            write_video(root / place, [paint((RED, 20 + i, 24, 40)) for i in range(8)])
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for person in range(6):
        write_photo(root / f"real/{person:03d}_a.jpg", paint((RED, 30, 30 + person, 40)))
        write_photo(root / f"fake/{person:03d}_b.jpg", paint((RED, 30, 28 - person, 40)))
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepared_faces(ffpp: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    report = prepare(
        FaceForensics(ffpp),
        tmp_path / "store",
        detector=PaintedDetector(),
        frames_per_video=4,
        progress=lambda *numbers: seen.append(numbers),
    )
    store = FaceStore(tmp_path / "store")
    assert (report.clips, report.frames, report.faces) == (9, 36, 36)
    assert (report.failures, report.left_out) == ((), {})
    assert [(g.split, g.label, g.clips, g.faces) for g in report.groups] == [
        ("train", 0, 2, 8),
        ("val", 0, 2, 8),
        ("test", 0, 2, 8),
        ("train", 1, 1, 4),
        ("val", 1, 1, 4),
        ("test", 1, 1, 4),
    ]
    assert json.loads((store.path / "report.json").read_text())["faces"] == 36
    assert seen[0] == (1, 9, 4)
    assert seen[-1] == (9, 9, 36)
    assert len(store) == 36
    assert (store.info.database, store.info.landmarks) == ("ffpp", "painted")
    assert len(set(store.column("key"))) == 36
    face = store[-1]
    assert (face.label, face.split, face.method) == (1, "test", "Deepfakes")
    assert (face.compression, face.identities) == ("c23", ("200", "201"))
    assert (face.video, face.frame_size) == ("Deepfakes/c23/200_201", (96, 96))
    assert (face.track, face.score, face.confidence) == (0, 0.875, 0.75)
    times = [store[row].time for row in range(-4, 0)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 1


@pytest.mark.slow
def test_same_bytes_by_any_number_of_processes(ffpp: Path, tmp_path: Path) -> None:
    options = {"detector": PaintedDetector(), "frames_per_video": 3}
    one = prepare(FaceForensics(ffpp), tmp_path / "one", **options)
    two = prepare(FaceForensics(ffpp), tmp_path / "two", **options, workers=2)
    assert one == two
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_stopped_and_resumed_gives_the_same_store(
    ffpp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_FACES_PER_SHARD", 8)  # two clips a shard: five shards
    options = {"detector": PaintedDetector(), "frames_per_video": 4}
    whole = prepare(FaceForensics(ffpp), tmp_path / "whole", **options)
    expected = files(tmp_path / "whole")
    assert len(expected) == 8

    def stop(done: int, total: int, faces: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        prepare(FaceForensics(ffpp), out, **options, progress=stop)
    assert set(files(out)) == {"plan.json", shard_name(0), shard_name(1)}
    with pytest.raises(StoreError, match="unfinished"):
        FaceStore(out)

    (out / shard_name(0)).write_bytes(expected[shard_name(0)][:-9])  # the disk lost its end
    (out / f".{shard_name(2)}.01234567.part").write_bytes(b"half")  # as SIGKILL leaves it
    begun: list[int] = []
    resumed = prepare(
        FaceForensics(ffpp), out, **options, progress=lambda done, *_: begun.append(done)
    )
    assert begun[0] == 3  # the two clips of the shard that was whole are not done again
    assert resumed == whole
    assert files(out) == expected

    again = prepare(FaceForensics(ffpp), out, **options, progress=lambda *_: pytest.fail("work"))
    assert again == whole
    assert files(out) == expected


def test_folder_of_another_plan_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    prepare(Folder(photos), out, detector=PaintedDetector())
    with pytest.raises(StoreError, match=r"other options: margin was 0\.5, is 0\.3"):
        prepare(Folder(photos), out, detector=PaintedDetector(), margin=0.3)
    with pytest.raises(StoreError, match=r"landmarks was painted, is other"):
        prepare(Folder(photos), out, detector=PaintedDetector("other"))
    with pytest.raises(StoreError, match=r"files or splits have changed"):
        prepare(Folder(photos, splitting=Splitting(seed=5)), out, detector=PaintedDetector())
    write_photo(photos / "real/100.jpg", paint())
    with pytest.raises(StoreError, match=r"clips was 12, is 13"):
        prepare(Folder(photos), out, detector=PaintedDetector())
    with pytest.raises(StoreError, match=r"not empty and not from prepare"):
        prepare(Folder(photos), photos, detector=PaintedDetector())
    with pytest.raises(StoreError, match="is a file"):
        prepare(Folder(photos), photos / "real/100.jpg", detector=PaintedDetector())


def test_broken_and_faceless_files_cost_a_line_each(ffpp: Path, tmp_path: Path) -> None:
    videos = ffpp / "original_sequences/youtube/c23/videos"
    (videos / "000.mp4").write_bytes(b"this is no video")
    write_video(videos / "100.mp4", [paint()] * 8)
    half = [paint((RED, 20, 24, 40))] * 4 + [paint()] * 4
    write_video(videos / "200.mp4", half)
    report = prepare(
        FaceForensics(ffpp), tmp_path / "store", detector=PaintedDetector(), frames_per_video=4
    )
    failures = dict(report.failures)
    assert set(failures) == {"original/c23/000", "original/c23/100"}
    assert "000.mp4" in failures["original/c23/000"]
    assert failures["original/c23/100"] == "no face"
    groups = {(group.split, group.label): group for group in report.groups}
    assert groups["train", 0].clips_kept == 1
    assert groups["val", 0].dropped == {"frames without a face": 4}
    assert groups["test", 0].dropped == {"frames without a face": 2}
    assert report.faces == len(FaceStore(tmp_path / "store")) == 9 * 4 - 4 - 4 - 2


@pytest.mark.usefixtures("sabotage")
def test_a_decoder_that_dies_costs_a_line(photos: Path, tmp_path: Path) -> None:
    for spare in [*photos.glob("*/00[2-5]*")]:
        spare.unlink()
    (photos / "real/001_a.jpg").rename(photos / "real/segfault.jpg")
    report = prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())
    ((key, why),) = report.failures
    assert key == "real/segfault.jpg"
    assert "its decoder died of SIGSEGV" in why
    assert report.faces == 3


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_in_one_line_and_it_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_FACES_PER_SHARD", 2)
    write_photo(photos / "fake/003_b.jpg", paint(((20, 20, 220), 10, 10, 30)))
    with pytest.raises(StoreError, match=r"a process that looks for faces died.*goes on"):
        prepare(Folder(photos), tmp_path / "store", detector=DyingDetector(), workers=2)
    begun: list[int] = []
    report = prepare(
        Folder(photos),
        tmp_path / "store",
        detector=PaintedDetector(),
        progress=lambda done, *_: begun.append(done),
    )
    assert begun[0] > 2
    assert report.faces == 11


def test_no_face_at_all(tmp_path: Path) -> None:
    for name in ("real/a.jpg", "fake/b.jpg"):
        write_photo(tmp_path / "photos" / name, paint())
    with pytest.raises(StoreError, match=r"no face was found in any of the 2"):
        prepare(Folder(tmp_path / "photos"), tmp_path / "store", detector=PaintedDetector())
    assert not (tmp_path / "store").exists()


def test_main_track_is_the_largest_and_longest(ffpp: Path, tmp_path: Path) -> None:
    target = ffpp / "original_sequences/youtube/c23/videos/000.mp4"
    brief = [paint((RED, 4, 10, 36), *[(GREEN, 44, 4, 48)] * (i < 3)) for i in range(8)]
    write_video(target, brief)  # the green face is larger, but seldom there
    options = {"detector": PaintedDetector(), "frames_per_video": 8}
    report = prepare(FaceForensics(ffpp), tmp_path / "main", **options)
    assert report.groups[0].dropped == {"faces of other people": 3}
    assert (report.tracks, report.several) == ("main", 1)
    main = [face for face in FaceStore(tmp_path / "main") if face.video == "original/c23/000"]
    assert len(main) == 8
    centres = [
        Image.open(BytesIO(f.image)).getpixel(tuple(map(int, f.landmarks.mean(0)))) for f in main
    ]
    assert all(r > 150 and g < 100 for r, g, _ in centres)
    everybody = prepare(FaceForensics(ffpp), tmp_path / "all", **options, tracks="all")
    assert everybody.faces == report.faces + 3
    assert (everybody.tracks, everybody.several) == ("all", 1)
    tracks = FaceStore(tmp_path / "all").column("track")
    assert sorted(np.unique(tracks)) == [0, 1]


def test_a_mask_says_who_of_several_people_is_fake(ffpp: Path, tmp_path: Path) -> None:
    """The green face is the smaller one, and the masks are half as large as the videos."""
    folder = ffpp / "manipulated_sequences/Deepfakes"
    black = [np.zeros((96, 96, 3), np.uint8) for _ in range(8)]
    for name, masked in (("000_001", True), ("100_101", True), ("200_201", False)):
        both = [paint((RED, 2, 4, 44), (GREEN, 52 + i // 4, 50, 32)) for i in range(8)]
        write_video(folder / f"c23/videos/{name}.mp4", both)
        masks = [picture[::2, ::2].copy() for picture in black]
        for picture in masks if masked else ():
            picture[28:40, 28:40] = 255
        write_video(folder / f"masks/videos/{name}.mp4", masks)
    (folder / "masks/videos/100_101.mp4").write_bytes(b"no video")
    options = {"detector": PaintedDetector(), "frames_per_video": 4}
    report = prepare(FaceForensics(ffpp), tmp_path / "s", **options)
    assert (report.masked, report.several, report.others) == (1, 2, 0)  # two masks say nothing

    def colours(store: str, video: str) -> set[str]:
        found = set()
        for face in FaceStore(tmp_path / store):
            if face.video == video:
                middle = tuple(map(int, face.landmarks.mean(0)))
                red, green, _ = Image.open(BytesIO(face.image)).getpixel(middle)
                found.add(f"{'red' if red > green else 'green'} {face.label} {face.method}")
        return found

    assert colours("s", "Deepfakes/c23/000_001") == {"green 1 Deepfakes"}
    for unknown in ("Deepfakes/c23/100_101", "Deepfakes/c23/200_201"):
        assert colours("s", unknown) == {"red 1 Deepfakes"}  # the largest, as ever
    report = prepare(FaceForensics(ffpp), tmp_path / "t", **options, others="genuine")
    assert (report.masked, report.others) == (1, 4)
    assert colours("t", "Deepfakes/c23/000_001") == {"green 1 Deepfakes"}
    assert colours("t", "Deepfakes/c23/000_001~others") == {"red 0 original"}


def test_a_face_that_is_nowhere_is_under_no_mask(ffpp: Path, tmp_path: Path) -> None:
    class StrayDetector(PaintedDetector):
        def _faces(self, frame: Pixels) -> list[Face]:
            stray = Face(np.full(4, np.nan, np.float32), np.zeros((68, 2), np.float32), 0.5)
            return [*super()._faces(frame), stray]

    mask = np.zeros((96, 96, 3), np.uint8)
    mask[30:60, 30:60] = 255
    masks = ffpp / "manipulated_sequences/Deepfakes/masks/videos"
    write_video(masks / "000_001.mp4", [mask] * 8)
    report = prepare(FaceForensics(ffpp), tmp_path / "s", detector=StrayDetector())
    assert (report.faces, report.masked) == (9 * 8, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"frames_per_video": 0}, "at least 1"),
        ({"margin": -0.1}, "from 0 to 4"),
        ({"max_size": 10}, "from 64"),
        ({"tracks": "some"}, "'main' or 'all'"),
        ({"workers": -1}, "0 or more"),
    ],
)
def test_bad_options(option: dict[str, int], message: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector(), **option)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("far", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e10])
def test_a_face_that_is_nowhere_is_not_cut_out(far: float) -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    points = face_points() * 50
    box = np.array([0, 0, 50, 50], np.float32)
    for face in (
        Face(box + np.float32(far), points, 1.0),
        Face(box, points + np.float32(far), 1.0),
    ):
        assert crop_face(image, face) is None


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-20, 100),
    st.floats(-20, 80),
    st.floats(8, 90),
    st.floats(0, 2),
    st.sampled_from([64, 100, 512]),
)
def test_crop_keeps_landmarks_on_their_pixels(
    x: float, y: float, side: float, margin: float, max_size: int
) -> None:
    # A picture that says where it was: red is the column, green the row.
    rows, columns = np.indices((100, 120))
    image = np.stack([columns, rows, columns * 0], -1).astype(np.uint8)
    low = np.float32([x, y])
    points = face_points() * np.float32(side) + low
    face = Face(np.concatenate([low + side * 0.1, low + side * 0.9]), points, 1.0)
    cut = crop_face(image, face, margin, max_size)
    on_picture = (points[:, 0] > -0.5) & (points[:, 0] < 119.5) & (points[:, 1] > -0.5)
    on_picture &= points[:, 1] < 99.5
    if cut is None:
        assert not on_picture.any()
        return
    crop, landmarks, scale = cut
    assert landmarks.dtype == np.float32
    assert max(crop.shape[:2]) <= max_size
    assert scale == 1 or max(crop.shape[:2]) == max_size
    height, width = crop.shape[:2]
    for (column, row), (was_x, was_y) in zip(
        landmarks[on_picture].tolist(), points[on_picture].tolist(), strict=True
    ):
        assert -0.5 <= column <= width - 0.5
        assert -0.5 <= row <= height - 0.5
        pixel = crop[min(max(round(row), 0), height - 1), min(max(round(column), 0), width - 1)]
        tolerance = 1.5 / scale + 1
        assert abs(float(pixel[0]) - was_x) <= tolerance
        assert abs(float(pixel[1]) - was_y) <= tolerance


def test_one_writer_at_a_time(photos: Path, tmp_path: Path) -> None:
    def another(*_: int) -> None:
        with pytest.raises(UsageError, match=r"store.*prepare"):
            prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())

    report = prepare(
        Folder(photos), tmp_path / "store", detector=PaintedDetector(), progress=another
    )
    assert report.faces == 12


def test_names_that_are_no_text_are_spelt_out(photos: Path, tmp_path: Path) -> None:
    """Archives of old systems have names in other codings than UTF-8."""
    odd = os.fsencode(photos) + b"/real/006\xe9_a.jpg"
    Path(os.fsdecode(odd)).write_bytes((photos / "real/000_a.jpg").read_bytes())
    assert not check(Folder(photos)).disputed
    report = prepare(Folder(photos), tmp_path / "store", detector=PaintedDetector())
    assert report.faces == 13
    assert "real/006\\udce9_a.jpg" in FaceStore(tmp_path / "store").column("video").tolist()
