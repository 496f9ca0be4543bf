import importlib.util
from pathlib import Path

import pytest
import torch

from deepregions.detectors import Backbone
from deepregions.errors import UsageError
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle

_FILE = Path(__file__).parents[1] / "tools" / "average_bundles.py"
_SPEC = importlib.util.spec_from_file_location("average_bundles", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


def saved(path: Path, seed: int, size: int = 32) -> Path:
    torch.manual_seed(seed)
    network = Backbone(size, backbone="mobilenetv3_small_050").eval()
    training = {"validation": {"loss": seed}, "seed": seed}
    save_bundle([TrainedNetwork(network, Region.EYES, "toy", "tight", training)], path)
    return path


def test_weights_are_the_mean(tmp_path: Path) -> None:
    paths = [saved(tmp_path / str(seed), seed) for seed in (1, 2, 3)]
    assert tool.average_bundles(paths, out=tmp_path / "mean") == 0
    (mean,), *each = map(load_bundle, (tmp_path / "mean", *paths))
    states = [bundle[0].detector.state_dict() for bundle in each]
    for name, value in mean.detector.state_dict().items():
        if value.is_floating_point():
            wanted = sum(state[name] for state in states) / 3
            torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)
    assert mean.training["averaged"] == [bundle[0].sha256 for bundle in each]
    assert "validation" not in mean.training and mean.training["seed"] == 3


def test_other_networks_are_refused(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a", 1), saved(tmp_path / "b", 2, size=64)]
    with pytest.raises(UsageError, match="other networks"):
        tool.average_bundles(paths, out=tmp_path / "mean")
    with pytest.raises(UsageError, match="nothing to average"):
        tool.average_bundles(paths[:1], out=tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
