import json
import math
from dataclasses import replace

import pytest
import torch
from detect_json import FACTS, validate_detect
from hypothesis import given
from hypothesis import strategies as st

from deepregions.fusion.pooling import Pooling, probability
from deepregions.pipeline.results import FaceResult, summarise_input
from deepregions.pipeline.warnings import warnings_of
from deepregions.types import Region, Status


def face(
    track: int, log_odds: float | None, *, frame: int = 0, cell: float | None = 0.0
) -> FaceResult:
    status = Status.TOO_SMALL if log_odds is None else Status.OK
    box, cells = (0.0, 0.0, 9.0, 9.0), {("xception", Region.EYES): cell}
    return FaceResult(frame, frame / 2, track, box, status, log_odds, cells)


@given(st.floats(-1e300, 1e300))
def test_probability_is_the_logistic_function(log_odds: float) -> None:
    expected = torch.sigmoid(torch.tensor(log_odds, dtype=torch.float64)).item()
    assert probability(log_odds) == pytest.approx(expected, abs=1e-15)


def test_a_track_is_the_mean_of_its_faces_and_the_input_is_its_highest_track() -> None:
    faces = (face(0, 1.0), face(1, -3.0), face(0, 2.0, frame=1), face(1, None, frame=1))
    result = summarise_input("x.mp4", "video", 2, faces)
    assert [track.log_odds for track in result.people] == [1.5, -3.0]
    assert result.log_odds == 1.5
    assert result.top_person is result.people[0]
    assert (result.people[0].start, result.people[0].end) == (0.0, 0.5)
    result = summarise_input("x.jpg", "image", 1, (face(0, -5.0), face(1, -2.0)))
    assert result.log_odds == -2.0
    assert result.top_person is not None
    assert result.top_person.track == 1


def test_warnings_are_about_the_person_whose_score_it_is() -> None:
    faces = (face(0, 3.0), *(face(1, -1.0, frame=n) for n in range(1, 10)))
    seldom, often = (
        summarise_input("x.mp4", "video", 10, faces, Pooling(tracks=rule))
        for rule in ("highest", "main")
    )
    assert seldom.source is seldom.people[0] and often.source is often.people[1]
    assert ["rests on 1 of 10" in " ".join(warnings_of(r)) for r in (seldom, often)] == [
        True,
        False,
    ]


def test_frames_that_disagree_are_told() -> None:
    def told(kind: str, *scores: float | None) -> list[str]:
        faces = tuple(face(0, score, frame=number) for number, score in enumerate(scores))
        warnings = warnings_of(summarise_input("x", kind, len(faces), faces))
        return [each for each in warnings if "by themselves" in each]

    (said,) = told("video", *[5.0] * 3, *[-4.0] * 9, None)
    assert said.startswith("3 of 12 frames look fake by themselves, and 9 genuine")
    assert not told("image", *[5.0] * 3, *[-4.0] * 9)
    assert not told("video", *[5.0] * 2, *[-4.0] * 3)  # hardly seen
    assert not told("video", *[5.0] * 3, *[-4.0] * 20)  # outliers
    assert not told("video", *[2.0] * 6, *[-4.0] * 6)  # not clear by themselves


@pytest.mark.parametrize(
    ("faces", "status"), [((), Status.NO_FACE), ((face(0, None),), Status.TOO_SMALL)]
)
def test_without_a_face_to_judge_there_is_no_score(
    faces: tuple[FaceResult, ...], status: Status
) -> None:
    result = summarise_input("x.jpg", "image", 1, faces)
    assert result.status == status
    assert result.log_odds is None
    assert result.reason
    written = replace(result, facts=FACTS).to_dict()
    validate_detect(written)
    assert written["score"] is None
    assert written["log_odds"] is None


def test_a_cells_mean_leaves_out_frames_without_an_answer() -> None:
    faces = (face(0, 1.0, cell=4.0), face(0, 1.0, frame=1, cell=None))
    (track,) = summarise_input("x.mp4", "video", 2, faces).people
    assert [*track.cells.values()] == [4.0]
    (track,) = summarise_input("x.mp4", "video", 1, faces[1:]).people
    assert [*track.cells.values()] == [None]


def test_json_says_one_is_fake_and_survives_a_round_trip() -> None:
    result = summarise_input("a \n'\"<b>.jpg", "image", 1, (face(0, math.log(9)),))
    written = json.loads(json.dumps(replace(result, facts=FACTS).to_dict(), allow_nan=False))
    validate_detect(written)
    assert written["score"] == 0.9
    assert written["faces"][0]["score"] == 0.9
    assert written["input"] == "a \n'\"<b>.jpg"
    assert written["schema"] == "deepregions.detect"
    assert written["fusion"] == FACTS["fusion"]
