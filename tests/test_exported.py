"""Files of ``export --standalone``: they score as PyTorch does, where it is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import Tint, calibration, member, pixels, points

from deepregions.commands.cli import main, run
from deepregions.deploy.export import export
from deepregions.deploy.exported import ExportedSystem, about_bundle
from deepregions.deploy.onnx_metadata import KEY
from deepregions.deploy.quantise import store_halves
from deepregions.errors import DeepregionsError, UnreadableError, UsageError
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.exported_scorer import ExportedScorer
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import FacePatch
from deepregions.types import Region
from deepregions.weights.bundle import Bundle
from deepregions.weights.manifest import BundleFacts

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

# What deepregions-lite does not ask for.
_HIDDEN = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def bundle() -> Bundle:
    """Two networks, of which one wants larger crops that are cut in another way."""
    torch.manual_seed(0)
    members = [
        member(Tint().eval()),
        replace(member(Tint(96).eval(), Region.EYES), layout="tight", resample="nearest"),
    ]
    members = [replace(each, sha256=f"{number:064x}") for number, each in enumerate(members)]
    facts = BundleFacts("self-made", limits="It was made by a test.")
    own = calibration(0.5, 0.1, -3.0, 3.0)
    return Bundle(
        tuple(members), calibration=own.for_networks(m.sha256 for m in members), facts=facts
    )


@pytest.fixture(scope="module")
def made() -> Bundle:
    return bundle()


@pytest.fixture(scope="module")
def exported(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(made.system(), path, takes="faces", about=about_bundle(made))
    return path


def faces() -> Iterator[FacePatch]:
    """Faces of several sizes, with and without what makes them fit to be judged."""
    yield FacePatch(pixels(), points())
    yield FacePatch(pixels(170, 230, seed=1), points(), confidence=0.9)
    yield FacePatch(pixels(120, 90, seed=2), points(centre=60), 0.7, 0.3)  # partly off, unsure
    yield FacePatch(pixels(seed=3), points(scale=8), 0.5)  # small
    yield FacePatch(pixels() // 40, points())  # dark
    yield FacePatch(pixels(seed=4), points() * np.float32(np.nan))
    yield FacePatch(pixels(seed=5), points(centre=500))  # off the picture


@pytest.mark.parametrize("gates", [Gates(), Gates(min_size=0, min_sharpness=0, max_dark=1)])
def test_faces_have_the_same_answers_as_by_pytorch(
    made: Bundle, exported: Path, gates: Gates
) -> None:
    check_same_answers(made, exported, gates)


def check_same_answers(made: Bundle, exported: Path, gates: Gates) -> None:
    ours = FaceScorer(made.system(), gates, torch.device("cpu"))
    theirs = ExportedScorer(ExportedSystem(exported), gates)
    expected, got = (one.score([*faces(), None], pictures=True) for one in (ours, theirs))
    assert len({one.status for one in expected}) >= 2
    assert any(one.log_odds is not None for one in expected)
    for ours, theirs in zip(expected, got, strict=True):
        assert (theirs.status, theirs.reasons) == (ours.status, ours.reasons)
        assert (theirs.log_odds is None) == (ours.log_odds is None)
        assert (theirs.log_odds or 0) == pytest.approx(ours.log_odds or 0, abs=1e-4)
        assert theirs.cells.keys() == ours.cells.keys()
        for cell, log_odds in ours.cells.items():
            near = log_odds if log_odds is None else pytest.approx(log_odds, abs=1e-4)
            assert theirs.cells[cell] == near
        assert theirs.quality.keys() == ours.quality.keys()
        for name, figure in ours.quality.items():
            near = figure if figure is None else pytest.approx(figure, rel=1e-3, abs=1e-3)
            assert theirs.quality[name] == near, name
        assert (theirs.patch is None) == (ours.patch is None)
        if ours.patch is not None and theirs.patch is not None:
            assert theirs.patch.crops.keys() == ours.patch.crops.keys()
            for of, crop in ours.patch.crops.items():
                assert np.abs(theirs.patch.crops[of].astype(int) - crop).max() <= 1


def test_it_knows_what_its_bundle_knew(made: Bundle, exported: Path) -> None:
    system, ours = ExportedSystem(exported), made.system()
    assert (system.rows, system.regions, [*system.cells]) == (ours.rows, ours.regions, ours.cells)
    assert system.cuts == ours.cuts
    assert system.calibration == made.calibration
    assert system.facts == made.facts


def hidden() -> set[str]:
    """The packages that deepregions needs and deepregions-lite does not."""
    from build_lite import EXTRAS, NEEDED  # type: ignore[import-not-found]

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {*EXTRAS} <= project["optional-dependencies"].keys()
    names = {_name(each) for each in project["dependencies"]}
    assert {*NEEDED} <= names
    modules = {"pytorch-lightning": "pytorch_lightning", "huggingface-hub": "huggingface_hub"}
    return {modules.get(name, name).replace("-", "_") for name in names - {*NEEDED}}


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def without(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command where none of what deepregions-lite lacks can be imported."""
    packages = hidden()
    assert {"torch", "timm", "kornia", "pyarrow", "matplotlib"} <= packages
    code = _HIDDEN.format(hidden=packages) + "from deepregions.commands.cli import main\n"
    code += f"sys.exit(main({[str(each) for each in argv]}))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )


def told(line: str) -> dict[str, Any]:
    """What a JSON line says, but for how it was made."""
    result = json.loads(line)
    for key in ("date", "command", "versions", "runtime"):
        del result[key]
    return dict(result)


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def test_a_photograph_is_answered_without_pytorch(
    made: Bundle, exported: Path, portrait: Path, tmp_path: Path
) -> None:
    from deepregions.media import MediaReader
    from deepregions.pipeline.build import build_analyser

    how = ("--landmarks", "dlib-hog", "--bundle", exported, "--json", "--out", tmp_path / "out")
    done = without("detect", portrait, *how)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "portrait.html").is_file()
    got = told(done.stdout)
    with MediaReader() as reader:
        analyser = build_analyser(made, landmarks="dlib-hog", device="cpu")
        (result,) = analyser.analyse([portrait], reader)
    expected = told(json.dumps(result.to_dict() | {"command": []}))
    assert got["status"] == "ok"
    assert rounded(got) == rounded(expected)


def test_what_needs_pytorch_says_so_in_one_line(portrait: Path, tmp_path: Path) -> None:
    for argv in (
        ("export", "--out", tmp_path / "a.onnx"),
        ("explain", portrait, "--out", tmp_path / "out"),
        ("segment", portrait, "--out", tmp_path / "out"),
        ("detect", portrait, "--runtime", "torch"),
        ("detect", portrait, "--region", "eyes"),
        ("detect", portrait, "--explain", "--out", tmp_path / "out"),
    ):
        done = without(*argv)
        assert done.returncode in (1, 2), argv
        assert done.stderr.count("\n") == 1 and "pip install" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--region", "eyes"], "used as a whole"),
        (["--precision", "bf16"], "run in fp32"),
        (["--segmented", "--region", "eyes"], "used as a whole"),
        (["--explain", "--out", "out"], "was exported"),
    ],
)
def test_what_an_exported_file_cannot_do(
    exported: Path,
    portrait: Path,
    argv: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["detect", str(portrait), "--bundle", str(exported), *argv]) == 2
    assert says in capsys.readouterr().err


def test_it_is_used_by_itself(
    exported: Path, portrait: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["detect", str(portrait), "--bundle", str(exported), str(exported)]) == 2
    assert "used by itself" in capsys.readouterr().err


def altered(path: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    model = onnx.load(path)
    content = json.loads(next(each.value for each in model.metadata_props if each.key == KEY))
    change(content)
    onnx.helper.set_model_props(model, {KEY: json.dumps(content)})
    onnx.save(model, folder / "other.onnx")
    return folder / "other.onnx"


_STRANGE: list[Any] = [None, "", -1, 1e9, [], {}, "x" * 5000, [None], {"a": 1}]


@pytest.mark.parametrize("key", ["networks", "detectors", "regions", "fusion", "fusion_sha256"])
@pytest.mark.parametrize("value", _STRANGE, ids=str)
def test_a_stranger_s_file_is_refused_in_one_line(
    exported: Path, tmp_path: Path, key: str, value: Any
) -> None:
    path = altered(exported, tmp_path, lambda content: content.update({key: value}))
    if key == "fusion_sha256" and value == "":  # a fusion that was not saved has none
        ExportedSystem(path)
        return
    with pytest.raises(UnreadableError, match="does not say"):
        ExportedSystem(path)


@pytest.mark.parametrize("key", ["name", "detector", "region", "database", "size", "layout"])
@pytest.mark.parametrize("value", _STRANGE, ids=str)
def test_a_stranger_s_network_is_refused(
    exported: Path, tmp_path: Path, key: str, value: Any
) -> None:
    path = altered(exported, tmp_path, lambda content: content["networks"][0].update({key: value}))
    with pytest.raises(DeepregionsError):
        ExportedSystem(path)


def test_answers_of_another_shape_are_refused(exported: Path, tmp_path: Path) -> None:
    def fewer(content: dict[str, Any]) -> None:
        content["networks"][1]["detector"] = content["detectors"][0] = "other"
        content["detectors"].append("another")

    path = altered(exported, tmp_path, fewer)
    with pytest.raises(DeepregionsError):
        ExportedScorer(ExportedSystem(path), Gates()).score([FacePatch(pixels(), points())])


def test_other_files_of_ours_are_refused(made: Bundle, tmp_path: Path) -> None:
    export(made.system(), path := tmp_path / "crops.onnx", takes="crops")
    with pytest.raises(UsageError, match="takes crops, not faces"):
        ExportedSystem(path)
    (other := tmp_path / "none.onnx").write_bytes(b"no model")
    with pytest.raises(UnreadableError):
        ExportedSystem(other)


def test_halves_lose_nothing(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    exact = np.tile(np.arange(64, dtype=np.float32), (64, 1)) / 8
    other = exact + np.float32(1e-5)
    huge = np.full((64, 64), 1e30, np.float32)
    arrays = {"exact": exact, "other": other, "huge": huge}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in arrays]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, (64, 64)) for name in arrays
    ]
    tensors = [numpy_helper.from_array(values, name) for name, values in arrays.items()]
    graph = helper.make_graph(nodes, "halves", [], outputs, tensors)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path := tmp_path / "a")
    before = path.stat().st_size
    store_halves(path)
    onnx.checker.check_model(str(path), full_check=True)
    assert before - path.stat().st_size == pytest.approx(2 * exact.size, abs=200)
    from onnx.reference import ReferenceEvaluator

    for got, expected in zip(
        ReferenceEvaluator(str(path)).run(None, {}), arrays.values(), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_the_lite_project_is_the_project_without_training() -> None:
    from build_lite import pyproject

    lite = tomllib.loads(pyproject())["project"]
    whole = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert (lite["name"], lite["version"]) == ("deepregions-lite", whole["version"])
    names = {_name(each) for each in lite["dependencies"]}
    assert "onnxruntime" in names and not names & {"torch", "timm", "pyarrow", "kornia"}
    assert lite["scripts"] == whole["scripts"]
