"""Batches: the right faces, in the right numbers, altered in training only."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import INFO, record, small_store
from hypothesis import given
from hypothesis import strategies as st
from networks import trainer
from pytorch_lightning import LightningModule
from torch.utils.data import DistributedSampler

from deepregions.data.augment import Strengths
from deepregions.data.datamodule import RegionDataModule, StoredFaces, collate
from deepregions.data.sampling import BalancedSampler, PairSampler
from deepregions.data.store import create_store, decode_image, encode_image
from deepregions.errors import StoreError, UsageError
from deepregions.faces.cropping import RegionCropper
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.types import REGIONS, FaceBatch, Region, RegionBatch

SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 4


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(small_store(tmp_path / "store", SPLITS).path)


def module(store: str, **values: Any) -> RegionDataModule:
    return RegionDataModule(store, **({"size": 32, "batch_size": 4, "workers": 0} | values))


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(2, 200)),
)
def test_balanced_sampler(
    reals: int, fakes: int, ranks: int, epoch: int, draws: int | None
) -> None:
    labels = np.random.default_rng(0).permutation([0] * reals + [1] * fakes)
    drawn = []
    for rank in range(ranks):
        sampler = BalancedSampler(labels, labels, ranks, rank, draws=draws, seed=1)
        sampler.set_epoch(epoch)
        own = list(sampler)
        assert len(own) == len(sampler) == len(list(sampler))
        assert labels[own].sum() * 2 == len(own)  # each rank is balanced
        drawn.append(own)
    assert len({len(own) for own in drawn}) == 1
    everything = np.concatenate(drawn)
    assert len(everything) <= max(draws or len(labels), 2 * ranks)
    assert len(everything) > (draws or len(labels)) - 2 * ranks
    # Together the ranks draw what one alone would: no face more than once more than another.
    for label, count in ((0, reals), (1, fakes)):
        times = np.bincount(everything[labels[everything] == label], minlength=len(labels))
        times = times[labels == label]
        assert times.max() - times.min() <= 1
        assert times.sum() == len(everything) // 2
        assert len(times) == count


@pytest.mark.parametrize("paired", [False, True])
def test_samplers_are_functions_of_seed_and_epoch(paired: bool) -> None:
    labels, persons = np.arange(100) % 2, np.arange(100) // 4

    def order(seed: int, epoch: int) -> list[int]:
        if paired:
            sampler = PairSampler(labels, labels, persons, seed=seed)
        else:
            sampler = BalancedSampler(labels, labels, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_batches_are_balanced_too() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    order = labels[list(BalancedSampler(labels, labels))]
    assert (order.reshape(-1, 4).sum(1) == 2).all()


def test_collate_pads_right_and_below(tmp_path: Path) -> None:
    store = create_store(
        tmp_path / "s", INFO, [record(i, size=size) for i, size in enumerate((40, 64, 50))]
    )
    faces = StoredFaces(store, np.array([2, 0, 1]))
    batch = collate([faces[i] for i in range(3)])
    assert isinstance(batch, FaceBatch)
    assert batch.image.shape == (3, 3, 64, 64)
    assert batch.image.dtype == torch.uint8
    assert batch.index.tolist() == [2, 0, 1]
    assert batch.key == ("k2", "k0", "k1")
    assert batch.label.tolist() == [0, 0, 1]
    assert batch.video.tolist() == [1, 0, 0]
    for row, index in enumerate((2, 0, 1)):
        face = store[index]
        side = decode_image(face.image).shape[1]
        assert torch.equal(batch.image[row, :, :side, :side], decode_image(face.image))
        assert not batch.image[row, :, side:].any()
        assert not batch.image[row, :, :, side:].any()
        assert np.array_equal(batch.landmarks[row].numpy(), face.landmarks)


class Watcher(LightningModule):
    """Remembers what it is given; its module state is the opposite of the trainer's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: dict[str, list[RegionBatch]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: RegionBatch) -> torch.Tensor:
        self.eval()
        self.seen["train"].append(batch)
        return self.layer(batch.crops.mean((1, 2, 3, 4))[:, None]).sum()

    def validation_step(self, batch: RegionBatch) -> None:
        self.train()
        self.seen["val"].append(batch)

    def test_step(self, batch: RegionBatch) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def plain(data: RegionDataModule, batch: RegionBatch) -> torch.Tensor:
    """The crops of a batch's faces as they are in the store."""
    faces = StoredFaces(data.store, batch.index.numpy())
    whole = collate([faces[i] for i in range(len(faces))])
    regions = REGIONS if data.region == "all" else (Region(data.region),)
    return RegionCropper(data.size, regions)(whole.image, whole.landmarks)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_alters_faces_by_the_trainers_state(store: str, workers: int) -> None:
    strengths = Strengths(colour_p=1.0, noise_p=1.0, noise_std=0.1)
    data = module(store, augment=strengths, region="all", workers=workers)
    watcher = Watcher()
    trainer(max_epochs=2, num_sanity_val_steps=1).fit(watcher, data)
    assert len(watcher.seen["train"]) == 2 * 3
    assert len(watcher.seen["val"]) == 1 + 2 * 2
    for batch in watcher.seen["train"]:
        assert not torch.allclose(batch.crops, plain(data, batch), atol=0.02)
    for batch in watcher.seen["val"]:
        assert torch.equal(batch.crops, plain(data, batch))
    assert {i for b in watcher.seen["train"] for i in b.index.tolist()} == set(range(12))
    assert [i for b in watcher.seen["val"][1:3] for i in b.index.tolist()] == [*range(12, 18)]
    orders = [torch.cat([b.index for b in watcher.seen["train"][e : e + 3]]) for e in (0, 3)]
    assert not torch.equal(*orders)  # Lightning tells the sampler the epoch
    trainer().test(watcher, data, verbose=False)
    for batch in watcher.seen["test"]:
        assert torch.equal(batch.crops, plain(data, batch))
    assert [i for b in watcher.seen["test"] for i in b.index.tolist()] == [*range(18, 22)]


def test_a_face_is_trained_on_as_if_it_were_alone(tmp_path: Path) -> None:
    """Its crops and validity: whichever sizes its neighbours have, wherever it is cut."""
    shifts = [[0, 0], [-45, 0], [45, 0], [0, -45], [0, 45], [0, 0]]
    records = []
    for number, shift in enumerate(shifts):
        face = record(number, size=(side := 90 + 20 * (number % 3)))
        noise = torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
        shifted = face.landmarks + np.float32(shift)
        records.append(replace(face, image=encode_image(noise), landmarks=shifted))
    store = create_store(tmp_path / "s", INFO, records)
    faces = StoredFaces(store, np.arange(len(records)))
    data = module(str(store.path), region="all", augment=Strengths(warp_p=1.0, flip_p=1.0))
    assert data._augmenter is not None
    augmenter = data._augmenter
    draws = FaceRng(seeds_of(store.column("key")))

    def cut(batch: FaceBatch, own: FaceRng) -> RegionBatch:
        image, points = augmenter(batch.image, batch.landmarks, own, extent=batch.extent)
        return data._cut(replace(batch, image=image, landmarks=points))

    together = cut(collate([faces[n] for n in range(len(faces))]), draws)
    assert together.valid.any() and not together.valid.all()
    for number in range(len(faces)):
        alone = cut(collate([faces[number]]), draws[torch.tensor([number])])
        assert alone.valid[0].tolist() == together.valid[number].tolist()
        torch.testing.assert_close(alone.crops[0], together.crops[number], rtol=0, atol=1.1 / 255)


def test_augment_false_leaves_training_faces_alone(store: str) -> None:
    data = module(store, augment=False)
    watcher = Watcher()
    trainer(max_epochs=1).fit(watcher, data)
    for batch in watcher.seen["train"]:
        assert torch.equal(batch.crops, plain(data, batch))


def test_region_batches(store: str) -> None:
    for region, count in (("all", 5), ("mouth", 1), (Region.REST, 1)):
        data = module(store, region=region)
        data.setup("test")
        batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
        assert isinstance(batch, RegionBatch)
        assert batch.crops.shape == (4, count, 3, 32, 32)
        assert batch.crops.dtype == torch.float32
        assert batch.valid.shape == (4, count)
        assert batch.valid.all()
        assert 0 <= batch.crops.min() < batch.crops.max() <= 1
        assert batch.label.tolist() == [0, 1, 0, 1]
    shades = batch.crops.amax((0, 1, 3, 4))
    assert shades[0] > shades[1] > shades[2]  # stored as (200, 100, <22): RGB, not BGR


def test_unbalanced_draws_each_face_once(store: str) -> None:
    loader = module(store, balanced=False).train_dataloader()
    assert type(loader.sampler) is DistributedSampler
    assert sorted(i for batch in loader for i in batch.index.tolist()) == [*range(12)]


def test_faces_per_epoch(store: str) -> None:
    loader = module(store, faces_per_epoch=40).train_dataloader()
    assert isinstance(loader.sampler, BalancedSampler)
    assert len(loader) == 10
    assert len(module(store, faces_per_epoch=2).train_dataloader()) == 1  # less than a batch


def test_wrong_usage(store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'mouht'.*entire, eyes, nose, mouth, rest, all"):
        module(store, region="mouht")
    with pytest.raises(UsageError, match="layout"):
        module(store, layout="loose")
    for name, value in (("batch_size", 0), ("workers", -1), ("faces_per_epoch", 1)):
        with pytest.raises(UsageError, match=name):
            module(store, **{name: value})
    with pytest.raises(StoreError, match="no store at"):
        module(str(tmp_path / "nowhere")).setup("fit")
    no_val = small_store(tmp_path / "no_val", ["train", "train"])
    with pytest.raises(UsageError, match="no faces in the split 'val'"):
        module(str(no_val.path)).setup("fit")
    no_fake = small_store(tmp_path / "no_fake", ["train", "val", "train", "val"])
    with pytest.raises(UsageError, match="no fake faces"):
        module(str(no_fake.path)).setup("fit")
    with pytest.raises(UsageError, match="no faces in the split 'test'"):
        module(str(no_fake.path)).setup("test")
