"""A calibration is of one quantity: a level, rules of pooling, a fusion, networks."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from networks import calibration, member, xception
from score_tables import noisy_faces, rows_of

from deepregions.evaluation import running
from deepregions.evaluation.protocols import Settings
from deepregions.evaluation.report.chapters import Outcome
from deepregions.evaluation.running import Media, run
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.fusion.calibration import Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import MeanFusion
from deepregions.fusion.score_table import Origin, ScoredSystem, ScoreTable
from deepregions.fusion.training import fuse_table
from deepregions.fusion.trials import trials_of
from deepregions.fusion.validation import train_calibrated
from deepregions.pipeline.build import build_analyser
from deepregions.pipeline.results import FaceResult, summarise_input
from deepregions.roc import cllr, tally
from deepregions.types import Region, Status
from deepregions.weights.bundle import Bundle

OF_VIDEOS = calibration(1.0, 0.0, -4.0, 4.0)
QUANTITIES: list[Any] = [
    ("video", Pooling()),
    ("video", Pooling("top")),
    ("video", Pooling("median", tracks="mean")),
    ("video", Pooling(tracks="main")),
    ("frame", Pooling()),
]


@pytest.fixture(scope="module")
def network():
    return replace(member(xception(), Region.ENTIRE, "made"), sha256="ab" * 32)


@pytest.fixture(scope="module")
def table():
    return noisy_faces(splits=("val", "test"), people=100, tracks=2)


@pytest.fixture
def evaluated(table, network, monkeypatch):
    """Evaluates scores that are given."""

    class Given(StoreScorer):
        def score(self, *_: Any) -> ScoreTable:  # type: ignore[override]
            return table

    def evaluate(level: Any, rule: Pooling, pick: Any = lambda *_: [], **options: Any) -> Outcome:
        monkeypatch.setattr(running, "pick_examples", pick)
        store: Any = SimpleNamespace(
            info=SimpleNamespace(database="made"),
            fingerprint="f00d",
            labels=table.label,
            splits=table.split,
        )
        settings = Settings(level, rule, rounds=0)
        media = Media(Given([network]), [store])
        return run([table], settings, fusions=["mean"], media=media, **options)

    return evaluate


@pytest.mark.parametrize(("level", "rule"), QUANTITIES)
def test_evaluate_calibrates_what_it_measures(level, rule, evaluated, table, network):
    """B1: Cllr is near what a calibration found on the same quantity costs."""
    outcome = evaluated(level, rule)
    (each,) = outcome.evaluated
    (own,) = each.ratios.trials
    part = table.part("test")
    odds = part.log_odds[:, 0, 0]
    trials = trials_of(part, odds, level, rule)
    _, right, _ = train_calibrated("mean", table.part("val"), level=level, pooling=rule)
    np.testing.assert_allclose(own.log_odds, right.llr(trials.log_odds))
    assert cllr(tally(own.log_odds, own.fake)) < 0.95
    assert abs(np.median(own.log_odds[~own.fake]) + np.median(own.log_odds[own.fake])) < 0.5
    assert right.quantity == Quantity.pooled(level, rule, MeanFusion.rule, [network.sha256])
    assert right.development.genuine == (100 if level == "video" else 1200)


@pytest.mark.parametrize(("level", "rule"), QUANTITIES)
def test_a_bundles_calibration_is_used_for_its_own_quantity_only(level, rule, evaluated, network):
    """B1b: a stored calibration of videos gave likelihood ratios of faces."""
    bundles = {"b": Bundle((network,), None, OF_VIDEOS)}
    outcome = evaluated(level, rule, bundles=bundles)
    (each,) = outcome.evaluated
    stored = ScoredSystem("bundle b: mean of log-odds", None, "made")
    assert stored in each.systems
    if (level, rule) == ("video", Pooling()):
        assert stored.name in [trials.name for trials in each.ratios.trials]
    else:
        assert "the calibration is for" in each.uncalibrated[stored]


@pytest.mark.parametrize("tracks", ["highest", "main", "mean"])
def test_detect_refuses_a_calibration_for_another_rule_over_tracks(tracks, network):
    """B6: the mean over tracks got the likelihood ratio of the highest one."""
    bundle = Bundle((network,), None, OF_VIDEOS)
    analyser = build_analyser(
        bundle, landmarks="dlib-hog", device="cpu", rules=Pooling(tracks=tracks)
    )
    box, cells = (0.0, 0.0, 9.0, 9.0), {("xception", Region.ENTIRE): 1.0}
    faces = [FaceResult(0, 0.0, n, box, Status.OK, 3.0 - 6 * n, cells) for n in (0, 1)]
    result = summarise_input(
        "x", "image", 1, faces, analyser.rules, calibration=analyser.calibration
    )
    if tracks == "highest":
        assert result.evidence is not None
    else:
        assert result.evidence is None
        assert analyser.calibration is None
        assert "the calibration is for" in analyser.facts["uncalibrated"]


def test_faces_are_judged_by_the_threshold_of_faces(evaluated):
    """B11: the decision grid took the threshold of videos."""
    used: dict[str, float] = {}

    def pick(_table: ScoreTable, _region: Region, thresholds: dict[str, float]) -> list[Any]:
        used.update(thresholds)
        return []

    outcome = evaluated("video", Pooling("top"), pick)
    (system,) = outcome.evaluated[0].systems
    faces, videos = (each[0].thresholds[system] for each in (outcome.frames, outcome.evaluated))
    assert used == {"xception": faces}
    assert abs(faces - videos) > 0.5


def test_fusing_a_table_leaves_the_fusion_as_it_was(table):
    """B17: places in one table's matrix stayed in the caller's fusion."""
    wide = replace(
        table,
        detectors=("capsule", "xception"),
        rows=rows_of(("capsule", "xception"), table.origin.models),
        log_odds=np.concatenate([np.full_like(table.log_odds, np.nan), table.log_odds], 1),
    )
    fusion = MeanFusion([("xception", Region.ENTIRE)])
    before = fuse_table(fusion, table)
    np.testing.assert_array_equal(fuse_table(fusion, wide), before)
    assert fusion.places.tolist() == [0]
    assert fusion.bind(("capsule", "xception"), (Region.ENTIRE,)) is not fusion


def test_names_of_strangers_never_become_paths(tmp_path, network):
    """B5: a database called ../../x was written and read outside the folder of scores."""
    hostile = replace(network, database="../../outside")
    scorer = StoreScorer([hostile], tmp_path / "out" / "scores")
    file = scorer._file(hostile, Origin("../x", "f00d"), np.arange(3))
    assert file is not None
    assert file.parent == tmp_path / "out" / "scores"
