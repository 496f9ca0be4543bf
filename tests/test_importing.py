"""Checkpoints of other programs: each becomes a member whose score is that of its program."""

import json
import lzma
import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import foreign
import h5py
import numpy as np
import pytest
import torch
from convert_keras import convert_keras
from foreign import CadeneXception, ForeignCapsule, ForeignSPPNet, TransferModel, pictures, settle
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepregions.commands.cli import run, run_program
from deepregions.detectors import Capsule, Xception
from deepregions.errors import (
    AssetError,
    DeepregionsError,
    UnreadableError,
    UnsupportedError,
    UsageError,
)
from deepregions.safe_pickle import read_state_dict
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle
from deepregions.weights.convert import importing
from deepregions.weights.convert.importing import (
    Importer,
    StartingWeights,
    save_imported,
)
from deepregions.weights.convert.recognise import Checkpoint, identify, recognise


def save(state: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def capsule() -> ForeignCapsule:
    return ForeignCapsule()


@pytest.fixture
def vgg(capsule: ForeignCapsule, tmp_path: Path) -> Path:
    return save(capsule.saved_vgg(), tmp_path / "vgg19-dcbb9e9d.pth")


def imagenet(x: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def assert_scores(path: Path, images: Tensor, expected: Tensor, **options) -> TrainedNetwork:
    """Imports, saves and loads, and compares scores."""
    assert ((expected > 0.01) & (expected < 0.99)).all(), "saturated scores would hide differences"
    member = Importer(**options)(path)
    (loaded,) = load_bundle(save_imported(member, path.parent / "out"))
    with torch.inference_mode():
        turned = loaded.detector(images.flip(1)).sigmoid()
        assert (turned - expected).abs().max() > 1e-4, "scores do not depend on the colours"
        torch.testing.assert_close(
            loaded.detector(images).sigmoid(), expected.float(), rtol=0, atol=1e-5
        )
    assert (loaded.layout, loaded.resample) == (member.layout, member.resample)
    return loaded


def unpacked(shared: Path, name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(lzma.decompress((shared / "golden" / f"{name}.xz").read_bytes()))
    return path


@pytest.mark.parametrize("detector", ["Capsule", "DSP-FWA"])
def test_bidas_own_files_give_the_scores_of_its_own_code(shared, tmp_path, detector):
    theirs = np.load(shared / "golden" / "torch_outputs.npz")
    images = torch.from_numpy(theirs["images"]).permute(0, 3, 1, 2).float() / 255
    path = unpacked(shared, f"{detector}_UADFV_eyes.pt", tmp_path)
    options = {}
    if detector == "Capsule":
        options["vgg"] = unpacked(shared, "vgg19_features.pth", tmp_path)
    expected = theirs["capsule_score" if detector == "Capsule" else "dsp_score"]
    member = assert_scores(path, images, torch.from_numpy(expected), **options)
    assert (member.region, member.database, member.layout) == (Region.EYES, "uadfv", "masked")
    source = member.training["source"]
    assert (source["file"], source["fake_index"]) == (path.name, 0)
    assert source["project"] == "BiDAlab/DeepFakes_FacialRegions"


@pytest.mark.parametrize(
    ("name", "classes", "own"),
    [("capsule_21.pt", 2, False), ("capsule_13.pt", 4, False), ("capsule_net_best.pth", 2, True)],
)
def test_capsules_of_other_programs(tmp_path, name, classes, own):
    """Of Capsule-Forensics-v2, with any kind of fake; DeepfakeBench's bring their VGG along."""
    network = ForeignCapsule(classes=classes, seed=classes)
    path = save(
        network.saved(vgg="vgg_ext.vgg_1." if own else None, prefix="module."), tmp_path / name
    )
    options = {} if own else {"vgg": save(network.saved_vgg(), tmp_path / "vgg19-dcbb9e9d.pth")}
    images = pictures(256 if own else 300)
    with torch.inference_mode():
        scores = network((images - 0.5) / 0.5 if own else imagenet(images))
    member = assert_scores(path, images, scores.softmax(1)[:, 1:].sum(1), **options)
    assert (member.layout, member.database) == ("context", "ffpp")
    assert (member.detector.size, member.detector.settings()["classes"]) == (
        len(images[0, 0]),
        classes,
    )
    source = member.training["source"]
    assert any("vgg19-dcbb9e9d.pth" in each for each in source["remarks"]) != own
    assert source["licence"] == ("CC-BY-NC-4.0" if own else "BSD-3-Clause")
    if classes > 2:
        with pytest.raises(UnreadableError, match="class 0 of 4 cannot be the fake one"):
            Importer(**options, fake_index=0)(path)


def test_dsp_fwa_of_its_authors_takes_blue_first(tmp_path):
    network = ForeignSPPNet()
    path = save({"epoch": 19, "net": network.saved()}, tmp_path / "SPP-res50.pth")
    images = pictures(224)
    blue_first = images.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    with torch.inference_mode():
        expected = network(blue_first).softmax(1)[:, 0]
    member = assert_scores(path, images, expected)
    assert (member.name, member.layout) == ("dsp-fwa_entire.warped", "context")


@pytest.mark.parametrize(
    ("name", "project", "wrapped"),
    [("SPP-res50.pth", "dsp-fwa", False), ("x.pth", "dsp-fwa", True), ("x.pth", None, False)],
)
def test_a_wrapped_sppnet_or_one_of_its_authors_name_is_theirs(tmp_path, name, project, wrapped):
    state = {"module.resnet.resnet.conv1.weight": torch.zeros(64, 3, 7, 7)}
    path = save({"epoch": 1, "net": state} if wrapped else state, tmp_path / name)
    if project is not None:
        assert recognise(path).project == project
        return
    with pytest.raises(UnsupportedError, match="--project bida or dsp-fwa"):
        recognise(path)


@pytest.fixture(scope="module")
def transfer_model() -> TransferModel:
    torch.manual_seed(3)
    return settle(TransferModel(dropout=True))


@pytest.fixture(scope="module")
def transfer_scores(transfer_model: TransferModel) -> tuple[Tensor, Tensor]:
    images = pictures(299)
    with torch.inference_mode():
        return images, transfer_model((images - 0.5) / 0.5).softmax(1)[:, 1]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("form", ["module", "legacy module", "state dict", "safetensors"])
def test_faceforensics_xception(transfer_model, transfer_scores, tmp_path, form):
    path = tmp_path / "all_c23.p"
    kept = transfer_model.model.features
    del transfer_model.model.features  # not part of what the program saves
    try:
        if "module" in form:
            with foreign.posing(foreign.FACE_FORENSICS):
                torch.save(
                    transfer_model, path, _use_new_zipfile_serialization="legacy" not in form
                )
            with pytest.raises(ModuleNotFoundError, match="network"):  # what everyone meets
                torch.load(path, weights_only=False)
        elif form == "safetensors":
            save_file(transfer_model.state_dict(), path)
        else:
            torch.save(transfer_model.state_dict(), path)
    finally:
        transfer_model.model.features = kept
    if form != "module":  # the same arrays, so the same scores
        assert recognise(path).project == "faceforensics"
        read, expected = read_state_dict(path), transfer_model.state_dict()
        assert read.keys() == expected.keys()
        assert all(torch.equal(read[key], expected[key]) for key in expected)
        return
    member = assert_scores(path, *transfer_scores)
    assert (member.name, member.layout) == ("xception_entire.ffpp", "context")
    assert member.detector.settings()["padding"] == "symmetric"


def test_deepfakebench_xception_and_its_fwa(tmp_path):
    torch.manual_seed(4)
    network = settle(CadeneXception())
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    state |= {"backbone.adjust_channel.0.weight": torch.zeros(512, 2048, 1, 1)}
    images = pictures(256)
    with torch.inference_mode():
        expected = network((images - 0.5) / 0.5).softmax(1)[:, 1]
    for name, database in (("xception_best", "ffpp"), ("fwa_best", "ffpp-fwa")):
        member = assert_scores(save(state, tmp_path / f"{name}.pth"), images, expected)
        assert (member.detector.name, member.database) == ("xception", database)


@pytest.mark.parametrize("flat", [True, False])
def test_cadenes_imagenet_xception_starts_a_training(tmp_path, flat):
    torch.manual_seed(5)
    network = settle(CadeneXception(classes=1000))
    state = {key.replace("last_linear", "fc"): x for key, x in network.state_dict().items()}
    state = {key: x for key, x in state.items() if "num_batches_tracked" not in key}
    if flat:  # the file of 2017
        state = {k: x[:, :, 0, 0] if "pointwise" in k else x for k, x in state.items()}
    path = save(state, tmp_path / "xception-b5690688.pth")
    imported = Importer()(path)
    assert isinstance(imported, StartingWeights)
    written = save_imported(imported, tmp_path / "out")
    assert written.name == "xception-b5690688.safetensors"
    assert all(value.dim() != 2 for value in load_file(written).values())
    settings = {"bn_eps": 1e-5, "padding": "symmetric", "normalisation": "centred"}
    detector = Xception(96, backbone_file=str(written), **settings).eval()
    images = pictures(96)
    with torch.inference_mode():
        expected = network.features[0].forward_features(images).mean((2, 3))
        torch.testing.assert_close(detector.backbone(images), expected)


def keras_standing_in(monkeypatch: pytest.MonkeyPatch) -> Xception:
    """Takes the place of the Keras reader, which has tests of its own."""
    detector = settle(Xception(64, bn_eps=2e-3))
    with torch.inference_mode():
        scale = detector(pictures(64)).abs().item()
    detector.classifier.weight.data.div_(scale)  # else every score is 0 or 1

    def convert_keras(path: Path, *, fake_index: int | None) -> SimpleNamespace:
        assert path.suffix == ".hdf5"
        state = detector.state_dict()
        if not fake_index:
            state |= {key: state[key].flip(0) for key in state if key.startswith("classifier")}
        return SimpleNamespace(
            state=state,
            settings={"size": 64, "bn_eps": 2e-3, "normalisation": "unit"},
            fake_index=None if "backbone" in path.stem else fake_index or 0,
            head="Dense(2, softmax)",
            notes=("noted",),
        )

    monkeypatch.setattr(importing, "convert_keras", convert_keras)
    return detector


def test_bidas_xception_keeps_what_the_keras_file_says(monkeypatch, tmp_path):
    detector = keras_standing_in(monkeypatch)
    path = tmp_path / "Xception_CelebDF_rest.hdf5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n and so on")
    images = pictures(64)
    with torch.inference_mode():
        genuine = detector(images).sigmoid()
    member = assert_scores(path, images, 1 - genuine)  # BiDA's fake is class 0
    turned = Importer(fake_index=1)(path).detector
    with torch.inference_mode():
        torch.testing.assert_close(turned(images).sigmoid(), genuine)
    assert (member.name, member.resample) == ("xception_rest.celebdf", "nearest")
    assert member.layout == "masked"
    assert "noted" in member.training["source"]["remarks"]
    bare = path.rename(tmp_path / "backbone.hdf5")
    with pytest.raises(UnsupportedError, match=r"Dense\(2, softmax\).*convert_keras"):
        Importer(project="bida", region="eyes", database="dfdc")(bare)


def test_bidas_own_keras_file_gives_the_scores_of_keras(shared, tmp_path):
    theirs = np.load(shared / "golden" / "bida_tf110_flat.npz")
    packed = (shared / "golden" / "bida_tf110_flat.hdf5.xz").read_bytes()
    path = tmp_path / "Xception_UADFV_eyes.hdf5"
    path.write_bytes(lzma.decompress(packed))
    images = torch.from_numpy(theirs["x"]).permute(0, 3, 1, 2).float() / 255
    member = assert_scores(path, images, torch.from_numpy(theirs["y"][:, 0]))
    assert (member.name, member.resample) == ("xception_eyes.uadfv", "nearest")


DETECTORS = {"Capsule": "pt", "DSP-FWA": "pt", "Xception": "hdf5"}
BIDA_DATABASES = {"UADFV": "uadfv", "FaceForensics": "ffpp", "CelebDF": "celebdf", "DFDC": "dfdc"}


def test_all_sixty_names_of_bida_are_understood():
    found = set()
    for (detector, suffix), database, region in product(
        DETECTORS.items(), BIDA_DATABASES, ("entire", "eyes", "nose", "mouth", "rest")
    ):
        path = Path("models") / database / f"{detector}_{database}_{region}.{suffix}"
        content = Checkpoint("keras" if suffix == "hdf5" else "torch", detector.lower(), {}, 2)
        known = identify(path, content)
        assert known.project == "bida"
        assert known.detector == detector.lower()
        assert known.database == BIDA_DATABASES[database]
        assert known.region == region
        found.add((known.detector, known.region, known.database))
    assert len(found) == 60


@pytest.mark.parametrize(
    ("name", "region", "database"),
    [
        ("capsule_ff++_face", "entire", "ffpp"),
        ("Capsule_FaceForensics++_Eye", "eyes", "ffpp"),
        ("Capsule_Celeb-DF_remaining", "rest", "celebdf"),
        ("Capsule_my-own_nose", "nose", "my-own"),
    ],
)
def test_other_spellings_are_understood(name, region, database):
    known = identify(Path(f"{name}.pt"), Checkpoint("torch", "capsule", {}, 2))
    assert (known.region, known.database) == (region, database)


def test_a_whole_folder_is_imported_and_one_bad_file_does_not_stop_it(
    capsule, vgg, tmp_path, monkeypatch, capsys
):
    keras_standing_in(monkeypatch)
    models = tmp_path / "models"
    for name in ("UADFV/Capsule_UADFV_eyes", "DFDC/Capsule_DFDC_nose", "DFDC/Capsule_DFDC_rest"):
        save(capsule.saved(), models / f"{name}.pt")
    (models / "DFDC" / "Capsule_DFDC_rest.pt").rename(models / "DFDC" / "Capsule_DFDC_rest.pt.tar")
    (models / "DFDC" / "Xception_DFDC_mouth.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (models / "DFDC" / "Capsule_DFDC_eyes.pt").write_bytes(b"broken")
    (models / "DFDC" / "readme.txt").write_text("not a checkpoint, not looked at")
    out = tmp_path / "bundles"
    options = ["--vgg", str(vgg), "--out", str(out)]
    assert run(["import", str(models), *options]) == 1
    printed = capsys.readouterr().out
    assert "4 of 5 imported" in printed
    assert "Capsule_DFDC_eyes.pt cannot be read as weights" in " ".join(printed.split())
    assert "none stated" in printed  # the licence
    names = ["capsule_eyes.uadfv", "capsule_nose.dfdc", "capsule_rest.dfdc", "xception_mouth.dfdc"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [load_bundle(out / name)[0].name for name in names] == names
    (models / "DFDC" / "Capsule_DFDC_eyes.pt").unlink()
    assert run(["import", str(models), *options, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert {row["origin"]["fake_index"] for row in rows} == {0}
    assert {row["resample"] for row in rows} == {"bilinear", "nearest"}


def test_two_files_that_would_become_the_same_bundle(capsule, vgg, tmp_path, capsys):
    for folder in ("a", "b"):
        save(capsule.saved(), tmp_path / folder / "Capsule_DFDC_nose.pt")
    sources = [str(tmp_path / folder) for folder in ("a", "b")]
    options = ["--vgg", str(vgg), "--out", str(tmp_path / "out"), "--json"]
    assert run(["import", *sources, *options]) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["error"] is None
    assert "as " in second["error"]
    assert second["bundle"] is None
    (loaded,) = load_bundle(tmp_path / "out" / "capsule_nose.dfdc")
    assert loaded.training["source"]["file"] == "Capsule_DFDC_nose.pt"


def test_a_capsule_file_without_vgg_offline_says_what_to_do(capsule, tmp_path, monkeypatch):
    monkeypatch.setattr("deepregions.detectors.pretrained.snapshot_download", _no_network)
    torch.save(capsule.saved(), tmp_path / "Capsule_DFDC_nose.pt")
    with pytest.raises(AssetError, match=r"vgg19\.tv_in1k.*--vgg FILE"):
        Importer()(tmp_path / "Capsule_DFDC_nose.pt")


def _no_network(*_: object, **__: object) -> str:
    raise OSError("the network is unreachable")


def test_what_is_not_said_is_asked_for_not_guessed(capsule, vgg, tmp_path):
    path = save(capsule.saved(), tmp_path / "best.pt")
    with pytest.raises(UnsupportedError, match="--project bida or capsule-v2 or deepfakebench"):
        Importer(vgg=vgg)(path)
    with pytest.raises(UnsupportedError, match="--region REGION --database DATABASE"):
        Importer(vgg=vgg, project="bida")(path)
    options = {"project": "bida", "region": "nose", "database": "FaceForensics++"}
    member = Importer(vgg=vgg, **options)(path)
    assert (member.name, member.detector.size) == ("capsule_nose.ffpp", 200)
    assert recognise(path, "capsule-v2").region == "entire"
    with pytest.raises(UsageError, match="whole faces"):
        Importer(vgg=vgg, project="capsule-v2", region="nose")(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DSP-FWA_DFDC_nose.pt", "named DSP-FWA but holds capsule"),
        ("Capsule_DFDC_ear.pt", "no region 'ear'"),
        ("Capsule_.._nose.pt", "cannot be a database's name"),
        ("cgvsphoto/capsule_4.pt", "not about manipulated faces"),
        ("full_c23.p", "whole frames"),
    ],
)
def test_names_that_contradict_are_refused(capsule, vgg, every_state, tmp_path, name, message):
    state = every_state["all_c23.p"] if name == "full_c23.p" else capsule.saved()
    with pytest.raises(UnsupportedError, match=message):
        Importer(vgg=vgg)(save(state, tmp_path / name))


def test_files_that_are_nearly_right_are_refused(capsule, vgg, tmp_path):
    def refused(state: dict[str, Tensor], message: str, name: str = "Capsule_DFDC_nose.pt") -> None:
        with pytest.raises(DeepregionsError, match=message) as caught:
            Importer(vgg=vgg)(save(state, tmp_path / name))
        assert name in str(caught.value)

    good = capsule.saved()
    weight = "fea_ext.capsules.3.0.weight"
    refused({key: value for key, value in good.items() if key != weight}, f"no array {weight}")
    refused(good | {weight: torch.zeros(64, 256, 1, 1)}, "differ in shape")
    broken = good["routing_stats.route_weights"].clone()
    broken[0, 0, 0, 0] = torch.nan
    refused(good | {"routing_stats.route_weights": broken}, "no finite numbers")
    refused({"layer.weight": torch.zeros(1)}, "none of the networks known here")
    refused(capsule.saved_vgg(), "--vgg")
    refused(capsule.saved(vgg="vgg_ext.vgg_1."), "named like BiDA's files")
    refused({}, "no arrays by name")


ODD = {
    "a number": torch.tensor(1.0),
    "nothing": torch.zeros(0),
    "one": torch.zeros(1),
    "whole numbers": torch.zeros(2, 10, 4, 8, dtype=torch.int64),
    "complex": torch.zeros(2, 10, 4, 8, dtype=torch.complex64),
    "five sides": torch.zeros(2, 1, 1, 1, 1),
    "infinite": torch.full((2, 10, 4, 8), torch.inf),
}


@pytest.fixture(scope="module")
def every_state(capsule: ForeignCapsule) -> dict[str, dict[str, Tensor]]:
    """The names of every project's arrays."""
    xception = CadeneXception().state_dict()
    return {
        "Capsule_DFDC_nose.pt": capsule.saved(),
        "capsule_net_best.pth": capsule.saved(vgg="vgg_ext.vgg_1."),
        "SPP-res50.pth": ForeignSPPNet().saved(),
        "all_c23.p": {f"model.{key}": value for key, value in xception.items()},
        "xception_best.pth": {f"backbone.{key}": value for key, value in xception.items()},
    }


@pytest.mark.parametrize("odd", ODD)
def test_arrays_of_odd_shapes_and_types_are_refused(every_state, vgg, tmp_path, odd):
    for name, state in every_state.items():
        save(dict.fromkeys(state, ODD[odd]), tmp_path / name)
        with pytest.raises(DeepregionsError, match=name) as caught:
            Importer(vgg=vgg)(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model."]
)
def test_wrappers_prefixes_do_not_matter(every_state, vgg, tmp_path, prefix):
    """Of DataParallel, torch.compile and Lightning, whose losses have arrays, too."""
    for name, state in every_state.items():
        path = save(state, tmp_path / name)
        wrapped = {f"{prefix}{key}": value for key, value in state.items()}
        if prefix == "model.":
            wrapped |= {"criterion.weight": torch.ones(2)}
        odd = save({"epoch": 3, "state_dict": wrapped}, tmp_path / "odd" / f"{name}.tar")
        if name.endswith(".p"):
            odd = odd.rename(tmp_path / "odd" / name)
        plain, found = (Importer(vgg=vgg)(each) for each in (path, odd))
        assert found.name == plain.name
        for key, value in plain.detector.state_dict().items():
            assert torch.equal(found.detector.state_dict()[key], value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><title>Sign in</title>", "web page"),
        (b"<html><head>", "web page"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("name", ["all_c23.p", "Xception_DFDC_rest.hdf5"])
def test_what_is_often_saved_in_place_of_weights_is_named(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=message):
        Importer()(tmp_path / name)


@pytest.mark.parametrize("options", [{}, {"project": "bida", "region": "eyes", "database": "x"}])
def test_a_mesonet_of_keras_is_named(tmp_path, options):
    shapes = [(3, 3, 3, 8), (5, 5, 8, 8), (5, 5, 8, 16), (5, 5, 16, 16), (1024, 16), (16, 1)]
    with h5py.File(tmp_path / "Meso4_DF.h5", "w") as file:
        names = [f"{'dense' if len(s) == 2 else 'conv2d'}_{i}" for i, s in enumerate(shapes)]
        file.attrs["layer_names"] = names
        for name, shape in zip(names, shapes, strict=True):
            file.create_dataset(f"{name}/{name}/kernel:0", shape, "f4")
            file[name].attrs["weight_names"] = [f"{name}/kernel:0"]
    with pytest.raises(UnreadableError, match="MesoNet"):
        Importer(**options)(tmp_path / "Meso4_DF.h5")


def test_names_from_strangers_are_printed_plainly(every_state, vgg, tmp_path, capfdbinary):
    evil = "\x1b[2J\u202e\n"
    models = tmp_path / "models"
    save(every_state["xception_best.pth"], models / f"xception_best{evil}.pth")
    save({f"{evil}.weight": torch.zeros(1)}, models / f"a{evil}.pth")
    (models / f"Capsule_x_eyes{os.fsdecode(b'_%b' % bytes([255]))}.pt").write_bytes(b"nothing")
    with h5py.File(models / "Xception_DFDC_rest.hdf5", "w") as file:
        file.attrs["layer_names"] = [evil]
        file.create_group(evil)
    for options in ((), ("--json",)):
        assert run(["import", str(models), "--out", str(tmp_path / "out"), *options]) == 1
        printed = b"".join(capfdbinary.readouterr())
        assert b"refused" in printed or b'"error": "' in printed
        assert b"\x1b" not in printed and evil[4].encode() not in printed
    keras = str(models / "Xception_DFDC_rest.hdf5")
    assert run_program(convert_keras, [keras, "--inspect"]) == 1
    assert b"\x1b" not in b"".join(capfdbinary.readouterr())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fake_index": 2}, "0 or 1"),
        ({"region": "ear"}, "entire, eyes"),
        ({"database": "../../etc"}, "cannot be a database's name"),
        ({"project": "mine"}, "one of bida"),
        ({"vgg": Path("nowhere.pth")}, "nowhere.pth: no such file"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        Importer(**options)


@pytest.mark.parametrize("double", [False, True])
def test_log_odds_of_several_classes_are_those_of_any_fake(double):
    scores = torch.randn(5, 4, 3).double()
    detector = Capsule(32, classes=3, double_softmax=double)
    probability = scores.softmax(-1).mean(1)
    if double:
        probability = probability.softmax(-1)
    fake = detector.log_odds(scores).sigmoid()
    torch.testing.assert_close(fake, probability[:, 1:].sum(1))
    label = torch.tensor([0, 1, 1, 0, 1])
    any_fake = scores.softmax(-1)[..., 1:].sum(-1)
    right = torch.where(label[:, None] == 1, any_fake, 1 - any_fake)
    torch.testing.assert_close(detector.score_losses(scores, label), -right.log().sum(1))


def test_a_capsule_of_one_class_tells_nothing():
    with pytest.raises(UsageError, match="2 or more"):
        Capsule(32, classes=1)


def test_wrong_usage_of_the_command_is_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert run(["import", str(tmp_path / "nowhere"), *out]) == 2
    assert run(["import", str(tmp_path), *out]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "out").exists()
