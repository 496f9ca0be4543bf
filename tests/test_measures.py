"""Measures against scikit-learn, torchmetrics and published examples, and invariances."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from score_tables import make_trials
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    det_curve,
    log_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from deepregions.evaluation.measures import (
    AUC,
    MEASURES,
    WORST_APCER,
    Sample,
    against,
    apcer,
    apcer_of,
    average_precision,
    balanced_accuracy,
    bpcer,
    bpcer_at_apcer,
    calibration_error,
    cllr,
    minimum_cllr,
)
from deepregions.roc import accuracy, area_under_curve, equal_error_rate, tally

LN2 = math.log(2)

scored = st.lists(  # few distinct scores, so that ties are common
    st.tuples(st.integers(-8, 8).map(lambda n: n / 4), st.booleans()), min_size=2, max_size=60
).filter(lambda pairs: len({fake for _, fake in pairs}) == 2)
thresholds = st.integers(-9, 9).map(lambda n: n / 4)

ON_TALLY = (
    area_under_curve,
    lambda counts: equal_error_rate(counts)[0],
    lambda counts: equal_error_rate(counts)[1],
    average_precision,
    lambda counts: accuracy(counts, 0.25),
    lambda counts: balanced_accuracy(counts, 0.25),
    lambda counts: apcer(counts, 0.25),
    lambda counts: bpcer(counts, 0.25),
    lambda counts: bpcer_at_apcer(counts, 0.01),
    lambda counts: bpcer_at_apcer(counts, 0.3),
    cllr,
    minimum_cllr,
    calibration_error,
)
OF_ORDER = (*ON_TALLY[:2], ON_TALLY[3], *ON_TALLY[8:10], minimum_cllr)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[Any, Any]:
    scores, fake = zip(*pairs, strict=True)
    return np.array(scores, dtype=np.float64), np.array(fake)


@given(scored, thresholds)
def test_rates_are_those_of_scikit_learn(pairs, threshold):
    scores, fake = arrays(pairs)
    counts = tally(scores, fake)
    called = scores >= threshold
    assert area_under_curve(counts) == pytest.approx(roc_auc_score(fake, scores))
    assert average_precision(counts) == pytest.approx(average_precision_score(fake, scores))
    assert accuracy(counts, threshold) == pytest.approx(accuracy_score(fake, called))
    assert balanced_accuracy(counts, threshold) == pytest.approx(
        balanced_accuracy_score(fake, called)
    )
    assert apcer(counts, threshold) == pytest.approx(1 - recall_score(fake, called))
    assert bpcer(counts, threshold) == pytest.approx(1 - recall_score(~fake, ~called))


@given(scored)
def test_equal_error_rate_is_where_the_roc_curve_meets_the_diagonal(pairs):
    scores, fake = arrays(pairs)
    rate, threshold = equal_error_rate(tally(scores, fake))
    accused, found, _ = roc_curve(fake, scores, drop_intermediate=False)
    # The polyline is crossed where the sum of both coordinates passes 1: interpolate along it.
    assert rate == pytest.approx(float(np.interp(1.0, accused + found, accused)), abs=1e-9)
    assert threshold in scores


@given(scored)
def test_flipping_classes_and_scores_changes_nothing(pairs):
    scores, fake = arrays(pairs)
    one, other = tally(scores, fake), tally(-scores, ~fake)
    assert area_under_curve(other) == pytest.approx(area_under_curve(one))
    assert equal_error_rate(other)[0] == pytest.approx(equal_error_rate(one)[0], abs=1e-9)
    assert area_under_curve(tally(-scores, fake)) == pytest.approx(1 - area_under_curve(one))


@given(scored, st.floats(0.0, 0.999))
def test_bpcer_at_an_apcer_is_the_lowest_of_the_det_curve(pairs, limit):
    scores, fake = arrays(pairs)
    accused, missed, _ = det_curve(fake, scores, drop_intermediate=False)
    expected = min([*accused[missed <= limit + 1e-9], 1.0])
    # scikit-learn's curve may leave out the strictest threshold, at which most are missed.
    highest = scores >= scores.max()
    if (~highest)[fake].mean() <= limit + 1e-9:
        expected = min(expected, highest[~fake].mean())
    assert bpcer_at_apcer(tally(scores, fake), limit) == pytest.approx(expected)


def test_one_of_a_hundred_is_one_percent():
    """For every count of fakes: 0.01 and 0.05 are no binary fractions."""
    for count in range(100, 2100, 100):
        scores = np.concatenate([np.arange(count), [count / 100 - 0.5]]).astype(np.float64)
        fake = np.arange(count + 1) < count
        assert bpcer_at_apcer(tally(scores, fake), 0.01) == 0.0
        assert bpcer_at_apcer(tally(scores, fake), 0.01 - 1e-6) == 1.0


@given(scored)
def test_cllr_is_the_log_loss_at_even_odds(pairs):
    scores, fake = arrays(pairs)
    weight = np.where(fake, 1 / fake.sum(), 1 / (~fake).sum())
    p = 1 / (1 + np.exp(-scores))
    expected = log_loss(fake, np.stack([1 - p, p], 1), sample_weight=weight) / LN2
    assert cllr(tally(scores, fake)) == pytest.approx(expected)
    fitted = IsotonicRegression().fit_transform(scores, fake, sample_weight=weight)
    least = log_loss(fake, np.stack([1 - fitted, fitted], 1), sample_weight=weight) / LN2
    assert minimum_cllr(tally(scores, fake)) == pytest.approx(least, abs=1e-6)
    assert minimum_cllr(tally(scores, fake)) <= min(1.0, cllr(tally(scores, fake))) + 1e-12


@pytest.mark.parametrize(
    ("genuine", "fake", "expected"),
    [  # likelihood ratios and costs in the tests of the Netherlands Forensic Institute's `lir`
        ([1, 1], [1, 1], 1.0),
        ([3] * 20, [1 / 3] * 20, 2.0),
        ([1 / 3] * 2, [3] * 2, 0.4150374992788437),
        ([1 / 3] * 2, [1], 0.7075187496394219),
        ([1 / 100] * 100, [1], 0.507177646488535),
        ([1 / 100] * 100 + [100], [1], 0.5400680236656377),
        ([1 / 100] * 100 + [100] * 6, [1], 0.6952113122368764),
        ([2], [2] * 2, 1.0849625007211563),
        ([8], [8] * 8, 1.6699250014423126),
    ],
)
def test_cllr_is_that_of_published_examples(genuine, fake, expected):
    scores = np.log(np.array([*genuine, *fake], dtype=np.float64))
    counts = tally(scores, np.arange(len(scores)) >= len(genuine))
    assert cllr(counts) == pytest.approx(expected, abs=1e-12)


def test_right_without_end_costs_nothing():
    fake = np.array([True, True, False, False])
    endless = np.array([np.inf, 0, 0, -np.inf])
    assert cllr(tally(endless, fake)) == pytest.approx(0.5)
    assert math.isinf(cllr(tally(-endless, fake)))


def test_the_worst_method_counts():
    """ISO/IEC 30107-3: APCER is of each kind of attack by itself, and the highest is told."""
    trials = make_trials(
        np.array([-1.0, 0.0, 1.0, 1.0, -1.0, 2.0, 0.0, -3.0]),  # at the threshold is fake
        np.array([True] * 6 + [False] * 2),
        method=["swap"] * 4 + ["warp"] * 2 + ["original"] * 2,
    )
    assert trials.methods == ("swap", "warp")
    sample = Sample.of(trials, 0.0)
    assert sample.apcers.tolist() == [0.25, 0.5]
    assert WORST_APCER.of(sample) == 0.5
    assert apcer_of(0, "swap").of(sample) == 0.25
    assert apcer(sample.tally, 0.0) == pytest.approx(2 / 6)
    assert bpcer(sample.tally, 0.0) == 0.5
    assert against(AUC, 1, "warp").of(sample) == pytest.approx(
        roc_auc_score([1, 1, 0, 0], [-1.0, 2.0, 0.0, -3.0])
    )
    none = replace(sample, weights=np.where(sample.method == 1, 0.0, 1.0) * sample.fake)
    assert none.apcers[0] == 0.25
    assert math.isnan(none.apcers[1])
    assert WORST_APCER.of(none) == 0.25


@given(st.integers(1, 6), st.integers(0, 99))
def test_calibration_error_is_over_bins_of_equal_mass(each, seed):
    rng = np.random.default_rng(seed)
    scores, fake = rng.normal(size=5 * each), rng.uniform(size=5 * each) < 0.5
    p = 1 / (1 + np.exp(-scores))
    true, said = zip(  # each bin by itself: scikit-learn's own edges put ends elsewhere
        *(calibration_curve(y, q, n_bins=1) for y, q in _fifths(fake, p)), strict=True
    )
    expected = np.abs(np.concatenate(true) - np.concatenate(said)).mean()
    assert calibration_error(tally(scores, fake), 5) == pytest.approx(expected)


def _fifths(fake: Any, p: Any) -> list[tuple[Any, Any]]:
    order = np.argsort(p)
    parts = zip(np.split(fake[order], 5), np.split(p[order], 5), strict=True)
    return [(y.astype(int), q) for y, q in parts]


@given(scored, st.data())
def test_a_weight_is_a_repetition(pairs, data):
    scores, fake = arrays(pairs)
    weights = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(fake), max_size=len(fake)))
    )
    often, once = (
        tally(scores, fake, weights.astype(float)),
        np.repeat(np.arange(len(fake)), weights),
    )
    repeated = tally(scores[once], fake[once])
    for measure in ON_TALLY:
        assert measure(often) == pytest.approx(measure(repeated), nan_ok=True, abs=1e-12)


@given(scored, st.sampled_from([np.exp, np.arctan, lambda x: 7 * x - 2]))
def test_rising_transforms_change_nothing_that_is_of_order(pairs, rising):
    scores, fake = arrays(pairs)
    assume(len(np.unique(rising(scores))) == len(np.unique(scores)))
    for measure in OF_ORDER:
        assert measure(tally(rising(scores), fake)) == pytest.approx(measure(tally(scores, fake)))


@pytest.mark.parametrize("fake", [[], [True, True], [False, False]])
def test_without_a_class_there_is_nan_and_no_error(fake):
    trials = make_trials(np.linspace(-1, 1, len(fake)), np.array(fake, dtype=bool))
    values = {m.name: m.of(Sample.of(trials, 0.0)) for m in MEASURES}
    there = {"fake": any(fake), "genuine": not all(fake), "any": bool(fake), "both": False}
    for measure in MEASURES:
        assert math.isnan(values[measure.name]) != there[measure.classes], measure.name


def test_without_a_threshold_there_is_nan_and_no_error():
    trials = make_trials(np.array([0.0, 1.0]), np.array([False, True]))
    for measure in MEASURES:
        assert math.isnan(measure.of(Sample.of(trials))) == measure.at_threshold, measure.name


def test_costs_are_those_of_the_values_that_counts_have():
    """Costs are known to a ranking; counts with other values must not take them from there."""
    counts = tally(np.array([0.3, -1.0, 2.0]), np.array([True, False, False]))
    calibrated = np.array([0.5, -0.5, -2.0])
    other, fresh = replace(counts, values=calibrated), tally(calibrated, counts.fake > 0)
    assert cllr(other) == pytest.approx(cllr(fresh))
    assert calibration_error(other) == pytest.approx(calibration_error(fresh))
    assert cllr(other) != pytest.approx(cllr(counts))
