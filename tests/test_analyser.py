"""From files to results: real decoding and real networks, on faces that the tests place."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import write_video
from networks import dsp_fwa, member, pixels, points, xception
from PIL import Image
from torch import Tensor

from deepregions.detectors import Xception
from deepregions.faces.landmarks import Face, Frames, Place
from deepregions.faces.patches import Pixels, Points
from deepregions.faces.thresholds import Gates
from deepregions.fusion.pooling import Pooling
from deepregions.media import MediaReader, Sampling
from deepregions.pipeline.analyser import Analyser
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.report.drawing import data_uri, to_picture
from deepregions.pipeline.report.page import render_page
from deepregions.pipeline.report.verdict import draw_verdict
from deepregions.pipeline.results import FacePatch, FaceResult, Result
from deepregions.pipeline.strip import STRIP, THUMBNAIL, Strip
from deepregions.pixels.tensors import as_array
from deepregions.system import System, TrainedNetwork
from deepregions.types import Layout, Region, Resample, Status

ANY = Gates(min_size=0, min_sharpness=0, max_dark=1, max_bright=1)


class Finder:
    """Finds the faces that a test says are there; with a function, by the frame's number."""

    name, version = "made", "1"

    def __init__(self, *faces: Points, by_number: Callable[[int], list[Points]] | None = None):
        self.by_number = by_number or (lambda _: list(faces))
        self.asked: list[Place] = []

    def __call__(self, frames: Frames, places: Sequence[Place] = ()) -> list[list[Face]]:
        assert len(frames) == len(places)
        self.asked += places
        return [[_face(found) for found in self.by_number(each.number)] for each in places]


def _face(found: Points) -> Face:
    return Face(np.concatenate([found.min(0), found.max(0)]), found, 1.0)


@pytest.fixture(scope="module")
def reader() -> Iterator[MediaReader]:
    with MediaReader() as opened:
        yield opened


def analyser(
    *members: TrainedNetwork,
    find: Finder | None = None,
    sampling: Sampling | None = None,
    gates: Gates = ANY,
    rules: Pooling | None = None,
) -> Analyser:
    return Analyser(
        FaceScorer(System(members), gates, torch.device("cpu")),
        find or Finder(points()),
        sampling=sampling or Sampling(count=5),
        rules=rules or Pooling(),
        batch_size=2,
        warnings=("said of all",),
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(pixels()).save(path)
    return path


def make_video(path: Path, frames: int = 20, *, lighter: int = 1) -> Path:
    """A grey video that grows lighter with every frame; ten frames a second."""
    shades = (np.full((200, 200, 3), 60 + lighter * number, np.uint8) for number in range(frames))
    return write_video(path, shades, rate=10)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "video.mp4")


def one(scorer: Analyser, path: Path, reader: MediaReader) -> Result:
    (result,) = scorer.analyse([path], reader)
    return result


def test_inputs_scored_together_are_what_they_are_alone(
    tmp_path: Path, video: Path, reader: MediaReader
) -> None:
    torch.manual_seed(0)
    scorer = analyser(TrainedNetwork(Xception(64).eval(), Region.ENTIRE, "a", "masked", {}))
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        Image.fromarray(pixels(seed=number)).save(path)
    paths[2].write_bytes(b"no picture")
    paths.insert(4, video)
    together = list(scorer.analyse(paths, reader))
    assert [each.input for each in together] == [str(path) for path in paths]
    assert [each.status for each in together].count(Status.OK) == len(paths) - 1
    for path, result in zip(paths, together, strict=True):
        alone = one(scorer, path, reader)
        assert result.log_odds == pytest.approx(alone.log_odds, abs=1e-5)
        assert result.to_dict().keys() == alone.to_dict().keys()
        assert len(result.strip) == len(alone.strip)


def test_results_come_while_later_inputs_are_still_to_be_looked_at(
    photo: Path, video: Path, reader: MediaReader
) -> None:
    given: list[Path] = []

    def paths(*inputs: Path) -> Iterator[Path]:
        for path in inputs:
            given.append(path)
            yield path

    scorer = analyser(member(xception(1.0)))
    found = scorer.analyse(paths(*[photo] * 40), reader)
    next(found)
    assert len(given) <= 4  # one scored, one looked at meanwhile, and what the reader opens ahead
    found.close()  # type: ignore[attr-defined]
    given.clear()
    for number, _ in enumerate(scorer.analyse(paths(*[photo] * 9), reader, together=False), 1):
        assert len(given) <= number + 1  # what the reader opens ahead
    looked: list[int] = []
    scorer.progress = lambda _, done, __: looked.append(done)
    films = scorer.analyse([photo, video, video], reader)
    assert next(films).kind == "image"
    assert sum(looked) <= 1 + 5  # the second film was not begun
    assert [each.kind for each in films] == ["video", "video"]


@pytest.mark.parametrize(("first", "sizes"), [(1, [1, 2, 1]), (2, [2, 2])])
def test_as_many_are_scored_together_at_first_as_the_caller_says(
    photo: Path, reader: MediaReader, monkeypatch: pytest.MonkeyPatch, first: int, sizes: list[int]
) -> None:
    scorer = analyser(member(xception(1.0)))
    score, scored = scorer.scorer.score, []

    def counted(faces: Sequence[FacePatch | None], *, pictures: bool) -> list[FaceResult]:
        scored.append(len(faces))
        return score(faces, pictures=pictures)

    monkeypatch.setattr(scorer.scorer, "score", counted)
    assert len(list(scorer.analyse([photo] * 4, reader, first=first))) == 4
    assert scored == sizes


def test_what_scoring_raises_reaches_the_caller(photo: Path, reader: MediaReader) -> None:
    scorer = analyser(member(xception(1.0)))

    def fails(_: object, **__: object) -> None:
        raise RuntimeError("the networks are gone")

    scorer.scorer.score = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError, match="the networks are gone"):
        list(scorer.analyse([photo, photo], reader))


def models(*members: TrainedNetwork) -> list[dict[str, str]]:
    return [
        {
            "name": each.name,
            "detector": each.detector.name,
            "region": str(each.region),
            "database": each.database,
        }
        for each in members
    ]


def test_a_photo_gets_the_mean_of_its_networks_log_odds(photo: Path, reader: MediaReader) -> None:
    scorer = analyser(member(xception(3.0)), member(dsp_fwa(-1.0), Region.EYES), gates=Gates())
    result = one(scorer, photo, reader)
    assert result.status is Status.OK
    assert result.log_odds == pytest.approx(1.0)
    expected = {("xception", Region.ENTIRE): 3.0, ("dsp-fwa", Region.EYES): -1.0}
    assert result.faces[0].cells == expected
    assert result.top_face is result.faces[0]
    assert result.media["width"] == 200
    assert result.media["sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert result.warnings == ("said of all",)
    assert len(result.strip) == 1


def test_two_people_in_a_video_are_two_tracks_through_all_frames(
    video: Path, reader: MediaReader
) -> None:
    two = Finder(points(centre=60, scale=35), points(centre=150, scale=30))
    result = one(analyser(member(xception(2.0)), find=two), video, reader)
    assert result.frames == 5
    assert [track.faces for track in result.people] == [5, 5]
    assert [face.track for face in result.faces] == [0, 1] * 5
    assert [face.frame for face in result.faces] == [2, 2, 6, 6, 10, 10, 14, 14, 18, 18]
    assert result.sampling["numbers"] == [2, 6, 10, 14, 18]
    assert result.log_odds == pytest.approx(2.0)
    assert [*result.shown] == [0, 1]  # pixels of one face a person, not of each
    assert [place.path for place in two.asked] == [video] * 5


def test_the_picture_is_of_the_frame_with_the_highest_score(
    video: Path, reader: MediaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frame is read again: it must be the right frame, and the right person of it."""
    scorer = analyser(member(xception(2.0)), find=Finder(points()))
    true = scorer.scorer.score
    odds = iter([0.0, 1.0, 7.0, 2.0, 3.0])

    def score(faces, **how):  # type: ignore[no-untyped-def]
        return [replace(each, log_odds=next(odds)) for each in true(faces, **how)]

    monkeypatch.setattr(scorer.scorer, "score", score)
    (face,) = one(scorer, video, reader).shown.values()
    assert (face.frame, face.log_odds) == (10, 7.0)
    assert face.patch is not None
    assert face.patch.image.mean() == pytest.approx(70, abs=3)  # 60 + 10


def test_adaptive_sampling_looks_where_the_score_changes(
    tmp_path: Path, reader: MediaReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "long.mp4", 100, lighter=0)
    start = points()
    find = Finder(by_number=lambda number: [start + np.float32(number / 10)])
    sampling = Sampling("adaptive", count=16)
    scorer = analyser(member(xception(2.0)), sampling=sampling, find=find)
    cut, true = FacePatch.cut, scorer.scorer.score
    late: list[bool] = []  # from the middle on: by then the face has moved by 5 pixels

    def noted(image: Pixels, face: Face) -> FacePatch | None:
        late.append(bool((face.landmarks - start).mean() > 5))
        return cut(image, face)

    def score(faces, **how):  # type: ignore[no-untyped-def]
        return [replace(each, log_odds=4.0 if late.pop(0) else -4.0) for each in true(faces, **how)]

    monkeypatch.setattr(FacePatch, "cut", noted)
    monkeypatch.setattr(scorer.scorer, "score", score)
    result = one(scorer, path, reader)
    numbers = result.sampling["numbers"]
    assert numbers == sorted(set(numbers)) == [face.frame for face in result.faces]
    assert len(numbers) == result.frames == 16
    assert len(result.people) == 1
    near = [number for number in numbers if 44 <= number <= 57]
    assert len(near) >= 5  # of evenly spaced ones, two or three
    before = [face.frame for face in result.faces if face.log_odds == -4.0]
    after = [face.frame for face in result.faces if face.log_odds == 4.0]
    assert min(after) - max(before) <= 2


def test_a_person_seen_in_few_frames_is_a_warning(tmp_path: Path, reader: MediaReader) -> None:
    path = make_video(tmp_path / "long.mp4", 40, lighter=0)
    find = Finder(by_number=lambda number: [points()] if number < 4 else [])
    scorer = analyser(member(xception(2.0)), find=find, sampling=Sampling(count=20))
    result = one(scorer, path, reader)
    assert result.status is Status.OK
    assert any("2 of 20 frames" in each for each in result.warnings)


def test_nobody_there_is_no_score(photo: Path, reader: MediaReader) -> None:
    result = one(analyser(member(xception(3.0)), find=Finder()), photo, reader)
    assert (result.status, result.log_odds, result.top_face) == (Status.NO_FACE, None, None)
    assert len(result.strip) == 1  # what was looked at is shown all the same


def test_times_of_a_file_have_three_places(tmp_path: Path, reader: MediaReader) -> None:
    shades = [Image.new("L", (200, 200), shade) for shade in (40, 120, 240)]
    path = tmp_path / "a.gif"
    shades[0].save(path, save_all=True, append_images=shades[1:], duration=100)
    media = one(analyser(member(xception(3.0)), find=Finder()), path, reader).media
    assert (media["duration"], media["rate"]) == (0.3, 10.0)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (points() + 5000, "no landmarks on the picture"),
        (np.full((68, 2), np.nan, np.float32), "no landmarks on the picture"),
        (np.random.default_rng(0).random((68, 2), np.float32) * 200, "not a face's"),
    ],
)
def test_landmarks_that_are_no_faces_are_no_score(
    found: Points, reason: str, photo: Path, reader: MediaReader
) -> None:
    result = one(analyser(member(xception(3.0)), find=Finder(found)), photo, reader)
    assert (result.status, result.log_odds) == (Status.LOW_QUALITY, None)
    assert reason in result.reason


def test_a_small_face_is_too_small_and_a_blurred_one_is_of_low_quality(
    photo: Path, tmp_path: Path, reader: MediaReader
) -> None:
    tiny = Finder(points(scale=10))
    result = one(analyser(member(xception(3.0)), find=tiny, gates=Gates()), photo, reader)
    assert (result.status, result.log_odds) == (Status.TOO_SMALL, None)
    assert "too small" in result.reason
    flat = tmp_path / "flat.png"
    Image.new("RGB", (200, 200), (120, 110, 100)).save(flat)
    result = one(analyser(member(xception(3.0)), gates=Gates()), flat, reader)
    assert (result.status, result.log_odds) == (Status.LOW_QUALITY, None)
    assert result.faces[0].reasons == ("blurred",)
    assert result.faces[0].quality["sharpness"] == pytest.approx(0, abs=0.1)


def test_a_region_that_is_refused_has_no_say_and_the_rest_has(
    photo: Path, reader: MediaReader
) -> None:
    down = np.float32([0, 75])  # mouth and chin below the picture's border
    find = Finder(points() + down)
    members = (member(xception(3.0), Region.EYES), member(xception(-9.0), Region.MOUTH))
    result = one(analyser(*members, find=find), photo, reader)
    assert result.log_odds == pytest.approx(3.0)
    assert [*result.faces[0].cells.values()] == [3.0, None]
    assert any("no answer on mouth" in each for each in result.warnings)


def test_a_network_without_a_number_is_an_error_not_a_score(
    photo: Path, reader: MediaReader
) -> None:
    result = one(analyser(member(xception(torch.nan))), photo, reader)
    assert (result.status, result.log_odds) == (Status.ERROR, None)
    assert "not finite" in result.reason


def test_without_pictures_none_are_made(video: Path, reader: MediaReader) -> None:
    scorer = analyser(member(xception(2.0)))
    scorer.pictures = False
    result = one(scorer, video, reader)
    assert result.status is Status.OK
    assert (result.shown, result.strip) == ({}, ())


def test_a_region_canvas_needs_no_landmarks(
    photo: Path, tmp_path: Path, reader: MediaReader
) -> None:
    members = (member(xception(4.0), Region.MOUTH), member(dsp_fwa(4.0), Region.MOUTH))
    scorer = analyser(*members)
    black = tmp_path / "black.png"
    Image.new("RGB", (50, 50)).save(black)
    (tmp_path / "broken.png").write_text("x")
    paths = [photo, black, tmp_path / "broken.png"]
    result, empty, broken = scorer.analyse_canvases(paths, Region.MOUTH, reader)
    assert result.kind == "regions"
    assert result.log_odds == pytest.approx(4.0)
    assert result.top_face is not None
    drawn = draw_verdict(result, result.top_face, models(*members))
    assert drawn.width < 500  # the one region that was given, not five
    assert (empty.status, empty.log_odds) == (Status.LOW_QUALITY, None)
    assert "black" in empty.reason
    assert broken.status is Status.UNREADABLE


CUTS = [("masked", "bilinear"), ("tight", "nearest"), ("context", "bilinear")]


@pytest.mark.parametrize(("layout", "resample"), CUTS)
def test_pictures_and_pages_show_the_crops_that_were_scored(
    photo: Path, reader: MediaReader, layout: Layout, resample: Resample
) -> None:
    network = xception(3.0)
    given: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    region = Region.ENTIRE if layout == "context" else Region.EYES
    only = replace(member(network, region), layout=layout, resample=resample)
    other = member(dsp_fwa(-1.0), Region.EYES)
    result = one(analyser(only, other), photo, reader)
    face = result.top_face
    assert face is not None and face.patch is not None
    ((place, seen),) = [each for each in face.patch.crops.items() if "xception" in each[0][1]]
    expected = as_array((given[0][0] * 255).round().to(torch.uint8))
    assert place[0] is region and np.array_equal(seen, expected)

    tile = to_picture(expected, 200)
    drawn = draw_verdict(result, face, models(only, other))
    alone = replace(face, patch=replace(face.patch, crops={place: seen}))
    single = draw_verdict(result, alone, models(only))
    for shown in (drawn, single):
        width, height = shown.size
        places = [(x, y) for x in range(130, width - 200, 212) for y in range(height - 200)]
        cut = (shown.crop((x, y, x + 200, y + 200)).tobytes() for x, y in places)
        assert tile.tobytes() in cut
    hostile = replace(result, input="x" * 150 + "\n\x1b" + "x" * 150 + ".jpg")
    assert draw_verdict(hostile, alone, models(only)).size == single.size
    assert data_uri(to_picture(expected)) in render_page(result)  # pixel by pixel


@pytest.mark.parametrize("count", [0, 1, STRIP, STRIP + 1, 2 * STRIP, 1000])
def test_a_strip_is_even_and_short_however_many_frames_there_were(count: int) -> None:
    strip = Strip()
    for number in range(count):
        strip.add(number, number / 10, np.zeros((6, 8, 3), np.uint8))
    numbers = [each.frame for each in strip.thumbnails()]
    assert min(count, STRIP // 2) <= len(numbers) <= min(count, STRIP)
    assert numbers == sorted(set(numbers))
    if count > 2 * STRIP:
        steps = np.diff(numbers)
        assert steps.max() <= 2 * steps.min()
        assert numbers[0] == 0 and numbers[-1] > 0.9 * count


def test_a_thumbnail_is_the_frame_made_small() -> None:
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, 640:, 0] = 255
    strip = Strip()
    strip.add(7, 0.5, image)
    (shown,) = strip.thumbnails()
    small = np.asarray(Image.open(io.BytesIO(shown.jpeg)))
    assert small.shape[1::-1] == shown.size == (THUMBNAIL, 180)
    assert shown.scale == pytest.approx(0.25)
    assert small[90, 10, 0] < 20 and small[90, 310, 0] > 235
