"""The registry: complete, of one mind with the code, found in a repository and in a wheel."""

import json
import re
import shutil
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import deepregions
from deepregions.commands import cli
from deepregions.errors import AssetError, UsageError
from deepregions.faces.backends.fan import FAN_2D, S3FD
from deepregions.faces.finders import YUNET
from deepregions.weights import catalogue as registry
from deepregions.weights.catalogue import Entry, asset, entries, entry, registry_file

ROOT = Path(__file__).parents[1]
DIGEST = "ab" * 32


def test_every_entry_is_complete():
    raw = json.loads((ROOT / "checkpoints" / "registry.json").read_text())
    assert [each["name"] for each in raw["entries"]] == [each.name for each in entries()]
    for values in raw["entries"]:
        assert set(values) == {field.name for field in fields(Entry)}
    for each in entries():
        assert re.fullmatch("[a-z0-9-]+", each.name)
        assert each.kind in {"detector", "backbone", "landmarks", "archive"}
        for text in (each.title, each.license, each.citation, each.use, each.project):
            assert text.strip() == text != ""
        assert each.read
        for address in filter(None, (each.url, each.page)):
            assert urlsplit(address).scheme in {"http", "https"}
        assert each.sha256 is None or re.fullmatch("[0-9a-f]{64}", each.sha256)
        if each.sha256_prefix:
            assert each.sha256_prefix in each.file
    assert len({each.name for each in entries()}) == len(entries())


def test_no_foreign_weights_are_in_the_repository():
    assert {path.name for path in (ROOT / "checkpoints").iterdir()} == {
        "README.md",
        "default",  # our own networks
        "registry.json",
    }


@pytest.mark.parametrize(
    ("name", "ours"), [("yunet", YUNET), ("fan", FAN_2D), ("s3fd", S3FD)], ids=str
)
def test_it_says_what_the_code_says(name, ours):
    theirs = asset(entry(name))
    assert (theirs.name, theirs.url, theirs.sha256) == (ours.name, ours.url, ours.sha256)  # type: ignore[attr-defined]


def test_a_misspelt_name_is_answered_with_those_like_it():
    with pytest.raises(UsageError, match=r"no 'capsule-v2-binry' \(one of .*capsule-v2-binary"):
        entry("capsule-v2-binry")
    with pytest.raises(UsageError, match="bida, capsule"):
        entry("zzz")


def test_a_digest_is_the_users_or_what_the_list_knows_of_it():
    unknown, prefixed = entry("deepfakebench-xception"), entry("vgg19-imagenet")
    right = "dcbb9e9d" + "0" * 56
    assert (asset(unknown).sha256, asset(unknown, DIGEST.upper()).sha256) == ("", DIGEST)
    assert (asset(prefixed).sha256, asset(prefixed, right).sha256) == ("dcbb9e9d", right)
    assert asset(entry("yunet"), YUNET.sha256.upper()).sha256 == YUNET.sha256
    with pytest.raises(UsageError, match="64 hexadecimal"):
        asset(unknown, "abc")
    for known in (prefixed, entry("yunet")):
        with pytest.raises(UsageError, match="is not abababab"):
            asset(known, DIGEST)
    with pytest.raises(AssetError, match=r"with a browser.*deepregions import"):
        asset(entry("bida"), DIGEST)


def test_it_is_found_in_the_repository_and_in_an_installed_package(tmp_path, monkeypatch):
    assert registry_file() == ROOT / "checkpoints" / "registry.json"
    # A wheel is the package and what force-include puts into it; hatchling is not at hand here.
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    installed = tmp_path / "site-packages"
    for source, target in build["targets"]["wheel"]["force-include"].items():
        (installed / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, installed / target)
    monkeypatch.setattr(deepregions, "__file__", str(installed / "deepregions" / "__init__.py"))
    assert registry_file() == installed / "deepregions" / "checkpoints" / "registry.json"
    assert entry("yunet").kind == "landmarks"
    monkeypatch.setattr(cli, "__file__", str(installed / "deepregions" / "commands" / "cli.py"))
    assert cli.find_config("xception.yaml") == installed / "deepregions/configs/xception.yaml"
    shutil.rmtree(installed / "deepregions" / "checkpoints")
    with pytest.raises(AssetError, match="is missing"):
        entries()


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"schema": "other", "version": 1, "entries": []}',
        '{"schema": "deepregions.registry", "version": 2, "entries": []}',
        '{"schema": "deepregions.registry", "version": 1, "entries": [{"name": "x"}]}',
    ],
)
def test_what_is_no_registry_is_one_clear_error(tmp_path, monkeypatch, content):
    (tmp_path / "list.json").write_text(content)
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "list.json")
    with pytest.raises(AssetError, match="is not the registry"):
        entries()


def test_an_entry_cannot_name_another_folder(tmp_path, monkeypatch):
    values = {field.name: getattr(entry("yunet"), field.name) for field in fields(Entry)}
    content = {
        "schema": "deepregions.registry",
        "version": 1,
        "entries": [values | {"file": "../../.bashrc", "of_a_later_version": 1}],
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "list.json")
    with pytest.raises(AssetError, match="not a file name"):
        entries()
    content["entries"][0]["file"] = "x.onnx"  # type: ignore[index]
    (tmp_path / "other.json").write_text(json.dumps(content))
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "other.json")
    assert entries() == (replace(entry("yunet"), file="x.onnx"),)
