from collections.abc import Callable
from inspect import signature
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import Tint, trainer
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from deepregions.detectors import DSPFWA, Capsule, RegionDetector, Xception
from deepregions.detectors.capsule import squash
from deepregions.detectors.dsp_fwa import SpatialPyramid
from deepregions.detectors.pretrained import load_backbone
from deepregions.detectors.training import DetectorTraining
from deepregions.detectors.xception import SamePool
from deepregions.errors import AssetError, UnreadableError, UsageError
from deepregions.types import RegionBatch

SIZE = 48

MAKERS: dict[str, Callable[..., RegionDetector]] = {
    "xception": lambda **options: Xception(**{"size": SIZE, **options}),
    "capsule": lambda **options: Capsule(**{"size": SIZE, **options}),
    "dsp_fwa": lambda **options: DSPFWA(**{"size": SIZE, "pyramid": "adaptive", **options}),
}


@pytest.fixture(params=sorted(MAKERS))
def make(request) -> Callable[..., RegionDetector]:
    torch.manual_seed(0)
    return MAKERS[request.param]


def separable(count: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Noise, with a brighter patch in every second crop: the fakes."""
    label = torch.arange(count) % 2
    crops = 0.3 + 0.3 * torch.rand(count, 3, size, size)
    crops[label == 1, :, size // 3 : size // 2, size // 3 : size // 2] += 0.4
    return crops, label


def region_batch(crops: Tensor, label: Tensor, valid: Tensor | None = None) -> RegionBatch:
    number = torch.arange(len(crops))
    crops = crops[:, None] if crops.ndim == 4 else crops
    valid = torch.ones(crops.shape[:2], dtype=torch.bool) if valid is None else valid
    return RegionBatch(crops, valid, label, number, number, tuple(map(str, number.tolist())))


class Batches(LightningDataModule):
    """Separable crops as batches of regions.

    Args:
        size: Height and width of the crops.
        batch_size: Crops in a batch; four at most.
        genuine_only: No fakes.
    """

    def __init__(self, size: int = SIZE, batch_size: int = 4, genuine_only: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        crops, label = separable(8, size)
        parts = torch.arange(8).split(min(batch_size, 4))
        label = label * (not genuine_only)
        self.batches = [region_batch(crops[part], label[part]) for part in parts]
        for part, batch in zip(parts, self.batches, strict=True):
            batch.index = batch.video = part

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


# What goes in, and what comes out


IMAGENET = [2.24891, -2.03571, -1.80444]  # (1 - .485) / .229, -.456 / .224, -.406 / .225


@pytest.mark.parametrize(
    ("kind", "options", "red"),
    [
        ("xception", {}, [1, 0, 0]),
        ("xception", {"normalisation": "centred"}, [1, -1, -1]),
        ("xception", {"normalisation": "caffe"}, [131.32, -116.779, -103.939]),
        ("capsule", {}, IMAGENET),
        ("dsp_fwa", {}, IMAGENET),
    ],
)
def test_crops_are_normalised_in_the_order_of_their_colours(kind, options, red, monkeypatch):
    detector = MAKERS[kind](**options)
    seen = []
    monkeypatch.setattr(detector, "network", lambda x: seen.append(x) or x.mean((2, 3))[:, :2])
    crops = torch.zeros(1, 3, SIZE, SIZE)
    crops[:, 0] = 1.0
    detector.scores(crops)
    expected = torch.tensor(red, dtype=torch.float32)
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected, rtol=1e-5, atol=1e-5)


def test_scores_are_the_same_whichever_way_and_in_whatever_batch(make):
    detector = make().eval()
    crops, label = separable(6)
    with torch.inference_mode():
        logits = detector(crops)
        torch.testing.assert_close(detector(crops), logits)
        torch.testing.assert_close(detector.log_odds(detector.scores(crops)), logits)
        singles = torch.cat([detector(crop[None]) for crop in crops])
        torch.testing.assert_close(singles, logits, rtol=1e-4, atol=1e-4)
        valid = torch.tensor([[True, True], [False, True], [True, True]])
        batch = region_batch(crops.unflatten(0, (3, 2)), label[:3], valid)
        predicted = DetectorTraining(detector).predict_step(batch)
    assert logits.shape == (6,)
    assert predicted.isnan().tolist() == (~valid).tolist()
    torch.testing.assert_close(predicted[valid], logits[valid.flatten()])


def test_settings_make_the_same_network_again(make):
    detector = make()
    settings = detector.settings()
    assert settings["size"] == SIZE
    assert not {"pretrained", "backbone_file", "optimizer", "lr_scheduler"} & settings.keys()
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    again = type(detector)(**settings)
    again.load_state_dict(detector.state_dict())
    assert again.settings() == settings
    crops = separable(2)[0]
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(crops), detector.eval()(crops))


def test_a_bundle_is_gone_on_with(make, tmp_path):
    trained = make()
    if "backbone_file" not in signature(type(trained)).parameters:
        pytest.skip("it starts from nobody's weights")
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    again = make(backbone_file=str(tmp_path / "trained.safetensors"))
    part = "trunk" if isinstance(again, Capsule) else "backbone"
    wanted = getattr(trained, part).state_dict()
    assert len(wanted) > 10
    for name, value in getattr(again, part).state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, wanted[name])


def test_another_size_of_crops_is_refused(make):
    with pytest.raises(UsageError, match="32x32 pixels for a detector of 48"):
        make()(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("kind", "size"), [("xception", 6), ("capsule", 15), ("dsp_fwa", 0)])
def test_crops_that_a_network_cannot_take_are_refused(kind, size):
    with pytest.raises(UsageError, match=f"cannot judge crops of {size} pixels"):
        MAKERS[kind](size=size)


@pytest.mark.parametrize(("kind", "size"), [("xception", 7), ("capsule", 16), ("dsp_fwa", 1)])
def test_the_least_size_works(kind, size):
    detector = MAKERS[kind](size=size).eval()
    logits = detector(torch.rand(2, 3, size, size))
    assert logits.shape == (2,)
    assert logits.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16 mixed", "bfloat16"])
def test_crops_without_content_have_finite_scores_and_gradients(make, precision, training):
    detector = make(size=32).train(training)
    crops = torch.stack([torch.full((3, 32, 32), value) for value in (0.0, 0.0, 0.5, 1.0)])
    if precision == "bfloat16":
        detector, crops = detector.bfloat16(), crops.bfloat16()
    for x in (crops, torch.zeros_like(crops)):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16 mixed"):
            losses = detector.losses(x, torch.tensor([0, 1, 0, 1]))
        losses.mean().backward()
        assert losses.isfinite().all()
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in [*gradients, x.grad])
        detector.zero_grad()
    assert detector(crops).isfinite().all()


def test_training_raises_the_scores_of_fakes(make):
    detector = make(size=32)
    optimizer = torch.optim.Adam(detector.trainable_parameters(), lr=1e-3)
    for _ in range(8):
        crops, label = separable(8, 32)
        optimizer.zero_grad()
        DetectorTraining(detector).training_loss(region_batch(crops, label)).backward()
        optimizer.step()
    crops, label = separable(16, 32)
    with torch.no_grad():
        logits = detector(crops)
    assert logits[label == 1].mean() > logits[label == 0].mean()


def test_invalid_regions_teach_nothing(make):
    detector = make().eval()
    crops, label = separable(4)
    nothing = torch.zeros(4, 1, dtype=torch.bool)
    loss = DetectorTraining(detector).training_loss(region_batch(crops, label, nothing))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in detector.parameters())
    some = torch.tensor([[True], [False], [True], [False]])
    loss = DetectorTraining(detector).training_loss(region_batch(crops, label, some))
    torch.testing.assert_close(loss, detector.losses(crops[::2], label[::2]).mean())


def test_invalid_regions_do_not_count_in_batch_normalisation():
    """In training mode, where statistics are the batch's: loss, gradients and running means."""
    found = []
    for valid in ([[True], [True], [False], [False]], [[True], [True]]):
        torch.manual_seed(0)
        detector = Xception(size=SIZE).train()
        crops, label = separable(4)
        batch = region_batch(crops[: len(valid)], label[: len(valid)], torch.tensor(valid))
        torch.manual_seed(1)  # of dropout
        loss = DetectorTraining(detector).training_loss(batch)
        loss.backward()
        found.append([loss, *(p.grad for p in detector.parameters()), *detector.buffers()])
    assert found[0]
    torch.testing.assert_close(*found)


# Xception


@given(st.integers(1, 17), st.integers(1, 17))
def test_pooling_pads_as_tensorflow(height, width):
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(height * width))
    pad = []
    for side in (width, height):
        total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        pad += [total // 2, total - total // 2]
    padded = functional.pad(x, pad, value=-torch.inf)
    torch.testing.assert_close(SamePool()(x), functional.max_pool2d(padded, 3, 2))


# DSP-FWA


@pytest.mark.parametrize("height", range(1, 22))
def test_the_adaptive_pyramid_is_torch_s_own(height):
    x = torch.randn(2, 3, height, 7)
    levels = [functional.adaptive_max_pool2d(x, bins).flatten(1) for bins in (1, 2, 6)]
    torch.testing.assert_close(SpatialPyramid("adaptive")(x), torch.cat(levels, 1))


@pytest.mark.parametrize("side", [6, 7, 12, 13, 14, 18, 19, 20])
def test_the_legacy_pyramid_is_the_original_s(side):
    x = torch.randn(2, 3, side, side)
    levels = [
        functional.max_pool2d(x, -(-side // bins), stride=side // bins).flatten(1)
        for bins in (1, 2, 6)
    ]
    pooled = SpatialPyramid("legacy")(x)
    assert pooled.shape == (2, 3 * 41)
    torch.testing.assert_close(pooled, torch.cat(levels, 1))


@pytest.mark.parametrize("size", [96, 160, 225, 352])
def test_sizes_that_the_legacy_pyramid_does_not_fit_are_refused(size):
    with pytest.raises(UsageError, match=r"161-224, 353-448, 545-672.* adaptive"):
        DSPFWA(size)


@pytest.mark.parametrize("size", [161, 200, 224, 353])
def test_sizes_that_the_legacy_pyramid_fits_work(size):
    assert DSPFWA(size).eval()(torch.rand(1, 3, size, size)).isfinite().all()


# Capsule


@pytest.mark.parametrize("frozen", [True, False])
def test_vgg_is_trained_unless_it_is_frozen(frozen):
    detector = Capsule(SIZE, frozen=frozen).train()
    before = {key: value.clone() for key, value in detector.trunk.state_dict().items()}
    assert detector.capsules.training
    assert all(module.training != frozen for module in detector.trunk.modules())
    optimizer = DetectorTraining(detector).configure_optimizers()
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in (detector.capsules if frozen else detector).parameters()}
    detector.losses(*separable(4)).mean().backward()
    optimizer.step()
    after = detector.trunk.state_dict()
    assert {torch.equal(value, before[key]) for key, value in after.items()} == {frozen}
    assert all(p.requires_grad != frozen for p in detector.trunk.parameters())


def test_routing_is_noisy_in_training_only():
    detector = Capsule(SIZE)
    routing = detector.capsules[1]
    x = torch.randn(2, 10, 8)
    assert not torch.equal(routing(x), routing(x))
    routing.eval()
    assert torch.equal(routing(x), routing(x))


def test_squashing_nothing_gives_nothing_and_a_finite_gradient():
    x = torch.zeros(2, 4, requires_grad=True)
    squash(x, dim=1).sum().backward()
    assert not x.grad.any()
    y = torch.randn(3, 5)
    length = y.norm(dim=1, keepdim=True)
    torch.testing.assert_close(squash(y, dim=1), length**2 / (1 + length**2) * y / length)


@pytest.mark.parametrize("training", [True, False])
def test_capsules_stay_finite_in_half_precision(training):
    detector = Capsule(16).train(training)
    crops = torch.stack([torch.full((3, 16, 16), value) for value in (0.0, 0.5, 1.0)])
    with torch.autocast("cpu", torch.float16):
        losses = detector.losses(crops, torch.tensor([0, 1, 1]))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(p.grad.isfinite().all() for p in detector.capsules.parameters())


@pytest.mark.parametrize("spread", [0.1, 1.0, 100.0])
def test_capsule_log_odds_are_those_of_the_mean_probability(spread):
    z = (spread * torch.randn(50, 4, 2)).double()
    probability = z.softmax(-1).mean(1)
    logits = Capsule(SIZE).log_odds(z)
    assert logits.isfinite().all()
    if spread <= 1.0:
        torch.testing.assert_close(logits, probability[:, 1].logit())
    twice = Capsule(SIZE, double_softmax=True).log_odds(z)
    torch.testing.assert_close(twice.sigmoid(), probability.softmax(-1)[:, 1])


def test_capsule_losses_are_four_cross_entropies():
    z, label = torch.randn(6, 4, 2), torch.arange(6) % 2
    losses = Capsule(SIZE).score_losses(z, label)
    expected = sum(functional.cross_entropy(z[:, i], label, reduction="none") for i in range(4))
    torch.testing.assert_close(losses, expected)


# Starting from ImageNet


def trunk_weights() -> dict[str, Tensor]:
    """VGG's in torchvision's names, with a classifier that is not wanted."""
    state = Capsule(SIZE).trunk.state_dict()
    weights = {f"features.{key}": value for key, value in state.items()}
    return weights | {"classifier.0.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize("name", ["vgg.safetensors", "vgg.pth"])
def test_a_backbone_comes_from_a_file(tmp_path, name):
    weights, file = trunk_weights(), tmp_path / name
    (save_file if file.suffix == ".safetensors" else torch.save)(weights, file)
    detector = Capsule(SIZE, pretrained=True, backbone_file=str(file))
    for key, value in detector.trunk.state_dict().items():
        assert torch.equal(value, weights[f"features.{key}"])
    assert "backbone_file" not in detector.settings()


@pytest.mark.parametrize(
    ("kind", "name"), [("xception", "legacy_xception"), ("dsp_fwa", "resnet50")]
)
def test_backbones_take_timm_s_own_files(tmp_path, kind, name):
    theirs = timm.create_model(name, num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    detector = MAKERS[kind](backbone_file=str(tmp_path / "weights.pth"))
    for key, value in detector.backbone.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[key])


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    file = tmp_path / "vgg.safetensors"
    with pytest.raises(UsageError, match=r"vgg\.safetensors: no such file"):
        Capsule(SIZE, backbone_file=str(file))
    weights = trunk_weights()
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(UnreadableError, match=r"lacks 16 of 16 arrays, features\.0\.weight first"):
        Capsule(SIZE, backbone_file=str(file))
    save_file(weights | {"features.5.weight": torch.zeros(2, 3)}, file)
    with pytest.raises(UnreadableError, match=r"features\.5\.weight is \[2, 3\], not \[128, 64,"):
        Capsule(SIZE, backbone_file=str(file))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UnreadableError, match="cannot be read as weights"):
        Capsule(SIZE, backbone_file=str(file))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of Hugging Face's hub, which is out of reach."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_pretrained_weights_come_from_timm_s_cache(hub):
    repository, commit = hub / "models--timm--vgg19.tv_in1k", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    weights = trunk_weights()
    save_file(weights, repository / "snapshots" / commit / "model.safetensors")
    detector = Capsule(SIZE, pretrained=True)
    for key, value in detector.trunk.state_dict().items():
        assert torch.equal(value, weights[f"features.{key}"])


@pytest.mark.parametrize(
    ("kind", "name"), [("capsule", "vgg19.tv_in1k"), ("dsp_fwa", "resnet50.tv_in1k")]
)
def test_without_a_network_the_file_and_the_options_are_named(hub, kind, name):
    with pytest.raises(AssetError) as error:
        MAKERS[kind](pretrained=True)
    message = str(error.value)
    assert f"timm/{name}/model.safetensors" in message
    assert "--model.init_args.backbone_file FILE" in message
    assert "--model.init_args.pretrained false" in message
    assert "\n" not in message


def test_xception_s_weights_come_from_torch_s_cache_or_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    backbone = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(AssetError, match=r"legacy_xception\.tf_in1k \(https.*xception-43020ad28"):
        load_backbone(backbone, "legacy_xception.tf_in1k", None)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    weights = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    torch.save(weights, cache / "xception-43020ad28.pth")
    load_backbone(backbone, "legacy_xception.tf_in1k", None)
    assert torch.equal(backbone[0].weight, torch.ones(2, 2))


# Training with Lightning


def test_an_epoch_logs_its_figures_and_they_are_of_that_epoch_only(tmp_path):
    data, detector = Batches(), DetectorTraining(Tint(SIZE))
    counted = []
    compute = detector.metrics.compute

    def counting() -> dict[str, Tensor]:
        counted.append(sum(map(len, detector.metrics.logits)))
        return compute()

    detector.metrics.compute = counting
    fit = trainer(tmp_path, max_epochs=2, num_sanity_val_steps=1)
    fit.fit(detector, data)
    assert counted == [4, 8, 8]  # the trial before training saw one batch of four
    figures = {
        f"{level}_{name}" for level in ("frame", "video") for name in ("auc", "eer", "accuracy")
    }
    assert {f"val/{name}" for name in figures} | {"val/loss", "train/loss"} == set(
        fit.callback_metrics
    )
    tested = fit.test(detector, data, verbose=False)[0]
    assert set(tested) == {f"test/{name}" for name in figures} | {"test/loss"}
    predicted = torch.cat(fit.predict(detector, data)).flatten()
    with torch.inference_mode():
        crops = torch.cat([batch.crops[:, 0] for batch in data.batches])
        torch.testing.assert_close(predicted, detector.detector.eval()(crops))
    label = torch.cat([batch.label for batch in data.batches])
    correct = ((predicted >= 0) == (label == 1)).float().mean()
    assert tested["test/frame_accuracy"] == pytest.approx(correct.item())


def test_one_class_in_validation_still_leaves_a_checkpoint(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/frame_accuracy", mode="max")
    fit = trainer(tmp_path, best, max_epochs=2, enable_checkpointing=True)
    fit.fit(DetectorTraining(Tint(SIZE)), Batches(genuine_only=True))
    assert Path(best.best_model_path).is_file()
    assert fit.callback_metrics["val/frame_auc"].isnan()


def test_a_face_in_several_regions_is_several_samples():
    detector = DetectorTraining(Tint(SIZE))
    crops = torch.rand(3, 2, 3, SIZE, SIZE)
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    detector.log = lambda *_, **__: None
    detector.validation_step(region_batch(crops, torch.tensor([0, 1, 0]), valid))
    index = torch.cat(detector.metrics.index)
    assert sorted(index[index >= 0].tolist()) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("size", [64, 75])
def test_a_symmetric_xception_is_timms_with_its_own_epsilon(size):
    ours = Xception(size, bn_eps=1e-5, padding="symmetric", normalisation="centred").eval()
    theirs = timm.create_model("legacy_xception", num_classes=2).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 1e-4, 1e-2)  # where epsilon matters
            module.eps = 1e-5
    state = theirs.state_dict()
    backbone = {f"backbone.{k}": v for k, v in state.items() if not k.startswith("fc.")}
    head = {f"classifier.{kind}": state[f"fc.{kind}"] for kind in ("weight", "bias")}
    ours.load_state_dict(backbone | head)
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours.scores(x), theirs(2 * x - 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(x), ours.scores(x)[:, 1] - ours.scores(x)[:, 0])


def test_unknown_settings_are_named():
    with pytest.raises(UsageError, match=r"unknown normalisation 'tanh'.*unit, centred"):
        Xception(64, normalisation="tanh")
    with pytest.raises(UsageError, match="unknown padding 'valid'"):
        Xception(64, padding="valid")
