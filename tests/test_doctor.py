"""What ``deepregions doctor`` says of a machine, sound or not."""

import json
import shutil
import socket
import sys
from importlib import metadata

import pytest
import torch
from networks import member, xception

from deepregions.commands.cli import run
from deepregions.deploy.runtimes import NAMES
from deepregions.faces.finders import YUNET
from deepregions.weights.bundle import save_bundle


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty folder, empty caches, and nothing that answers on the network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the doctor wanted to connect")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def examined(
    capsys: pytest.CaptureFixture[str], code: int = 0
) -> dict[tuple[str, str], dict[str, str]]:
    assert run(["doctor", "--json"]) == code
    return {(each["group"], each["name"]): each for each in json.loads(capsys.readouterr().out)}


def test_a_sound_machine_is_told_what_it_has(capsys):
    found = examined(capsys)
    assert found["packages", "torch"]["detail"] == metadata.version("torch")
    assert found["landmarks", "dlib-hog"]["state"] == "ok"
    assert found["weights", "yunet"]["state"] == "optional"
    assert "models fetch yunet" in found["weights", "yunet"]["advice"]
    assert found["devices", "cpu"]["state"] == "ok"
    assert (found["devices", "cuda"]["state"] == "optional") or torch.cuda.is_available()
    assert all(found["runtimes", name]["state"] == "ok" for name in NAMES)
    assert "h264" in found["formats", "video decoders"]["detail"]
    assert all(each["state"] == "ok" or each["detail"] for each in found.values())


def test_what_is_there_is_found(shared, tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    shutil.copy(shared / "weights" / YUNET.name, tmp_path / "cache")
    save_bundle([member(xception(1.0))], tmp_path / "bundles" / "mine")
    found = examined(capsys)
    assert found["weights", "yunet"]["state"] == "ok"
    assert found["landmarks", "dlib"]["state"] == "ok"
    assert found["bundles", "mine"]["detail"] == "xception_entire.made"
    assert found["bundles", "default"]["state"] == "ok"


def test_what_is_broken_is_named_with_advice(tmp_path, capsys, monkeypatch):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / YUNET.name).write_text("half a file")
    save_bundle([member(xception(1.0))], tmp_path / "bundles" / "mine")
    (tmp_path / "bundles" / "mine" / "bundle.json").write_text("{")
    true = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "timm" else true(name))
    found = examined(capsys, code=1)
    broken = {key for key, each in found.items() if each["state"] == "broken"}
    assert broken == {("weights", "yunet"), ("bundles", "mine"), ("packages", "timm")}
    assert "delete it" in found["weights", "yunet"]["advice"]
    assert "pip install --upgrade 'timm'" in found["packages", "timm"]["advice"]


def test_a_missing_runtime_is_named_with_its_install_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    check = examined(capsys)["runtimes", "openvino"]
    assert (check["state"], check["detail"]) == ("optional", "openvino is not installed")
    assert check["advice"] == "pip install 'deepregions[openvino]'"


def test_the_table_has_every_check_and_the_advice(capsys):
    names = {name for _, name in examined(capsys)}
    assert run(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert not [name for name in names if name not in printed]
    assert "weights, yunet: deepregions models fetch yunet" in printed
