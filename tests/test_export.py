"""Exported files: what they say, that they compute what PyTorch does, and what is refused."""

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import SIZE, Tint, dsp_fwa, landmarks, member, picture, xception
from torch import Tensor, nn

import deepregions
from deepregions.commands.cli import run
from deepregions.deploy.export import export
from deepregions.deploy.graph import CalibrationModule
from deepregions.deploy.onnx_metadata import KEY, digest, read_facts
from deepregions.deploy.parity import Parity, parity
from deepregions.deploy.runtimes import installed, open_file
from deepregions.detectors import Capsule
from deepregions.devices import import_runtime
from deepregions.errors import ExportError, UnreadableError, UnsupportedError
from deepregions.faces.cropping import RegionCropper
from deepregions.fusion.calibration import Calibration, Development, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.system import System, SystemOutput
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle


def tinted(**regions: Region) -> System:
    """A system of the least there is, reproducibly random."""
    torch.manual_seed(0)
    return System([member(Tint().eval(), region) for region in regions.values() or [Region.ENTIRE]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """All three detectors, each on another region, one of them cut in another way."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundles") / "three"
    whole = replace(member(xception()), layout="context", resample="nearest")
    capsule = member(Capsule(SIZE).eval(), Region.MOUTH)
    save_bundle([whole, member(dsp_fwa(), Region.EYES), capsule], path)
    return path


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    """The file that the command makes of them, and what it prints."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(["export", "--bundle", str(bundle), "--out", str(path)]) == 0
    return path, printed.getvalue()


def session(path: Path) -> Any:
    return import_runtime("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )


def assert_same(answers: list[np.ndarray], expected: SystemOutput, atol: float = 1e-4) -> None:
    logits, valid, fused = map(torch.from_numpy, answers[:3])
    assert torch.equal(valid, expected.valid)
    torch.testing.assert_close(logits, expected.logits, rtol=0, atol=atol)
    torch.testing.assert_close(fused, expected.fused, rtol=0, atol=atol, equal_nan=True)


def test_the_file_is_one_and_says_what_it_is(exported, bundle):
    path, printed = exported
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    assert "3 networks, mean of log-odds, fp32" in printed and "9 faces" in printed
    members = load_bundle(bundle)
    content = read_facts(path)
    assert content["opset"] == 18
    assert content["takes"] == "image"
    assert content["bundle"] == digest(System(members))
    assert content["classes"] == ["genuine", "fake"]
    assert content["detectors"] == ["xception", "dsp-fwa", "capsule"]
    assert content["regions"] == ["entire", "eyes", "mouth"]
    assert [each["sha256"] for each in content["networks"]] == [each.sha256 for each in members]
    assert content["fusion"] == "mean of log-odds"
    assert content["calibrated"] is False
    graph = session(path)
    assert content["inputs"] == {each.name: each.shape for each in graph.get_inputs()}
    assert content["outputs"] == {each.name: each.shape for each in graph.get_outputs()}
    assert content["inputs"]["image"] == ["batch", 3, "height", "width"]


def test_a_system_is_told_from_another():
    system = tinted(a=Region.ENTIRE, b=Region.NOSE)
    assert digest(system) == digest(System(system.members))
    assert digest(system) != digest(System(system.members[:1]))
    other = System([system.members[0], replace(system.members[1], sha256="other")])
    assert digest(system) != digest(other)
    assert digest(System([member(Tint().eval())])) != digest(System([member(Tint().eval())]))
    fusions = [nn.Linear(2, 1), nn.Linear(2, 1)]
    made = {digest(system)}
    for fusion in fusions:
        system.fusion = fusion  # random weights
        made.add(digest(system))
    assert len(made) == 3


def test_nothing_of_this_machine_is_in_the_file(exported):
    content = exported[0].read_bytes()
    assert str(Path(deepregions.__file__).parent).encode() not in content
    assert b"site-packages" not in content and b"stack_trace" not in content


@pytest.mark.parametrize(("name", "limit"), [("onnxruntime", 1e-4), ("openvino", 5e-4)])
def test_the_file_computes_what_pytorch_does(exported, bundle, name, limit):
    """Sizes and batches that it was not traced with; faces cut by the border, tiny, and none."""
    if name not in installed():
        pytest.skip("an extra: pip install openvino")
    runtime, system = open_file(name, exported[0]), System(load_bundle(bundle))
    for batch, height, width in ((1, 200, 200), (3, 331, 248), (5, 90, 400)):
        image = torch.stack([picture(height, width, seed=seed) for seed in range(batch)])
        points = landmarks(batch) + 0.3
        if batch > 1:
            points[1] = points[1] * 0.05
            points[2] = torch.nan
        if batch > 3:
            points[3] -= torch.tensor([120.0, 0.0])
            points[4, 30] = torch.inf
        with torch.inference_mode():
            expected = system(image, points)
        assert expected.valid[0].any() and not expected.valid[1:3].any()
        answers = runtime.run({"image": image.numpy(), "landmarks": points.numpy()})
        assert_same([answers[key] for key in ("logits", "valid", "fused")], expected, limit)


def test_one_network_with_its_crops_made_outside(bundle, tmp_path):
    options = ["--only", "Capsule/mouth", "--crops-in"]
    path = tmp_path / "new" / "mouth.onnx"
    assert run(["export", "--bundle", str(bundle), "--out", str(path), *options]) == 0
    graph = session(path)
    shapes = {each.name: each.shape for each in graph.get_inputs()}
    assert shapes == {"crops": ["batch", 1, 3, SIZE, SIZE], "present": ["batch", 1]}
    image, points = torch.stack([picture(seed=1), picture(seed=2)]), landmarks(2)
    crops, present = RegionCropper(SIZE, [Region.MOUTH])(image, points)
    present[1] = False
    answers = graph.run(None, {"crops": crops.numpy(), "present": present.numpy()})
    with torch.inference_mode():
        expected = load_bundle(bundle)[2].detector(crops[:, 0])
    assert answers[1].tolist() == [[[True]], [[False]]]
    assert answers[0][0, 0, 0] == pytest.approx(expected[0].item(), abs=1e-4)
    assert answers[2][0] == pytest.approx(expected[0].item(), abs=1e-4)
    assert answers[0][1, 0, 0] == 0 and np.isnan(answers[2][1])


def test_networks_that_want_other_crops_have_inputs_of_their_own(tmp_path):
    torch.manual_seed(0)
    first, second = member(Tint().eval()), member(Tint(40).eval(), Region.NOSE)
    system = System([first, replace(second, layout="tight", resample="nearest")])
    export(system, tmp_path / "m.onnx", takes="crops")
    crops = read_facts(tmp_path / "m.onnx")["preprocessing"]["crops"]
    assert [(each["input"], each["regions"]) for each in crops] == [
        ("crops_0", ["nose"]),
        ("crops_1", ["entire"]),
    ]
    assert crops[0]["size"] == 40 and crops[0]["layout"] == "tight"
    image, points = picture()[None], landmarks()
    made = [cropper(image, points)[0].numpy() for cropper in system.croppers]
    names = {"crops_0": made[0], "crops_1": made[1], "present": np.array([[True, True]])}
    with torch.inference_mode():
        assert_same(session(tmp_path / "m.onnx").run(None, names), system(image, points))


class OtherwiseExported(nn.Module):
    """What no export may do: it computes something else than the original."""

    def forward(self, log_odds: Tensor) -> Tensor:
        return log_odds + 1 if torch.compiler.is_exporting() else log_odds


def calibrations() -> list[Calibration]:
    """One of each kind; what one log-odds more is worth depends on where it is."""
    about = Development("made", "f00d", "val", 9, 9)
    line = {"slope": 1.7, "offset": -0.4}
    knots = {"log_odds": [-2.0, -0.5, 0.1, 3.0], "llr": [-1.9, -1.0, 0.3, 2.5]}
    return [
        Calibration("logistic", line, -1.5, 2.0, Quantity.pooled("video", Pooling()), about),
        Calibration("isotonic", knots, -1.9, 2.5, Quantity.pooled("video", Pooling()), about),
    ]


@pytest.mark.parametrize("calibration", calibrations(), ids=["logistic", "isotonic"])
def test_a_calibration_is_in_the_graph(tmp_path, calibration):
    path = tmp_path / "m.onnx"
    export(tinted(), path, takes="crops", calibration=CalibrationModule(calibration))
    assert read_facts(path)["calibrated"] is True
    crops = torch.rand(3, 1, 3, SIZE, SIZE).numpy()
    names = {"crops": crops, "present": np.array([[True], [False], [True]])}
    fused, llr = session(path).run(["fused", "llr"], names)
    np.testing.assert_allclose(llr, calibration.llr(fused), atol=1e-5)
    assert np.isnan(llr[1])
    log_odds = np.append(np.linspace(-5, 5, 101), np.nan)
    found = CalibrationModule(calibration)(torch.from_numpy(log_odds).float()).numpy()
    np.testing.assert_allclose(found, calibration.llr(log_odds), atol=1e-6)


def test_whatever_fuses_is_exported(tmp_path):
    class Largest(nn.Module):
        rule = "largest"
        sha256 = ""

        def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
            return torch.where(valid, logits, -torch.inf).flatten(1).amax(1)

    system = tinted(a=Region.ENTIRE, b=Region.NOSE)
    system.fusion = Largest()
    path = tmp_path / "m.onnx"
    export(system, path, takes="crops")
    names = {"crops": torch.rand(3, 2, 3, SIZE, SIZE).numpy(), "present": np.ones((3, 2), bool)}
    logits, _, fused = session(path).run(None, names)
    np.testing.assert_allclose(fused, logits.max((1, 2)), rtol=1e-5)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path):
    with pytest.raises(ExportError, match=r"does not compute what PyTorch does.*fused ones 1\b"):
        export(tinted(), tmp_path / "m.onnx", takes="crops", calibration=OtherwiseExported())
    assert not list(tmp_path.iterdir())


def test_half_precision_is_of_the_networks_alone(tmp_path):
    path = tmp_path / "half.onnx"
    system = tinted()
    export(system, path, takes="crops", precision="fp16")
    assert all(p.dtype == torch.float32 for p in system.parameters())  # untouched
    assert read_facts(path)["precision"] == "fp16"
    weights = {tuple(w.dims): w.data_type for w in onnx.load(path).graph.initializer}
    assert weights[tuple(system.members[0].detector.mix.weight.shape)] == onnx.TensorProto.FLOAT16
    crops = torch.rand(2, 1, 3, SIZE, SIZE)
    names = {"crops": crops.numpy(), "present": np.array([[True], [True]])}
    logits, valid, _ = session(path).run(None, names)
    with torch.inference_mode():
        expected = system.members[0].detector(crops[:, 0]).numpy()
    assert logits.dtype == np.float32 and valid.all()
    np.testing.assert_allclose(logits[:, 0, 0], expected, atol=0.1)
    assert not np.array_equal(logits[:, 0, 0], expected)


def answers(logits: list[float], valid: list[bool], fused: float) -> dict[str, np.ndarray]:
    return {
        "logits": np.array([[logits]], np.float32),
        "valid": np.array([[valid]]),
        "fused": np.array([fused], np.float32),
    }


def test_a_comparison_sees_every_kind_of_difference():
    right = answers([1.0, 2.0], [True, True], 1.5)
    assert parity([[right, right]]) == Parity(1, 2, 0.0, 0.0, 0.0, 0)
    assert parity([[right, right]]).within(1e-9)
    other = answers([1.0, 2.5], [True, True], 1.5)
    assert parity([[right, other]]).logits == pytest.approx(0.5)
    assert not parity([[right, right], [right, other]]).within(0.4)
    for wrong in (
        answers([1.0, 2.0], [True, True], 1.75),
        answers([1.0, np.nan], [True, True], 1.5),
        answers([1.0, 2.0], [True, True], np.nan),
        answers([1.0, 0.0], [True, False], 1.5),
    ):
        assert not parity([[right, wrong]]).within(0.2)
    nothing = answers([0.0, 0.0], [False, False], np.nan)
    assert not parity([[nothing, nothing]]).within(1.0)  # it says nothing of the networks


def test_more_than_a_file_holds_is_refused_before_any_work(tmp_path):
    system = tinted()
    system.big = nn.Parameter(torch.empty(600_000_000, device="meta"))
    with pytest.raises(ExportError, match=r"2\.4 GB of weights.*--precision fp16.*--only"):
        export(system, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_use_is_named(bundle, tmp_path, capsys):
    (tmp_path / "file").touch()
    base = ["export", "--bundle", str(bundle), "--out"]
    model = str(tmp_path / "m.onnx")
    for options, code, said in (
        ([model, "--only", "xception"], 2, "--detector and --region"),
        ([model, "--only", "resnet/eyes"], 2, "there is no detector 'resnet'"),
        ([model, "--only", "xception/nose"], 2, "there is no xception network for nose"),
        ([model, "--with-crop", "--crops-in"], 2, "do not go together"),
        ([model, "--precision", "int4"], 2, "fp32"),
        ([model, "--precision", "int8"], 2, "--store DIR"),
        ([str(tmp_path)], 2, "is a folder"),
        ([str(tmp_path / "file" / "m.onnx")], 1, "check the path"),
    ):
        assert run([*base, *options]) == code
        assert said in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def plain_model(**facts: object) -> onnx.ModelProto:
    """A graph that passes a number through, with these facts."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    weight = onnx.numpy_helper.from_array(np.ones(1000, np.float32), "w")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out], [weight]))
    if facts:
        onnx.helper.set_model_props(model, {KEY: json.dumps(facts)})
    return model


def test_files_that_are_not_ours_are_told_apart(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(UnreadableError, match=r"m\.onnx cannot be read"):
        read_facts(path)
    path.write_bytes(b"no protobuf \xff\xff\xff")
    with pytest.raises(UnreadableError, match="cannot be read as ONNX"):
        read_facts(path)
    for facts in ({}, {"schema": "other"}, {"schema": "deepregions.onnx", "version": 1}):
        onnx.save(plain_model(**facts), path)
        with pytest.raises(UnreadableError, match=r"not written by|does not say"):
            read_facts(path)
    onnx.save(plain_model(schema="deepregions.onnx", version=99), path)
    with pytest.raises(UnsupportedError, match="version 99"):
        read_facts(path)
    onnx.save(plain_model(), path, save_as_external_data=True, size_threshold=100)
    with pytest.raises(UnsupportedError, match="weights in other files"):
        read_facts(path)


EXAMPLE = Path(__file__).parents[1] / "docs" / "export.md"


def test_the_example_runs_where_there_is_neither_torch_nor_this_package(exported, bundle, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    packages = tmp_path / "packages"  # all that it can import, beside Python's own library
    packages.mkdir()
    for module in (np, import_runtime("onnxruntime")):
        found = Path(str(module.__file__)).parent
        for each in (found, found.with_name(f"{found.name}.libs")):
            if each.exists():
                (packages / each.name).symlink_to(each)
    image, points = picture(230, 220), landmarks()[0]
    np.save(tmp_path / "image.npy", image.permute(1, 2, 0).numpy())
    np.save(tmp_path / "points.npy", points.numpy())
    start = (
        "import importlib.util, runpy, sys; sys.path.append(sys.argv.pop(1)); "
        "assert not any(map(importlib.util.find_spec, ('torch', 'deepregions', 'onnx'))); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    arguments = ["packages", "example.py", str(exported[0]), "image.npy", "points.npy"]
    command = [sys.executable, "-I", "-S", "-c", start, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = System(load_bundle(bundle))(image[None], points[None])
    lines = [line.split(": ") for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == [
        "xception entire",
        "dsp-fwa eyes",
        "capsule mouth",
        "fake log-odds",
    ]
    numbers = [*expected.logits[0].diagonal().tolist(), expected.fused.item()]
    assert [float(value) for _, value in lines] == pytest.approx(numbers, abs=3e-4)
