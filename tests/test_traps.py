"""Slips that leave everything running and every figure wrong, looked for from end to end."""

import json

import numpy as np
import pytest
import torch
from detect_json import read_detect
from drawn_faces import write_drawn_store
from networks import landmarks
from PIL import Image

from deepregions.commands.cli import run
from deepregions.data.datamodule import RegionDataModule
from deepregions.data.store import (
    FaceRecord,
    FaceStore,
    StoreInfo,
    create_store,
    decode_image,
    encode_image,
)
from deepregions.types import BONA_FIDE, FAKE

RED, BLUE = (220, 30, 30), (30, 30, 220)


def _record(number: int, label: int, split: str) -> FaceRecord:
    """A face of one colour with some noise: genuine ones are red, fakes are blue."""
    noise = torch.Generator().manual_seed(number)
    colour = torch.tensor(RED if label == BONA_FIDE else BLUE).view(3, 1, 1)
    image = colour + torch.randint(-25, 26, (3, 200, 200), generator=noise)
    return FaceRecord(
        image=encode_image(image.clamp(0, 255).to(torch.uint8)),
        landmarks=landmarks()[0].numpy(),
        key=str(number),
        video=str(number),
        label=label,
        split=split,
        identities=(str(number),),
    )


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "colours"
    splits = ["train"] * 32 + ["val"] * 8
    records = [_record(number, number % 2, split) for number, split in enumerate(splits)]
    create_store(path, StoreInfo("colours", "made", "1"), records)
    return path


def test_one_is_fake_and_red_is_red_from_the_store_to_the_verdict(
    colours, tmp_path, monkeypatch, capsys
):
    """A sign or a channel order turned round anywhere between training and verdict fails this."""
    monkeypatch.chdir(tmp_path)
    network = ["--model=DSPFWA", "--model.size=64", "--model.pyramid=adaptive"]
    network += ["--model.optimizer=Adam", "--model.optimizer.lr=1e-4"]
    data = [f"--data.store={colours}", "--data.batch_size=8", "--data.augment=false"]
    trainer = ["--trainer.max_epochs=8", "--trainer.logger=false", "--data.workers=0"]
    assert run(["fit", *network, *data, *trainer, "--bundle=bundle"]) == 0
    validation = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["members"][0]
    assert validation["training"]["validation"]["frame_auc"] == 1.0
    points = {"points": landmarks()[0].tolist()}
    (tmp_path / "points.json").write_text(json.dumps(points))
    scores = []
    for name, label in (("genuine", BONA_FIDE), ("fake", FAKE)):
        pixels = decode_image(_record(1000 + label, label, "test").image)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{name}.png")
        cut = ["--landmarks=points.json", "--out=regions"]
        assert run(["segment", f"{name}.png", *cut]) == 0
        capsys.readouterr()
        segmented = ["--segmented", "--region=entire", "--json"]
        canvas = f"regions/{name}/face-0/entire.png"
        assert run(["detect", canvas, "--bundle", "bundle", *segmented]) == 0
        scores.append(read_detect(capsys.readouterr().out)["score"])
    assert scores[0] < 0.5 < scores[1]


def test_crops_are_red_green_blue(colours):
    data = RegionDataModule(str(colours), size=64, batch_size=8, workers=0, augment=False)
    data.setup("validate")
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    lit = batch.crops[:, 0].amax((2, 3))  # (B, 3)
    genuine = batch.label == BONA_FIDE
    assert (lit[genuine, 0] > 0.7).all()
    assert (lit[genuine, 2] < 0.4).all()
    assert (lit[~genuine, 2] > 0.7).all()
    assert (batch.label == FAKE).any()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_is_scored_on_its_own_faces_only(part, tmp_path):
    write_drawn_store(tmp_path / "toy", count=40, size=64)
    store = FaceStore(tmp_path / "toy")
    data = RegionDataModule(str(tmp_path / "toy"), size=64, batch_size=4, workers=0)
    data.setup("fit" if part != "test" else "test")
    loader = getattr(data, f"{part}_dataloader")()
    seen = {int(index) for batch in loader for index in batch.index}
    assert seen == set(np.flatnonzero(store.splits == part))
    people = {
        split: {
            name for row in np.flatnonzero(store.splits == split) for name in store[row].identities
        }
        for split in ("train", "val", "test")
    }
    assert not people["train"] & people["val"]
    assert not (people["train"] | people["val"]) & people["test"]
