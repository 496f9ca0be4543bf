"""A bundle's graph: it scores as the bundle does, without PyTorch, and only while it is its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from networks import member
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data
from test_exported import check_same_answers

from deepregions.commands.cli import main
from deepregions.deploy.bundle_graph import find_graph, is_current, takes_graph
from deepregions.deploy.exported import ExportedSystem
from deepregions.detectors import Backbone
from deepregions.errors import BundleError, UnsupportedError
from deepregions.evaluation import known_faces
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.build import load_networks
from deepregions.weights.bundle import Bundle, load_bundle, save_bundle
from deepregions.weights.bundle_folder import default_bundle
from deepregions.weights.manifest import GRAPH

# Loads as a user's program would, and says what was imported for that.
_IMPORTED = """
import json, sys
from deepregions.commands.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, "torch" in sys.modules]))
"""


def default() -> Path:
    folder = default_bundle()
    assert folder is not None
    return folder


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(default(), tmp_path / "copied"))


@pytest.mark.parametrize("gates", [Gates(), Gates(min_size=0, min_sharpness=0, max_dark=1)])
def test_the_default_graph_answers_as_the_default_networks(gates: Gates) -> None:
    """Fails where crops or quality were changed: `deepregions export --into-bundle` mends it."""
    folder = default()
    assert is_current(folder)
    check_same_answers(load_bundle(folder), folder, gates)
    system, bundle = ExportedSystem(folder), load_bundle(folder)
    assert (system.calibration, system.facts) == (bundle.calibration, bundle.facts)


def test_it_shares_its_weights() -> None:
    folder = default()
    model = onnx.load(folder / GRAPH, load_external_data=False)
    apart = [ExternalDataInfo(each) for each in model.graph.initializer if uses_external_data(each)]
    assert {each.location for each in apart} == {each.name for each in folder.glob("tf_*")}
    assert sum(each.length or 0 for each in apart) > 0.95 * 5 * 7.0e6
    assert (folder / GRAPH).stat().st_size < 2e6


@pytest.mark.parametrize("half", [False, True])
def test_any_bundle_may_have_one(half: bool, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    detector = Backbone(64, backbone="mobilenetv3_small_050").eval()
    save_bundle([member(detector)], folder, half=half)
    assert main(["export", "--into-bundle", "--bundle", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} >= {GRAPH, "bundle.json"}
    assert (folder / GRAPH).stat().st_size < 0.6 * next(folder.glob("m*.safe*")).stat().st_size
    check_same_answers(load_bundle(folder), folder, Gates())


def detected(*argv: str | Path) -> tuple[dict[str, Any], bool, str]:
    """What ``detect --json`` says in a process of its own, whether it used PyTorch, and warned."""
    command = [sys.executable, "-c", _IMPORTED, "detect", *map(str, argv), "--json"]
    kept = {name: value for name, value in os.environ.items() if name != "DEEPREGIONS_MODELS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept)
    result, told = map(json.loads, done.stdout.splitlines())
    assert told[0] == 0, done.stderr
    return result, told[1], done.stderr


def test_detect_does_without_pytorch_and_says_the_same(portrait: Path) -> None:
    how = (portrait, "--landmarks", "dlib-hog", "--device", "cpu")
    graph, imported, _ = detected(*how)
    assert not imported
    assert (graph["runtime"], set(graph["versions"]) & {"torch", "timm"}) == ("onnxruntime", set())
    networks, imported, _ = detected(*how, "--runtime", "torch")
    assert imported and networks["runtime"] == "torch"
    assert graph["log_odds"] == pytest.approx(networks["log_odds"], abs=1e-4)
    assert graph["models"] == networks["models"]
    assert graph["answer"] == networks["answer"]


@pytest.mark.parametrize("left", [0, 500_000])
def test_a_damaged_graph_is_not_used(left: int, copied: Path, caplog: Any) -> None:
    content = (copied / GRAPH).read_bytes()
    (copied / GRAPH).write_bytes(content[:left])
    assert not is_current(copied)
    assert isinstance(load_networks([copied]), Bundle)
    assert "damaged" in caplog.text


def test_a_graph_of_another_version_is_not_used(copied: Path, portrait: Path) -> None:
    manifest = copied / "bundle.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert not is_current(copied)
    with pytest.raises(BundleError, match="another version"):
        ExportedSystem(copied)
    result, imported, said = detected(portrait, "--landmarks", "dlib-hog", "--bundle", copied)
    assert imported and result["runtime"] == "torch"
    assert "--into-bundle" in said


def test_verify_tells_a_graph_that_is_not_the_bundle_s(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify", str(copied)]) == 0
    assert f"{GRAPH}: ok" in capsys.readouterr().out

    networks = known_faces.known_answers

    def answers(bundle: Bundle | Path) -> known_faces.Answers:
        found = networks(bundle)
        return found[::-1] if isinstance(bundle, Bundle) else found[1:]

    monkeypatch.setattr(known_faces, "known_answers", answers)
    assert main(["models", "verify", str(copied), "--faces"]) == 1
    said = capsys.readouterr().out
    assert f"{GRAPH}: log-odds of portrait are +nan, not" in said
    manifest = copied / "bundle.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert main(["models", "verify", str(copied)]) == 1
    assert "another version of the bundle" in capsys.readouterr().out
    (copied / GRAPH).write_bytes(b"")
    assert main(["models", "verify", str(copied)]) == 1
    assert "export --into-bundle writes it again" in capsys.readouterr().out


def test_altered_weights_are_refused(copied: Path) -> None:
    file = next(copied.glob("tf_*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        ExportedSystem(copied)
    file.unlink()
    with pytest.raises(BundleError, match="missing"):
        ExportedSystem(copied)


@pytest.mark.parametrize("location", ["/etc/passwd", "../other", "bundle.json"])
def test_a_graph_opens_no_file_but_the_weights(copied: Path, location: str) -> None:
    model = onnx.load(copied / GRAPH, load_external_data=False)
    tensor = next(filter(uses_external_data, model.graph.initializer))
    tensor.raw_data = b""
    set_external_data(tensor, location, 0, 100)
    tensor.ClearField("raw_data")
    onnx.save(model, copied / GRAPH)
    with pytest.raises(UnsupportedError, match="in other files"):
        ExportedSystem(copied)


@pytest.mark.parametrize(
    ("runtime", "device", "precision", "gpu", "expected"),
    [
        (None, "auto", "fp32", False, True),
        (None, "auto", "fp32", True, False),
        (None, "cpu", "fp32", True, True),
        (None, "cuda", "fp32", True, False),
        ("onnxruntime", "auto", "fp32", True, True),
        ("torch", "cpu", "fp32", False, False),
        ("openvino", "cpu", "fp32", False, False),
        ("auto", "auto", "fp32", False, False),
        (None, "auto", "bf16", False, False),
    ],
)
def test_where_a_graph_scores(
    runtime: str | None,
    device: str,
    precision: str,
    gpu: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepregions.deploy.bundle_graph.may_have_gpu", lambda: gpu)
    assert takes_graph(runtime, device, precision) is expected


def test_which_bundle_s_graph_scores(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    assert find_graph(None) == default()
    assert find_graph([copied]) == copied
    assert find_graph([copied, default()]) is None
    assert find_graph([copied.parent]) is None  # a folder of bundles
    monkeypatch.setenv("DEEPREGIONS_MODELS", str(copied.parent))
    assert find_graph(None) is None
    (copied / GRAPH).unlink()
    assert find_graph([copied]) is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--out", "a.onnx"], "the graph has its place"),
        (["--crops-in"], "give one of them"),
        (["--store", "."], "float32"),
        (["--region", "eyes"], "as a whole"),
        (["--bundle", "."], "for one bundle"),
    ],
)
def test_what_cannot_be_a_graph(
    argv: list[str], says: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    assert main(["export", "--into-bundle", *argv]) == 2
    assert says in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
