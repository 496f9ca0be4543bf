"""EfficientNet-Lite against timm's, array for array."""

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn

from deepregions.detectors import Backbone
from deepregions.detectors.efficientnet_lite import MULTIPLIERS, EfficientNetLite


@pytest.mark.parametrize("name", sorted(MULTIPLIERS))
def test_it_is_timms(name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = timm.create_model(name, num_classes=0).eval(), EfficientNetLite(name).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.05)
            nn.init.uniform_(module.running_var, 0.9, 1.1)
    ours.load_state_dict(theirs.state_dict())
    for coarse in (True, False):
        grouped = (group_parameters(each, each.group_matcher(coarse)) for each in (theirs, ours))
        assert next(grouped) == next(grouped)
    with torch.inference_mode():
        for size in (64, 75):  # windows that are padded evenly, and not
            x = torch.rand(2, 3, size, size)
            expected = theirs(x)
            torch.testing.assert_close(ours.forward_head(ours(x)), expected, rtol=1e-6, atol=1e-6)
        ours.fold()
        folded = ours.forward_head(ours(x))
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-3)
    assert not [each for each in ours.modules() if isinstance(each, nn.BatchNorm2d)]


def test_folding_leaves_the_detector_as_it_is() -> None:
    detector = Backbone(64).eval()
    x = torch.rand(3, 3, 64, 64)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    with torch.inference_mode():
        expected = detector(x)
        torch.testing.assert_close(detector.folded()(x), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(detector(x), expected)
    after = detector.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
