"""``deepregions benchmark``: what it says, not how fast this machine is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import runtimes as benchmark
import torch
from networks import SIZE, dsp_fwa, member, xception
from original import Branches, as_original
from runtimes import ORIGINAL, Job
from torch.utils.flop_counter import FlopCounterMode

from deepregions.commands.cli import run_program
from deepregions.detectors import Capsule
from deepregions.errors import ExportError
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


@pytest.fixture
def bundle(tmp_path):
    save_bundle([member(xception()), member(dsp_fwa(), Region.EYES)], tmp_path / "bundle")
    return str(tmp_path / "bundle")


def test_the_table_has_each_detector_all_of_them_and_the_original_way(bundle, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "_run", benchmark.measure)  # without processes: they take long
    options = ["--runtime", "torch", "--batch-size", "2", "--seconds", "0.01", "--threads", "1"]
    assert run_program(benchmark.main, ["--bundle", bundle, *options, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = [(each["what"], each["way"], each["batch"]) for each in content["measurements"]]
    ways = [(ORIGINAL, 1), ("torch fp32", 1), ("torch fp32", 2)]
    networks = ("xception", "dsp-fwa", benchmark.EVERYTHING)
    assert rows == [(what, *way) for what in networks for way in ways]
    assert content["threads"] == 1
    work = content["work"]
    assert work[benchmark.EVERYTHING] == pytest.approx(work["xception"] + work["dsp-fwa"])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        xception()(torch.zeros(1, 3, SIZE, SIZE))
    assert work["xception"] == pytest.approx(1e-9 * counter.get_total_flops())
    for each in content["measurements"]:
        assert each["rate"] == pytest.approx(1e3 * each["batch"] / each["p50"])
        assert each["p95"] >= each["p50"]
        assert each["memory"] > 100  # PyTorch alone takes that
        base = next(one for one in content["measurements"] if one["what"] == each["what"])
        assert each["ratio"] == pytest.approx(each["rate"] / base["rate"])
        share = each["rate"] * work[each["what"]] / content["matrix"]["fp32"]
        assert each["share"] == pytest.approx(share)


def test_capsules_in_a_loop_answer_as_those_side_by_side():
    torch.manual_seed(0)
    detector = Capsule(size=32)
    for layer in detector.capsules.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for value in layer.state_dict().values():
                if value.is_floating_point():
                    value.uniform_(0.5, 2.0)
    detector.eval()
    crops = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        joint = detector(crops)
        looped = as_original(detector)(crops)
    assert isinstance(detector.capsules[0], Branches)
    assert len(detector.capsules[0].branches) == 10
    assert joint.unique().numel() == 3
    torch.testing.assert_close(looped, joint)
    network = xception()
    assert as_original(network) is network


def job(bundle: str) -> Job:
    return Job("one", ("xception_entire.made",), (bundle,), batch=2, seconds=0.01)


def test_a_measurement_is_a_process_of_its_own(bundle):
    content = bytearray(b"x") * (1 << 29)  # what is in memory here does not count there
    made = benchmark._run(job(bundle))
    assert (made.what, made.way, made.batch) == ("one", "torch fp32", 2)
    assert made.rate > 0 and made.memory is not None
    assert 100 < made.memory < psutil.Process().memory_info().rss / 1e6
    del content


def _dies(_: Job) -> None:
    os._exit(9)


def test_the_script_s_own_processes_find_what_they_run(bundle):
    script = Path(benchmark.__file__)
    options = ["--runtime", "torch", "--batch-size", "1", "--seconds", "0.01", "--threads", "1"]
    command = [sys.executable, str(script), "--bundle", bundle, *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["measurements"]) >= 6


def test_a_process_that_ends_is_named(bundle, monkeypatch):
    monkeypatch.setattr(benchmark, "measure", _dies)
    with pytest.raises(ExportError, match=r"one by torch at batch 2 .*smaller --batch-size"):
        benchmark._run(job(bundle))


def test_wrong_use_is_named(bundle, capsys):
    for options, said in (
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--threads", "-1"], "--threads is -1"),
        (["--runtime", "tensorrt"], "onnxruntime"),
        (["--device", "meta", "--runtime", "openvino"], "only torch is measured on meta"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ):
        assert run_program(benchmark.main, ["--bundle", bundle, *options]) == 2
        assert said in capsys.readouterr().err
