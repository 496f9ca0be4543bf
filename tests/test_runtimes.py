"""Runtimes: each gives what PyTorch gives, and says what it cannot run."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from detect_json import validate_detect
from networks import Tint, landmarks, member, picture, pixels
from PIL import Image

import deepregions.detectors
from deepregions.commands.cli import run
from deepregions.deploy import runtimes
from deepregions.deploy.onnx_metadata import digest, read_facts
from deepregions.deploy.runtime_system import (
    RuntimeSystem,
    as_output,
    exported,
    fastest,
    random_crops,
    run_by,
)
from deepregions.deploy.runtimes import NAMES, has_bf16, installed, open_file
from deepregions.errors import (
    MissingExtraError,
    UnreadableError,
    UnsupportedError,
    UsageError,
)
from deepregions.system import System
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


def made(seed: int = 0) -> System:
    """Three networks, two kinds of crops."""
    torch.manual_seed(seed)
    networks = [member(Tint().eval(), region) for region in (Region.ENTIRE, Region.NOSE)]
    networks.append(replace(member(Tint(40).eval(), Region.NOSE, "other"), layout="tight"))
    return System([replace(one, sha256=f"{seed}{n}") for n, one in enumerate(networks)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where files are exported to, once for all tests here."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def file(folder):
    return exported(made(), folder=folder)


@pytest.mark.parametrize("name", NAMES)
def test_every_runtime_answers_as_the_system_does(name, folder, file):
    system = made()
    runtime = run_by(name, system, folder)
    assert runtime.name == name and runtime.version[0].isdigit()
    assert [each.name for each in folder.iterdir()] == [file.name]  # not exported again
    other = RuntimeSystem(system, runtime)
    assert (other.rows, other.regions, other.cells) == (system.rows, system.regions, system.cells)
    for batch in (1, 3):
        image = torch.stack([picture(240, 210, seed=seed) for seed in range(batch)])
        points = landmarks(batch)
        points[-1] += 25.0 * (batch - 1)
        allowed = torch.ones(batch, 5, dtype=torch.bool)
        allowed[-1, 0] = batch == 1
        with torch.inference_mode():
            expected, output = (each(image, points, allowed=allowed) for each in (system, other))
            assert torch.equal(output.valid, expected.valid)
            assert torch.equal(output.present, expected.present)
            for key in ("logits", "fused"):
                one, two = getattr(output, key), getattr(expected, key)
                torch.testing.assert_close(one, two, rtol=0, atol=1e-4, equal_nan=True)
            expected, output = (
                each.forward_segmented(image, Region.NOSE) for each in (system, other)
            )
            assert torch.equal(output.valid, expected.valid) and output.valid.sum() == 2 * batch
            torch.testing.assert_close(output.fused, expected.fused, rtol=0, atol=1e-4)


def test_answers_that_are_no_numbers_are_no_answers():
    present = torch.ones(3, 2, dtype=torch.bool)
    answers = {
        "logits": np.array([[[1.0, np.nan]], [[np.inf, 2.0]], [[1.0, 2.0]]], np.float32),
        "valid": np.ones((3, 1, 2), bool),
        "fused": np.array([1.0, 2.0, np.nan], np.float32),
    }
    output = as_output(answers, present)
    assert output.valid.tolist() == [[[True, False]], [[False, True]], [[False, False]]]
    assert output.logits.tolist() == [[[1.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]]]
    assert output.fused[:2].tolist() == [1.0, 2.0] and output.fused[2].isnan()


def test_the_fastest_is_chosen_among_those_that_are_there(folder, file):
    runtime, rates = fastest(made(), folder=folder)
    assert rates.keys() == set(installed()) == set(NAMES)
    assert rates[runtime.name] == max(rates.values()) > 0


def test_a_broken_file_in_the_cache_is_written_again(tmp_path, file):
    broken = tmp_path / file.name
    broken.write_bytes(file.read_bytes()[:1000])
    assert exported(made(), folder=tmp_path) == broken
    assert open_file("onnxruntime", broken).name == "onnxruntime"
    exported(made(seed=2), folder=tmp_path).rename(broken)  # another bundle's
    assert read_facts(exported(made(), folder=tmp_path))["bundle"] == digest(made())


def test_a_missing_runtime_is_named_with_its_install_line(monkeypatch, tmp_path):
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        with pytest.raises(MissingExtraError, match=rf"{name}.*deepregions\[{name}\]"):
            run_by(name, made(), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"no runtime 'tensorrt'.*torch, onnxruntime, openvino"):
        run_by("tensorrt", made(), tmp_path)  # type: ignore[arg-type]


def test_files_that_no_runtime_can_run_are_refused_in_one_line(file, tmp_path):
    path = tmp_path / "m.onnx"
    model = onnx.load(file)
    model.opset_import[0].version = 999
    onnx.save(model, path)
    with pytest.raises(
        UnsupportedError, match=r"onnxruntime \S+ cannot load .*opset 999"
    ) as caught:
        open_file("onnxruntime", path)
    assert "\n" not in str(caught.value)
    model.opset_import[0].version = 18
    model.graph.node[0].op_type = "Unheard"
    onnx.save(model, path)
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(UnsupportedError, match=f"{name} .*cannot load .*Unheard"):
            open_file(name, path)
    path.write_bytes(b"\xff not onnx")
    with pytest.raises(UnreadableError, match="cannot be read as ONNX"):
        open_file("onnxruntime", path)
    with pytest.raises(UsageError, match="torch does not run ONNX files"):
        open_file("torch", file)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_do_not_fit_are_refused(name, folder, file):
    runtime, inputs = run_by(name, made(), folder), random_crops(made(), 2)
    with pytest.raises(UsageError, match="takes crops_0, crops_1, present"):
        runtime.run({"image": inputs["crops_0"]})
    if name != "torch":
        with pytest.raises(UsageError, match=f"{name} cannot run these inputs"):
            runtime.run(inputs | {"crops_0": inputs["crops_0"][..., :-3]})


@pytest.mark.parametrize("batch", [0, 1, 2, 5, 8])
def test_parts_of_a_batch_side_by_side_answer_as_the_whole(batch, file, monkeypatch):
    monkeypatch.setattr(runtimes, "threads", lambda: 3)  # so that OpenVINO makes several streams
    inputs = random_crops(made(), batch)
    got, expected = (open_file(name, file).run(inputs) for name in ("openvino", "onnxruntime"))
    for name, values in expected.items():
        assert got[name].shape == values.shape
        np.testing.assert_allclose(got[name], values, atol=1e-4)


def test_openvino_computes_in_bfloat16_only_when_asked(file):
    inputs = random_crops(made(), 2)
    exact = open_file("onnxruntime", file).run(inputs)["logits"]
    plain = open_file("openvino", file).run(inputs)["logits"]
    np.testing.assert_allclose(plain, exact, atol=1e-4)
    if not has_bf16():
        with pytest.raises(UnsupportedError, match="no bfloat16"):
            open_file("openvino", file, precision="bf16")
        return
    rough = open_file("openvino", file, precision="bf16").run(inputs)["logits"]
    np.testing.assert_allclose(rough, exact, rtol=0.05, atol=0.2)
    assert np.abs(rough - exact).max() > 1e-4


def test_detect_scores_by_any_runtime(portrait, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(deepregions.detectors, "Tint", Tint, raising=False)  # bundles may name it
    torch.manual_seed(0)
    save_bundle([member(Tint().eval(), Region.EYES)], tmp_path / "bundle")
    command = ["detect", str(portrait), "--bundle", str(tmp_path / "bundle")]
    scores = {}
    for name in (*NAMES, "auto"):
        assert run([*command, "--json", "--landmarks", "dlib-hog", "--runtime", name]) == 0
        printed = capsys.readouterr()
        said_aside = printed.err + caplog.text
        caplog.clear()
        line = json.loads(printed.out)
        validate_detect(line)
        scores[name] = line["log_odds"]
        chosen = re.findall(r"runtime (\w+) \(faces/s: torch ", said_aside) or [name]
        assert (name == "auto") == ("faces/s" in said_aside)
        said = {each for each in ("onnxruntime", "openvino") if each in line["versions"]}
        assert said == set(chosen) - {"torch"}
        assert set(line["versions"]) & {"onnxruntime", "openvino"} == {name} - {
            "torch",
            "auto",
        } or (name == "auto" and re.search(r"runtime \w+ \(faces/s: torch ", said_aside))
    for name in ("onnxruntime", "openvino", "auto"):
        assert scores[name] == pytest.approx(scores["torch"], abs=1e-4)
    assert len(list((tmp_path / "cache" / "exported").iterdir())) == 1


@pytest.fixture
def canvas(tmp_path, monkeypatch):
    """Arguments of detect for a canvas and a bundle, with a cache of its own."""
    monkeypatch.setenv("DEEPREGIONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(deepregions.detectors, "Tint", Tint, raising=False)  # bundles may name it
    Image.fromarray(pixels(80, 80)).save(tmp_path / "eyes.png")
    torch.manual_seed(0)
    save_bundle([member(Tint().eval(), Region.EYES)], tmp_path / "bundle")
    base = ["detect", str(tmp_path / "eyes.png"), "--segmented", "--region", "eyes", "--json"]
    return [*base, "--bundle", str(tmp_path / "bundle")]


@pytest.mark.parametrize("name", NAMES)
def test_detect_makes_up_no_score_of_a_network_without_numbers(name, canvas, tmp_path, capsys):
    if name == "torch":
        broken = Tint().eval()
        with torch.no_grad():
            broken.mix.weight[:] = torch.nan
        save_bundle([member(broken, Region.EYES)], tmp_path / "nan")
        canvas[-1] = str(tmp_path / "nan")
    else:
        assert run([*canvas, "--runtime", name]) == 0
        (path,) = (tmp_path / "cache" / "exported").iterdir()
        model = onnx.load(path)
        for weight in model.graph.initializer:
            if list(weight.dims) == [2, 3, 5, 5]:
                nothing = np.full([2, 3, 5, 5], np.nan, np.float32)
                weight.CopyFrom(onnx.numpy_helper.from_array(nothing, weight.name))
        onnx.save(model, path)
        capsys.readouterr()
    assert run([*canvas, "--runtime", name]) == 5
    printed = capsys.readouterr()
    line = json.loads(printed.out)
    validate_detect(line)
    assert line["status"] == "error" and line["score"] is None and line["log_odds"] is None
    assert printed.err.count("\n") == 1 and "the bundle is broken" in printed.err


def test_detect_names_what_a_runtime_cannot_do(canvas, tmp_path, capsys):
    for name in ("torch", "onnxruntime", "auto"):
        assert run([*canvas, "--runtime", name, "--precision", "bf16"]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        assert f"{name} does not compute in bf16 here (--runtime openvino" in printed.err
    assert not (tmp_path / "cache").exists()  # said before anything is exported
    assert run([*canvas, "--runtime", "onnxruntime"]) == 0
    (path,) = (tmp_path / "cache" / "exported").iterdir()
    model = onnx.load(path)
    model.opset_import[0].version = 999
    onnx.save(model, path)
    capsys.readouterr()
    assert run([*canvas, "--runtime", "onnxruntime"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "(opset 999)" in printed.err and "pip install --upgrade onnxruntime" in printed.err


@pytest.mark.parametrize("there", [True, False])
def test_detect_computes_in_bfloat16_where_that_is_asked_for(
    there, canvas, monkeypatch, capsys, caplog
):
    command = [*canvas, "--runtime", "openvino"]
    if not there or not has_bf16():
        monkeypatch.setattr("deepregions.deploy.runtimes.has_bf16", lambda: False)
        assert run([*command, "--precision", "bf16"]) == 1
        assert "this CPU has no bfloat16 (--precision fp32" in capsys.readouterr().err
        return
    lines = {}
    for precision in ("fp32", "bf16"):
        assert run([*command, "--precision", precision]) == 0
        printed = capsys.readouterr()
        lines[precision] = json.loads(printed.out)
        validate_detect(lines[precision])
        assert lines[precision]["precision"] == precision
        said = printed.err + caplog.text
        caplog.clear()
        assert said.count("bfloat16 changes scores a little") == (precision == "bf16")
    difference = abs(lines["bf16"]["log_odds"] - lines["fp32"]["log_odds"])
    assert 1e-5 < difference < 0.5
