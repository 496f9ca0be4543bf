"""Thresholds for rates of false alarms."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from deepregions.evaluation.operating_points import (
    find_operating_points,
    rate_interval,
)
from deepregions.fusion.trials import Trials


def trials(genuine: list[float], fakes: list[float]) -> Trials:
    log_odds = np.array([*genuine, *fakes])
    fake = np.arange(len(log_odds)) >= len(genuine)
    method = np.where(fake, "swap", "original")
    return Trials("system", log_odds, fake, method, np.arange(len(log_odds)))


scores = st.lists(st.floats(-20, 20), min_size=1, max_size=300)


@given(scores, scores, st.floats(0.001, 0.5))
def test_false_alarms_stay_within_the_rate_and_no_lower_threshold_does(genuine, fakes, rate):
    (point,) = find_operating_points(trials(genuine, fakes), "frame", "made up", (rate,))
    found = np.mean(np.array(genuine) >= point.threshold)
    assert found == point.false_positive_rate <= rate + 1e-9
    assert point.true_positive_rate == np.mean(np.array(fakes) >= point.threshold)
    lower = np.nextafter(point.threshold, -np.inf)
    assert np.mean(np.array(genuine) >= lower) > rate or len(genuine) == 1


def test_the_default_rates_and_whom_they_rest_on():
    points = find_operating_points(trials(list(np.arange(1000.0)), [2000.0]), "video", "made up")
    assert [p.name for p in points] == [f"{x} % false alarms" for x in ("0.1", "1", "5")]
    assert [p.false_positive_rate for p in points] == [0.001, 0.01, 0.05]
    assert {(p.people, p.level, p.true_positive_rate) for p in points} == {(1000, "video", 1.0)}


def test_trials_without_a_score_and_parts_without_genuine_ones_give_none():
    assert find_operating_points(trials([np.nan], [1.0]), "frame", "made up") == ()
    assert find_operating_points(trials([0.0, np.nan], []), "frame", "x")[0].people == 1


@pytest.mark.parametrize(("hits", "people"), [(0, 217), (3, 217), (217, 217), (1, 20)])
def test_the_interval_is_clopper_and_pearsons(hits, people):
    exact = binomtest(hits, people).proportion_ci(method="exact")
    assert rate_interval(hits / people, people) == pytest.approx((exact.low, exact.high))


def test_few_people_give_no_interval():
    assert rate_interval(0.0, 19) is None
    (point,) = find_operating_points(trials([0.0] * 19, [1.0]), "video", "made up", (0.01,))
    assert point.false_positive_interval is None
    claimed = {"false_positive_interval": (0.0, 0.1), "people": 19}  # as a stranger's bundle may
    assert replace(point, **claimed).false_positive_interval is None
    assert replace(point, **claimed | {"people": 20}).false_positive_interval == (0.0, 0.1)
