"""Tracks: who is who, whatever order faces come in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepregions.faces.landmarks import Face
from deepregions.faces.tracks import iou, link


def face(x: float, y: float, size: float = 100.0) -> Face:
    box = torch.tensor([x, y, x + size, y + size])
    return Face(box, torch.zeros(68, 2), 0.9)


def test_people_keep_their_number_whatever_their_order() -> None:
    left = [face(10 + 5 * t, 50) for t in range(6)]
    right = [face(400 - 5 * t, 60) for t in range(6)]
    frames = [[a, b] if t % 2 else [b, a] for t, (a, b) in enumerate(zip(left, right, strict=True))]
    assert link(frames) == [[1, 0] if t % 2 else [0, 1] for t in range(6)]


def test_a_close_pair_is_assigned_as_a_whole() -> None:
    # Greedy linking would give the second face of frame 1 to track 0 and leave the first alone.
    assert link([[face(0, 0), face(60, 0)], [face(40, 0), face(100, 0)]]) == [[0, 1], [0, 1]]


def test_gaps_shorter_than_the_limit_are_bridged() -> None:
    here = [face(50, 50)]
    assert link([here, [], [], [], here]) == [[0], [], [], [], [0]]
    assert link([here, [], [], [], [], here]) == [[0], [], [], [], [], [1]]
    assert link([here, [], here], max_gap=0) == [[0], [], [1]]


def test_no_overlap_begins_a_track_and_empty_input_is_fine() -> None:
    assert link([[face(0, 0)], [face(300, 0)]]) == [[0], [1]]
    assert link([]) == []
    assert link([[], []]) == [[], []]
    assert link([[face(float("nan"), 0)], [face(float("nan"), 0)]]) == [[0], [1]]


coordinates = st.floats(-50, 500, width=32)
boxes = st.builds(face, coordinates, coordinates, st.floats(0, 200, width=32))


@given(st.lists(st.lists(boxes, max_size=5), max_size=8))
def test_numbers_are_unique_in_a_frame_and_in_order_of_appearance(frames: list[list[Face]]) -> None:
    tracks = link(frames)
    assert [len(own) for own in tracks] == [len(own) for own in frames]
    assert all(len(set(own)) == len(own) for own in tracks)
    first_seen = list(dict.fromkeys(number for own in tracks for number in own))
    assert first_seen == sorted(first_seen) == list(range(len(first_seen)))


@given(st.lists(boxes, min_size=1, max_size=5), st.lists(boxes, min_size=1, max_size=5))
def test_iou_is_that_of_torchvision(first: list[Face], second: list[Face]) -> None:
    from torchvision.ops import box_iou

    one, two = (torch.stack([f.box for f in faces]).double() for faces in (first, second))
    expected = torch.nan_to_num(box_iou(one, two), nan=0.0).numpy()
    np.testing.assert_allclose(iou(one.numpy(), two.numpy()), expected, atol=1e-9)


@pytest.mark.parametrize("clip", ["youtube/c23/videos/519.mp4", "youtube/c23/videos/004.mp4"])
def test_one_person_is_one_track(shared: Path, monkeypatch: pytest.MonkeyPatch, clip: str) -> None:
    from deepregions.faces.landmarks import landmark_detector
    from deepregions.media import frames

    monkeypatch.setenv("DEEPREGIONS_CACHE", str(shared / "weights"))
    detector = landmark_detector("dlib")
    sampled = list(frames(shared / "videos/ffpp/original_sequences" / clip, 12))
    assert all(a.time < b.time for a, b in pairwise(sampled))
    faces = detector(torch.stack([frame.image for frame in sampled]))
    assert link(faces) == [[0]] * 12
