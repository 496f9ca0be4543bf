"""The networks that come along: what they say of a portrait does not change unnoticed."""

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepregions.commands.cli import run
from deepregions.evaluation.operating_points import find_operating_points
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.validation import train_calibrated
from deepregions.weights.bundle import load_bundle
from deepregions.weights.bundle_folder import default_bundle

ROOT = Path(__file__).parents[1]
LITE = "tf_efficientnet_lite0"
FIGURES = {  # by system, the row of a table in docs/results.md
    "dfdc": {
        f"{LITE} entire (dfdc)": "entire",
        f"{LITE} eyes (dfdc)": "eyes",
        f"{LITE} rest (dfdc)": "rest",
        "bundle default: logistic regression on scaled log-odds (dfdc)": (
            "all, logistic regression (shipped)"
        ),
    },
    "dfdc-scratch": {
        "xception entire (dfdc)": "Xception, entire",
        "capsule entire (dfdc)": "Capsule, entire",
        "all: logistic regression (dfdc)": "all, logistic regression",
    },
}


def test_the_default_networks_say_what_was_recorded(tmp_path, capsys, monkeypatch):
    data = pytest.importorskip("skimage.data", reason="the portrait is in scikit-image's wheel")
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.asarray(data.astronaut())).save("portrait.png")
    folder = str(default_bundle())
    assert run(["models", "verify", folder, "--faces"]) == 0
    assert "recorded answers: ok" in capsys.readouterr().out
    answers = load_bundle(folder).facts.answers
    assert {"portrait", "fwa", "self_blend"} <= answers.keys()
    assert run(["detect", "portrait.png", "--landmarks", "dlib-hog", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["log_odds"] == pytest.approx(answers["portrait"], abs=1e-3)
    assert result["llr"] is not None
    assert "two fakes in five are found" in result["limits"]


def test_the_default_bundle_is_small_and_calibrated():
    folder = default_bundle()
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40e6
    bundle = load_bundle(folder)
    assert bundle.calibration is not None
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert "for research only, by the terms of dfdc, ffhq" in card.text


def test_the_default_bundle_says_what_it_learned_from_and_where_it_errs():
    folder = default_bundle()
    assert folder is not None
    bundle = load_bundle(folder)
    assert bundle.facts.trained_on_kind == "real"
    assert len(bundle.facts.people) == 1320
    assert bundle.facts.recipe["model"]["init_args"]["size"] == 192
    table = ScoreTable.read(ROOT / "docs" / "default" / "dfdc.parquet").part("val")
    assert bundle.fusion is not None and bundle.calibration is not None
    _, calibration, validated = train_calibrated("logistic", table)
    assert dict(bundle.calibration.parameters) == pytest.approx(calibration.parameters, abs=1e-6)
    found = find_operating_points(validated.trials, "video", "the same scores")
    for point, again in zip(bundle.facts.operating_points, found, strict=True):
        assert point.threshold == pytest.approx(again.threshold)
        assert point.false_positive_interval == pytest.approx(again.false_positive_interval)
        assert point.people == again.people == 218


@pytest.mark.parametrize("name", ["dfdc", "dfdc-scratch"])
def test_published_figures_follow_from_the_published_scores(name, tmp_path, capsys):
    """Without media, as docs/results.md says; the figures are those of its tables."""
    file = ROOT / "docs" / "default" / f"{name}.parquet"
    bundle = ["--bundle", str(default_bundle())] if name == "dfdc" else []
    how = ["--level", "frame", "--fusions", "logistic", "--bootstrap-samples", "0"]
    words = ["evaluate", "--scores", str(file), *bundle, *how, "--out", str(tmp_path / "out")]
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["databases"]["dfdc"]
    said = (ROOT / "docs" / "results.md").read_text()
    for system, row in FIGURES[name].items():
        auc, eer = (found[system]["measures"][measure]["value"] for measure in ("auc", "eer"))
        start = f"| {row} | .{1e3 * auc:03.0f} ["
        (line,) = (line for line in said.splitlines() if line.startswith(start))
        assert f" | {100 * eer:.1f} % [" in line
    table = ScoreTable.read(file)
    entire = next(iter(table.systems))
    judged = (table.split == "test") & (table.status == "ok") & table.valid[:, 0, 0]
    auc = roc_auc_score(table.label[judged], table.log_odds[judged, 0, 0])
    assert found[entire.name]["measures"]["auc"]["value"] == pytest.approx(auc)
