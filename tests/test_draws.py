"""Random numbers by seed: independent, well spread, the same in any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from deepregions.pixels.face_rng import FaceRng, noise, seeds_of

KEYS = [f"person {i}" for i in range(4000)]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=20), st.integers(0, 3))
def test_a_face_draws_the_same_in_any_batch(keys: list[str], salt: int) -> None:
    together = FaceRng(seeds_of(keys, salt))
    values = [together.uniform(-1, 1, 2, 3), together.normal(4), together.choice(7)]
    for row, key in enumerate(keys):
        alone = FaceRng(seeds_of([key], salt))
        for value, own in zip(
            values, (alone.uniform(-1, 1, 2, 3), alone.normal(4), alone.choice(7)), strict=True
        ):
            assert torch.equal(value[row : row + 1], own)


def test_other_salts_streams_and_calls_draw_otherwise() -> None:
    draws = FaceRng(seeds_of(KEYS))
    samples = [
        draws.uniform(0, 1),
        draws.uniform(0, 1),
        FaceRng(seeds_of(KEYS, 1)).uniform(0, 1),
        FaceRng(seeds_of(KEYS, "1", 0)).uniform(0, 1),
        draws.stream("a").uniform(0, 1),
        draws.stream("b").uniform(0, 1),
    ]
    related = np.corrcoef(torch.stack(samples).numpy()) - np.eye(len(samples))
    assert np.abs(related).max() < 5 / len(KEYS) ** 0.5


def test_some_faces_draw_as_they_would_from_the_beginning() -> None:
    draws = FaceRng(seeds_of(KEYS[:10]))
    whole = draws.stream("x").uniform(0, 1, 3)
    rows = torch.tensor([7, 2])
    draws.uniform(0, 1)
    assert torch.equal(draws[rows].stream("x").uniform(0, 1, 3), whole[rows])


def test_distributions() -> None:
    draws = FaceRng(seeds_of(KEYS))
    assert stats.kstest(draws.uniform(2, 5, 5).flatten(), stats.uniform(2, 3).cdf).pvalue > 1e-3
    assert stats.kstest(draws.normal(5).flatten(), stats.norm.cdf).pvalue > 1e-3
    assert stats.chisquare(draws.choice(6).bincount(minlength=6)).pvalue > 1e-3
    assert draws.chance(0.3).float().mean() == pytest.approx(0.3, abs=0.03)
    assert not draws.chance(0.0).any()
    assert draws.chance(1.0).all()


def test_noise_is_white_and_of_its_seed() -> None:
    seeds = seeds_of(KEYS[:3])
    grain = noise(seeds, (3, 64, 64))
    assert grain.mean().abs() < 0.03
    assert grain.std() == pytest.approx(1, abs=0.02)
    assert torch.equal(grain[1:2], noise(seeds[1:2], (3, 64, 64)))
    assert np.abs(np.corrcoef(grain.flatten(1).numpy()) - np.eye(3)).max() < 0.04
    for axis in (1, 2, 3):  # neighbours in any direction
        one, two = grain.narrow(axis, 0, 2), grain.narrow(axis, 1, 2)
        assert abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.06
    power = torch.fft.fft2(grain).abs().square()
    assert power.max() / power.mean() < 16  # of 36,864 exponential ones about ln(36864) = 10.5
