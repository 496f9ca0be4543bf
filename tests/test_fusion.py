import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepregions.fusion import MeanFusion

SHAPE = (4, 3, 5)


@given(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.bool_, SHAPE),
)
def test_agrees_with_numpys_masked_mean(logits: np.ndarray, valid: np.ndarray) -> None:
    expected = np.ma.masked_array(logits, ~valid).mean((1, 2)).filled(np.nan)
    fused = MeanFusion()(torch.from_numpy(logits), torch.from_numpy(valid))
    np.testing.assert_allclose(fused.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_what_is_not_valid_may_be_anything() -> None:
    logits = torch.tensor([[[1.0, torch.nan, torch.inf]]])
    valid = torch.tensor([[[True, False, False]]])
    assert MeanFusion()(logits, valid).tolist() == [1.0]


def test_nothing_valid_is_no_score() -> None:
    fused = MeanFusion()(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.bool))
    assert fused.isnan().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_keeps_the_sign(sign: float) -> None:
    fused = MeanFusion()(torch.full((1, 2, 2), 3.0 * sign), torch.ones(1, 2, 2, dtype=torch.bool))
    assert fused.item() == 3.0 * sign
