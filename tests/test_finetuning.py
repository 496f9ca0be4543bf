from functools import partial

import networks
import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, Dataset

from deepregions.detectors import Capsule, HeadFirst, RegionDetector
from deepregions.detectors.training import DetectorTraining
from deepregions.errors import UsageError
from deepregions.types import RegionBatch

SIZE = 8
COUNT = 11  # odd, so that two processes see one crop twice


class Small(RegionDetector):
    """A backbone with batch normalisation, and a head."""

    def __init__(self, size: int = SIZE, scheduled: bool = False) -> None:
        super().__init__(
            size=size,
            normalisation="centred",
            optimizer=partial(torch.optim.Adam, lr=0.01, weight_decay=0.1),
            lr_scheduler=partial(ExponentialLR, gamma=0.5) if scheduled else None,
        )
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.classifier = nn.Linear(4, 2)

    @property
    def head(self) -> nn.Module:
        return self.classifier

    def network(self, x: Tensor) -> Tensor:
        return self.classifier(self.backbone(x).mean((2, 3)))


class Crops(Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        generator = torch.Generator().manual_seed(i)
        return torch.rand(1, 3, SIZE, SIZE, generator=generator) * (1 + i % 2) / 2, i % 2, i


def collate(items: list[tuple[Tensor, int, int]]) -> RegionBatch:
    crops, label, index = (list(column) for column in zip(*items, strict=True))
    valid = torch.ones(len(items), 1, dtype=torch.bool)
    number = torch.tensor(index)
    names = tuple(map(str, index))
    return RegionBatch(torch.stack(crops), valid, torch.tensor(label), number, number, names)


def loader(batch_size: int = 4) -> DataLoader:
    return DataLoader(Crops(), batch_size, collate_fn=collate)


class Diary(Callback):
    """Keeps what the detector was at the start of every epoch, and before its last batch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.modes: list[tuple[bool, bool]] = []
        self.rates: list[float] = []
        self.learning: list[bool] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            detector = pl_module.detector
            self.modes.append((detector.backbone[1].training, detector.classifier.training))
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            self.learning.append(detector.backbone[0].weight.requires_grad)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.states.append({k: v.clone() for k, v in pl_module.detector.state_dict().items()})


trainer = partial(networks.trainer, max_epochs=4)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


HEAD = {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("validation", [1.0, 1])  # also validate in the middle of an epoch
def test_the_head_is_trained_first_and_everything_later(tmp_path, validation):
    torch.manual_seed(0)
    detector, diary = Small(), Diary()
    fit = trainer(tmp_path, HeadFirst(2, lr=0.001), diary, val_check_interval=validation)
    fit.fit(DetectorTraining(detector), loader(), loader())
    states = [*diary.states, detector.state_dict()]
    assert changed(states[0], states[1]) == HEAD
    assert changed(states[1], states[2]) == HEAD
    assert changed(states[2], states[3]) == set(detector.state_dict())
    assert diary.modes == [(False, True), (False, True), (True, True), (True, True)]
    assert diary.learning == [False, False, True, True]
    assert diary.rates == pytest.approx([0.01, 0.01, 0.001, 0.001])


def test_nothing_stays_frozen_when_training_ends_early(tmp_path):
    detector = Small()
    trainer(tmp_path, HeadFirst(5), max_epochs=1).fit(DetectorTraining(detector), loader())
    assert all(parameter.requires_grad for parameter in detector.parameters())


def test_schedulers_go_on_through_both_stages(tmp_path):
    diary = Diary()
    trainer(tmp_path, HeadFirst(1), diary).fit(DetectorTraining(Small(scheduled=True)), loader())
    assert diary.rates == pytest.approx([0.01, 0.005, 0.0025, 0.00125])


def test_what_is_frozen_by_design_stays_so(tmp_path):
    detector = Capsule(16)
    callback = HeadFirst(1)
    callback.setup(trainer(tmp_path), DetectorTraining(detector), "fit")
    assert all(parameter.requires_grad for parameter in detector.capsules.parameters())
    assert not any(parameter.requires_grad for parameter in detector.trunk.parameters())
    callback.on_fit_end(trainer(tmp_path), DetectorTraining(detector))
    assert not any(parameter.requires_grad for parameter in detector.trunk.parameters())


@pytest.mark.parametrize("stopped", [1, 2, 3])  # in the head's stage, at the turn, and after it
def test_a_resumed_training_is_an_undisturbed_one(tmp_path, stopped):
    def callbacks() -> list[Callback]:
        return [
            HeadFirst(2, lr=0.002),
            ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}"),
        ]

    torch.manual_seed(0)
    whole = Small()
    trainer(tmp_path, *callbacks(), enable_checkpointing=True).fit(
        DetectorTraining(whole), loader(), loader()
    )
    torch.manual_seed(1)
    resumed, diary = Small(), Diary()
    fit = trainer(tmp_path, *callbacks(), diary, enable_checkpointing=True)
    checkpoint = tmp_path / f"epoch={stopped - 1}.ckpt"
    fit.fit(DetectorTraining(resumed), loader(), loader(), ckpt_path=checkpoint)
    assert len(diary.states) == 4 - stopped
    groups = fit.optimizers[0].param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in resumed.parameters()}
    assert diary.rates == pytest.approx([0.01, 0.01, 0.002, 0.002][stopped:])
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value)


def test_only_sensible_arguments_are_taken(tmp_path):
    with pytest.raises(UsageError, match="-1 epochs"):
        HeadFirst(-1)
    with pytest.raises(UsageError, match=r"rate of -0\.1"):
        HeadFirst(lr=-0.1)
    with pytest.raises(UsageError, match="not LightningModule"):
        HeadFirst().setup(trainer(tmp_path), LightningModule(), "fit")
