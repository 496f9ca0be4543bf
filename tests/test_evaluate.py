"""``deepregions evaluate`` through its real entry point, on forged drawn faces."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from drawn_faces import write_drawn_store
from networks import member, xception
from sklearn.metrics import roc_auc_score

from deepregions.commands.cli import run
from deepregions.data.store import FaceRecord, FaceStore, create_store
from deepregions.detectors import DSPFWA
from deepregions.errors import UsageError
from deepregions.evaluation.running import read_attributes
from deepregions.fusion.calibration import Calibration, Development, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import MaxFusion
from deepregions.fusion.score_table import ScoreTable
from deepregions.people import fingerprints
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle, write_facts
from deepregions.weights.manifest import BundleFacts

LOOSE = ["--gates.min_size", "0", "--gates.min_sharpness", "0", "--device", "cpu"]


def relabelled(source: Path, out: Path, name: str, **values: Any) -> Path:
    """A copy of a store under another database's name."""
    store = FaceStore(source)
    faces: list[FaceRecord] = [replace(face, **values) for face in store]
    create_store(out, replace(store.info, database=name), faces)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two stores, and bundles of networks that were trained on either."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("one", 1), ("two", 2)):
        write_drawn_store(folder / f"toy-{name}", count=72, seed=seed, size=96)
        relabelled(folder / f"toy-{name}", folder / name, name)
        torch.manual_seed(seed)
        members = [member(xception(), region, name) for region in (Region.ENTIRE, Region.EYES)]
        if name == "one":
            other = DSPFWA(size=64, pyramid="adaptive").eval()
            members.append(member(other, Region.ENTIRE, name))
        save_bundle(members, folder / f"bundle-{name}")
    return folder


def evaluate(made: Path, out: Path, *more: str, stores: str = "one two") -> int:
    bundles = [str(made / f"bundle-{name}") for name in ("one", "two")]
    paths = [str(made / name) for name in stores.split()]
    words = ["evaluate", "--bundle", *bundles, "--store", *paths, "--out", str(out)]
    return run([*words, *LOOSE, "--bootstrap-samples", "30", *more])


@pytest.fixture(scope="module")
def evaluated(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "out"
    assert evaluate(made, out, "--robustness", "jpeg", "frames") == 0
    return out


def test_figures_are_those_of_the_scores(evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    table = pq.read_table(evaluated / "scores" / "one.parquet").to_pylist()
    assert {row["split"] for row in table} == {"val", "test"}
    for detector in ("xception.one", "xception.two", "dsp-fwa"):
        own = [
            row
            for row in table
            if row["split"] == "test" and row["detector"] == detector and row["region"] == "entire"
        ]
        videos: dict[str, list[dict[str, Any]]] = {}
        for row in own:
            videos.setdefault(row["video"], []).append(row)
        scores = [np.mean([row["log_odds"] for row in rows]) for rows in videos.values()]
        labels = [rows[0]["label"] for rows in videos.values()]
        name, _, trained = detector.partition(".")
        trained = trained or "one"
        found = results["databases"]["one"][f"{name} entire ({trained})"]["measures"]["auc"]
        assert found["value"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert found["n"] == len(scores)
        assert found["low"] is None  # of so few people
        assert "too few" in found["reason"]


def test_robustness_is_by_database_alteration_level_and_system(evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    with (evaluated / "tables.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if "one, JPEG quality" in row["table"]]
    curve = results["robustness"]["one"]["jpeg"]
    assert len(rows) == sum(map(len, curve.values())) > 0
    for row in rows:
        found = curve[row["column"]][row["row"]]["value"]
        assert found == (pytest.approx(float(row["value"])) if row["value"] else None)
    assert {*results["robustness"]["two"]} == {"jpeg", "frames"}


def test_there_is_a_row_for_every_network_and_fusion(evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    for database in ("one", "two"):
        names = set(results["databases"][database])
        for trained in ("one", "two"):
            assert f"xception eyes ({trained})" in names
            for kind in ("mean", "weighted mean", "logistic regression", "learned head"):
                assert f"all: {kind} ({trained})" in names
            # a threshold of each, from the development part of what it was trained on
            here = results["databases"]["one"][f"xception eyes ({trained})"]["threshold"]
            there = results["databases"]["two"][f"xception eyes ({trained})"]["threshold"]
            assert here == there
        assert "detectors on the face: mean (one)" in names
        assert "detectors on the face: mean (two)" not in names  # there is one only
        calibrated = results["databases"][database]["all: mean (one)"]["measures"]["llr"]
        assert calibrated["min_cllr"]["value"] <= calibrated["cllr"]["value"]


def test_everything_is_written(evaluated):
    page = (evaluated / "index.html").read_text()
    for words in ("Across databases", "Robustness", "ROC on one", "data:image/svg+xml"):
        assert words in page
    with (evaluated / "tables.csv").open() as stream:
        tables = {row["table"] for row in csv.DictReader(stream)}
    assert any(name.startswith("Within one") for name in tables)
    assert any(name.startswith("Across databases: EER") for name in tables)
    assert any("JPEG quality" in name for name in tables)
    assert (evaluated / "tables.md").read_text().count("|") > 100
    assert r"\toprule" in (evaluated / "tables.tex").read_text()
    stems = {path.stem for path in (evaluated / "figures").iterdir()}
    for stem in ("one-roc", "two-histogram", "one-robustness-jpeg", "one-decisions"):
        assert stem in stems
        assert (evaluated / "figures" / f"{stem}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def no_scoring(monkeypatch):
    """Fails where a face is scored."""
    refuse = Mock(side_effect=AssertionError("scored"))
    monkeypatch.setattr("deepregions.pipeline.face_scorer.FaceScorer.score", refuse)


@pytest.mark.usefixtures("no_scoring")
def test_a_second_run_scores_nothing_and_says_the_same(made, evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "out")
    before = json.loads((tmp_path / "out" / "results.json").read_text())["databases"]

    assert evaluate(made, tmp_path / "out", "--fusions", "mean") == 0
    after = json.loads((tmp_path / "out" / "results.json").read_text())["databases"]
    for database, systems in after.items():
        assert systems == {name: before[database][name] for name in systems}


def test_a_bundles_own_fusion_and_calibration_are_measured_as_stored(
    made, evaluated, tmp_path, capsys
):
    """The same fusion found again here, on the same development part, is the yardstick."""
    scores, fused = evaluated / "scores" / "one.parquet", tmp_path / "fused"
    words = ["fit", "--fusion.kind", "logistic", "--bundle", str(made / "bundle-one")]
    assert run([*words, "--scores", str(scores), "--out", str(fused)]) == 0
    shutil.copytree(evaluated / "scores", tmp_path / "out" / "scores")
    capsys.readouterr()
    # its networks are in a bundle of their own too, and are scored once
    more = ["--fusions", "logistic", "--bundle", str(made / "bundle-one"), str(fused)]
    assert evaluate(made, tmp_path / "out", *more, str(made / "bundle-two")) == 0
    assert "as stored" not in capsys.readouterr().err  # found on the very store
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    stored = "bundle fused: logistic regression on scaled log-odds (one)"
    for database in ("one", "two"):
        systems = found["databases"][database]
        for part in ("threshold", "measures"):
            assert systems[stored][part] == systems["all: logistic regression (one)"][part]
        assert systems[stored]["measures"]["llr"]["cllr"]["value"] is not None
    assert found["notes"] == []

    # of one region its fusion does not speak
    only = ["--fusions", "mean", "--region", "eyes", "--bundle", str(fused)]
    assert evaluate(made, tmp_path / "out", *only, stores="one") == 0
    assert "the fusion of" in capsys.readouterr().err
    systems = json.loads((tmp_path / "out" / "results.json").read_text())["databases"]["one"]
    assert not any(name.startswith("bundle") for name in systems)


def test_it_is_said_that_a_stored_calibration_is_of_another_store(made, tmp_path, capsys):
    here = FaceStore(made / "one").fingerprint[:12]
    about = Development("one", "f00d" * 16, "val", 7, 6, {}, None, {"folds": 5, "by": "people"})
    quantity = Quantity.pooled("video", Pooling())
    values = {"slope": 0.5, "offset": -0.25}
    members = load_bundle(made / "bundle-two").members
    fused, out = tmp_path / "fused", tmp_path / "out"
    words = ["evaluate", "--bundle", str(fused), "--store", str(made / "one"), *LOOSE]
    words += ["--out", str(out), "--bootstrap-samples", "0", "--fusions", "mean"]
    name = "bundle fused: mean of log-odds (two)"
    said = f"another store of one (f00df00df00d) than is evaluated here ({here})"
    calibration = Calibration("logistic", values, -3.0, 2.0, quantity, about)
    save_bundle(members, fused, calibration=calibration)
    assert run(words) == 0
    assert said in capsys.readouterr().err.replace("\n", " ")
    found = json.loads((out / "results.json").read_text())
    assert said in found["notes"][0]
    assert said in (out / "index.html").read_text().replace("\n", " ")
    assert "llr" in found["databases"]["one"][name]["measures"]
    save_bundle(members, fused, fusion=MaxFusion())
    assert run(words) == 0
    assert "does not say on which store" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.usefixtures("no_scoring")
def test_one_class_only_is_exit_4_before_anything_is_scored(made, tmp_path, capsys):
    store = FaceStore(made / "one")
    genuine = [face for face in store if not face.label]
    create_store(tmp_path / "genuine", store.info, genuine)
    words = ["evaluate", "--bundle", str(made / "bundle-one"), "--store", str(tmp_path / "genuine")]
    assert run([*words, "--out", str(tmp_path / "out"), *LOOSE]) == 4
    error = capsys.readouterr().err
    assert "no fake" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "index.html").exists()


def test_without_a_development_part_nothing_is_trained(made, tmp_path):
    store = FaceStore(made / "one")
    create_store(tmp_path / "s", store.info, [face for face in store if face.split == "test"])
    words = ["evaluate", "--bundle", str(made / "bundle-one"), "--store", str(tmp_path / "s")]
    words += ["--fusions", "mean", "logistic"]
    assert run([*words, "--out", str(tmp_path / "out"), *LOOSE, "--bootstrap-samples", "0"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())["databases"]["one"]
    assert "all: mean (one)" in results or "all: mean" in results
    assert not any("logistic" in name for name in results)
    for system in results.values():
        assert system["threshold"] is None
        assert system["measures"]["accuracy"]["value"] is None
        assert "development" in system["measures"]["accuracy"]["reason"]
        assert "llr" not in system["measures"]


def test_a_store_without_an_evaluation_part_is_named(made, tmp_path, capsys):
    store = FaceStore(made / "one")
    create_store(tmp_path / "s", store.info, [face for face in store if face.split != "test"])
    more = ["--fusions", "mean", "--region", "entire", "--store", str(tmp_path / "s")]
    assert evaluate(made, tmp_path / "out", *more, str(made / "two"), stores="two") == 0
    said = "one has no evaluation part: only its development part was used"
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert said in json.loads((tmp_path / "out" / "results.json").read_text())["notes"]


def test_attributes_make_slices(made, tmp_path):
    store = FaceStore(made / "one")
    people = sorted({name for face in store for name in face.identities})
    table = "identity,eyes\n" + "".join(
        f"{name},{'blue' if n % 2 else 'brown'}\n" for n, name in enumerate(people)
    )
    (tmp_path / "people.csv").write_text(table)
    more = ["--attributes", str(tmp_path / "people.csv"), "--fusions", "mean"]
    more += ["--columns", "eer", "accuracy", "--cells", "value"]
    assert evaluate(made, tmp_path / "out", *more, stores="one") == 0
    summary = (tmp_path / "out" / "summary.tex").read_text()
    assert r"& \multicolumn{1}{c}{EER} & \multicolumn{1}{c}{Accuracy} \\" in summary
    results = json.loads((tmp_path / "out" / "results.json").read_text())["databases"]["one"]
    wanted = results["xception entire (one)"]["measures"]["eer"]["value"]
    (line,) = [x for x in summary.splitlines() if x.strip().startswith("xception entire (one)")]
    assert f"{wanted:.3f}" in line.split("&")[1]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "AUC on one by eyes" in page
    with (tmp_path / "out" / "tables.csv").open() as stream:
        own = [row for row in csv.DictReader(stream) if row["table"] == "AUC on one by eyes"]
    assert {row["column"] for row in own} == {"blue", "brown"}
    total = {
        row["column"]: int(row["n"]) for row in own if row["row"].startswith("xception entire")
    }
    assert sum(total.values()) == len({face.video for face in store if face.split == "test"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fusions", "vote"], "no fusion 'vote'"),
        (["--columns", "F1"], "no measure 'F1'"),
        (["--robustness", "rain"], "no robustness to 'rain'"),
        (["--bootstrap-samples", "-1"], "-1 rounds"),
        (["--attributes", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_wrong_usage_is_one_line(made, tmp_path, more, message, capsys):
    assert evaluate(made, tmp_path / "out", *more, stores="one") == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_two_stores_of_one_database_or_none_are_refused(made, tmp_path, capsys):
    assert evaluate(made, tmp_path / "out", stores="one one") == 2
    assert "two inputs are of one" in capsys.readouterr().err
    assert evaluate(made, tmp_path / "out", stores="nothing") != 0
    assert "no store at" in capsys.readouterr().err


def from_scores(evaluated: Path, out: Path, *more: str, names: str = "one two") -> int:
    files = [str(evaluated / "scores" / f"{name}.parquet") for name in names.split()]
    words = ["evaluate", "--scores", *files, "--out", str(out), "--bootstrap-samples", "30"]
    return run([*words, *more])


def test_scores_alone_give_the_same_figures(made, evaluated, tmp_path):
    assert from_scores(evaluated, tmp_path / "out", "--robustness", "frames") == 0
    whole, again = (
        json.loads((folder / "results.json").read_text())
        for folder in (evaluated, tmp_path / "out")
    )
    for name in ("databases", "models", "stores", "landmarks", "gates", "rules"):
        assert again[name] == whole[name]
    assert again["robustness"]["one"]["frames"] == whole["robustness"]["one"]["frames"]
    assert not (tmp_path / "out" / "scores").exists()
    bundle = str(made / "bundle-two")  # of whose networks alone the figures then are
    assert from_scores(evaluated, tmp_path / "two", "--bundle", bundle, "--robustness", "all") == 2
    assert from_scores(evaluated, tmp_path / "two", "--bundle", bundle) == 0
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert [*two["databases"]["one"]] == [
        name for name in whole["databases"]["one"] if "(two)" in name
    ]


def test_scores_of_people_who_were_trained_on_are_told(made, evaluated, tmp_path, capsys):
    shutil.copytree(made / "bundle-one", tmp_path / "learned")
    there = ScoreTable.read(evaluated / "scores" / "one.parquet").part("test").identities
    facts = BundleFacts("real", people=fingerprints("one", there))
    write_facts(tmp_path / "learned", facts)
    bundle = ["--bundle", str(tmp_path / "learned")]
    assert from_scores(evaluated, tmp_path / "out", *bundle, names="one") == 0
    assert "its figures there are too good" in capsys.readouterr().err.replace("\n", " ")


def test_scores_that_do_not_fit_are_one_line(made, evaluated, tmp_path, capsys):
    out = tmp_path / "out"
    names = {"xception_eyes.two"}
    table = ScoreTable.read(evaluated / "scores" / "two.parquet")
    models = {name: of for name, of in table.origin.models.items() if name not in names}
    odds = np.where(np.arange(len(table.regions)) < 1, table.log_odds, np.nan)
    fewer = replace(table, origin=replace(table.origin, models=models), log_odds=odds)
    fewer.write(tmp_path / "fewer.parquet")
    for more, message in [
        (["--store", str(made / "one")], "evaluate measures stores or scores"),
        (["--robustness", "jpeg"], "altered faces must be scored (--store DIR"),
        (["--scores", str(tmp_path / "none.parquet")], "none.parquet: no such file"),
        (["--scores", *[str(evaluated / "scores" / "one.parquet")] * 2], "two inputs are of one"),
        (
            [
                "--scores",
                str(evaluated / "scores" / "one.parquet"),
                str(tmp_path / "fewer.parquet"),
            ],
            "is of other networks than",
        ),
    ]:
        assert from_scores(evaluated, out, *more) == 2, message
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    assert not out.exists()


def test_attributes_are_read(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("identity,age,sex\na,old,f\nb,young,\nc,old,m\n")
    assert read_attributes(file) == {
        "age": {"old": {"a", "c"}, "young": {"b"}},
        "sex": {"f": {"a"}, "m": {"c"}},
    }
    file.write_text("name,age\na,old\n")
    with pytest.raises(UsageError, match="no column 'identity'"):
        read_attributes(file)
