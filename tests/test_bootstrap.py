"""Intervals: over groups, paired, seeded, and right as often as they claim."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from deepregions.errors import UsageError
from deepregions.evaluation.bootstrap import Estimate, bootstrap, draw, draws_of
from deepregions.evaluation.measures import ACCURACY, AUC, BPCER, EER, MEASURES, Measure
from deepregions.fusion.trials import Trials
from deepregions.roc import area_under_curve, tally

NAN = math.nan


def mean_of(sample: Any) -> float:
    total = sample.weights.sum()
    return float(sample.weights @ sample.log_odds / total) if total else NAN


MEAN = Measure("mean", "Mean", mean_of, "higher", False, "any")


def made(
    groups: int = 40, each: int = 5, seed: int = 0, name: str = "s", shift: float = 1.0
) -> Any:
    """Trials of groups that are alike within: half of a group's variance is its own."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    fake = group % 2 == 1
    logits = rng.normal(size=groups)[group] + rng.normal(size=len(group)) + shift * fake
    method = np.where(fake, np.where(group % 4 == 1, "swap", "warp"), "original").astype(object)
    return Trials(name, logits, fake, method, group)


def test_draws_are_of_whole_groups():
    group = np.array([7, 7, 2, 5, 2])
    for weights in draw(group, 50, 0):
        assert weights[0] == weights[1]
        assert weights[2] == weights[4]
        assert weights[0] + weights[2] + weights[3] == 3
    rounds = np.stack(list(draw(group, 4000, 1)))
    assert rounds.mean(0) == pytest.approx(np.ones(5), abs=0.05)
    assert rounds.var(0) == pytest.approx(np.full(5, 2 / 3), abs=0.05)  # binomial(3, 1/3)


def test_the_same_seed_gives_the_same_interval():
    one, two, three = (bootstrap([made()], [AUC], rounds=50, seed=seed) for seed in (0, 0, 1))
    assert one.estimate("s", AUC) == two.estimate("s", AUC)
    assert one.estimate("s", AUC) != three.estimate("s", AUC)


def test_the_interval_of_a_mean_is_that_of_scipy():
    trials = made(200, 1)
    got = bootstrap([trials], [MEAN], rounds=4000).estimate("s", MEAN)
    known = stats.bootstrap(
        (trials.log_odds,), np.mean, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    assert got.low == pytest.approx(known.low, abs=0.02)
    assert got.high == pytest.approx(known.high, abs=0.02)


def test_trials_that_are_alike_widen_the_interval():
    """A group of k trials with correlation 1/2 is worth 2k/(k+1) independent ones."""
    grouped = made(200, 9)
    alone = replace(grouped, group=np.arange(len(grouped)))
    wide, narrow = (
        bootstrap([t], [MEAN], rounds=500).estimate("s", MEAN) for t in (grouped, alone)
    )
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)


def test_differences_are_paired():
    first = made(name="first")
    shifted = replace(first, name="second", log_odds=first.log_odds * 2 + 1)
    result = bootstrap([first, shifted, made(seed=1, name="other")], [AUC, EER], rounds=100)
    same = result.difference("first", "second", AUC)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    other, back = (
        result.difference(*pair, EER) for pair in (("first", "other"), ("other", "first"))
    )
    assert other.value == pytest.approx(result.values[0, 1] - result.values[2, 1])
    assert other.low < other.value < other.high
    assert (back.low, back.high) == pytest.approx((-other.high, -other.low))


@settings(max_examples=20)
@given(st.integers(0, 99), st.floats(0, 0.9))
def test_each_system_counts_its_own_verdicts(seed, missing):
    rng = np.random.default_rng(seed)
    full = made(10, 2, seed, "full")
    holes = np.where(rng.uniform(size=len(full)) < missing, NAN, full.log_odds)
    holed = replace(full, name="holed", log_odds=holes)
    result = bootstrap([full, holed], MEASURES, [0.0, 0.0], rounds=8)
    there = holed.judged
    over = {"fake": full.fake, "genuine": ~full.fake}
    alone = bootstrap([holed.select(there)], MEASURES, [0.0], rounds=0)
    for measure in MEASURES:
        got, expected = result.estimate("holed", measure), alone.estimate("holed", measure)
        assert got.value == expected.value
        own = over.get(measure.classes, full.fake | True)
        assert got.n == (there & own).sum()
        assert got.coverage == pytest.approx(there[own].mean())
        if got.value is None:
            assert got.reason in {"no verdict", holed.absent()}


def test_weights_go_to_the_trials_they_are_of():
    trials = made(12, 3)
    holes = np.arange(len(trials)) % 5 == 0
    holed = replace(trials, log_odds=np.where(holes, NAN, trials.log_odds))
    result = bootstrap([trials, holed], [AUC], rounds=20, seed=4)
    for number, weights in enumerate(draw(trials.group, 20, 4)):
        for system, own in enumerate((holes | True, ~holes)):
            expected = roc_auc_score(
                trials.fake[own], trials.log_odds[own], sample_weight=weights[own]
            )
            assert result.draws[system, 0, number] == pytest.approx(expected)


def test_rounds_without_a_class_are_dropped_and_counted():
    trials = made(3, 4)  # one of three groups is fake: (2/3)^3 of draws have none
    result = bootstrap([trials], [AUC, ACCURACY], [0.0], rounds=2000)
    got = result.estimate("s", AUC)
    none = (2 / 3) ** 3 + (1 / 3) ** 3
    assert got.dropped / 2000 == pytest.approx(none, abs=0.05)
    assert result.estimate("s", ACCURACY).dropped == 0


@pytest.mark.parametrize(("people", "shown"), [(19, False), (20, True)])
def test_fewer_than_20_people_have_no_interval(people, shown):
    got = bootstrap([made(people, 4)], [AUC], rounds=50).estimate("s", AUC)
    assert got.value is not None
    assert (got.low is not None) == shown
    assert ("19 groups of people are too few" in got.withheld) == (not shown)


def test_what_is_undefined_has_a_reason():
    trials = made()
    genuine = replace(trials, log_odds=np.where(trials.fake, NAN, trials.log_odds))
    result = bootstrap([genuine], [AUC, BPCER], [0.0], rounds=5)
    assert result.estimate("s", AUC) == Estimate.none("no fake with a verdict", 100, 0.5)
    assert result.estimate("s", BPCER).value is not None  # it needs no fakes


def test_systems_on_other_trials_are_refused():
    with pytest.raises(UsageError, match="same trials"):
        bootstrap([made(), made(20)], [AUC])
    with pytest.raises(UsageError, match="no system"):
        bootstrap([], [AUC])
    with pytest.raises(UsageError, match="confidence"):
        bootstrap([made()], [AUC], confidence=1.0)


def swapped(people: int, seed: int = 0) -> Trials:
    """A genuine trial of each person, and a fake of each with the next: all hang together."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=people)
    who = np.concatenate(
        [
            np.stack([np.arange(people), np.full(people, -1)], 1),
            np.stack([np.arange(people), np.roll(np.arange(people), 1)], 1),
        ]
    )
    fake = np.repeat([False, True], people)
    shown = np.where(who >= 0, own[who], 0.0).sum(1)
    logits = shown + rng.normal(size=2 * people) + 1.5 * fake
    method = np.where(fake, "swap", "original").astype(object)
    return Trials("s", logits, fake, method, np.zeros(2 * people, dtype=np.int64), who)


def test_people_are_drawn_where_fakes_tie_all_of_them_together():
    trials = swapped(60)
    assert trials.people is not None
    for weights in draws_of(trials, 5, 1):
        genuine, fake = weights[:60], weights[60:]
        assert genuine.sum() == 60
        np.testing.assert_array_equal(fake, genuine * np.roll(genuine, 1))
    result = bootstrap([trials], (AUC,), rounds=200)
    assert (result.groups, result.unit) == (60, "people")
    estimate = result.estimate("s", AUC)
    assert estimate.low < estimate.value < estimate.high


def test_intervals_over_people_hold_the_truth():
    """The area of this mixture, from a sample of 20,000 people, is in most intervals of 95 %."""
    large = swapped(20_000, 7)
    truth = area_under_curve(tally(large.log_odds, large.fake))
    held = 0
    for seed in range(60):
        found = bootstrap([swapped(80, seed)], (AUC,), rounds=200).estimate("s", AUC)
        held += found.low <= truth <= found.high
    assert held >= 51  # 0.9998 of 60 at 0.95


def test_groups_are_drawn_where_there_are_enough():
    trials = made(40, 2)
    people = trials.group[:, None]
    with_people = replace(trials, people=people)
    one, two = (list(draws_of(each, 4, 3)) for each in (trials, with_people))
    np.testing.assert_array_equal(one, two)
    assert bootstrap([with_people], (AUC,), rounds=2).unit == "groups of people"
