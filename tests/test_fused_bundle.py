"""Bundles with a fusion and a calibration: stored whole, checked, and used for nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import calibration, dsp_fwa, landmarks, member, picture, xception
from safetensors.torch import save_file

from deepregions.commands.cli import run
from deepregions.errors import BundleError, UsageError
from deepregions.files import sha256
from deepregions.fusion.calibration import Calibration, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import (
    FusionHead,
    LogisticFusion,
    MaxFusion,
    MeanFusion,
    WeightedFusion,
)
from deepregions.pipeline.build import build_analyser
from deepregions.pipeline.results import FaceResult, summarise_input
from deepregions.pipeline.warnings import warnings_of
from deepregions.system import System
from deepregions.types import Region, Status
from deepregions.weights.bundle import Bundle, load_bundle, save_bundle
from deepregions.weights.manifest import read_manifest
from deepregions.weights.selection import Choice, choose_members

CELLS = [("xception", Region.EYES), ("dsp-fwa", Region.ENTIRE)]
CALIBRATION = calibration(0.5, -0.25, -3.0, 2.0)
DEVELOPMENT = replace(CALIBRATION.development, landmarks={"name": "x", "version": "1"})
CALIBRATION = replace(CALIBRATION, development=DEVELOPMENT)


def logistic() -> LogisticFusion:
    fusion = LogisticFusion(CELLS)
    fusion.mean.copy_(torch.tensor([1.0, -1.0]))
    fusion.std.copy_(torch.tensor([2.0, 0.5]))
    fusion.weight.copy_(torch.tensor([0.5, 2.0]))
    fusion.offset.fill_(0.125)
    return fusion


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Xception on eyes says 2, DSP-FWA on the face -1.5."""
    path = tmp_path_factory.mktemp("bundles") / "fused"
    members = [member(xception(2.0), Region.EYES), member(dsp_fwa(-1.5))]
    save_bundle(members, path, fusion=logistic(), calibration=CALIBRATION)
    return path


@pytest.fixture
def copy(fused, tmp_path):
    """With links to the networks, which are large and stay as they are."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in fused.iterdir():
        if path.suffix == ".safetensors" and path.name != "fusion.safetensors":
            (copy / path.name).symlink_to(path)
        else:
            shutil.copy(path, copy)
    return copy


def edit(bundle: Path, entry: str, **changes: Any) -> None:
    manifest = read_manifest(bundle)
    manifest[entry] |= changes
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def test_fusion_and_calibration_come_back_and_are_used(fused):
    bundle = load_bundle(fused)
    assert isinstance(bundle.fusion, LogisticFusion)
    assert bundle.fusion.sha256 == sha256(fused / "fusion.safetensors")
    digests = [member.sha256 for member in bundle]
    assert bundle.calibration == CALIBRATION.for_networks(digests)
    output = bundle.system()(picture()[None], landmarks())
    # (2 - 1) / 2 * 0.5 + (-1.5 + 1) / 0.5 * 2 + 0.125
    torch.testing.assert_close(output.fused, torch.tensor([0.25 - 2.0 + 0.125]))
    mean = System(bundle)(picture()[None], landmarks())
    torch.testing.assert_close(mean.fused, torch.tensor([0.25]))


@pytest.mark.parametrize(
    "fusion",
    [MeanFusion(CELLS), MeanFusion(), MaxFusion(CELLS), WeightedFusion(CELLS), FusionHead(CELLS)],
    ids=lambda fusion: type(fusion).__name__,
)
def test_every_fusion_is_stored(fusion, tmp_path):
    with torch.no_grad():
        for value in fusion.state_dict().values():
            value.copy_(torch.rand_like(value) + 0.5)
    members = [member(xception(2.0), Region.EYES), member(dsp_fwa(-1.5))]
    save_bundle(members, tmp_path / "one", fusion=fusion)
    loaded = load_bundle(tmp_path / "one").fusion
    assert type(loaded) is type(fusion)
    assert loaded is not None
    logits, valid = torch.randn(5, 2, 1), torch.rand(5, 2, 1) > 0.3
    torch.testing.assert_close(
        loaded(logits, valid), fusion.eval()(logits, valid), equal_nan=True, rtol=0, atol=0
    )


def test_a_fusion_is_not_saved_with_other_networks(tmp_path):
    with pytest.raises(UsageError, match="without dsp-fwa/entire"):
        save_bundle([member(xception(), Region.EYES)], tmp_path / "one", fusion=logistic())
    assert not (tmp_path / "one").exists()


def test_version_2_knows_neither(copy):
    manifest = read_manifest(copy) | {"version": 2}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    bundle = load_bundle(copy)
    assert (len(bundle), bundle.fusion, bundle.calibration) == (2, None, None)


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        ("fusion", {"class": "Eval"}, "unknown fusion, Eval"),
        ("fusion", {"class": "Cell"}, "unknown fusion, Cell"),
        ("fusion", {"class": "FusionHead"}, "does not fit FusionHead"),
        ("fusion", {"settings": {"cells": [["xception", "ear"]]}}, "cannot be built"),
        ("fusion", {"settings": {"cells": [], "x": 1}}, "cannot be built"),
        ("fusion", {"settings": {"cells": []}}, "cannot be built"),
        ("fusion", {"settings": {"cells": [["xception", "eyes"]]}}, "does not fit"),
        (
            "fusion",
            {"settings": {"cells": [["xception", "nose"], ["dsp-fwa", "entire"]]}},
            "without xception/nose and with xception/eyes",
        ),
        ("fusion", {"sha256": "0" * 64}, "SHA-256 differs"),
        ("fusion", {"file": "other.safetensors"}, "missing"),
        ("calibration", {"kind": "beta"}, "not as a bundle's should be.*beta"),
        ("calibration", {"upper": -1}, "bounds"),
        ("calibration", {"parameters": {"slope": 1}}, "not as a bundle's should be.*offset"),
        ("calibration", {"development": {}}, "not as a bundle's should be"),
    ],
)
def test_what_is_wrong_is_one_clear_error_and_verify_finds_it(
    copy, entry, changes, message, capsys
):
    edit(copy, entry, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)
    assert run(["models", "verify", str(copy), "--json"]) == 1
    found = {Path(each["file"]).name: each for each in json.loads(capsys.readouterr().out)}
    wrong = [name for name, each in found.items() if not each["ok"]]
    assert wrong == ["fusion.safetensors" if entry == "fusion" else "bundle.json: calibration"]


def test_arrays_that_are_no_numbers_are_seen(copy):
    state = {key: torch.zeros_like(value) for key, value in logistic().state_dict().items()}
    state["weight"][0] = torch.nan
    save_file(state, copy / "fusion.safetensors")
    edit(copy, "fusion", sha256=sha256(copy / "fusion.safetensors"))
    with pytest.raises(BundleError, match="not finite"):
        load_bundle(copy)


def test_show_list_and_card_name_them(fused, capsys):
    assert run(["models", "show", str(fused)]) == 0
    shown = capsys.readouterr().out
    assert "fusion.class: LogisticFusion" in shown
    assert "calibration.development.genuine: 70" in shown
    assert run(["models", "list", "--dir", str(fused.parent)]) == 0
    listed = capsys.readouterr().out
    assert "LogisticFusion" in listed
    assert "logistic" in listed
    card = (fused / "README.md").read_text()
    assert "logistic regression on scaled log-odds, for exactly these networks" in card
    assert "70 genuine and 60 fake videos (swap 60)" in card
    assert "from -1.30 to 0.87" in card


def test_only_exactly_its_networks_are_fused_and_calibrated(fused, tmp_path):
    whole = choose_members(Choice(), [fused])
    assert whole.calibration is not None
    assert not whole.notes
    save_bundle([member(xception(0.0), Region.NOSE)], tmp_path / "other")
    fewer = choose_members(Choice(region=Region.EYES), [fused])
    more = choose_members(Choice(), [fused, tmp_path / "other"])
    for chosen in (fewer, more):
        assert (chosen.fusion, chosen.calibration) == (None, None)
        (note,) = chosen.notes
        assert str(fused) in note
        assert "the mean is used, uncalibrated" in note
    plain = choose_members(Choice(), [tmp_path / "other"])
    assert plain.notes == ()
    assert isinstance(plain, Bundle)


def calibrated_bundle(fused: Path) -> Bundle:
    return replace(load_bundle(fused), calibration=CALIBRATION)


def test_region_canvases_show_one_region_and_the_calibration_is_of_all(fused):
    bundle = calibrated_bundle(fused)
    analyser = build_analyser(bundle, landmarks=None, device="cpu")
    facts = analyser.facts
    assert (analyser.calibration, facts["calibration"]) == (None, "uncalibrated")
    assert facts["uncalibrated"] == "the calibration is for entire, eyes together"
    assert facts["fusion"] == "logistic regression on scaled log-odds"
    assert facts["fusion_sha256"] == sha256(fused / "fusion.safetensors")
    plain = build_analyser(bundle.members, landmarks=None, device="cpu")
    assert (plain.warnings, plain.facts["fusion_sha256"]) == ((), "")


@pytest.mark.parametrize(
    "other",
    [
        {"level": "frame"},
        {"fusion": "maximum"},
        {"networks": ("ab",)},
        {"faces": "median"},
        {"tracks": "main"},
    ],
)
def test_a_calibration_is_refused_for_any_other_quantity(other):
    own = Quantity.pooled("video", Pooling(), "mean", ("cd",))
    assert own.mismatch(own) == ""
    assert own.mismatch(replace(own, **other)).startswith("the calibration is for")
    stored = replace(CALIBRATION, quantity=own).settings()
    assert Calibration.of(json.loads(json.dumps(stored))).quantity == own
    del stored["quantity"]  # as older bundles
    assert Calibration.of(stored).quantity == Quantity.pooled("video", Pooling())


def test_the_highest_of_many_people_is_told_to_be_that():
    box = (0.0, 0.0, 9.0, 9.0)
    faces = [
        FaceResult(0, 0.0, n, box, Status.OK, x, {("xception", Region.EYES): None})
        for n, x in enumerate((1.0, 3.0, 2.0))
    ]
    result = summarise_input("a.jpg", "image", 1, faces, calibration=CALIBRATION)
    assert result.evidence == result.people[1].evidence
    told = list(warnings_of(result))
    assert any("one of 3 people" in line for line in told)
    assert any("may not hold here" in line for line in told)  # eyes were not judged
    told = list(warnings_of(summarise_input("a.jpg", "image", 1, faces)))
    assert not any("people" in line or "may not hold" in line for line in told)
