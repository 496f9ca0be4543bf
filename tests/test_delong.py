"""DeLong's test against its definition, written out, and against published figures."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from score_tables import make_trials

from deepregions.errors import UsageError
from deepregions.evaluation.delong import auc_covariance, delong, holm

# Albumin, total protein, K-G score and need of surgery of 49 patients with ovarian cancer: the
# data of DeLong et al. 1988, as in SAS/STAT's example "Comparing Receiver Operating
# Characteristic Curves", which also gives the figures below.
OVARIAN = np.fromstring(
    """
    3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0
    2.5 5.7  8 0   1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1
    4.1 6.6  5 1   3.6 5.7  5 1   4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0
    4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1   3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1
    3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1   3.2 5.1  5 1   2.6 4.7  6 1
    3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1   3.5 6.2  5 1
    2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
    3.6 6.6  5 1
    """,
    sep=" ",
).reshape(-1, 4)


def slow(scores: Any, fake: Any) -> tuple[Any, Any]:
    """DeLong et al. 1988, equations 3 to 6, with every pair compared."""
    above = [[np.sign(x[fake][:, None] - x[~fake][None]) / 2 + 0.5] for x in scores]
    v10 = np.array([a[0].mean(1) for a in above])
    v01 = np.array([a[0].mean(0) for a in above])
    areas = v10.mean(1)
    s10 = (v10 - areas[:, None]) @ (v10 - areas[:, None]).T / (v10.shape[1] - 1)
    s01 = (v01 - areas[:, None]) @ (v01 - areas[:, None]).T / (v01.shape[1] - 1)
    return areas, s10 / v10.shape[1] + s01 / v01.shape[1]


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12), st.integers(1, 3))
def test_the_fast_form_is_the_definition(seed, fakes, genuine, systems):
    rng = np.random.default_rng(seed)
    fake = np.arange(fakes + genuine) < fakes
    scores = rng.integers(0, 6, (systems, len(fake))) + fake  # many ties
    areas, covariance = auc_covariance(scores.astype(np.float64), fake)
    expected_areas, expected = slow(scores, fake)
    np.testing.assert_allclose(areas, expected_areas, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_published_figures_of_delongs_data():
    albumin, protein, score, other = OVARIAN.T
    fake = other == 0
    kg = make_trials(score, fake, "K-G")  # SAS turns the score and the outcome round
    low = [make_trials(-albumin, fake, "albumin"), make_trials(-protein, fake, "protein")]
    areas, covariance = auc_covariance(np.stack([-albumin, score, -protein]), fake)
    assert areas == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    one, two = (delong(trials, kg) for trials in low)
    assert (one.difference, one.error, one.p) == pytest.approx((0.0108, 0.0953, 0.9102), abs=5e-5)
    assert (two.difference, two.error, two.p) == pytest.approx((-0.0780, 0.1046, 0.4561), abs=5e-5)
    assert (two.difference / two.error) ** 2 == pytest.approx(0.5554, abs=5e-4)


def test_the_error_of_hanley_and_mcneils_images():
    """Ratings of 109 CT images (1982, table I); Stata's manual, `roctab`: 0.8932, error 0.0307."""
    genuine, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    scores = np.concatenate([np.repeat(range(1, 6), genuine), np.repeat(range(1, 6), abnormal)])
    areas, covariance = auc_covariance(scores[None].astype(np.float64), np.arange(109) >= 58)
    assert areas[0] == pytest.approx(0.8932, abs=5e-5)
    assert math.sqrt(covariance[0, 0]) == pytest.approx(0.0307, abs=5e-5)


def test_systems_alike_are_found_different_as_often_as_chance_has_it():
    rng = np.random.default_rng(0)
    fake = np.arange(80) % 2 == 1
    values = [
        delong(*(make_trials(rng.normal(size=80) + fake, fake, str(n)) for n in range(2))).p
        for _ in range(400)
    ]
    assert stats.kstest(values, "uniform").pvalue > 0.001


def test_only_trials_that_both_judged_count():
    rng = np.random.default_rng(0)
    fake = np.arange(60) % 2 == 1
    one, two = (make_trials(rng.normal(size=60) + fake, fake, str(n)) for n in range(2))
    holed = replace(one, log_odds=np.where(np.arange(60) < 20, math.nan, one.log_odds))
    rest = np.arange(60) >= 20
    assert delong(holed, two) == delong(one.select(rest), two.select(rest))
    assert delong(one, two).difference == pytest.approx(-delong(two, one).difference)


def test_nothing_to_tell_apart():
    fake = np.arange(20) % 2 == 1
    one = make_trials(np.arange(20.0), fake, "one")
    same = delong(one, make_trials(np.exp(np.arange(20.0)), fake, "two"))
    assert (same.difference, same.error, same.p) == (0, 0, 1)
    genuine = make_trials(np.arange(20.0), np.zeros(20, dtype=bool), "g")
    assert math.isnan(delong(genuine, genuine).p)
    few = one.select(np.array([0, 1]))
    assert math.isnan(delong(few, few).p)
    perfect = make_trials(fake.astype(float), fake, "perfect")
    wrong = make_trials(-fake.astype(float), fake, "wrong")
    assert math.isnan(delong(perfect, wrong).p)
    with pytest.raises(UsageError, match="same trials"):
        delong(one, one.select(np.arange(10)))


def test_correction_for_many_pairs():
    """Holm 1979's procedure by hand: 4, 3, 2, 1 times the rising p-values, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, math.nan, 0.6])[::2] == [1.0, 1.0]
    assert math.isnan(holm([0.9, math.nan, 0.6])[1])
    assert holm([]) == []
