"""``deepregions forge`` through its real entry point, on a photograph and on stores."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import INFO, record
from drawn_faces import write_drawn_store
from PIL import Image

import deepregions
from deepregions.commands.cli import run
from deepregions.data.datamodule import RegionDataModule
from deepregions.data.forged_store import made_here
from deepregions.data.store import FaceStore, create_store, decode_image, encode_image
from deepregions.forge import METHODS
from deepregions.forge.photos import NOTE
from deepregions.media.frames import DEFAULT_LIMITS
from deepregions.media.origin import read_origin
from deepregions.pipeline.origin_words import origin_line


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A photograph of a face that dlib's HOG finds (public domain), and its mirror image."""
    data = pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    folder = tmp_path_factory.mktemp("photos")
    portrait = data.astronaut()
    Image.fromarray(portrait).save(folder / "portrait.png")
    mirrored = Image.fromarray(np.ascontiguousarray(portrait[:400, ::-1])).resize((900, 703))
    mirrored.save(folder / "mirrored.jpg", quality=95)
    return [folder / "portrait.png", folder / "mirrored.jpg"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "store"
    write_drawn_store(path, count=48, seed=5, size=96)
    return path


def forge(*arguments: object) -> int:
    return run(["forge", *map(str, arguments), "--device", "cpu"])


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("method", METHODS)
def test_photographs(photos, method, tmp_path, capsys):
    options = ("--method", method, "--landmarks", "dlib-hog")
    assert forge(*photos, *options, "--out", tmp_path / "a") == 0
    folders = [tmp_path / "a" / photo.stem for photo in photos]
    assert capsys.readouterr().out.split() == [*map(str, folders)]
    for photo, folder in zip(photos, folders, strict=True):
        files = sorted(path.name for path in folder.iterdir())
        assert files == ["forge.json", "forged.png", "mask.png", "side_by_side.png"]
        before, after = pixels(photo), pixels(folder / "forged.png")
        mask = np.array(Image.open(folder / "mask.png"))
        assert before.shape == after.shape == (*mask.shape, 3)
        changed = (before != after).any(2)
        assert not changed[mask == 0].any()  # up to what rounds to nothing in the mask's file
        assert 0.01 < changed.mean() < 0.3
        assert np.abs(before - after)[changed].mean() < 60
        beside = Image.open(folder / "side_by_side.png")
        assert beside.width % 3 == 0 and beside.width > beside.height
        for name in ("forged", "mask", "side_by_side"):
            picture = Image.open(folder / f"{name}.png")
            assert picture.text["Description"].startswith(NOTE)  # type: ignore[attr-defined]
            assert NOTE in picture.getexif()[0x010E]
            with (folder / f"{name}.png").open("rb") as file:
                told = read_origin(folder / f"{name}.png", file, DEFAULT_LIMITS)
            assert told.source_types == ("compositeSynthetic",)
            assert told.software == (f"deepregions {deepregions.__version__}",)
            assert "a composite with synthetic elements" in origin_line(told)
        said = json.loads((folder / "forge.json").read_text())
        assert said["note"] == NOTE and said["method"] == method and said["seed"] == 0
        assert said["touched"]["entire"] and said["source"]["file"] == photo.name
        others = {p.name for p in photos} - {photo.name}
        assert (said["donor"] or {}).get("file") in (others if method == "swap" else {None})
    if method == "swap":  # it draws most
        assert forge(*photos, *options, "--out", tmp_path / "b") == 0
        assert forge(*photos, *options, "--out", tmp_path / "c", "--seed", 1) == 0
        same, other = (pixels(tmp_path / x / photos[0].stem / "forged.png") for x in "bc")
        assert np.array_equal(same, pixels(folders[0] / "forged.png"))
        assert not np.array_equal(other, same)


def test_names_that_are_no_text(photos, tmp_path, capfdbinary):
    odd = tmp_path / os.fsdecode(b"caf\xe9 \x1b[31m\n.png")
    odd.write_bytes(photos[0].read_bytes())
    wall = tmp_path / os.fsdecode(b"wall \xff\x1b[31m.png")
    Image.fromarray(np.full((200, 200, 3), 120, np.uint8)).save(wall)
    out = tmp_path / "out"
    for more in ((), (photos[1], "--method", "swap")):
        assert forge(odd, wall, *more, "--landmarks", "dlib-hog", "--out", out) == 0
        printed = capfdbinary.readouterr()
        assert len(printed.out.splitlines()) == 1 + (len(more) > 0)
        assert b"no face was found" in printed.err
        assert b"\x1b" not in printed.out + printed.err
    (said,) = (json.loads(path.read_text()) for path in out.glob("caf*/forge.json"))
    assert said["source"]["file"] == odd.name


def test_a_region_only(photos, tmp_path):
    options = ("--region", "mouth", "--landmarks", "dlib-hog", "--out", tmp_path)
    assert forge(photos[0], *options) == 0
    said = json.loads((tmp_path / "portrait/forge.json").read_text())
    assert said["region"] == "mouth"
    assert [name for name, value in said["touched"].items() if value] == ["entire", "mouth"]
    changed = (pixels(photos[0]) != pixels(tmp_path / "portrait/forged.png")).any(2)
    rows, columns = np.nonzero(changed)
    points = np.array(said["landmarks"])[48:60]
    assert points[:, 1].min() - 15 < rows.min() and rows.max() < points[:, 1].max() + 15
    assert points[:, 0].min() - 15 < columns.min() and columns.max() < points[:, 0].max() + 15


def test_what_is_no_portrait_is_told_and_left_out(photos, tmp_path, capsys):
    empty, broken = tmp_path / "wall.png", tmp_path / "broken.jpg"
    Image.fromarray(np.full((200, 200, 3), 120, np.uint8)).save(empty)
    broken.write_bytes(b"\xff\xd8 no picture")
    out = tmp_path / "out"
    options = ("--landmarks", "dlib-hog", "--out", out)
    assert forge(empty, broken, photos[0], *options) == 0
    said = capsys.readouterr()
    assert f"{empty}: no face was found" in said.err and str(broken) in said.err
    assert said.out.split() == [str(out / "portrait")]
    assert forge(empty, *options) == 5
    assert capsys.readouterr().err.count("\n") == 1
    assert forge(empty, photos[0], "--method", "swap", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "two photographs or more" in error and "another photograph" in error
    assert [path.name for path in out.iterdir()] == ["portrait"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give photographs to forge, or a store"),
        (("x.jpg", "--store", "s"), "not both"),
        (("x.jpg",), "x.jpg: no such file"),
        (("x.jpg", "--method", "gan"), "fwa"),
        (("x.jpg", "--region", "ear"), "eyes"),
        (("x.jpg", "--methods", "fwa"), "--methods and --region-p are for --store"),
        (("--store", "s", "--region", "eyes"), "--region is for photographs"),
        (("--store", "nowhere"), "there is no store at nowhere"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert forge(*arguments, "--out", "o") in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_a_store_of_forgeries(toy, tmp_path, capsys):
    out = tmp_path / "forged"
    assert forge("--store", toy, "--out", out) == 0
    printed = capsys.readouterr().out
    before, after = FaceStore(toy), FaceStore(out)
    genuine = [face for face in before if not face.label]
    assert f"{len(genuine)} genuine faces" in printed and f"store: {out}" in printed
    assert len(after) == 4 * len(genuine)
    assert after.info.database == "drawn"
    by_key = {face.key: face for face in after}
    assert len(by_key) == len(after)
    for face in genuine:
        own = by_key[face.key]
        assert (own.label, own.split, own.identities) == (0, face.split, face.identities)
        picture = decode_image(face.image)
        assert own.image == encode_image(picture)
        for name in METHODS:
            fake = by_key[f"{face.key}~{name}"]
            assert (fake.label, fake.split, fake.method) == (1, face.split, name)
            assert fake.video == f"{face.video}~{name}"
            assert np.array_equal(fake.landmarks, face.landmarks)
            assert fake.identities[0] == face.identities[0]
            if name == "swap":
                assert fake.identities[1] != face.identities[0]
            forged = decode_image(fake.image)
            assert forged.shape == picture.shape
            assert not torch.equal(forged, picture)
    assert made_here(after).tolist() == (after.labels == 1).tolist()
    assert not made_here(before).any()
    people = {
        split: {who for face in after if face.split == split for who in face.identities}
        for split in ("train", "val", "test")
    }
    assert not people["train"] & people["val"] and not people["train"] & people["test"]
    assert not people["val"] & people["test"]
    data = RegionDataModule(str(out), size=32, workers=0)
    data.setup("fit")


def test_stores_follow_the_seed(toy, tmp_path):
    prints = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ("--methods", "self_blend", "swap", "--region-p", 0.6, "--seed", seed)
        assert forge("--store", toy, "--out", tmp_path / name, *options) == 0
        prints.append(FaceStore(tmp_path / name).fingerprint)
    assert prints[0] == prints[1] != prints[2]
    methods = set(FaceStore(tmp_path / "a").column("method"))
    assert {"original", "self_blend", "swap", "self_blend:eyes", "swap:mouth"} <= methods


def test_bad_stores(toy, tmp_path, capsys):
    create_store(tmp_path / "fakes", INFO, (record(1, key=str(i)) for i in range(2)))
    assert forge("--store", tmp_path / "fakes", "--out", tmp_path / "o") == 1
    assert "no genuine faces" in capsys.readouterr().err
    assert forge("--store", toy, "--out", tmp_path / "fakes") == 1
    assert "is there already" in capsys.readouterr().err
    assert forge("--store", toy, "--out", tmp_path / "o", "--methods", "fwa", "fwa") == 2
    assert "each once" in capsys.readouterr().err
    assert forge("--store", toy, "--out", tmp_path / "o", "--region-p", 2) == 2
    assert "from 0 to 1" in capsys.readouterr().err
    alone = (record(i, label=0, identities=("one",), key=str(i)) for i in range(3))
    create_store(tmp_path / "alone", INFO, alone)
    assert forge("--store", tmp_path / "alone", "--out", tmp_path / "o", "--methods", "swap") == 0
    assert "3 faces could not be forged by swap" in capsys.readouterr().err
    assert len(FaceStore(tmp_path / "o")) == 3
