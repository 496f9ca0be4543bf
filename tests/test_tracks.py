"""Tracks: who is who, whatever order faces come in."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from decoding import frames
from faces import link
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from test_pose import seen

from deepregions.faces.appearance import appearance
from deepregions.faces.landmarks import Face
from deepregions.faces.shots import ShotDetector
from deepregions.faces.tracks import Tracker, pair
from deepregions.media import Frame


def face(x: float, y: float, size: float = 100.0) -> Face:
    box = np.array([x, y, x + size, y + size], np.float32)
    return Face(box, np.zeros((68, 2), np.float32), 0.9)


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(-2, 4) | st.sampled_from([0.0, 1.0, np.nan]),
    )
)
def test_pairs_have_the_greatest_sum_of_scores(scores: Any) -> None:
    pairs = pair(scores)
    assert len(set(pairs.values())) == len(pairs)
    assert all(scores[place] > 0 for place in pairs.items())
    worth = np.where(scores > 0, scores, 0.0)
    best = worth[linear_sum_assignment(worth, maximize=True)].sum()
    assert sum(scores[place] for place in pairs.items()) == pytest.approx(best)


def test_a_close_pair_is_assigned_as_a_whole() -> None:
    # Greedy linking would give the second face of frame 1 to track 0 and leave the first alone.
    assert link([[face(0, 0), face(60, 0)], [face(40, 0), face(100, 0)]]) == [[0, 1], [0, 1]]


def test_no_overlap_begins_a_track_and_empty_input_is_fine() -> None:
    assert link([[face(0, 0)], [face(300, 0)]]) == [[0], [1]]
    assert link([]) == []
    assert link([[], []]) == [[], []]
    assert link([[face(float("nan"), 0)], [face(float("nan"), 0)]]) == [[0], [1]]


# People who move: positions in face widths of 100 pixels, landmarks as the mean face turned.


def person(x: float, y: float = 200, yaw: float = 0, size: float = 100) -> Face:
    points = seen(yaw, 0, 0, size)[0].numpy() - np.float32([300, 200]) + np.float32([x, y])
    return Face(np.concatenate([points.min(0), points.max(0)]), points, 0.9)


def looks(kind: int, seed: int = 0) -> np.ndarray:
    """A histogram of one of several people, with the noise that one person's has."""
    histogram = np.random.default_rng(1000 * kind).random(72, np.float32) ** 4
    noise = np.random.default_rng(1000 * kind + seed + 1).random(72, np.float32)
    histogram *= 0.7 + 0.6 * noise
    return np.sqrt(histogram / histogram.sum())


def test_one_is_hidden_while_they_pass() -> None:
    tracker = Tracker()
    for t in range(14):
        both = [person(100 + 30 * t, yaw=30), person(500 - 30 * t, 210, yaw=-30)]
        hidden = 5 <= t <= 7
        assert tracker.update(both[:1] if hidden else both, 0.3 * t) == ([0] if hidden else [0, 1])


@pytest.mark.parametrize("gap", [0.3, 5.0])
def test_one_leaves_while_another_enters(gap: float) -> None:
    tracker = Tracker()
    assert tracker.update([person(100), person(400)], 0.0) == [0, 1]
    assert tracker.update([person(105), person(405)], gap) == [0, 1]
    assert tracker.update([person(408), person(700)], 2 * gap) == [1, 2]
    assert tracker.update([person(695), person(410)], 3 * gap) == [2, 1]


def test_another_person_in_the_same_place_is_another_track() -> None:
    """A cut that was not seen, or one who sits down where the other was."""
    tracker = Tracker()
    assert tracker.update([person(200)], 0.0, descriptors=[looks(0, 1)]) == [0]
    assert tracker.update([person(230)], 3.0, descriptors=[looks(0, 2)]) == [0]
    assert tracker.update([person(245)], 6.0, descriptors=[looks(1, 1)]) == [1]
    assert tracker.update([person(220)], 9.0, descriptors=[looks(0, 3)]) == [0], "and back"


def test_people_who_change_sides_between_frames_are_told_by_their_looks() -> None:
    left, right = person(150), person(420)
    tracker = Tracker()
    assert tracker.update([left, right], 0.0, descriptors=[looks(0, 1), looks(1, 1)]) == [0, 1]
    assert tracker.update([left, right], 4.0, descriptors=[looks(0, 2), looks(1, 2)]) == [0, 1]
    assert tracker.update([left, right], 8.0, descriptors=[looks(1, 3), looks(0, 3)]) == [1, 0]
    assert tracker.update([right, left], 12.0, descriptors=[looks(0, 4), looks(1, 4)]) == [0, 1]


@pytest.mark.parametrize("gap", [0.04, 0.3, 5.0])
def test_a_person_who_sways_and_turns_is_one(gap: float) -> None:
    tracker = Tracker()
    for t in range(12):
        there = person(
            200 + (40 if gap > 0.1 else 5) * (t % 2), yaw=(30 if gap > 1 else 5) * (t % 3 - 1)
        )
        assert tracker.update([there], gap * t) == [0]


def test_a_cut_ends_every_track() -> None:
    tracker = Tracker()
    assert tracker.update([person(100), person(400)], 0.0) == [0, 1]
    assert tracker.update([person(100), person(400)], 0.3, cut=True) == [2, 3]
    assert tracker.update([], 0.6, cut=True) == []
    assert tracker.update([person(100)], 0.9) == [4]
    frames = [[person(100)]] * 6
    assert link(frames, cuts=[2, 5]) == [[0], [0], [1], [1], [1], [2]]


def test_dense_frames_bridge_seconds_and_sparse_ones_frames() -> None:
    here = [person(100)]
    for gap, empty in ((0.04, 24), (10.0, 3)):
        times = [gap * t for t in range(empty + 2)]
        assert link([here, *([[]] * empty), here], times)[-1] == [0]
    assert link([here, *([[]] * 40), here], [0.04 * t for t in range(42)])[-1] == [1]


def somebody(seed: int) -> Face:
    """Not from Hypothesis's own numbers, which are so round that two assignments may be as good."""
    rng = Random(seed)
    x, y, yaw, size = (rng.uniform(*ends) for ends in ((0, 600), (0, 400), (-60, 60), (30, 200)))
    return person(x, y, yaw, size)


faces = st.integers(0, 10**6).map(somebody)
gaps = st.floats(0.04, 8)
frames_of_faces = st.lists(
    st.tuples(
        st.lists(
            st.tuples(faces, st.integers(0, 4)),
            max_size=5,
            unique_by=lambda one: float(one[0].box[0]),
        ),
        gaps,
        st.booleans(),
    ),
    max_size=7,
)


@settings(max_examples=60)
@given(frames_of_faces, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_faces_does_not_matter(
    frames: list[tuple[list[tuple[Face, int]], float, bool]], random: Random, with_looks: bool
) -> None:
    one, other = Tracker(), Tracker()
    same: dict[int, int] = {}
    time = 0.0
    for found, gap, cut in frames:
        time += gap
        order = random.sample(range(len(found)), len(found))
        seen_by = []
        for tracker, own in ((one, found), (other, [found[i] for i in order])):
            shown = [looks(kind, 1) for _, kind in own]
            seen_by.append(
                tracker.update(
                    [f for f, _ in own], time, cut=cut, descriptors=shown if with_looks else None
                )
            )
        for place, index in enumerate(order):
            first, second = seen_by[0][index], seen_by[1][place]
            assert same.setdefault(first, second) == second
    assert len(set(same.values())) == len(same)


@settings(max_examples=60)
@given(frames_of_faces)
def test_a_track_has_one_face_a_frame_and_none_on_both_sides_of_a_cut(
    frames: list[tuple[list[tuple[Face, int]], float, bool]],
) -> None:
    tracker = Tracker()
    before: set[int] = set()
    time, highest = 0.0, -1
    for found, gap, cut in frames:
        time += gap
        numbers = tracker.update([f for f, _ in found], time, cut=cut)
        assert len(set(numbers)) == len(numbers) == len(found)
        new = sorted(number for number in numbers if number not in before)
        if cut:
            assert len(new) == len(numbers)
        assert new == list(range(highest + 1, highest + 1 + len(new)))
        highest += len(new)
        before |= set(numbers)


@pytest.fixture(scope="module")
def clips(shared: Path, detector: Any) -> dict[str, tuple[list[Frame], list[list[Face]]]]:
    found = {}
    for path in sorted((shared / "videos").rglob("*.mp4")):
        sampled = list(frames(path, 12))
        assert all(a.time < b.time for a, b in pairwise(sampled))
        found[path.stem] = sampled, detector([frame.image for frame in sampled])
    return found


def test_one_person_is_one_track(clips: dict[str, tuple[list[Frame], list[list[Face]]]]) -> None:
    for sampled, found in clips.values():
        times = [frame.time for frame in sampled]
        shown = [
            [appearance(frame.image, one) for one in own]
            for frame, own in zip(sampled, found, strict=True)
        ]
        for every in (1, 3):  # 1 to 2.5 s and 3 to 7.5 s between frames
            for known in (None, shown[::every]):
                assert link(found[::every], times[::every], looks=known) == [[0]] * (12 // every)


def test_clips_one_after_the_other_are_two_people(
    clips: dict[str, tuple[list[Frame], list[list[Face]]]],
) -> None:
    """With the cut known, and also where only looks and places tell."""
    names = ("004", "519", "brtujopkby")
    for first, second in permutations(names, 2):
        (one, early), (other, late) = clips[first], clips[second]
        images = [frame.image for frame in (*one, *other)]
        found = [*early, *late]
        shots = ShotDetector()
        cuts = [number for number, image in enumerate(images) if shots(image)]
        assert cuts == [12]
        assert link(found, cuts=cuts) == [[0]] * 12 + [[1]] * 12
        shown = [
            [appearance(image, face) for face in own]
            for image, own in zip(images, found, strict=True)
        ]
        assert link(found, looks=shown) == [[0]] * 12 + [[1]] * 12
