"""Likelihood ratios: against scikit-learn, against bounds of another program, and as promised."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logit
from score_tables import noisy_faces, score_table
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from deepregions.errors import UsageError
from deepregions.fusion.calibration import (
    KINDS,
    Calibration,
    Development,
    Kind,
    LikelihoodRatio,
    Quantity,
    calibrate,
    cross_calibrated,
    support_bounds,
)
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.training import fuse_table
from deepregions.fusion.trials import trials_of
from deepregions.fusion.validation import train_calibrated
from deepregions.roc import cllr as cost_of
from deepregions.roc import tally

DEVELOPMENT = Development(
    "made", "f00d", "val", 100, 100, {"swap": 100}, None, {"folds": 5, "by": "people"}
)
QUANTITY = Quantity.pooled("video", Pooling())


def cllr(llrs: Any, fake: Any) -> float:
    return cost_of(tally(llrs, fake))


def drawn(genuine: int = 100, fakes: int = 100, seed: int = 0, apart: float = 2.0) -> Any:
    """Log-odds of two normal classes, whether fake, and folds."""
    rng = np.random.default_rng(seed)
    fake = np.arange(genuine + fakes) >= genuine
    return rng.normal(size=len(fake)) + apart * fake, fake, np.arange(len(fake)) % 5


def calibrated(kind: Kind, *sample: Any) -> Calibration:
    x, fake, fold = sample or drawn()
    return calibrate(kind, x, fake, fold, quantity=QUANTITY, development=DEVELOPMENT)


@pytest.mark.parametrize(("genuine", "fakes"), [(100, 100), (30, 170)])
def test_logistic_is_scikit_learns_with_balanced_classes(genuine, fakes):
    x, fake, fold = drawn(genuine, fakes)
    found = calibrated("logistic", x, fake, fold)
    weight = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
    spread = np.sqrt(np.cov(x, aweights=weight, bias=True))
    z = ((x - weight @ x) / spread)[:, None]
    theirs = LogisticRegression(C=100, tol=1e-10).fit(z, fake, sample_weight=weight * len(x))
    assert found.parameters["slope"] == pytest.approx(theirs.coef_[0, 0] / spread, rel=1e-4)
    expected = np.clip(theirs.decision_function(z), found.lower, found.upper)
    np.testing.assert_allclose(found.llr(x), expected, atol=1e-3)
    free = LogisticRegression(C=np.inf, class_weight="balanced").fit(x[:, None], fake)
    assert found.parameters["slope"] == pytest.approx(free.coef_[0, 0], rel=0.01)


@pytest.mark.parametrize(("genuine", "fakes"), [(100, 100), (30, 170)])
@pytest.mark.parametrize("places", [1, 9])
def test_isotonic_is_scikit_learns_whatever_the_classes_numbers(genuine, fakes, places):
    x, fake, fold = drawn(genuine, fakes)
    x = x.round(places)  # with one place, many are equal
    found = calibrated("isotonic", x, fake, fold)
    posterior = np.clip(IsotonicRegression().fit(x, fake).predict(x), 0, 1)
    with np.errstate(divide="ignore"):
        llr = logit(posterior.round(12)) - logit(fake.mean())
    np.testing.assert_allclose(found.llr(x), np.clip(llr, found.lower, found.upper), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@given(
    hnp.arrays(np.float64, 24, elements=st.floats(-1e3, 1e3)),
    hnp.arrays(np.float64, 9, elements=st.floats(-1e4, 1e4)),
)
@settings(max_examples=40)
def test_rising_and_within_bounds_whatever_the_scores(kind, x, new):
    fake = np.arange(24) % 2 == 0
    found = calibrated(kind, x, fake, np.arange(24) // 2 % 4)
    llr = found.llr(np.sort(new))
    assert (np.diff(llr) >= 0).all()
    assert (llr >= found.lower).all()
    assert (llr <= found.upper).all()
    # 12 videos of each class support no LR above 13, or below 1/13.
    assert -math.log(13) <= found.lower <= 0 <= found.upper <= math.log(13)
    again = Calibration.of(json.loads(json.dumps(found.settings(), allow_nan=False)))
    assert again == found
    np.testing.assert_array_equal(again.llr(new), found.llr(new))


@pytest.mark.parametrize(
    ("seed", "sizes", "bounds"),
    [
        (0, (40, 60, 2.0, 1.0), (-0.868, 0.845)),
        (1, (200, 150, 1.0, 1.5), (-0.718, 0.680)),
        (2, (30, 30, 6.0, 3.0), (-1.462, 1.462)),
        (3, (500, 20, 3.0, 1.0), (-1.164, 0.870)),
        (4, (25, 25, 0.2, 2.0), (-0.134, 0.176)),
    ],
)
def test_bounds_are_those_of_lir(seed, sizes, bounds):
    """What lir 1.3.1 (Netherlands Forensic Institute) gives to base 10, in steps of 0.001."""
    rng = np.random.default_rng(seed)
    fakes, genuine, apart, spread = sizes
    llrs = rng.normal(apart / 2 * spread, spread, fakes)
    llrs = np.r_[llrs, rng.normal(-apart / 2 * spread, spread, genuine)]
    found = support_bounds(llrs, np.arange(len(llrs)) < fakes)
    assert np.array(found) / math.log(10) == pytest.approx(bounds, abs=0.0021)


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(-9, 9).map(lambda x: round(x, 1))),
    hnp.arrays(np.bool_, 20),
)
def test_within_the_bounds_deciding_costs_no_more_than_without_evidence(llr, fake):
    """The definition, threshold by threshold; and just above the bound it costs more."""
    _, upper = support_bounds(llr, fake)

    def cost(threshold: float) -> float:
        missed = ((llr[fake] < threshold).sum() + 1) / (fake.sum() + 1)
        accused = ((llr[~fake] >= threshold).sum() + 1) / ((~fake).sum() + 1)
        return missed + math.exp(threshold) * accused

    for threshold in np.linspace(1e-9, upper, 50) if upper > 0 else ():
        assert cost(float(threshold)) <= 1 + 1e-7
    assert cost(upper + 1e-6) > 1 - 1e-5


@given(
    hnp.arrays(np.float64, 20, elements=st.floats(-9, 9) | st.sampled_from([-np.inf, np.inf])),
    hnp.arrays(np.bool_, 20),
)
def test_bounds_are_the_same_for_both_propositions(llr, fake):
    lower, upper = support_bounds(llr, fake)
    assert support_bounds(-llr, ~fake) == (-upper, -lower)
    assert -math.log(21) < lower <= 0 <= upper < math.log(21)


def test_classes_that_do_not_overlap_support_what_their_numbers_do():
    for count in (10, 100):
        x = np.r_[np.arange(count) - 1000.0, np.arange(count) + 1000.0]
        fake = np.arange(2 * count) >= count
        for kind in KINDS:
            found = calibrated(kind, x, fake, np.arange(2 * count) % 5)
            # Isotonic: one at the gap is told nothing about when it is held out.
            least = count if kind == "logistic" else count - 1
            assert found.upper == pytest.approx(math.log(least), rel=1e-6)
            assert found.lower == pytest.approx(-math.log(least), rel=1e-6)
            assert found.llr(np.array([5000.0])) == pytest.approx(found.upper)


def test_scores_that_say_nothing_support_nothing():
    rng = np.random.default_rng(0)
    fake = np.arange(60) % 2 == 0
    for kind in KINDS:
        found = calibrated(kind, rng.normal(size=60), fake, np.arange(60) // 2 % 5)
        assert found.upper - found.lower < 1.0
        backwards = calibrated(kind, rng.normal(size=60) - 3 * fake, fake, np.arange(60) // 2 % 5)
        np.testing.assert_allclose(backwards.llr(np.linspace(-9, 9, 5)), 0, atol=0.1)


def test_each_video_is_calibrated_without_its_fold():
    x, fake, fold = drawn(20, 20)
    for kind in KINDS:
        llrs = cross_calibrated(kind, x, fake, fold)
        moved = x.copy()
        moved[fold == 2] += 7.0
        other = cross_calibrated(kind, moved, fake, fold)
        own = fold == 2
        single = cross_calibrated(kind, np.where(own, x, x), fake, np.where(own, 2, 0))
        np.testing.assert_allclose(llrs[own], single[own], rtol=1e-6)
        assert (other[own] >= llrs[own]).all()
        assert not np.array_equal(other[~own], llrs[~own])


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (2, "no support for either"),
        (2.1, "weak support for manipulated"),
        (10, "weak support for manipulated"),
        (10.1, "moderate support for manipulated"),
        (101, "moderately strong support for manipulated"),
        (9_999, "strong support for manipulated"),
        (10_001, "very strong support for manipulated"),
        (1_000_001, "extremely strong support for manipulated"),
        (1 / 3, "weak support for genuine"),
        (1 / 5000, "strong support for genuine"),
    ],
)
def test_words(lr, words):
    ratio = LikelihoodRatio(math.log(lr), -20, 20)
    assert ratio.verbal == words
    assert ratio.log10 == pytest.approx(math.log10(lr))
    assert not ratio.limited


def test_a_ratio_says_where_it_was_limited():
    found = calibrated("logistic")
    high, middle = found.likelihood_ratio(1e9), found.likelihood_ratio(1.0)
    assert high is not None
    assert middle is not None
    assert (high.ln, high.limited, middle.limited) == (found.upper, True, False)
    assert high.bounds_log10 == pytest.approx((found.lower / 2.302585, found.upper / 2.302585))
    assert found.likelihood_ratio(None) is None


def test_what_cannot_be_calibrated_is_refused():
    x, fake, fold = drawn(10, 10)
    with pytest.raises(UsageError, match="not finite"):
        calibrated("logistic", np.where(fake, np.nan, x), fake, fold)
    with pytest.raises(UsageError, match="genuine and fake"):
        calibrated("isotonic", x, np.ones(20, dtype=bool), fold)
    with pytest.raises(UsageError, match="no calibration 'beta'"):
        calibrated("beta", x, fake, fold)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "beta"},
        {"lower": 0.1},
        {"upper": -0.1},
        {"upper": math.inf},
        {"upper": math.nan},
        {"parameters": {"slope": -1.0, "offset": 0.0}},
        {"parameters": {"slope": math.nan, "offset": 0.0}},
        {"parameters": {"slope": 1.0, "offset": math.inf}},
        *(
            {"kind": "isotonic", "parameters": {"log_odds": [0.0, 1.0], "llr": llr}}
            for llr in ([1.0, 0.0], [0.0], [0.0, math.nan])
        ),
        {"development": calibrated("logistic").settings()["development"] | {"fake": 0}},
    ],
)
def test_a_stored_calibration_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match=r"calibration|bounds|do not rise"):
        Calibration.of(calibrated("logistic").settings() | change)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fusion_is_calibrated_on_scores_it_did_not_learn(kind):
    """Many cells and few videos: on what it learned, the fusion looks far too good."""
    torch.manual_seed(0)
    table = score_table(16, faces=2, power=np.zeros((2, 3)))
    fusion, calibration, found = train_calibrated("logistic", table, calibration=kind, l2=1e-3)
    seen = trials_of(table, fuse_table(fusion, table))
    learned = calibrate(
        kind, seen.log_odds, seen.fake, found.fold, quantity=QUANTITY, development=DEVELOPMENT
    )
    new = score_table(300, faces=2, power=np.zeros((2, 3)), seed=1)
    videos = trials_of(new, fuse_table(fusion, new))
    honest = cllr(calibration.llr(videos.log_odds), videos.fake)
    assert honest < 1.05  # nothing can be told, and it says about nothing
    assert honest < cllr(learned.llr(videos.log_odds), videos.fake)
    about = calibration.development
    assert (about.database, about.store, about.split) == ("made", "f00d", "val")
    assert (about.genuine, about.fake, about.methods) == (16, 16, {"swap": 16})
    assert about.landmarks == {"name": "drawn", "version": "1"}
    assert about.cross_validation == {"folds": 5, "by": "people"}


def test_faces_without_a_score_do_not_count_as_videos():
    table = score_table(20, faces=2)
    lost = np.isin(table.video.astype(str), ["v3-0", "v4-1"])
    blank = replace(table, status=np.where(lost, "low_quality", table.status))
    _, calibration, _ = train_calibrated("mean", blank)
    assert (calibration.development.genuine, calibration.development.fake) == (19, 19)
    with pytest.raises(UsageError, match="1 genuine and 20 fake"):
        train_calibrated("mean", table.select(table.fake | (table.video == "v0-0")))


@pytest.mark.parametrize(
    ("level", "pooling"),
    [("frame", Pooling()), ("video", Pooling("top")), ("video", Pooling("median"))],
)
def test_a_calibration_is_found_for_the_quantity_that_is_asked_for(level, pooling):
    table, new = noisy_faces(0), noisy_faces(1)
    _, found, _ = train_calibrated("mean", table, level=level, pooling=pooling)
    _, other, _ = train_calibrated("mean", table)
    odds = new.log_odds[:, 0, 0]
    if level == "frame":
        scores, fake = odds, new.fake
    else:  # by hand, not by the code under test
        names = new.video.astype(str)
        top = {v: np.sort(odds[names == v])[-4:].mean() for v in np.unique(names)}
        middle = {v: np.median(odds[names == v]) for v in np.unique(names)}
        pooled = top if pooling.frames == "top" else middle
        scores = np.array(list(pooled.values()))
        fake = np.array([v.endswith("-1") for v in pooled])
    theirs = LogisticRegression(C=np.inf, class_weight="balanced").fit(scores[:, None], fake)
    best = cllr(theirs.decision_function(scores[:, None]), fake)
    assert cllr(found.llr(scores), fake) < best + 0.03
    if pooling.frames != "median":
        assert cllr(other.llr(scores), fake) > best + 0.05
    assert found.quantity.mismatch(other.quantity)
    assert found.quantity.networks == ("ab" * 32,)


def test_faces_of_a_video_stay_in_one_fold():
    table = noisy_faces(0)
    nobody = replace(table, identities=np.array([()] * len(table) + [("x",)], dtype=object)[:-1])
    _, calibration, found = train_calibrated("mean", nobody, level="frame")
    videos = np.sort(nobody.video.astype(str))
    folds = set(zip(videos, found.fold.tolist(), strict=True))
    assert len(folds) == 300
    assert calibration.development.cross_validation["by"] == "video"
