"""Protocols: who is measured on what, and with thresholds from where."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from score_tables import face, make_table
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.alterations import Alteration
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.delong import delong
from deepregions.evaluation.measures import ACCURACY, AUC, BALANCED, EER, WORST_APCER
from deepregions.evaluation.protocols import Scored, Settings, evaluate
from deepregions.evaluation.report.comparisons import (
    across_tables,
    aggregation_tables,
    fusion_tables,
    method_tables,
    region_tables,
    within_tables,
)
from deepregions.evaluation.report.tables import to_csv, to_markdown
from deepregions.evaluation.robustness import UNALTERED, altered_curve
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import Origin, ScoredSystem, ScoreTable
from deepregions.roc import equal_error_rate, tally
from deepregions.types import Region

REGIONS = (Region.ENTIRE, Region.EYES)
QUICK = Settings("frame", rounds=20)
NETWORKS = ("xception", "capsule")


def made(
    database: str = "one",
    trained: tuple[str, ...] = ("one",),
    videos: int = 120,
    faces: int = 2,
    seed: int = 0,
) -> ScoreTable:
    """Videos of people; each video has its own strength, and some faces have no verdict."""
    rng = np.random.default_rng(seed)
    several = len(trained) > 1
    rows = [f"{n}.{t}" if several else n for n, t in product(NETWORKS, trained)]
    models = {f"{n}_{r}.{t}": "" for n, t, r in product(NETWORKS, trained, REGIONS)}
    found = []
    for number in range(videos):
        fake = number % 3 > 0
        strength = rng.normal(size=(len(rows), len(REGIONS))) + (1.5 if fake else -1.5)
        people = (f"p{number % 40}", f"q{number % 40}")[: 1 + fake]
        for turn in range(faces):
            logits = strength + rng.normal(size=strength.shape)
            logits[rng.uniform(size=logits.shape) < 0.05] = np.nan
            status = "ok" if rng.uniform() > 0.05 else "low_quality"
            found.append(
                face(
                    str(number),
                    logits,
                    key=f"{number}/{turn}",
                    identities=people,
                    label=int(fake),
                    method=("original", "swap", "warp")[number % 3],
                    split=("test", "val")[number // 3 % 2],
                    status=status,
                )
            )
    return make_table(Origin(database, models=models), rows, REGIONS, found)


def fused(table: ScoreTable) -> Any:
    with np.errstate(all="ignore"):
        flat = table.log_odds.reshape(len(table), -1)
        there = ~np.isnan(flat)
        return np.where(there.any(1), np.nansum(flat, 1) / there.sum(1), np.nan)


def scored(database: str = "one", **other: Any) -> Scored:
    table = made(database, **other)
    return Scored(table, {MEAN: fused(table)})


ENTIRE = ScoredSystem("xception", Region.ENTIRE, "one")
MEAN = ScoredSystem("mean", None, "one")


def test_a_network_of_another_database_is_not_missed_here():
    table = made(trained=("one", "two"))
    models = {k: v for k, v in table.origin.models.items() if k != "xception_eyes.two"}
    logits = table.log_odds.copy()
    logits[:, 1, 1] = np.nan
    table = replace(table, origin=Origin("one", models=models), log_odds=logits)
    assert (1, 1) not in table.cells
    assert ScoredSystem("xception", Region.EYES, "two") not in Scored(table).systems
    assert len(Scored(table).systems) == 7


def test_figures_are_those_of_the_evaluation_part_alone():
    given = scored()
    each = evaluate([given], QUICK)[0]
    table = given.table
    rows = (table.split == "test") & (table.status == "ok") & table.valid[:, 0, 0]
    truth, logits = table.fake[rows], table.log_odds[rows, 0, 0]
    found = each.estimate(ENTIRE, AUC)
    assert found.value == pytest.approx(roc_auc_score(truth, logits))
    assert found.n == rows.sum()
    assert found.coverage == pytest.approx(rows.sum() / (table.split == "test").sum())
    assert found.low <= found.value <= found.high


def test_the_threshold_is_of_the_development_part():
    given = scored()
    table = given.table
    dev = (table.split == "val") & (table.status == "ok") & table.valid[:, 0, 0]
    _, threshold = equal_error_rate(tally(table.log_odds[dev, 0, 0], table.fake[dev]))
    each = evaluate([given], QUICK)[0]
    assert each.thresholds[ENTIRE] == threshold
    rows = (table.split == "test") & (table.status == "ok") & table.valid[:, 0, 0]
    expected = balanced_accuracy_score(table.fake[rows], table.log_odds[rows, 0, 0] >= threshold)
    assert each.estimate(ENTIRE, BALANCED).value == pytest.approx(expected)


def test_across_databases_the_threshold_is_of_the_one_learned_from():
    home, away = scored(), scored("two", seed=1)
    one, two = evaluate([home, away], QUICK)
    assert (one.database, two.database) == ("one", "two")
    assert one.thresholds == two.thresholds
    away_alone = evaluate([away], QUICK)[0]
    found = away_alone.estimate(ENTIRE, BALANCED)
    assert found.value is None
    assert found.reason == "no scores of one, on which it was trained"
    assert away_alone.estimate(ENTIRE, AUC) == two.estimate(ENTIRE, AUC)


def test_a_database_may_give_thresholds_only():
    home, away = scored(), scored("two", seed=1)
    dev = home.table.split == "val"
    only = Scored(home.table.select(dev), {MEAN: home.fused[MEAN][dev]})
    (two,) = evaluate([only, away], QUICK)
    assert two.thresholds == evaluate([home, away], QUICK)[1].thresholds


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda t: t.split == "test", "one has no development part"),
        (lambda t: (t.split == "test") | t.fake, "nothing genuine with a verdict"),
    ],
)
def test_without_development_data_there_is_a_reason(keep, reason):
    table = made()
    each = evaluate([Scored(table.select(keep(table)))], QUICK)[0]
    for measure in (ACCURACY, BALANCED, WORST_APCER):
        found = each.estimate(ENTIRE, measure)
        assert (found.value, found.low) == (None, None)
        assert reason in found.reason
        assert found.n > 0
    assert each.estimate(ENTIRE, AUC).value is not None


@pytest.mark.parametrize("label", ["fake", "genuine"])
@pytest.mark.parametrize("level", ["frame", "video"])
def test_one_class_is_an_error_that_says_which(label, level):
    table = made()
    table = table.select(table.fake == (label == "genuine"))
    with pytest.raises(UndefinedMetricError, match=f"of one has no {label}") as caught:
        evaluate([Scored(table)], Settings(level, rounds=2))
    assert caught.value.exit_code == 4


def test_nothing_valid_is_an_error():
    table = made()
    none = replace(table, log_odds=np.full(table.log_odds.shape, np.nan))
    with pytest.raises(UndefinedMetricError, match="on one: no verdict"):
        evaluate([Scored(none)], QUICK)
    bad = replace(table, status=np.full(len(table), "no_face", dtype=object))
    with pytest.raises(UndefinedMetricError, match="on one: no verdict"):
        evaluate([Scored(bad)], QUICK)


def test_one_system_without_verdicts_does_not_stop_the_others():
    table = made()
    logits = table.log_odds.copy()
    logits[:, 0, 0] = np.nan
    each = evaluate([Scored(replace(table, log_odds=logits))], QUICK)[0]
    found = each.estimate(ENTIRE, AUC)
    assert (found.value, found.reason, found.n, found.coverage) == (None, "no verdict", 0, 0.0)
    assert each.estimate(ScoredSystem("capsule", Region.EYES, "one"), AUC).value is not None
    assert "no verdict" in to_markdown(within_tables(each)[0])


def test_bad_sets_of_databases_are_refused():
    table = made()
    with pytest.raises(UsageError, match="no database has an evaluation part"):
        evaluate([], QUICK)
    with pytest.raises(UsageError, match="two sets of scores are of one"):
        evaluate([scored(), scored()], QUICK)
    with pytest.raises(UsageError, match="one has no evaluation part"):
        evaluate([Scored(table.select(table.split == "val"))], QUICK)
    with pytest.raises(UsageError, match="two has no evaluation part"):
        other = made("two")
        evaluate([Scored(table), Scored(other.select(other.split == "val"))], QUICK)


def test_across_is_trained_by_tested():
    both = [Scored(made(d, trained=("one", "two"), seed=n)) for n, d in enumerate(("one", "two"))]
    evaluated = evaluate(both, QUICK)
    tables = across_tables(evaluated, EER)
    assert len(tables) == 4
    table = tables["xception entire"]
    assert "EER of xception entire" in table.title
    assert table.rows == table.columns == ["one", "two"]
    for r, trained in enumerate(table.rows):
        for c, each in enumerate(evaluated):
            system = ScoredSystem("xception", Region.ENTIRE, trained)
            assert table.cells[r][c] == each.estimate(system, EER)
    titles = [t.title for each in evaluated for t in within_tables(each)]
    assert [t.split(",")[0] for t in titles] == ["Within one", "On one", "Within two", "On two"]
    assert across_tables(evaluate([scored()], QUICK), AUC) == {}


def test_a_system_that_was_not_scored_somewhere_has_a_reason_there():
    one, two = scored(), Scored(made("two"))
    table = across_tables(evaluate([one, two], QUICK), AUC)["mean"]
    there, missing = table.cells[0]
    assert there.value is not None
    assert (missing.value, missing.reason) == (None, "not trained or not scored")


def test_each_manipulation_is_taken_with_all_that_is_genuine():
    given = scored()
    each = evaluate([given], QUICK)[0]
    auc, eer, apcer = method_tables(each)
    table = given.table.part("test")
    judged = (table.status == "ok") & table.valid[:, 0, 0]
    assert auc.columns == ["swap", "warp", "Mean"]
    values = []
    for column, method in enumerate(("swap", "warp")):
        rows = judged & (~table.fake | (table.method == method))
        cell = auc.cells[0][column]
        assert cell.value == pytest.approx(
            roc_auc_score(table.fake[rows], table.log_odds[rows, 0, 0])
        )
        assert cell.n == rows.sum()
        of_both = ~table.fake | (table.method == method)
        assert cell.coverage == pytest.approx(rows.sum() / of_both.sum())
        values.append(cell.value)
        missed = apcer.cells[0][column]
        fakes = judged & (table.method == method)
        expected = (table.log_odds[fakes, 0, 0] < each.thresholds[ENTIRE]).mean()
        assert missed.value == pytest.approx(expected)
        assert missed.n == fakes.sum()
    mean, worst = auc.cells[0][2], apcer.cells[0][2]
    assert mean.value == pytest.approx(np.mean(values))
    assert worst.n == (judged & table.fake).sum()
    assert worst.value == max(c.value for c in apcer.cells[0][:2] if isinstance(c, Estimate))
    assert eer.best == "lower"


def test_regions_and_detectors_are_one_table_seen_two_ways():
    each = evaluate([scored()], QUICK)[0]
    detectors, regions = region_tables(each, EER)
    assert detectors.rows == regions.columns == list(NETWORKS)
    assert detectors.columns == regions.rows == ["entire", "eyes"]
    assert detectors.cells[1][0] == regions.cells[0][1]
    assert len(detectors.winners()) == len(regions.winners()) == 2


def test_fusions_are_set_against_the_best_network():
    each = evaluate([scored()], replace(QUICK, rounds=200))[0]
    single = each.best_single()
    assert single is not None
    assert not single.fused
    lowest = min(each.estimate(s, EER).value for s in each.systems if not s.fused)
    assert each.estimate(single, EER).value == lowest
    beside, gains = fusion_tables(each)
    assert beside.rows == [single.name, "mean (one)"]
    gain = gains.cells[0][1]
    assert gain.value == pytest.approx(each.estimate(MEAN, EER).value - lowest)
    assert gain.high is not None
    assert gain.high < 0  # four networks with errors of their own: their mean is better
    test = delong(*(each.trials(system) for system in (MEAN, single)))
    assert gains.cells[0][-1] == f"p = {test.p:.3f}"  # one fusion: nothing to correct
    assert fusion_tables(evaluate([Scored(made())], QUICK)[0]) == []


def test_rules_over_faces_are_compared():
    given = scored()
    auc, eer = aggregation_tables([given], Settings(rounds=10))
    assert len(auc.columns) == 3
    assert "median" in auc.columns[1]
    for column, rule in enumerate(("mean", "median", "top")):
        each = evaluate([given], Settings(rule=Pooling(rule), rounds=10))[0]
        assert auc.cells[0][column] == each.estimate(ENTIRE, AUC)
        assert eer.cells[0][column] == each.estimate(ENTIRE, EER)


def test_a_level_at_which_nothing_can_be_judged_is_a_gap_in_its_curve():
    """So much blur that the gates refuse every face: the other levels still count."""
    whole = scored()
    lost = replace(whole.table, status=np.full(len(whole.table), "low_quality", dtype=object))

    def score(alteration: Alteration) -> Scored:
        return whole if alteration.level < 2 else replace(whole, table=lost)

    (unaltered,) = evaluate([whole], QUICK)
    table = altered_curve(unaltered, "blur", (1, 2), score).table
    first, same, gap = table.cells[table.rows.index(ENTIRE.name)]
    assert first.value == same.value is not None
    assert gap.value is None
    assert "no verdict" in gap.reason
    assert table.columns == [UNALTERED, "1", "2"]
    assert "no verdict" in to_csv([table])
