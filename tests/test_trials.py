"""Faces become trials: by the rules of detect, grouped by who is in them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_tables import face, make_table, make_trials

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.measures import Sample
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import Origin, ScoreTable
from deepregions.fusion.trials import (
    development_threshold,
    groups_of,
    trials_of,
)
from deepregions.types import Region

NAN = math.nan


def table(*faces: dict[str, Any]) -> ScoreTable:
    return make_table(Origin("db"), ("xception",), (Region.ENTIRE,), faces)


def logits(of: ScoreTable) -> Any:
    return of.log_odds[:, 0, 0]


faces = st.lists(
    st.tuples(
        st.integers(0, 2),  # video
        st.integers(0, 1),  # track
        st.one_of(st.just(NAN), st.integers(-9, 9).map(float)),
        st.booleans(),  # fake
    ),
    min_size=1,
    max_size=40,
)
rules = st.builds(
    Pooling,
    st.sampled_from(["mean", "median", "top"]),
    st.floats(0.05, 1),
    st.sampled_from(["highest", "main", "mean"]),
)


def track_score(rule: Pooling, values: list[float]) -> float:
    if rule.frames == "median":
        return float(np.median(values))
    share = rule.share if rule.frames == "top" else 1.0
    return float(np.mean(sorted(values)[-max(1, math.ceil(share * len(values) - 1e-9)) :]))


def video_score(rule: Pooling, tracks: list[tuple[int, float]]) -> float:
    scores = [score for _, score in tracks]
    if rule.tracks == "main":
        return scores[int(np.argmax([count for count, _ in tracks]))]
    return max(scores) if rule.tracks == "highest" else float(np.mean(scores))


@given(faces, rules)
def test_videos_are_scored_as_detect_does(drawn, rule):
    of = table(
        *(
            face(f"v{v}", x, track=t, label=int(fake), method="swap" if fake else "original")
            for v, t, x, fake in drawn
        )
    )
    trials = trials_of(of, logits(of), pooling=rule)
    videos = list(dict.fromkeys(v for v, *_ in drawn))
    assert len(trials) == len(videos)
    for number, video in enumerate(videos):
        own = [d for d in drawn if d[0] == video]
        tracks = []
        for track in sorted({t for _, t, *_ in own}):
            values = [x for _, t, x, _ in own if t == track and not math.isnan(x)]
            if values:
                tracks.append((len(values), track_score(rule, values)))
            assert rule.over_faces(values) == (pytest.approx(tracks[-1][1]) if values else None)
        expected = video_score(rule, tracks) if tracks else NAN
        assert trials.log_odds[number] == pytest.approx(expected, nan_ok=True)
        assert rule.over_tracks(tracks) == (pytest.approx(expected) if tracks else None)
        assert trials.fake[number] == any(d[3] for d in own)
        assert trials.method[number] == ("swap" if trials.fake[number] else "original")


@pytest.mark.parametrize(
    "wrong", [{"frames": "max"}, {"tracks": "first"}, {"share": 0.0}, {"share": NAN}]
)
def test_there_are_no_other_rules(wrong):
    with pytest.raises(UsageError):
        Pooling(**wrong)
    assert Pooling().over_tracks([(4, None)]) is None


def test_a_missing_verdict_stays_and_is_counted():
    of = table(
        face("a", 1.0, label=1, method="swap"),
        face("a", 3.0, label=1, method="swap", status="low_quality"),
        face("b", NAN, label=1, method="warp", status="no_face", track=-1),
        face("c", -1.0),
    )
    frames, videos = trials_of(of, logits(of), "frame"), trials_of(of, logits(of))
    assert frames.coverage == 0.5
    assert frames.judged.tolist() == [True, False, False, True]
    assert videos.coverage == pytest.approx(2 / 3)
    assert videos.log_odds[0] == 1.0  # the face of low quality has no say
    assert videos.methods == ("swap", "warp")
    assert len(Sample.of(videos).log_odds) == 2
    assert videos.absent() == ""


def test_people_who_hang_together_are_one_group():
    of = table(
        face("a", identities=("anna",)),
        face("b", identities=("bert",)),
        face("c", identities=("carl",)),
        face("d", identities=("carl", "anna"), label=1, method="swap"),
        face("e"),
        face("f"),
        face("e", identities=("",)),
        face("g", identities=("zoe",)),
        face("h", identities=("yan",)),
        face("h", identities=("zoe",), track=1),
    )
    frames = trials_of(of, logits(of), "frame")
    assert frames.group.tolist() == [0, 1, 0, 0, 2, 3, 2, 4, 4, 4]
    videos = trials_of(of, logits(of))
    assert videos.group.tolist() == [0, 1, 0, 0, 2, 3, 4, 4]


def test_nobody_known_connects_nothing_and_a_name_is_no_video():
    of = table(
        *(face("a", identities=("",)), face("b", identities=("",)), face("c"), face("vc")),
        *(face("d", identities=("c",)), face("e", identities=("vc",))),
    )
    assert groups_of(of).group.tolist() == [0, 1, 2, 3, 4, 5]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_groups_share_nobody_and_do_not_depend_on_order(pairs):
    names = [(f"v{n}", tuple(map(str, pair))) for n, pair in enumerate(pairs)]
    group = groups_of(table(*(face(v, identities=who) for v, who in names))).group
    back = groups_of(table(*(face(v, identities=who) for v, who in names[::-1]))).group[::-1]
    for i, (_, one) in enumerate(names):
        for j, (_, other) in enumerate(names):
            assert not set(one) & set(other) or group[i] == group[j]
            assert (group[i] == group[j]) == (back[i] == back[j])


def test_no_faces_are_no_trials():
    of = table(face("a")).select(np.zeros(1, dtype=bool))
    for trials in (trials_of(of, logits(of), "frame"), trials_of(of, logits(of))):
        assert len(trials) == 0
        assert math.isnan(trials.coverage)
        assert trials.absent() == "nothing to judge"


def test_columns_of_other_lengths_and_infinite_scores_are_refused():
    of = table(face("a"), face("b"))
    with pytest.raises(UsageError, match="one of each face"):
        trials_of(of, logits(of)[:1], "frame")
    with pytest.raises(UsageError, match="infinite"):
        trials_of(of, np.array([np.inf, 0.0]), "frame")
    good = trials_of(of, logits(of), "frame")
    with pytest.raises(UsageError, match="different lengths"):
        replace(good, group=good.group[:1])


@pytest.mark.parametrize(
    ("values", "fake", "reason"),
    [
        ([], [], "nothing to judge"),
        ([NAN, NAN], [True, False], "no verdict"),
        ([1.0, NAN], [False, True], "no fake"),
        ([1.0, NAN], [True, False], "nothing genuine"),
    ],
)
def test_what_is_absent_is_said(values, fake, reason):
    trials = make_trials(values, fake, "sys")
    assert reason in trials.absent()
    with pytest.raises(UndefinedMetricError, match=f"sys: .*{reason}") as caught:
        development_threshold(trials)
    assert caught.value.exit_code == 4


def test_the_threshold_is_that_of_equal_errors():
    of = table(
        *(face(f"g{n}", -1.0 + n) for n in range(3)),
        *(face(f"f{n}", 1.5 + n, label=1, method="swap") for n in range(3)),
        face("none", NAN),
    )
    assert development_threshold(trials_of(of, logits(of), "frame")) == 1.5


def test_people_are_those_of_a_video_however_many():
    of = table(
        face("v0", identities=("a",)),
        face("v1", identities=("a", "b")),
        face("v2", identities=()),
        face("v0", identities=("c",)),
        face("v3", identities=("b", "b")),
    )
    people = groups_of(of).people
    assert people.shape == (5, 2)
    names = [frozenset(row[row >= 0].tolist()) for row in people]
    assert names[0] == names[3]  # one video shows both
    assert [len(each) for each in names] == [2, 2, 1, 2, 1]
    assert len(names[0] & names[1]) == 1
    assert names[4] < names[1]
    assert not names[2] & (names[0] | names[1])
    trials = trials_of(of, np.zeros(5))
    assert trials.people is not None
    assert len(trials.people) == 4
    assert trials.select(np.array([2, 0])).people.tolist() == trials.people[[2, 0]].tolist()
