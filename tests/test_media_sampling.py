"""Which frames are looked at: by count, by rate, and where scores disagree."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from deepregions.errors import UsageError
from deepregions.media import Sampling
from deepregions.media.sampling import by_count, by_rate, choose, refine

# Display times as videos have them: ascending, each once, at any distance.
shown = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=60, unique=True).map(
    lambda times: np.array(sorted(times), np.int64)
)
durations = st.integers(1, 2**20)


def even(count: int) -> np.ndarray:
    return np.arange(count)


@given(times=shown, last=durations, count=st.integers(1, 80))
def test_by_count_gives_what_is_on_show_in_the_middles(
    times: np.ndarray, last: int, count: int
) -> None:
    numbers = by_count(times, float(times[-1]) + last, count)
    assert list(numbers) == sorted(set(numbers))
    assert set(numbers) <= set(range(len(times)))
    if len(times) <= count:
        assert len(numbers) == len(times)
        return
    assert 1 <= len(numbers) <= count
    span = float(times[-1] - times[0]) + last
    for k in range(count):  # the definition, one moment at a time
        moment = float(times[0]) + (k + 0.5) * span / count
        assert max(n for n in range(len(times)) if times[n] <= moment) in numbers


@given(times=shown, last=durations, pieces=st.floats(0.3, 100))
@example(times=np.array([-1099511627326, -1099511627325, 0]), last=1, pieces=1.0)
def test_by_rate_gives_what_is_on_show_at_every_step(
    times: np.ndarray, last: int, pieces: float
) -> None:
    span = int(times[-1] - times[0]) + last
    step = span / pieces
    numbers = by_rate(times, float(times[-1]) + last, step)
    moments = [k * Fraction(step) for k in range(101) if k * Fraction(step) < span]
    begins = [int(time - times[0]) for time in times]
    assume(all(abs(m - b) > 1e-9 * span for m in moments[1:] for b in [*begins[1:], span]))
    expected = {max(n for n in range(len(begins)) if begins[n] <= moment) for moment in moments}
    assert list(numbers) == sorted(expected)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25, range(50)),
        (5, range(0, 50, 5)),
        (2, [0, 12, 25, 37]),  # frame 12 is on show from 0.48 s to 0.52 s
        (1, [0, 25]),
        (0.1, [0]),
        (1000, range(50)),
    ],
)
def test_a_rate_in_seconds(rate: float, expected: list[int]) -> None:
    for tick in (1, 512, 3600):  # ticks a frame, as containers have them
        choice = choose(even(50) * tick, 50.0 * tick, 25.0 * tick, Sampling("rate", rate=rate))
        assert list(choice.numbers) == list(expected)
        assert not choice.limited


def test_a_third_of_a_second_is_not_missed_by_rounding() -> None:
    times = np.arange(3000) * 1001  # 29.97 frames a second in 1/30000 s
    numbers = by_rate(times, 3000 * 1001.0, 10 * 1001 / 3 * 3)
    assert list(numbers) == list(range(0, 3000, 10))


def test_a_rate_has_its_most_and_says_so() -> None:
    sampling = Sampling("rate", rate=2, most=10)
    choice = choose(even(1000), 1000.0, 25.0, sampling)
    assert choice.numbers == by_count(even(1000), 1000.0, 10)
    assert choice.limited
    assert choice.record(sampling)["limited"]
    assert not choose(even(125), 125.0, 25.0, sampling).limited  # 5 s: just ten


@pytest.mark.parametrize("how", ["count", "rate", "adaptive"])
def test_every_choice_can_be_written_down(how: str) -> None:
    sampling = Sampling(how, count=5, rate=1, most=7)  # type: ignore[arg-type]
    record = choose(even(100), 100.0, 25.0, sampling).record(sampling)
    assert json.loads(json.dumps(record)) == record
    assert record["how"] == how
    assert record["frames"] == 100
    assert record["numbers"]
    assert ("count" in record) == (how != "rate") != ("most" in record)


@pytest.mark.parametrize(
    "wrong",
    [
        {"how": "best"},
        {"count": 0},
        {"most": -1},
        {"rate": 0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"rate": -2},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        Sampling(**wrong)  # type: ignore[arg-type]
    assert caught.value.hint


# Adaptive

scores = st.one_of(st.none(), st.floats(-20, 20), st.just(math.nan), st.just(math.inf))
looked_at = st.lists(st.tuples(st.integers(0, 2000), scores), max_size=30, unique_by=lambda x: x[0])


@given(
    rows=looked_at.map(lambda rows: sorted(rows, key=lambda row: row[0])), budget=st.integers(0, 50)
)
def test_refining_gives_new_frames_between_old_ones(
    rows: list[tuple[int, float | None]], budget: int
) -> None:
    numbers, log_odds = [row[0] for row in rows], [row[1] for row in rows]
    more = refine(numbers, log_odds, budget)
    assert list(more) == sorted(set(more) - set(numbers))
    between = numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0
    assert len(more) == min(budget, between)
    assert all(numbers[0] < number < numbers[-1] for number in more)
    assert refine(numbers, log_odds, budget) == more


@given(jump=st.integers(0, 30), where=st.integers(0, 8))
def test_a_jump_is_found_to_a_frame(jump: int, where: int) -> None:
    """A face that is swapped in from some frame on: looking again and again finds which."""
    first = 100 * where + 1 + 3 * jump
    known = {n: float(10 * (n >= first)) for n in range(0, 1000, 100)}
    for _ in range(7):
        ordered = sorted(known)
        more = refine(ordered, [known[n] for n in ordered], 1)
        known |= {n: float(10 * (n >= first)) for n in more}
    assert {first - 1, first} <= known.keys()


def test_frames_go_where_the_difference_is() -> None:
    numbers = [0, 100, 200, 300]
    assert all(100 < n < 200 for n in refine(numbers, [0, 0.5, 6.5, 7], 6))
    one, other = refine(numbers, [0, 4, 4, 0], 2)
    assert (one, other) == (50, 250)
    shared = refine(numbers, [0, 2, 3, 3], 3)  # two for the difference of 2, one for that of 1
    assert [sum(a < n < a + 100 for n in shared) for a in (0, 100, 200)] == [2, 1, 0]


def test_equal_scores_are_looked_at_by_length() -> None:
    assert refine([0, 10, 50, 60], [1, 1, 1, 1], 1) == (30,)
    assert refine([0, 10, 50, 60], [None, None, 1, None], 3) == (20, 30, 40)


def test_a_frame_without_a_score_draws_none_to_it() -> None:
    assert refine([0, 10, 20, 30], [None, 5, 4, None], 1) == (15,)
    assert refine([0, 10, 20, 30], [None, math.inf, 4, 3], 1) == (25,)
