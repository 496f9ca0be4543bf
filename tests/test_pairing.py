"""Training on genuine faces only: twins, their labels, and that every epoch is judged alike."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import INFO, record
from drawn_faces import write_drawn_store
from networks import trainer
from test_datamodule import Watcher, plain

from deepregions.commands.cli import run
from deepregions.data.augment import Strengths
from deepregions.data.datamodule import RegionDataModule, StoredFaces, collate
from deepregions.data.store import FaceStore, create_store
from deepregions.errors import UsageError
from deepregions.forge.online import ForgeConfig, OnlineForger
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.types import ORIGINAL, REGIONS, FaceBatch, Region, RegionBatch


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "mixed"
    write_drawn_store(path, count=64, seed=3, size=96)
    return path


@pytest.fixture(scope="module")
def genuine(mixed: Path) -> Path:
    """A store without fakes: 2 pictures of 12 people to train with, 2 of 2 others to validate."""
    store = FaceStore(mixed)
    path = mixed.parent / "genuine"
    create_store(path, store.info, (face for face in store if not face.label))
    return path


def module(store: Path, **values: Any) -> RegionDataModule:
    return RegionDataModule(
        str(store), **({"size": 48, "batch_size": 8, "workers": 0, "forge": True} | values)
    )


def faces(store: Path, split: str = "train") -> FaceBatch:
    opened = FaceStore(store)
    rows = np.flatnonzero(opened.splits == split)
    stored = StoredFaces(opened, rows, opened.persons)
    return collate([stored[i] for i in range(len(stored))])


def draws(batch: FaceBatch, seed: int = 0) -> FaceRng:
    return FaceRng(seeds_of(batch.key, seed))


def test_every_genuine_face_gets_a_twin(genuine: Path) -> None:
    batch = faces(genuine)
    count = len(batch.key)
    pairing = OnlineForger(ForgeConfig(("fwa", "self_blend", "swap")), 100, detail=None)
    pairs, rows = pairing.train(batch, draws(batch))
    assert rows.tolist() == [*range(count)] * 2
    assert pairs.label.tolist() == [0] * count + [1] * count
    assert torch.equal(pairs.landmarks[:count], pairs.landmarks[count:])
    assert pairs.region_label is not None and pairs.person is not None
    assert not pairs.region_label[:count].any()
    assert torch.equal(pairs.region_label[count:].amax(1), pairs.label[count:])
    assert (pairs.region_label[:, 0] == pairs.label).all()
    assert set(pairs.method[:count]) == {ORIGINAL}
    assert set(pairs.method[count:]) == {"fwa", "self_blend", "swap"}
    assert len(set(pairs.index.tolist())) == len(set(pairs.key)) == 2 * count
    assert set(pairs.video[:count].tolist()).isdisjoint(pairs.video[count:].tolist())
    different = (pairs.image[:count] != pairs.image[count:]).flatten(1).any(1)
    assert different.all()
    share = (pairs.image[:count] == pairs.image[count:]).all(1).float().mean()
    assert share > 0.3  # what is around the forgery is the same, to the bit


def test_nothing_is_read_back_from_the_device(genuine: Path) -> None:
    """On the "meta" device there is nothing to read, nor can host and device be mixed up."""
    batch = faces(genuine)
    there = batch.to("meta")
    for share in (1.0, 0.5):
        pairing = OnlineForger(
            ForgeConfig(("fwa", "swap"), region_p=0.5, share=share), 100, detail=None
        )
        assert pairing.train(there, draws(batch))[0].image.device.type == "meta"
        assert pairing.evaluate(there, draws(batch)).image.device.type == "meta"


def test_some_fakes_may_be_the_stores(mixed: Path) -> None:
    batch = faces(mixed)
    order = torch.stack(
        [torch.nonzero(batch.label == label)[:20, 0] for label in (0, 1)], 1
    ).flatten()
    stored = StoredFaces(FaceStore(mixed), batch.index[order].numpy(), FaceStore(mixed).persons)
    turns = collate([stored[i] for i in range(40)])  # a genuine one, a fake, ...
    pairing = OnlineForger(ForgeConfig(share=0.5), 100, detail=None)
    pairs, rows = pairing.train(turns, draws(turns))
    assert pairs.label.float().mean() == 0.5 and len(pairs.label) == 40
    kept = [name for name in pairs.method if name not in (ORIGINAL, "fwa", "self_blend")]
    assert 4 <= len(kept) <= 16
    assert torch.equal(pairs.index[-len(kept) :], turns.index[rows[-len(kept) :]])
    assert (pairs.index[:20] == turns.index[::2]).all()


def test_training_twins_are_made_anew_and_validation_twins_once(genuine: Path) -> None:
    data = module(
        genuine, augment=False, forge=ForgeConfig(held_out=("swap",)), batch_size=8, region="all"
    )
    watcher = Watcher()
    trainer(max_epochs=2, num_sanity_val_steps=1).fit(watcher, data)
    store = FaceStore(genuine)
    people = int((store.splits == "train").sum())
    trained = watcher.seen["train"]
    assert len(trained) == 2 * (people // 4)
    for batch in trained:
        assert batch.crops.shape == (8, 5, 3, 48, 48)
        assert batch.label.tolist() == [0] * 4 + [1] * 4
        assert batch.region_label is not None and batch.method is not None
        assert batch.region_label.shape == (8, 5)
        assert batch.methods == (ORIGINAL, "fwa", "self_blend", "swap")
        assert batch.method[:4].tolist() == [0] * 4 and batch.method.max() < 3
    first, second = (
        {int(i): crop for b in epoch for i, crop in zip(b.index, b.crops, strict=True)}
        for epoch in (trained[: people // 4], trained[people // 4 :])
    )
    again = [i for i in first if i in second and i >= len(store)]
    assert again and not any(torch.equal(first[i], second[i]) for i in again)

    validated = watcher.seen["val"][1:]  # the first was a trial
    assert len(validated) == 2
    one, two = validated[:1], validated[1:]
    for before, after in zip(one, two, strict=True):
        assert torch.equal(before.crops, after.crops)
        assert before.key == after.key
    batch = two[0]
    own = [row for row, key in enumerate(batch.key) if "~" not in key]
    assert batch.method is not None
    assert batch.method.bincount().tolist() == [len(own)] * 4
    originals = RegionBatch(**{**vars(batch), "index": batch.index[own]})
    assert torch.equal(batch.crops[own], plain(data, originals))  # judged as they are
    assert {store[int(i)].split for i in batch.index[own]} == {"val"}


def test_twins_suffer_what_their_originals_suffer(genuine: Path) -> None:
    """Where the forgery is not, the two are equal also after blur, noise and JPEG."""
    strengths = Strengths(flip_p=0.5, warp_p=0.5, colour_p=1, noise_p=1, jpeg_p=1, gamma_p=1)
    data = module(genuine, augment=strengths, forge=ForgeConfig(("fwa",), region_p=1.0))
    batch = faces(genuine)
    pairs = data._forged(batch, step=0)
    count = len(batch.key)
    one, two = pairs.image[:count].int(), pairs.image[count:].int()
    assert (pairs.image[:count] != batch.image).flatten(1).any(1).all()
    far = (one - two).abs().amax(1)  # (B, H, W)
    corner = far[:, :8, :8].amax((1, 2))  # a block of its own, far from the face
    assert (corner <= 1).all()  # contrast is about the picture's mean, which the forgery moves
    assert (far.amax((1, 2)) > 0).float().mean() > 0.8


def test_twins_are_cut_alike(genuine: Path) -> None:
    strengths = Strengths(warp_p=0, misplace_p=1, misplace=0.1)
    data = module(genuine, augment=strengths, forge=ForgeConfig(("fwa",)))
    batch = faces(genuine)
    pairs = data._forged(batch, step=0)
    count = len(batch.key)
    assert torch.equal(pairs.landmarks[:count], pairs.landmarks[count:])
    flat = replace(strengths, misplace_p=0)
    exact = module(genuine, augment=flat, forge=ForgeConfig(("fwa",)))._forged(batch, step=0)
    assert torch.equal(exact.image, pairs.image)  # forged where the face is
    assert (exact.landmarks != pairs.landmarks).flatten(1).any(1).all()


def test_one_region(genuine: Path) -> None:
    data = module(genuine, region="mouth", forge=ForgeConfig(("self_blend",), region_p=1.0))
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch.region_label is not None
    assert batch.region_label.shape == batch.valid.shape == (len(batch.key), 1)
    labels = batch.region_label[:, 0]
    assert 0 < labels.sum() < batch.label.sum()  # elsewhere forged: this mouth is genuine
    assert not (labels & ~batch.label.bool()).any()


def test_stored_fakes_of_one_region_are_labelled_so(tmp_path: Path) -> None:
    methods = ("original", "swap:mouth", "Deepfakes", "swap:ear")
    faces_ = [record(i, label=int(i > 0), method=name) for i, name in enumerate(methods)]
    store = create_store(tmp_path / "s", INFO, faces_)
    stored = StoredFaces(store, np.arange(4))
    mouth = [int(region in (Region.ENTIRE, Region.MOUTH)) for region in REGIONS]
    labels = [stored[i]["region_label"] for i in range(4)]
    assert labels == [[0] * 5, mouth, [1] * 5, [1] * 5]


def test_persons_are_by_first_identity_or_video(tmp_path: Path) -> None:
    people = [("a",), ("a", "b"), ("b",), (), ()]
    faces_ = [record(i, identities=who, video=f"v{i // 4}") for i, who in enumerate(people)]
    persons = create_store(tmp_path / "s", INFO, faces_).persons
    assert persons[0] == persons[1]
    assert len(set(persons.tolist())) == 4


def test_wrong_usage(mixed: Path, genuine: Path, tmp_path: Path) -> None:
    for values, message in (
        ({"methods": ("gan",)}, "no forgery 'gan'"),
        ({"methods": ()}, "at least one of"),
        ({"held_out": ("fwa",)}, "each once"),
        ({"region_p": 1.5}, "region_p"),
        ({"share": 0.0}, "share"),
        ({"detail": 2}, "detail"),
    ):
        with pytest.raises(UsageError, match=message):
            ForgeConfig(**values)
    with pytest.raises(UsageError, match=r"no fake faces.*--data\.forge"):
        module(genuine, forge=False).setup("fit")
    with pytest.raises(UsageError, match="no fake faces"):
        module(genuine, forge=ForgeConfig(share=0.5)).setup("fit")
    fakes = create_store(
        tmp_path / "fakes", INFO, (record(1, split=split) for split in ("train", "val"))
    )
    with pytest.raises(UsageError, match="no genuine faces in the split 'train'"):
        module(fakes.path).setup("fit")
    module(mixed).setup("fit")


def test_fit_from_genuine_faces_only(
    genuine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--model", "DSPFWA", "--model.size", "64", "--model.pyramid", "adaptive"]
    options += ["--data.store", str(genuine), "--data.batch_size", "8", "--data.workers", "0"]
    options += ["--data.forge.methods", "[fwa, self_blend]", "--data.forge.held_out", "[swap]"]
    assert run(["fit", *options, "--trainer.max_epochs", "1", "--bundle", "b"]) == 0
    with (tmp_path / "runs/fit/version_0/metrics.csv").open() as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["val/frame_auc"]]
    for name in ("fwa", "self_blend", "swap"):
        assert 0 <= float(row[f"val/frame_auc/{name}"]) <= 1
    training = json.loads((tmp_path / "b/bundle.json").read_text())["members"][0]["training"]
    assert training["forge"]["methods"] == ["fwa", "self_blend"]
    assert "frame_auc/swap" in training["validation"]
    assert "genuine faces by fwa, self\\_blend" in (tmp_path / "b/README.md").read_text()
