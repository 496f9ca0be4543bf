import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregions.errors import UsageError
from deepregions.fusion.pooling import Pooling

SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(SCORES, st.floats(0.01, 1))
def test_each_rule_is_numpys(scores: list[float], share: float) -> None:
    assert Pooling("mean").over_faces(scores) == pytest.approx(np.mean(scores))
    assert Pooling("median").over_faces(scores) == pytest.approx(np.median(scores))
    kept = max(1, math.ceil(share * len(scores) - 1e-9))
    highest = np.sort(scores)[-kept:]
    assert Pooling("top", share).over_faces(scores) == pytest.approx(np.mean(highest))


def test_a_file_is_its_highest_person_its_main_one_or_the_mean() -> None:
    tracks = [(3, -1.0), (1, 4.0), (9, None), (3, 2.0)]
    assert Pooling(tracks="highest").over_tracks(tracks) == 4.0
    assert Pooling(tracks="main").over_tracks(tracks) == -1.0
    assert Pooling(tracks="mean").over_tracks(tracks) == pytest.approx(5 / 3)
    assert Pooling(tracks="highest").over_tracks([(1, -5.0), (1, -2.0)]) == -2.0


@pytest.mark.parametrize("rule", ["highest", "main", "mean"])
def test_nothing_scored_is_no_score(rule: str) -> None:
    assert Pooling(tracks=rule).over_tracks([(4, None)]) is None
    assert Pooling(tracks=rule).over_tracks([]) is None
    assert Pooling().over_faces([]) is None


@pytest.mark.parametrize(
    "wrong", [{"frames": "max"}, {"tracks": "first"}, {"top_share": 0.0}, {"top_share": math.nan}]
)
def test_there_are_no_other_rules(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Pooling(**wrong)
