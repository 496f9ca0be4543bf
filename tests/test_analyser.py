from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from networks import dsp_fwa, landmarks, member, picture, xception
from PIL import Image
from torch import Tensor

from deepregions.analysis.analyser import Analyser
from deepregions.analysis.picture import draw_verdict
from deepregions.faces.landmarks import Face
from deepregions.system import Member, System
from deepregions.types import Region, Status


class Finder:
    """Finds the faces that a test says are there."""

    name, version = "made", "1"

    def __init__(self, *faces: Tensor) -> None:
        self.faces = faces

    def __call__(self, frames: Tensor) -> list[list[Face]]:
        found = [
            Face(torch.cat([points.amin(0), points.amax(0)]), points, 1.0) for points in self.faces
        ]
        return [found for _ in frames]


def analyser(*members: Member, find: Finder | None = None) -> Analyser:
    found = find or Finder(landmarks()[0])
    return Analyser(
        System(members), found, device=torch.device("cpu"), frames_per_video=5, batch_size=2
    )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture().permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 200
        for number in range(20):
            pixels = np.full((200, 200, 3), 10 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def test_a_photo_gets_the_mean_of_its_networks_log_odds(photo: Path) -> None:
    scorer = analyser(member(xception(3.0)), member(dsp_fwa(-1.0), Region.EYES))
    analysis = scorer.analyse(photo)
    assert analysis.result.status is Status.OK
    assert analysis.result.log_odds == pytest.approx(1.0)
    cells = {(c.detector, str(c.region)): c.log_odds for c in analysis.result.faces[0].cells}
    assert cells == {("xception", "entire"): 3.0, ("dsp-fwa", "eyes"): -1.0}
    assert analysis.top is not None


def test_two_people_in_a_video_are_two_tracks_through_all_frames(video: Path) -> None:
    two = Finder(landmarks(centre=60, scale=35)[0], landmarks(centre=150, scale=30)[0])
    result = analyser(member(xception(2.0)), find=two).analyse(video).result
    assert result.frames == 5
    assert [track.faces for track in result.tracks] == [5, 5]
    assert [face.track for face in result.faces] == [0, 1] * 5
    assert result.log_odds == pytest.approx(2.0)


def test_nobody_there_is_no_score(photo: Path) -> None:
    analysis = analyser(member(xception(3.0)), find=Finder()).analyse(photo)
    assert (analysis.result.status, analysis.result.log_odds) == (Status.NO_FACE, None)
    assert analysis.top is None


def test_a_face_off_the_picture_is_no_score(photo: Path) -> None:
    away = Finder(landmarks()[0] + 5000)
    result = analyser(member(xception(3.0)), find=away).analyse(photo).result
    assert result.log_odds is None
    assert result.status is Status.LOW_QUALITY


def test_landmarks_that_are_no_numbers_are_no_score(photo: Path) -> None:
    lost = Finder(torch.full((68, 2), torch.nan))
    result = analyser(member(xception(3.0)), find=lost).analyse(photo).result
    assert result.log_odds is None


def models(*members: Member) -> list[dict[str, str]]:
    return [
        {
            "name": each.name,
            "detector": each.detector.name,
            "region": str(each.region),
            "database": each.database,
        }
        for each in members
    ]


def test_a_network_without_a_number_is_an_error_not_a_score(photo: Path) -> None:
    result = analyser(member(xception(torch.nan))).analyse(photo).result
    assert (result.status, result.log_odds) == (Status.ERROR, None)
    assert "not finite" in result.message


def test_a_file_that_cannot_be_read_is_a_status(tmp_path: Path) -> None:
    for name in ("broken.jpg", "broken.mp4"):
        (tmp_path / name).write_bytes(b"not what it says")
        result = analyser(member(xception(3.0))).analyse(tmp_path / name).result
        assert result.status in {Status.UNREADABLE, Status.UNSUPPORTED}
        assert result.log_odds is None
        assert name in result.message


def test_a_region_canvas_needs_no_landmarks(photo: Path) -> None:
    members = (member(xception(4.0), Region.MOUTH), member(dsp_fwa(4.0), Region.MOUTH))
    scorer = Analyser(System(members), None, device=torch.device("cpu"))
    analysis = scorer.analyse_canvas(photo, Region.MOUTH)
    assert analysis.result.kind == "regions"
    assert analysis.result.log_odds == pytest.approx(4.0)
    assert analysis.top is not None
    drawn = draw_verdict(analysis.result, analysis.top, models(*members))
    assert drawn.width < 400  # the one region that was given, not five


def test_the_picture_shows_the_five_regions(photo: Path) -> None:
    members = (member(xception(3.0)), member(dsp_fwa(-1.0), Region.EYES))
    analysis = analyser(*members).analyse(photo)
    assert analysis.top is not None
    drawn = draw_verdict(analysis.result, analysis.top, models(*members))
    assert drawn.width > 5 * 200
    colours = drawn.getcolors(drawn.width * drawn.height)
    assert colours is not None
    assert {(38, 139, 87), (200, 50, 60)} <= {colour for _, colour in colours}  # -1 and 3


@pytest.mark.parametrize(("log_odds", "colour"), [(3.0, (200, 50, 60)), (-3.0, (38, 139, 87))])
def test_one_network_is_shown_as_the_papers_program_does(
    photo: Path, log_odds: float, colour: tuple[int, int, int]
) -> None:
    only = member(xception(log_odds), Region.EYES, "celebdf")
    analysis = analyser(only).analyse(photo)
    assert analysis.top is not None
    drawn = draw_verdict(analysis.result, analysis.top, models(only))
    assert drawn.width < 500 < drawn.height
    colours = {each for _, each in drawn.getcolors(drawn.width * drawn.height) or []}
    assert colour in colours and len(colours) > 500  # a score, and a photograph
    again = replace(analysis.result, input="x" * 300 + ".jpg")
    assert draw_verdict(again, analysis.top, models(only)).size == drawn.size
