"""Which networks ``detect`` uses, and the command line of the paper's program."""

import re
from pathlib import Path

import pytest
import torch
from detect_json import read_detect
from networks import dsp_fwa, member, xception
from PIL import Image, ImageShow

from deepregions.commands.cli import run
from deepregions.errors import UsageError
from deepregions.types import Region
from deepregions.weights import selection
from deepregions.weights.bundle import load_bundle, save_bundle
from deepregions.weights.selection import Choice, choose_members, detector_of


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks whose log-odds tell which one it was."""
    folder = tmp_path_factory.mktemp("models")
    for odds, network, region, database in (
        (1.0, dsp_fwa, Region.EYES, "celebdf"),
        (2.0, dsp_fwa, Region.MOUTH, "celebdf"),
        (3.0, dsp_fwa, Region.EYES, "uadfv"),
        (4.0, xception, Region.EYES, "celebdf"),
        (5.0, xception, Region.ENTIRE, "ffpp"),
        (6.0, xception, Region.ENTIRE, "dfdc"),
    ):
        each = member(network(odds), region, database)
        save_bundle([each], folder / each.name)
    return folder


@pytest.fixture(scope="module")
def canvas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("canvas") / "eyes.png"
    Image.effect_noise((180, 210), 60).convert("RGB").save(path)
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--detector dsp-fwa --region eyes --trained-on celebdf", 1),
        ("--detector DSP-FWA --region mouth --ddbb CelebDF", 2),
        ("--detector DSP-FWA --region eyes --ddbb UADFV", 3),
        ("--detector Xception --region eyes --ddbb CelebDF", 4),
        ("--detector Xception --region entire --ddbb FaceForensics", 5),
        ("--detector Xception --region entire --ddbb DFDC", 6),
        ("--region eyes --trained-on Celeb-DF", 2.5),  # the mean of two detectors
    ],
)
def test_the_papers_command_line(
    options: str, expected: float, models: Path, canvas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--segmented", "--json", "--bundle", str(models)]
    assert run(["detect", str(canvas), *options.split(), *where]) == 0
    result = read_detect(capsys.readouterr().out)
    assert result["log_odds"] == pytest.approx(expected)
    assert result["score"] == pytest.approx(torch.tensor(expected).sigmoid().item(), abs=1e-5)


def test_only_what_is_wanted_is_loaded(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(selection, "load_bundle", lambda p: loaded.append(p) or load_bundle(p))
    (only,) = choose_members(Choice("dsp-fwa", Region.EYES, "celebdf"), [models])
    assert only.name == "dsp-fwa_eyes.celebdf"
    assert loaded == [models / only.name]
    assert len(choose_members(Choice(), [models])) == 6
    assert len(choose_members(Choice(region=Region.ENTIRE), [models])) == 2


def test_the_usual_folders_need_not_be_named(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    one = next(path.parent for path in sorted(models.rglob("bundle.json")))
    monkeypatch.setattr("deepregions.weights.selection.implied_bundle", lambda: one)
    assert len(choose_members(Choice())) == 1  # the default bundle comes first
    monkeypatch.setattr("deepregions.weights.selection.implied_bundle", lambda: None)
    with pytest.raises(UsageError, match=r"no networks to score with.*--bundle DIR"):
        choose_members(Choice())
    monkeypatch.setenv("DEEPREGIONS_MODELS", str(models))
    assert len(choose_members(Choice())) == 6
    monkeypatch.delenv("DEEPREGIONS_MODELS")
    monkeypatch.chdir(models.parent)
    (models.parent / "bundles").symlink_to(models)
    assert len(choose_members(Choice())) == 6


@pytest.mark.parametrize("name", ["DSP-FWA", "dspfwa", "dsp_fwa", "DSPFWA"])
def test_a_detector_has_many_spellings(name: str) -> None:
    assert detector_of(name) == "dsp-fwa"


def test_networks_of_timm_are_detectors() -> None:
    assert detector_of("tf_efficientnet_lite0") == "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--detector meso", "no detector 'meso'.*capsule, dsp-fwa, .*xception"),
        ("--region ear", "no region 'ear'.*entire, eyes, nose, mouth, rest"),
        ("--detector capsule", "no capsule network .*dsp-fwa_eyes.celebdf"),
        ("--detector dsp-fwa --trained-on DFDC", "no dsp-fwa network trained on dfdc.*there are: "),
        ("--trained-on ../x", "cannot be a database's name"),
        ("--segmented", "--segmented needs to know the region"),
    ],
)
def test_what_is_not_there_is_named(
    options: str, message: str, models: Path, canvas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", str(canvas), *options.split(), "--bundle", str(models)]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert re.search(message, printed.err) and printed.err.count("\n") == 1


def test_a_bundle_can_be_filtered_too(models: Path, tmp_path: Path) -> None:
    save_bundle([member(xception(1.0)), member(xception(2.0), Region.NOSE)], tmp_path / "two")
    (only,) = choose_members(Choice(region=Region.NOSE), [tmp_path / "two"])
    assert only.region is Region.NOSE
    with pytest.raises(UsageError, match=r"no network for eyes.*xception_entire\.made"):
        choose_members(Choice(region=Region.EYES), [tmp_path / "two"])


def test_the_picture_goes_to_the_screen_and_to_the_folder(
    models: Path,
    canvas: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: seen.append((image, title)) or True)
    chosen = [
        "--detector",
        "DSP-FWA",
        "--region",
        "eyes",
        "--ddbb",
        "CelebDF",
        "--segmented",
        "--show",
    ]
    command = ["detect", str(canvas), *chosen, "--bundle", str(models)]
    assert run([*command, "--out", str(tmp_path)]) == 0
    ((image, title),) = seen
    assert title == str(canvas)
    written = Image.open(tmp_path / "eyes.png")
    assert written.tobytes() == image.tobytes()
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)
    capsys.readouterr()
    assert run(command) == 0
    assert "no program shows pictures here (use --out DIR)" in capsys.readouterr().err
