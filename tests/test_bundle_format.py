"""The bundle format: what is promised to those who wrote bundles before, or will later."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from networks import SIZE, calibration, member
from safetensors.torch import save_file

from deepregions import detectors
from deepregions.detectors import Capsule, RegionDetector, Xception
from deepregions.files import sha256
from deepregions.fusion import rules
from deepregions.fusion.rules import Fusion, LogisticFusion
from deepregions.types import Layout, Region, Resample
from deepregions.weights.bundle import load_bundle, save_bundle
from deepregions.weights.manifest import (
    VERSION,
    BundleFacts,
    Degradation,
    OperatingPoint,
    read_manifest,
)

DOCUMENT = (Path(__file__).parents[1] / "docs" / "bundle.md").read_text()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    save_bundle([member(Capsule(size=64).eval(), Region.EYES)], tmp_path / "one")
    return tmp_path / "one"


def test_keys_of_later_programs_are_ignored(bundle: Path) -> None:
    (expected,) = load_bundle(bundle)
    manifest = read_manifest(bundle)
    manifest |= {"signature": {"by": "someone"}, "created": "2030-01-01"}
    manifest["members"][0] |= {"threshold": 0.5, "notes": ["x", None]}
    manifest["members"][0]["training"]["hardware"] = {"gpus": 8}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    (loaded,) = load_bundle(bundle)
    assert (loaded.name, loaded.sha256) == (expected.name, expected.sha256)
    crops = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.detector(crops), expected.detector(crops), rtol=0, atol=0)


def test_a_bundle_of_version_1_still_loads(tmp_path: Path) -> None:
    """As deepregions 0.1.0 wrote it; the digest is that of weights made here."""
    torch.manual_seed(0)
    network = Xception(SIZE).eval()
    file = tmp_path / "xception_mouth.ffpp.safetensors"
    save_file(network.state_dict(), file)
    training = {
        "store": "0123456789abcdef",
        "landmarks": {"name": "dlib68+yunet", "version": "dlib 19.24"},
        "epoch": 2,
        "validation": {"frame_auc": 0.98, "frame_eer": None},
        "seed": 0,
    }
    entry = {"name": "xception_mouth.ffpp", "class": "Xception", "region": "mouth"}
    entry |= {"settings": {"size": 64, "bn_momentum": 0.01}, "database": "ffpp", "layout": "tight"}
    entry |= {"file": file.name, "sha256": sha256(file), "training": training}
    manifest = {"schema": "deepregions.bundle", "version": 1, "deepregions": "0.1.0"}
    (tmp_path / "bundle.json").write_text(json.dumps(manifest | {"members": [entry]}))
    (loaded,) = load_bundle(tmp_path)
    assert (loaded.name, loaded.layout) == ("xception_mouth.ffpp", "tight")
    assert loaded.resample == "bilinear"
    assert loaded.training["validation"] == {"frame_auc": 0.98, "frame_eer": None}
    crops = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.detector(crops), network(crops), rtol=0, atol=0)


def section(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def documented(table: int) -> set[str]:
    """The keys in the first column of a table of the section on bundle.json."""
    tables = re.findall(r"\| key \| value \|\n\|---\|---\|\n((?:\|.*\n)+)", section("bundle.json"))
    rows = tables[table].splitlines()
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_document_names_every_key_and_no_other(tmp_path: Path) -> None:
    members = [member(Capsule(size=64).eval(), Region.EYES)]
    fusion = LogisticFusion([("capsule", Region.EYES)])
    point = OperatingPoint("x", 0.0, "frame", "x")
    facts = BundleFacts(
        "real", (point,), {"a": 1}, ("ab" * 8,), "x", (Degradation("x", 0.5),), {"x": 0.5}
    )
    save_bundle(
        members, tmp_path / "one", fusion=fusion, calibration=calibration(1, 0, -1, 1), facts=facts
    )
    manifest = json.loads((tmp_path / "one" / "bundle.json").read_text())
    assert documented(0) | documented(1) == set(manifest)
    assert documented(2) == set(manifest["members"][0])
    assert documented(4) == set(manifest["fusion"])
    assert documented(5) == set(manifest["calibration"])
    words = set(re.findall(r"`(\w+)`", section("bundle.json")))
    assert words >= {*manifest["calibration"]["development"], *fusion.settings()}
    kinds = {
        name
        for name, each in vars(rules).items()
        if isinstance(each, type) and issubclass(each, Fusion)
    }
    assert words >= kinds - {"Fusion", "TrainedFusion"}  # bases
    assert len(kinds) == 7


def test_the_document_is_of_this_version_and_lists_all() -> None:
    assert f"This page is about version {VERSION}." in DOCUMENT
    listed = [int(row) for row in re.findall(r"^\| (\d+) \|", section("Versions"), re.MULTILINE)]
    assert listed == list(range(1, VERSION + 1))


def test_the_document_names_every_class_layout_and_setting() -> None:
    classes = [
        each
        for name in detectors.__all__
        if isinstance(each := getattr(detectors, name), type)
        and issubclass(each, RegionDetector)
        and each is not RegionDetector
    ]
    words = set(re.findall(r"`(\w+)`", section("bundle.json")))
    assert words >= {each.__name__ for each in classes}
    assert words >= {*map(str, Region), *get_args(Layout), *get_args(Resample)}
    settings = {key for each in classes for key in each(size=224).settings()}
    assert words >= settings - {"bn_momentum"}  # of training only
