"""Several stores as one, pairs of a person's faces, and faces that workers alter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import INFO, face_points, record, small_store

from deepregions.data.augment import Strengths
from deepregions.data.datamodule import RegionDataModule
from deepregions.data.sampling import PairSampler
from deepregions.data.store import FaceStore, StoreInfo, create_store
from deepregions.errors import UsageError
from deepregions.forge.online import ForgeConfig
from deepregions.types import RegionBatch


def test_rows_of_one_store_follow_those_of_the_other(tmp_path: Path) -> None:
    one = small_store(tmp_path / "one", ["train", "val", "test"])
    two = small_store(tmp_path / "two", ["val", "train"])
    both = FaceStore(one.path, two.path)
    assert len(both) == 5
    assert [face.split for face in map(both.__getitem__, range(5))] == both.splits.tolist()
    assert both.splits.tolist() == ["train", "val", "test", "val", "train"]
    assert both.labels.tolist() == [*one.labels, *two.labels]
    assert both[-1].key == two[1].key
    with pytest.raises(IndexError):
        both[5]
    assert both.info == one.info
    assert both.fingerprint not in (one.fingerprint, two.fingerprint)


def test_people_of_two_stores_are_never_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_store(tmp_path / name, ["train"] * 4, identities=("anna",))
    both = FaceStore(tmp_path / "one", tmp_path / "two")
    assert not {*both.persons[:4]} & {*both.persons[4:]}
    assert not {*both.videos[:4]} & {*both.videos[4:]}


def test_stores_that_do_not_go_together(tmp_path: Path) -> None:
    small_store(tmp_path / "one", ["train"])
    create_store(tmp_path / "two", StoreInfo("test", "other", "1"), [record()])
    with pytest.raises(UsageError, match="landmarks of other and painted"):
        FaceStore(tmp_path / "one", tmp_path / "two")
    with pytest.raises(UsageError, match="given twice"):
        FaceStore(tmp_path / "one", tmp_path / "one")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_genuine_face_then_a_fake_of_the_same_person(ranks: int) -> None:
    labels = np.array([0, 1, 1, 0, 0, 1, 0])
    persons = np.array([7, 7, 7, 7, 8, 8, 9])
    drawn: list[list[int]] = []
    for rank in range(ranks):
        sampler = PairSampler(range(7), labels, persons, ranks, rank, draws=8 * ranks, seed=1)
        positions = list(sampler)
        assert len(positions) == len(sampler) == 8
        drawn += np.array(positions).reshape(-1, 2).tolist()
    genuine = [first for first, _ in drawn]
    assert {*genuine} == {0, 3, 4, 6}
    for first, second in drawn:
        assert labels[first] == 0
        assert persons[first] == persons[second]
        assert second == first if first == 6 else labels[second] == 1


def stores(folder: Path) -> list[str]:
    """One with a person's genuine and fake faces, one with genuine faces only."""
    splits = ["train"] * 8 + ["val"] * 2
    small_store(folder / "both", splits, identities=("anna",), size=96)
    faces = [
        record(10 + i, 96, label=0, split=split, landmarks=face_points() * 48 + 24)
        for i, split in enumerate(splits)
    ]
    create_store(folder / "photos", INFO, faces)
    return [str(folder / "both"), str(folder / "photos")]


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_alter_forge_and_cut(tmp_path: Path, workers: int) -> None:
    data = RegionDataModule(
        stores(tmp_path),
        size=32,
        batch_size=8,
        workers=workers,
        paired=True,
        alter_in_workers=True,
        augment=Strengths(),
        forge=ForgeConfig(share=0.01),
    )
    data.setup("fit")
    torch.manual_seed(0)
    methods: list[int] = []
    for batch in data.train_dataloader():
        assert isinstance(batch, RegionBatch)
        assert data.on_after_batch_transfer(batch, 0) is batch
        assert batch.crops.shape == (8, 1, 3, 32, 32)
        assert batch.label[:4].tolist() == [0] * 4
        assert batch.method is not None
        methods += batch.method[4:].tolist()
    # Those of whom the store has no fake get a forged one, hardly any of the others.
    forged = sum(0 < method < len(batch.methods) for method in methods)
    assert 6 <= forged <= 10
    assert len(methods) == 12


def test_pairs_without_a_forgery(tmp_path: Path) -> None:
    data = RegionDataModule(stores(tmp_path)[0], size=32, batch_size=4, workers=0, paired=True)
    data.setup("fit")
    for faces in data.train_dataloader():
        assert faces.label.tolist() == [0, 1, 0, 1]
