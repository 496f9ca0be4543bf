"""The figures of a training epoch; what they rest on is tested in ``test_measures``."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepregions.metrics import VerificationMetrics


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
