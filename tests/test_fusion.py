from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from score_tables import DETECTORS, REGIONS, rows_of, score_table
from sklearn.linear_model import LogisticRegression

from deepregions.errors import UsageError
from deepregions.fusion import validation
from deepregions.fusion.rules import (
    Fusion,
    LogisticFusion,
    MaxFusion,
    MeanFusion,
    WeightedFusion,
)
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.training import KINDS, Kind, fuse_table, train_fusion
from deepregions.fusion.validation import cross_validate
from deepregions.people import deal_folds as deal
from deepregions.types import Region

SHAPE = (4, 3, 5)


@given(
    hnp.arrays(np.float32, SHAPE, elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.bool_, SHAPE),
)
def test_agrees_with_numpys_masked_mean(logits, valid):
    expected = np.ma.masked_array(logits, ~valid).mean((1, 2)).filled(np.nan)
    fused = MeanFusion()(torch.from_numpy(logits), torch.from_numpy(valid))
    np.testing.assert_allclose(fused.numpy(), expected, rtol=1e-4, atol=1e-4)


def trained(kind: Kind, **options: Any) -> Fusion:
    return train_fusion(kind, score_table(40, missing=0.1), **options)


def shuffled(table: ScoreTable, seed: int) -> ScoreTable:
    """The same scores in another order of faces, detectors and regions."""
    rng = np.random.default_rng(seed)
    d, r = rng.permutation(len(table.detectors)), rng.permutation(len(table.regions))
    moved = replace(
        table,
        detectors=tuple(table.detectors[i] for i in d),
        regions=tuple(table.regions[i] for i in r),
        log_odds=table.log_odds[:, d][:, :, r],
    )
    return moved.select(rng.permutation(len(table)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_matters(kind):
    table = score_table(30, missing=0.2)
    other = shuffled(table, 1)
    one, two = train_fusion(kind, table), train_fusion(kind, other)
    assert one.cells == two.cells
    expected = dict(zip(table.key, fuse_table(one, table), strict=True))
    found = fuse_table(two, other)
    np.testing.assert_allclose(found, [expected[key] for key in other.key], rtol=1e-4, atol=1e-4)


FUSIONS = {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(
    hnp.arrays(np.float32, (3, 2, 3), elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.bool_, (3, 2, 3)),
    st.permutations(range(2)),
    st.permutations(range(3)),
)
@settings(max_examples=25)
def test_masks(kind, x, there, d, r):
    """What is not valid may be anything; rows and columns may move or be added with their names."""
    fusion = FUSIONS[kind]
    logits, valid = torch.from_numpy(x), torch.from_numpy(there)
    bound = fusion.bind(DETECTORS, REGIONS)
    fused = bound(logits, valid)
    assert torch.equal(fused.isnan(), ~valid.flatten(1).any(1))
    anything = torch.where(valid, logits, torch.nan)
    torch.testing.assert_close(bound(anything, valid), fused, equal_nan=True)
    rows, columns = tuple(DETECTORS[i] for i in d), tuple(REGIONS[i] for i in r)
    moved = fusion.bind(rows, columns)(logits[:, d][:, :, r], valid[:, d][:, :, r])
    torch.testing.assert_close(moved, fused, equal_nan=True)
    wide = torch.nn.functional.pad(logits, (0, 1, 0, 1), value=7.0)
    wide_valid = torch.nn.functional.pad(valid, (0, 1, 0, 1))
    added = fusion.bind((*DETECTORS, "dsp-fwa"), (*REGIONS, Region.REST))(wide, wide_valid)
    torch.testing.assert_close(added, fused, equal_nan=True)


def test_each_is_what_its_words_say():
    logits = torch.tensor([[[1.0, -3.0, 8.0]]])
    valid = torch.tensor([[[True, True, False]]])
    assert MaxFusion()(logits, valid).item() == 1.0
    cells = [("xception", region) for region in REGIONS]
    weighted = WeightedFusion(cells)
    weighted.mean.copy_(torch.tensor([0.0, 1.0, 2.0]))
    weighted.std.copy_(torch.tensor([1.0, 2.0, 3.0]))
    weighted.weight.copy_(torch.tensor([0.5, 0.25, 0.25]))
    weighted.scale.fill_(3.0)
    weighted.offset.fill_(1.0)
    # (0.5 * 1 + 0.25 * -2) / 0.75 = 0
    assert weighted(logits, valid).item() == pytest.approx(1.0)
    logistic = LogisticFusion(cells)
    logistic.weight.copy_(torch.tensor([2.0, -1.0, 5.0]))
    logistic.offset.fill_(0.5)
    assert logistic(logits, valid).item() == pytest.approx(2.0 + 3.0 + 0.5)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_logistic_regression_is_scikit_learns(missing, l2):
    table = score_table(50, faces=1, missing=missing, seed=3)
    table = table.select(np.r_[0:60, 61:100:2])  # more fakes than genuine ones
    table = table.select(table.valid.any((1, 2)))
    fusion = train_fusion("logistic", table, l2=l2)
    assert isinstance(fusion, LogisticFusion)
    columns = [(table.detectors.index(d), table.regions.index(r)) for d, r in fusion.cells]
    x = np.stack([table.log_odds[:, d, r] for d, r in columns], 1)
    weight = np.where(table.fake, 0.5 / table.fake.sum(), 0.5 / (~table.fake).sum())
    for cell in range(x.shape[1]):  # scaled by hand, class-balanced
        there = ~np.isnan(x[:, cell])
        mean = np.average(x[there, cell], weights=weight[there])
        std = np.sqrt(np.average((x[there, cell] - mean) ** 2, weights=weight[there]))
        x[:, cell] = np.where(there, (x[:, cell] - mean) / std, 0)
        assert fusion.mean[cell].item() == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert fusion.std[cell].item() == pytest.approx(std, rel=1e-5)
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10000)
    theirs.fit(x, table.label, sample_weight=weight * len(table))
    np.testing.assert_allclose(fusion.weight, theirs.coef_[0], atol=1e-4)
    assert fusion.offset.item() == pytest.approx(theirs.intercept_[0], abs=1e-4)
    np.testing.assert_allclose(fuse_table(fusion, table), theirs.decision_function(x), atol=1e-3)


def test_each_video_weighs_the_same_however_many_faces_it_has():
    table = score_table(30, faces=1, missing=0.1)
    numbers = np.repeat(np.arange(len(table)), np.arange(len(table)) % 5 + 1)
    one, many = train_fusion("logistic", table), train_fusion("logistic", table.select(numbers))
    np.testing.assert_allclose(fuse_table(one, table), fuse_table(many, table), atol=1e-4)


def test_weights_are_shares_and_a_useless_cell_gets_almost_none():
    power = np.array([[1.5, 0.0, -1.0], [1.5, 1.5, 1.5]])
    fusion = train_fusion("weighted", score_table(300, power=power))
    assert isinstance(fusion, WeightedFusion)
    weight = dict(zip(fusion.cells, fusion.weight.tolist(), strict=True))
    assert sum(weight.values()) == pytest.approx(1, abs=1e-6)
    assert min(weight.values()) > 0
    assert weight["xception", Region.MOUTH] < 0.01  # it votes for the wrong side
    assert weight["capsule", Region.EYES] > 0.15
    only = torch.zeros(1, 2, 3, dtype=torch.bool)
    only[0, 0, 2] = True
    fused = fusion.bind(DETECTORS, REGIONS)(torch.ones(1, 2, 3), only)
    assert fused.isfinite().all()  # the useless cell alone still gives an answer


def test_trained_fusions_do_not_depend_on_a_detectors_scale_and_the_mean_does():
    table = score_table(40)
    scaled = replace(table, log_odds=table.log_odds * np.array([[1.0], [50.0]]))
    for kind in ("weighted", "logistic", "head"):
        one = fuse_table(train_fusion(kind, table), table)
        two = fuse_table(train_fusion(kind, scaled), scaled)
        np.testing.assert_allclose(one, two, atol=2e-3)
    mean = MeanFusion()
    assert np.abs(fuse_table(mean, table) - fuse_table(mean, scaled)).mean() > 1


def test_a_fusion_is_of_the_cells_that_are_wanted():
    table = score_table(20)
    assert len(train_fusion("mean", table).cells) == 6
    fusion = train_fusion("mean", table, cells=[(name, Region.ENTIRE) for name in DETECTORS])
    assert fusion.cells == (("capsule", Region.ENTIRE), ("xception", Region.ENTIRE))
    expected = table.log_odds[:, :, 0].mean(1)
    np.testing.assert_allclose(fuse_table(fusion, table), expected, rtol=1e-4, atol=1e-5)


def test_a_fusion_is_refused_for_other_cells():
    fusion = FUSIONS["logistic"]
    with pytest.raises(UsageError, match=r"without capsule/entire, capsule/eyes, capsule/mouth"):
        fusion.bind(["xception"], REGIONS)
    cells = [*fusion.cells, ("dsp-fwa", Region.EYES)]
    with pytest.raises(UsageError, match=r"with dsp-fwa/eyes, which it does not know"):
        fusion.bind((*DETECTORS, "dsp-fwa"), REGIONS, cells)
    with pytest.raises(UsageError, match="twice"):
        MeanFusion([("xception", Region.EYES)] * 2)


def test_what_cannot_be_learned_from_is_refused():
    table = score_table(10)

    def refused(table: ScoreTable, match: str, **options: Any) -> None:
        for kind in KINDS:
            with pytest.raises(UsageError, match=match):
                train_fusion(kind, table, **options)

    refused(score_table(4, split="train"), "training part")
    refused(table.part("test"), "no faces of a development part")
    refused(table.select(table.fake), "all faces .* are fake .*needs genuine ones")
    refused(table.select(~table.fake), "are genuine")
    refused(replace(table, log_odds=np.full_like(table.log_odds, np.nan)), "none of the 60 faces")
    refused(replace(table, status=np.full(60, "error", object)), "none of the 60 faces")
    silent = table.log_odds.copy()
    silent[:, 1, 2] = np.nan
    origin = replace(table.origin, models={"capsule_mouth.made": "ab"})
    rows = rows_of(table.detectors, origin.models)
    silenced = replace(table, origin=origin, rows=rows, log_odds=silent)
    refused(silenced, r"score of capsule/mouth \(leave")
    refused(table, "no xception/nose", cells=[("xception", Region.NOSE)])
    with pytest.raises(UsageError, match="no fusion 'sum'"):
        train_fusion("sum", table)  # type: ignore[arg-type]


def test_people_are_not_parted():
    """Person 2k and 2k + 1 hang together by their swaps."""
    table = score_table(40, faces=2)
    _, first = np.unique(table.video, return_index=True)
    fake, identities = table.fake[first], table.identities[first]
    folds = deal(fake, identities)
    assert folds.by == "people"
    fold: dict[str, set[int]] = {}
    for names, number in zip(identities, folds.number, strict=True):
        for name in names:
            fold.setdefault(name, set()).add(int(number))
    assert all(len(numbers) == 1 for numbers in fold.values())
    for which in (fake, ~fake):  # and classes are in balance
        assert set(np.bincount(folds.number[which])) == {8}


def test_where_all_hang_together_the_target_is_not_parted():
    fake = np.array([False] * 6 + [True] * 30)
    identities = np.empty(36, dtype=object)
    pairs = [(f"p{a}", f"p{b}") for a in range(6) for b in range(6) if a != b]
    identities[:] = [*((f"p{n}",) for n in range(6)), *pairs]
    folds = deal(fake, identities, 3)
    assert folds.by == "target"
    identities[:] = [("a",)] * 36
    assert deal(fake, identities, 3).by == "video"
    identities[:] = [()] * 36
    assert deal(fake, identities, 3).by == "people"  # nobody is known, each on its own
    with pytest.raises(UsageError, match="36 genuine and 0 fake"):
        deal(np.zeros(36, dtype=bool), identities)


@pytest.mark.parametrize("level", ["video", "frame"])
def test_a_fold_is_scored_by_a_fusion_that_did_not_see_it(level, monkeypatch):
    table = score_table(12, faces=2)
    seen: list[set[str]] = []

    def train(kind: Kind, part: ScoreTable, **options: Any) -> Fusion:
        seen.append({name for names in part.identities for name in names})
        return train_fusion(kind, part, **options)

    monkeypatch.setattr(validation, "train_fusion", train)
    found = cross_validate("logistic", table, level=level, folds=3)
    assert len(found.trials) == (24 if level == "video" else 48)
    everybody = seen.pop(0)
    for number, people in enumerate(seen):
        held = found.trials.people
        assert held is not None
        own = {int(each) for row in held[found.fold == number] for each in row if each >= 0}
        assert len(own) == len(everybody - people)


def figures(kind: Kind, table: ScoreTable) -> tuple[float, float]:
    """Cross-validated AUC and Cllr of videos."""
    found = cross_validate(kind, table)
    return found.auc, found.cllr


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_head_is_no_worse_than_logistic_regression_where_that_is_best(missing):
    """Normal classes with the same deviations: nothing beats a linear rule."""
    table = score_table(150, missing=missing, faces=2, seed=5)
    auc, cost = figures("logistic", table)
    head_auc, head_cost = figures("head", table)
    assert auc > 0.85
    assert head_auc > auc - 0.005
    assert head_cost < cost + 0.01
    mean_auc, mean_cost = figures("mean", table)
    assert mean_auc < auc - 0.05
    assert mean_cost > cost + 0.1


def test_the_head_is_better_where_cells_matter_together():
    """Fakes are odd in one cell of two, in either direction: no linear rule sees that."""
    rng = np.random.default_rng(0)
    table = score_table(150, faces=2, power=np.zeros((2, 3)))
    video = np.unique(table.video.astype(str), return_inverse=True)[1]
    sign = rng.choice([-1.0, 1.0], len(np.unique(video)))[video]
    logits = table.log_odds.copy()
    logits[:, 0, 0] += 6 * 1.5 * sign
    logits[:, 1, 1] += 0.2 * 1.5 * sign * np.where(table.fake, -1, 1)
    odd = replace(table, log_odds=logits)
    auc, cost = figures("logistic", odd)
    head_auc, head_cost = figures("head", odd)
    assert auc < 0.6
    assert head_auc > auc + 0.1
    assert head_cost < cost - 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_has_no_data_dependent_python(kind):
    fusion = FUSIONS[kind].bind(DETECTORS, REGIONS)
    inputs = (torch.randn(4, 2, 3), torch.rand(4, 2, 3) > 0.3)
    batch = torch.export.Dim("batch", min=2, max=1024)
    graph = torch.export.export(fusion, inputs, dynamic_shapes=({0: batch}, {0: batch}))
    more = (torch.randn(7, 2, 3), torch.rand(7, 2, 3) > 0.5)
    torch.testing.assert_close(graph.module()(*more), fusion(*more), equal_nan=True)
