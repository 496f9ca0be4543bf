"""Shapley values against closed forms, brute force, and the axioms that define them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from score_tables import score_table
from torch import Tensor, nn

from deepregions.errors import BundleError, UsageError
from deepregions.fusion.rules import MeanFusion
from deepregions.fusion.training import KINDS, Kind, train_fusion
from deepregions.pipeline.explain.shapley import MOST, shapley

SHAPE = (3, 5)


class Learned(nn.Module):
    """A small network on scores and validity, as a trained fusion is; dropout while it trains."""

    def __init__(self, cells: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(2 * cells, 8, generator=generator))
        self.last = nn.Parameter(torch.randn(8, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        seen = torch.cat([torch.where(valid, logits, 0.0).flatten(1), valid.flatten(1).float()], 1)
        answer = self.dropout((seen @ self.first).tanh()) @ self.last
        return torch.where(valid.flatten(1).any(1), answer, torch.nan)


def brute_force(fusion: nn.Module, logits: Tensor, valid: Tensor) -> np.ndarray:
    """The definition: the mean, over all orders, of what each cell adds when it comes."""
    players = valid.nonzero().tolist()
    sums = np.zeros(valid.shape)
    orders = list(itertools.permutations(players))
    for order in orders:
        present, before = torch.zeros_like(valid), 0.0
        for d, r in order:
            present[d, r] = True
            now = fusion(logits[None], present[None]).item()
            now = 0.0 if math.isnan(now) else now
            sums[d, r] += now - before
            before = now
    return np.where(valid.numpy(), sums / len(orders), np.nan)


numbers = st.floats(-20, 20, width=32)


@st.composite
def faces(draw: st.DrawFn, most: int = 7, shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor]:
    cells = shape[0] * shape[1]
    logits = torch.tensor(draw(st.lists(numbers, min_size=cells, max_size=cells)))
    there = draw(st.sets(st.integers(0, cells - 1), min_size=1, max_size=most))
    valid = torch.zeros(cells, dtype=torch.bool)
    valid[list(there)] = True
    logits[~valid] = torch.nan  # must not matter
    return logits.view(shape), valid.view(shape)


@settings(max_examples=25)
@given(faces(most=5), st.integers(0, 1000))
def test_is_the_mean_over_all_orders(face: tuple[Tensor, Tensor], seed: int) -> None:
    fusion = Learned(15, seed).eval()
    found = shapley(fusion, *face)
    np.testing.assert_allclose(found[0], brute_force(fusion, *face), atol=1e-4)


@settings(max_examples=40)
@given(faces(), st.integers(0, 1000))
def test_values_add_up_to_the_fused_score(face: tuple[Tensor, Tensor], seed: int) -> None:
    logits, valid = face
    for fusion in (MeanFusion(), Learned(15, seed)):
        fused = fusion.eval()(logits[None], valid[None]).item()
        cells, total = shapley(fusion, logits, valid)
        assert total == pytest.approx(fused, abs=1e-5)
        assert np.nansum(cells) == pytest.approx(fused, abs=1e-4)


@settings(max_examples=40)
@given(faces(most=10))
def test_mean_fusion_has_a_closed_form(face: tuple[Tensor, Tensor]) -> None:
    """A cell alone is worth x; as the s-th of several it moves the mean by (x - others) / s."""
    logits, valid = face
    x = logits[valid].double().numpy()
    n = len(x)
    others = (x.sum() - x) / max(n - 1, 1)
    harmonic = sum(1 / s for s in range(1, n + 1))
    expected = (x + (harmonic - 1) * (x - others)) / n
    found = shapley(MeanFusion(), logits, valid)[0]
    np.testing.assert_allclose(found[valid.numpy()], expected, atol=1e-4)
    assert np.isnan(found[~valid.numpy()]).all()


def test_fifteen_cells_are_asked_for_in_batches() -> None:
    calls = []

    class Counting(MeanFusion):
        def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
            calls.append(len(valid))
            return super().forward(logits, valid)

    logits = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    found = shapley(Counting(), logits, torch.ones(SHAPE, dtype=torch.bool))
    assert sum(calls) == 2**15
    assert max(calls) < 2**15
    assert found[0].sum() == pytest.approx(float(logits.mean()), abs=1e-5)


def test_the_fusion_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    fusion = Learned(15, 0).train()
    fusion.dropout.eval()  # parts may be in another mode than the whole
    logits, valid = torch.ones(SHAPE), torch.ones(SHAPE, dtype=torch.bool)
    first, second = (shapley(fusion, logits, valid)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (fusion.training, fusion.dropout.training) == (True, False)
    assert all(parameter.grad is None for parameter in fusion.parameters())


def test_nothing_valid_has_no_values() -> None:
    found = shapley(MeanFusion(), torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))
    assert np.isnan(found[0]).all()
    assert math.isnan(found[1])


def test_too_many_cells_are_refused() -> None:
    shape = (1, MOST + 1)
    with pytest.raises(UsageError, match="cannot be taken apart"):
        shapley(MeanFusion(), torch.zeros(shape), torch.ones(shape, dtype=torch.bool))


def test_a_fusion_that_cannot_do_without_a_region_is_refused() -> None:
    class Brittle(nn.Module):
        def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
            return torch.where(valid, logits, torch.inf).sum((1, 2))

    with pytest.raises(BundleError, match="without some of the regions"):
        shapley(Brittle(), torch.zeros(SHAPE), torch.ones(SHAPE, dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_fusions_are_taken_apart(kind: Kind) -> None:
    """Also those of some networks only: the others get nothing, and alone have no answer."""
    table = score_table(20, missing=0.1)
    fusion = train_fusion(kind, table, cells=[("xception", region) for region in table.regions])
    fusion = fusion.bind(table.detectors, table.regions)
    logits = torch.tensor([[1.0, -4.0, 2.0], [0.3, 0.1, 0.2]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    found = shapley(fusion, logits, valid)
    with torch.inference_mode():
        fused = fusion.eval()(logits[None], valid[None]).item()
    assert found[1] == pytest.approx(fused, abs=1e-6)
    assert np.nansum(found[0]) == pytest.approx(fused, abs=1e-5)
    known = valid & torch.tensor([[True], [bool(not fusion.cells)]])
    np.testing.assert_allclose(found[0], brute_force(fusion, logits, valid), atol=1e-5)
    if fusion.cells:
        np.testing.assert_array_equal(found[0][1], 0.0)
    # Without any of its cells the fusion has no answer.
    alone = shapley(fusion, logits, valid & ~known)
    assert math.isnan(alone[1])
    assert np.isnan(alone[0]).all()
