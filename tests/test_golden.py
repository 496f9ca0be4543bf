"""The detectors against what other people's code computed."""

import io
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import capsule_parts, primary_capsules
from torch import Tensor, nn

from deepregions.detectors import DSPFWA, Capsule
from deepregions.weights.convert.state_dicts import capsule_state_dict, dsp_fwa_state_dict


def unpacked(path: Path) -> io.BytesIO:
    return io.BytesIO(lzma.decompress(path.read_bytes()))


def state_dict(path: Path) -> dict[str, Tensor]:
    return torch.load(unpacked(path), weights_only=True)


def from_uint8(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    with torch.inference_mode():
        return torch.cat([function(part) for part in x.split(size)])


def assert_close(ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    """Relative to the largest; single numbers near zero are no better in the reference itself."""
    expected = torch.from_numpy(theirs).double()
    difference = (ours.double() - expected).abs().max() / expected.abs().max()
    assert difference <= tolerance


@pytest.mark.parametrize("batch", [1, 5])
def test_capsule_computes_what_the_original_does(shared, batch):
    folder = shared / "golden"
    theirs = np.load(folder / "torch_outputs.npz")
    upstream = state_dict(folder / "Capsule_UADFV_eyes.pt.xz")
    vgg = state_dict(folder / "vgg19_features.pth.xz")
    state = capsule_state_dict(upstream, vgg)
    for double, expected in (
        (False, theirs["capsule_class"][:, 0]),
        (True, theirs["capsule_score"]),
    ):
        detector = Capsule(double_softmax=double).eval()
        detector.load_state_dict(state)
        images = from_uint8(theirs["images"])
        scores = in_batches(detector.scores, images, batch)
        assert_close(scores.flip(-1), theirs["capsule_z"], 1e-5)  # theirs has fake first
        assert_close(detector.log_odds(scores).sigmoid(), expected, 1e-5)
        logits = in_batches(detector, images, batch)
        torch.testing.assert_close(logits, detector.log_odds(scores))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("pyramid", ["legacy", "adaptive"])
def test_dsp_fwa_computes_what_the_original_does(shared, batch, pyramid):
    folder = shared / "golden"
    theirs = np.load(folder / "torch_outputs.npz")
    detector = DSPFWA(pyramid=pyramid).eval()
    detector.load_state_dict(dsp_fwa_state_dict(state_dict(folder / "DSP-FWA_UADFV_eyes.pt.xz")))
    images = from_uint8(theirs["images"])
    assert_close(in_batches(detector.scores, images, batch).flip(-1), theirs["dsp_logits"], 1e-5)
    assert_close(in_batches(detector, images, batch).sigmoid(), theirs["dsp_score"], 1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_grouped_capsules_are_a_loop_over_capsules(training):
    torch.manual_seed(0)
    loop = capsule_parts().train(training)
    for module in loop.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.1)
    upstream = {f"module.fea_ext.capsules.{key}": value for key, value in loop.state_dict().items()}
    upstream["module.routing_stats.route_weights"] = torch.randn(2, 10, 4, 8)
    detector = Capsule()
    vgg = {f"features.{key}": value for key, value in detector.trunk.state_dict().items()}
    state = capsule_state_dict(upstream, vgg, fake_index=1)
    detector.load_state_dict({key: value.clone() for key, value in state.items()})
    features = torch.rand(4, 256, 6, 6)
    expected = primary_capsules(loop, features)
    primary = detector.capsules[0].train(training)
    torch.testing.assert_close(primary(features), expected, rtol=1e-4, atol=1e-6)
