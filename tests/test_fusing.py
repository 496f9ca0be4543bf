"""From scores and bundles to a bundle that says likelihood ratios, by the real entry points."""

import csv
import io
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detect_json import read_detect
from drawn_faces import write_drawn_store
from networks import member
from score_tables import score_table

from deepregions.commands.cli import run
from deepregions.commands.fit import names_fusion
from deepregions.commands.fuse import FusionOptions, train_bundle
from deepregions.data.store import FaceStore
from deepregions.detectors import Capsule
from deepregions.errors import UsageError
from deepregions.evaluation.store_scorer import scores_of
from deepregions.fusion.rules import FusionHead, LogisticFusion
from deepregions.fusion.score_table import ScoreTable
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle

ROOT = Path(__file__).parents[1]
CONFIG = ["--config", str(ROOT / "configs" / "fusion.yaml")]
LANDMARKS = ["--landmarks", "dlib-hog"]
ROWS = ("capsule.made", "capsule.other")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Three small networks: on faces and mouths, and on faces of another database."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    save_bundle([member(capsule()), member(capsule(), Region.MOUTH)], folder / "a")
    save_bundle([member(capsule(), database="other")], folder / "b")
    return [str(folder / "a"), str(folder / "b")]


def capsule() -> Capsule:
    return Capsule(size=64).eval()


@pytest.fixture(scope="module")
def members(bundles):
    return [each for path in bundles for each in load_bundle(path)]


@pytest.fixture(scope="module")
def table(members):
    """What these networks could have said of 40 people, if they were better networks."""
    table = score_table(40, detectors=ROWS, missing=0.1)
    logits = table.log_odds.copy()
    logits[:, 1, 1:] = np.nan
    logits[:, 0, 1] = np.nan
    models = {each.name: each.sha256 for each in members}
    lost = np.isnan(logits).all((1, 2))
    return replace(
        table,
        log_odds=logits,
        status=np.where(lost, "low_quality", "ok").astype(object),
        origin=replace(table.origin, models=models),
    )


@pytest.fixture(scope="module")
def scores(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    table.write(path)
    return str(path)


@pytest.fixture(scope="module")
def fused(bundles, scores, tmp_path_factory):
    """Made by ``deepregions fit``, its old name."""
    folder = tmp_path_factory.mktemp("fit")
    out, error = io.StringIO(), io.StringIO()
    command = ["fit", *CONFIG, "--scores", scores, "--bundle", *bundles, "--out", "fused"]
    with chdir(folder), redirect_stdout(out), redirect_stderr(error):
        assert run(command) == 0
    assert error.getvalue() == "deepregions: fusions are now trained by deepregions fuse\n"
    told = out.getvalue().splitlines()
    assert told[0] == (
        "development part of made: 40 genuine and 40 fake videos, in 5 folds by people"
    )
    figures = {line.split()[0]: [float(x) for x in line.split()[1:]] for line in told[2:5]}
    assert figures.keys() == {"logistic", "mean", "head"}
    assert all(0.5 < auc < 1 and 0 < eer < 0.5 and 0 < c < 1 for auc, eer, c in figures.values())
    assert figures["logistic"][2] < figures["mean"][2] + 0.05
    assert told[5].startswith("calibration logistic: log10 likelihood ratios from -")
    assert [line.partition(" for ")[2].partition(":")[0] for line in told[6:9]] == [
        f"{rate} % false alarms" for rate in ("0.1", "1", "5")
    ]
    assert told[9] == "bundle: fused"
    assert [path.name for path in folder.iterdir()] == ["fused"]  # no logs, no checkpoints
    return folder / "fused"


def test_the_bundle_has_all_networks_a_fusion_and_a_calibration(fused, members, table):
    bundle = load_bundle(fused)
    assert {each.name for each in bundle} == {each.name for each in members}
    assert isinstance(bundle.fusion, LogisticFusion)
    assert bundle.calibration is not None
    about = bundle.calibration.development
    assert (about.database, about.store, about.genuine) == ("made", "f00d", 40)
    assert about.landmarks == {"name": "drawn", "version": "1"}
    points = bundle.facts.operating_points
    assert [point.false_positive_rate for point in points] == [0.0, 0.0, 0.05]  # of 40 videos
    assert points[0].threshold >= points[1].threshold > points[2].threshold
    assert {(point.level, point.people) for point in points} == {("video", 20)}
    again, _ = train_bundle(table, members, FusionOptions())
    assert again.calibration is not None
    assert again.calibration.upper == pytest.approx(bundle.calibration.upper, rel=1e-4)
    assert run(["models", "verify", str(fused)]) == 0


def test_detect_says_what_the_score_is_worth(fused, portrait, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["detect", str(portrait), "--bundle", str(fused), *LANDMARKS]
    assert run([*command, "--json", "--out", str(out)]) == 0
    written = read_detect(capsys.readouterr().out)
    bundle = load_bundle(fused)
    assert bundle.calibration is not None
    said = {(c["detector"], c["region"]): c["log_odds"] for c in written["faces"][0]["cells"]}
    assert isinstance(bundle.fusion, LogisticFusion)
    logits = torch.tensor([[[said[cell] for cell in bundle.fusion.cells]]])
    odds = bundle.fusion(logits, torch.ones_like(logits, dtype=torch.bool)).item()
    assert written["log_odds"] == pytest.approx(odds, abs=1e-4)
    expected = float(bundle.calibration.llr(np.array(odds)))
    assert written["llr"]["ln"] == pytest.approx(expected, abs=1e-4)
    assert written["tracks"][0]["llr"] == written["llr"]
    assert written["fusion"] == "logistic regression on scaled log-odds"
    assert written["fusion_sha256"] == bundle.fusion.sha256
    assert written["calibration"]["genuine"] == 40
    (warning,) = written["warnings"]
    for told in ("found by dlib68+hog here", "was calibrated", "landmarks by drawn", "may be off"):
        assert told in warning
    page = (out / "portrait.html").read_text()
    assert written["answer"]["conclusion"] in page
    assert "ncalibrated" not in page + (out / "index.html").read_text()
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["log10_llr"]) == written["llr"]["log10"]
    assert row["verbal"] == written["llr"]["verbal"]

    assert run(command) == 0
    shown = capsys.readouterr().out
    assert f"(log10 {written['llr']['log10']:+.2f})" in shown
    assert written["answer"]["conclusion"] in shown


def test_where_it_does_not_hold_there_is_no_ratio_and_one_warning_says_why(
    fused, portrait, tmp_path, capsys
):
    command = ["detect", str(portrait), "--json", *LANDMARKS]
    save_bundle([member(capsule(), Region.NOSE)], tmp_path / "nose")
    for options, why in (
        (["--bundle", str(fused), "--region", "entire"], "exactly the networks of that bundle"),
        (["--bundle", str(fused), str(tmp_path / "nose")], "exactly the networks"),
        (["--bundle", str(fused), "--pool.frames", "median"], "calibration is for the mean of"),
    ):
        assert run([*command, *options]) == 0
        written = read_detect(capsys.readouterr().out)
        assert (written["calibration"], written["llr"]) == ("uncalibrated", None)
        said = [*written["warnings"], written["answer"]["conclusion"]]
        assert sum(why in each for each in said) == 1, said
        trained = "median" in options
        assert (written["fusion"] != "mean of log-odds") == trained
    assert run(["detect", str(portrait), "--bundle", str(tmp_path / "nose"), *LANDMARKS]) == 0
    assert "uncalibrated: 0 looks genuine, 1 looks fake" in capsys.readouterr().out


def test_a_folder_of_results_is_of_one_calibration(fused, portrait, tmp_path, capsys):
    bundle = load_bundle(fused)
    assert bundle.calibration is not None
    other = replace(bundle.calibration, upper=bundle.calibration.upper / 2)
    save_bundle(bundle, tmp_path / "other", fusion=bundle.fusion, calibration=other)
    command = ["detect", str(portrait), "--out", str(tmp_path / "out"), *LANDMARKS]
    assert run([*command, "--bundle", str(fused)]) == 0
    assert run([*command, "--bundle", str(tmp_path / "other"), "--resume"]) == 2
    assert "calibration differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"regions": ["entire"]}, {"capsule_entire.made", "capsule_entire.other"}),
        ({"detectors": ["capsule.made"]}, {"capsule_entire.made", "capsule_mouth.made"}),
        ({"detectors": ["capsule"], "regions": ["mouth"], "kind": "max"}, {"capsule_mouth.made"}),
    ],
)
def test_the_papers_fusions_are_choices_of_cells(options, names, members, table):
    chosen = FusionOptions(**{"kind": "weighted", "calibration": "isotonic", **options})
    bundle, compared = train_bundle(table, members, chosen)
    assert {each.name for each in bundle} == names
    assert bundle.fusion is not None
    bundle.system()  # its cells are these networks'
    assert bundle.calibration is not None
    assert bundle.calibration.kind == "isotonic"
    assert [each.kind for each in compared] == [chosen.kind, "mean", "logistic", "head"]


def test_options_choose_another_kind(bundles, scores, tmp_path):
    command = ["fuse", "--fusion.kind", "head", "--fusion.regions", "entire", "--scores", scores]
    assert run([*command, "--bundle", *bundles, "--out", str(tmp_path / "out")]) == 0
    bundle = load_bundle(tmp_path / "out")
    assert isinstance(bundle.fusion, FusionHead)
    assert len(bundle) == 2


def test_shipped_configs_are_fusions_and_others_are_not():
    found = {
        path.stem
        for path in (ROOT / "configs").glob("*.yaml")
        if names_fusion(["--config", str(path)])
    }
    assert found == {"fusion", "fusion-detectors", "fusion-regions"}
    assert names_fusion([f"--config={ROOT}/configs/fusion.yaml"])
    assert names_fusion(["-c", "fusion.yaml"])  # a shipped one, by LightningCLI's short form
    assert names_fusion(["--fusion.kind=max"])
    assert not names_fusion(["--model", "Xception", "--data.store", "fusion"])


def test_a_store_is_scored_on_the_way(bundles, tmp_path, capsys):
    """Drawn faces; only the development part is looked at."""
    store = tmp_path / "store"
    write_drawn_store(store, count=64, size=96)
    command = ["fuse", *CONFIG, "--fusion.kind", "mean", "--fusion.regions", "entire"]
    command += ["--store", str(store), "--device", "cpu", "--bundle", *bundles]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    bundle = load_bundle(tmp_path / "out")
    assert bundle.calibration is not None
    about, faces = bundle.calibration.development, FaceStore(store)
    assert (about.database, about.store) == (faces.info.database, faces.fingerprint)
    assert about.landmarks is not None
    assert about.landmarks["name"] == faces.info.landmarks
    part = faces.splits.astype(str) == "val"
    assert 4 <= about.genuine + about.fake <= part.sum()
    assert f"{about.genuine} genuine and {about.fake} fake videos" in capsys.readouterr().out


def test_rows_are_found_by_what_networks_were_trained_on(members, table):
    """Beside another database's, a row has the database in its name; alone it has not."""
    found = scores_of(table, members[:2])
    assert found.detectors == ("capsule",)
    assert found.regions == (Region.ENTIRE, Region.MOUTH)
    np.testing.assert_array_equal(found.log_odds[:, 0], table.log_odds[:, 0, [0, 2]])
    other = scores_of(table, members[2:])
    np.testing.assert_array_equal(other.log_odds[:, 0, 0], table.log_odds[:, 1, 0])
    assert set(other.origin.models) == {"capsule_entire.other"}


def test_scores_of_other_networks_are_refused(members, table):
    models = table.origin.models | {"capsule_mouth.made": "0" * 64}
    with pytest.raises(UsageError, match=r"another capsule_mouth\.made.*SHA-256"):
        scores_of(replace(table, origin=replace(table.origin, models=models)), members)
    with pytest.raises(UsageError, match=r"no scores of capsule_entire\.made"):
        scores_of(replace(table, origin=replace(table.origin, models={})), members)
    with pytest.raises(UsageError, match=r"no scores of capsule_nose\.made"):
        scores_of(table, [member(capsule(), Region.NOSE)])


def test_what_cannot_be_trained_is_refused(members, table):
    def refused(message: str, table: ScoreTable, **options: Any) -> None:
        with pytest.raises(UsageError, match=message):
            train_bundle(table, members, FusionOptions(**options))

    def split(name: str) -> np.ndarray:
        return np.full(len(table), name, dtype=object)

    refused(r"no development part \(split val\)", replace(table, split=split("train")))
    refused("there are: test", replace(table, split=split("test")))
    refused("no region 'nose'", table, regions=["nose"])
    refused("no detector 'vgg'", table, detectors=["vgg"])
    refused("no network of the bundles", table, detectors=["capsule.other"], regions=["mouth"])
    refused("1 folds are too few", table, folds=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scores", "nowhere.parquet"], "nowhere.parquet: no such file"),
        (["--scores", str(ROOT / "pyproject.toml")], "is not a table of scores"),
        (["--fusion.colour", "red"], "colour"),
        (["--fusion.folds", "many"], "folds"),
        (["--fusion.kind", "sum"], "fusion.kind"),
        ([], "a fusion needs --scores FILE or --store DIR"),
        (["--store", "nowhere"], "nowhere"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line_and_nothing_is_written(
    options, message, bundles, tmp_path, capsys
):
    command = ["fuse", *CONFIG, "--bundle", bundles[1], "--out", str(tmp_path / "out"), *options]
    assert run(command) in {1, 2}
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("deepregions: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
