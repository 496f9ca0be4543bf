import json

import pytest

from deepregions.commands import benchmark
from deepregions.commands.cli import run
from deepregions.weights.bundle_folder import default_bundle

pytest.importorskip("skimage", reason="the portrait is in scikit-image's wheel")
WORDS = ["benchmark", "--landmarks", "dlib-hog", "--seconds", "0.2"]
WORDS += ["--bundle", str(default_bundle()), "--region", "eyes"]


def test_it_says_what_was_measured_and_what_follows(capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "_WARM", 1)
    assert run([*WORDS, "--json", "--price", "0.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["price_per_hour"] == 0.5
    assert 0.2 < told["start_to_answer_s"] < 60
    assert 0.1 < told["photographs_per_s"] < 1000
    hours = told["hours_per_million_photographs"]
    assert hours * 3600 * told["photographs_per_s"] == pytest.approx(1e6, rel=0.02)
    hours = told["hours_per_1000_hours_of_video"]
    assert hours * told["video_s_per_s"] == pytest.approx(1000, rel=0.02)
    assert 100 < told["peak_memory_mb"] < 10_000


def test_it_runs_what_detect_runs(monkeypatch, capsys):
    """The graph of the bundle, by onnxruntime, where there is no GPU."""
    seen = []
    monkeypatch.setattr(benchmark, "_start_to_answer", lambda *_: 3.0)
    monkeypatch.setattr(benchmark, "_rate", lambda analyser, *_: seen.append(analyser) or 1.0)
    assert run([*WORDS[:-2], "--device", "cpu"]) == 0
    assert [analyser.facts["runtime"] for analyser in seen] == ["onnxruntime"] * 2
    assert "photographs per second" in capsys.readouterr().out


def test_ctrl_c_prints_what_there_is(capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "_start_to_answer", lambda *_: 3.0)
    monkeypatch.setattr(benchmark, "_rate", stopped)
    assert run(WORDS) == 130
    captured = capsys.readouterr()
    assert "start to answer" in captured.out and "3.0 s" in captured.out
    assert "interrupted" in captured.err


@pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--seconds", "-3"], ["--price", "-1"]])
def test_wrong_numbers_are_one_line(wrong, capsys):
    assert run(["benchmark", *wrong]) == 2
    assert wrong[0].strip("-") in capsys.readouterr().err


def test_what_detect_refuses_is_one_line(capsys):
    assert run([*WORDS, "--landmarks", "nosuch"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("deepregions: error: detect: no landmark backend 'nosuch'")
    assert told.err.count("\n") == 1
