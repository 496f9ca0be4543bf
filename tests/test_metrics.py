import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from deepregions.metrics import (
    VerificationMetrics,
    accuracy,
    area_under_curve,
    equal_error_rate,
)


def both_classes(labels: list[int]) -> bool:
    return 0 < sum(labels) < len(labels)


samples = st.lists(  # few distinct scores, so that ties are common
    st.tuples(st.integers(-6, 6).map(lambda n: n / 4), st.integers(0, 1)), min_size=2, max_size=60
).filter(lambda pairs: both_classes([label for _, label in pairs]))


def tensors(pairs: list[tuple[float, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    scores, labels = zip(*pairs, strict=True)
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)


@settings(max_examples=200, deadline=None)
@given(samples)
def test_area_is_that_of_scikit_learn(pairs):
    scores, labels = tensors(pairs)
    assert area_under_curve(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


@settings(max_examples=200, deadline=None)
@given(samples)
def test_equal_error_rate_is_where_the_roc_curve_meets_the_diagonal(pairs):
    scores, labels = tensors(pairs)
    eer, threshold = equal_error_rate(scores, labels)
    accused, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    # The polyline is crossed where the sum of both coordinates passes 1: interpolate along it.
    along = accused + found
    assert eer == pytest.approx(float(np.interp(1.0, along, accused)), abs=1e-9)
    assert threshold in scores.tolist()


@settings(max_examples=100, deadline=None)
@given(samples)
def test_flipping_classes_and_scores_changes_nothing(pairs):
    scores, labels = tensors(pairs)
    assert area_under_curve(-scores, 1 - labels) == pytest.approx(area_under_curve(scores, labels))
    assert equal_error_rate(-scores, 1 - labels)[0] == pytest.approx(
        equal_error_rate(scores, labels)[0], abs=1e-9
    )
    assert area_under_curve(-scores, labels) == pytest.approx(1 - area_under_curve(scores, labels))


@settings(max_examples=100, deadline=None)
@given(samples, st.sampled_from([torch.exp, torch.sigmoid, lambda x: 3 * x + 1]))
def test_only_the_order_of_scores_matters(pairs, rising):
    scores, labels = tensors(pairs)
    scores = scores.double()
    assert area_under_curve(rising(scores), labels) == pytest.approx(
        area_under_curve(scores, labels)
    )
    assert equal_error_rate(rising(scores), labels)[0] == pytest.approx(
        equal_error_rate(scores, labels)[0]
    )


def test_rates_of_gaussian_scores_are_those_of_the_textbook():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200_000) % 2
    scores = torch.randn(200_000, generator=generator) + 2.0 * labels
    eer, threshold = equal_error_rate(scores, labels)
    assert eer == pytest.approx(0.5 * math.erfc(1 / math.sqrt(2)), abs=3e-3)
    assert threshold == pytest.approx(1.0, abs=0.03)
    fpr, tpr, _ = roc_curve(labels, scores)
    crossing = brentq(lambda x: 1.0 - x - interp1d(fpr, tpr)(x), 0.0, 1.0)
    assert eer == pytest.approx(crossing, abs=1e-5)


def test_the_threshold_separates():
    scores, labels = torch.tensor([0.1, 0.2, 0.7, 0.9]), torch.tensor([0, 0, 1, 1])
    eer, threshold = equal_error_rate(scores, labels)
    assert (eer, threshold) == (0.0, pytest.approx(0.7))
    assert equal_error_rate(scores, 1 - labels)[0] == 1.0


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([], []), ([0.3, 0.4], [1, 1]), ([0.3], [0]), ([0.3, math.nan], [0, 1])],
)
def test_undefined_rates_are_nan(scores, labels):
    scores, labels = torch.tensor(scores), torch.tensor(labels)
    assert math.isnan(area_under_curve(scores, labels))
    assert all(math.isnan(x) for x in equal_error_rate(scores, labels))


def test_accuracy_counts_zero_as_fake():
    assert accuracy(torch.tensor([0.0, -0.1, 2.0]), torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)
    assert math.isnan(accuracy(torch.empty(0), torch.empty(0)))
    assert math.isnan(accuracy(torch.tensor([math.nan]), torch.tensor([1])))


def test_a_million_scores_at_once():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(1_000_000, generator=generator)
    labels = torch.randint(0, 2, (1_000_000,), generator=generator)
    assert area_under_curve(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert equal_error_rate(scores, labels)[0] == pytest.approx(0.5, abs=2e-3)


def epoch() -> dict[str, torch.Tensor]:
    """Three videos: a genuine one, a fake one, and a fake one of which one face is missed."""
    return {
        "logits": torch.tensor([-2.0, -1.0, 3.0, 1.0, -0.5, 2.5]),
        "label": torch.tensor([0, 0, 1, 1, 1, 1]),
        "video": torch.tensor([7, 7, 3, 3, 9, 9]),
        "index": torch.tensor([10, 11, 12, 13, 14, 15]),
    }


def test_frames_and_videos_are_told_apart():
    metrics = VerificationMetrics()
    metrics.update(**epoch())
    values = metrics.compute()
    assert values["frame_accuracy"] == pytest.approx(5 / 6)
    assert values["frame_auc"] == 1.0
    assert values["frame_eer"] == 0.0
    assert values["video_accuracy"] == 1.0
    assert values["video_auc"] == 1.0


def test_a_face_that_comes_twice_counts_once_and_a_negative_one_never():
    metrics, twice = VerificationMetrics(), VerificationMetrics()
    metrics.update(**epoch())
    faces = epoch()
    for part in (slice(0, 4), slice(4, 6), slice(4, 5), slice(4, 5)):
        twice.update(**{name: x[part] for name, x in faces.items()})
    wrong = {"logits": torch.tensor([-9.0]), "label": torch.tensor([1])}
    twice.update(**wrong, video=torch.tensor([3]), index=torch.tensor([-1]))
    assert twice.compute() == metrics.compute()


def test_exchanged_states_give_the_same_as_one_process():
    alone, ours, theirs = VerificationMetrics(), VerificationMetrics(), VerificationMetrics()
    faces = epoch()
    alone.update(**faces)
    ours.update(**{name: x[::2] for name, x in faces.items()})
    theirs.update(**{name: torch.cat([x[1::2], x[:1]]) for name, x in faces.items()})  # padded
    for name in faces:  # as torchmetrics leaves the states of "cat" after an exchange
        setattr(ours, name, torch.cat([*getattr(ours, name), *getattr(theirs, name)]))
    assert ours.compute() == alone.compute()


def test_each_method_is_compared_with_all_that_is_genuine():
    metrics = VerificationMetrics()
    metrics.methods = ("original", "swap", "unseen", "warp")
    logits = torch.tensor([0.1, 0.5, 0.9, 0.2, 0.4, 0.8, 0.95, 0.0])
    label = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    method = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3])  # the last: a region that it left alone
    number = torch.arange(8)
    for part in (slice(0, 5), slice(5, 8)):
        metrics.update(logits[part], label[part], number[part], number[part], method[part])
    values = metrics.compute()
    genuine = label == 0
    for name, index in (("swap", 1), ("warp", 3)):
        own = genuine | (method == index)
        assert values[f"frame_auc/{name}"] == pytest.approx(roc_auc_score(label[own], logits[own]))
    assert "frame_auc/unseen" not in values and "frame_auc/original" not in values


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_an_accuracy_only(label):
    metrics = VerificationMetrics()
    faces = epoch() | {"label": torch.full((6,), label)}
    metrics.update(**faces)
    values = metrics.compute()
    undefined = {name for name, value in values.items() if value.isnan()}
    assert undefined == {"frame_auc", "frame_eer", "video_auc", "video_eer"}


def test_nothing_and_nan_give_nan():
    metrics = VerificationMetrics()
    faces = epoch()
    faces["logits"][0] = math.nan
    metrics.update(**faces)
    assert all(value.isnan() for value in metrics.compute().values())
    metrics.reset()
    metrics.update(**epoch() | {"index": torch.full((6,), -1)})
    assert all(value.isnan() for value in metrics.compute().values())


def test_half_precision_scores_and_many_batches():
    metrics = VerificationMetrics()
    generator = torch.Generator().manual_seed(2)
    logits, label = torch.randn(300, generator=generator), torch.arange(300) % 2
    for part in torch.arange(300).split(7):
        metrics.update(logits[part].bfloat16(), label[part], part // 10, part)
    expected = roc_auc_score(label, logits.bfloat16().float())
    assert metrics.compute()["frame_auc"] == pytest.approx(expected)
