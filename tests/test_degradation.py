"""What a bundle loses on small, compressed and blurred faces, and where a face is on its curves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import INFO, record
from drawn_faces import draw_face
from networks import Tint, member
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from deepregions.data.store import FaceStore, create_store, encode_image
from deepregions.errors import UndefinedMetricError
from deepregions.evaluation.alterations import Alteration
from deepregions.evaluation.degradation import measure_degradation
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.pipeline.results import FaceResult, Result, summarise_input
from deepregions.pipeline.warnings import warnings_of
from deepregions.types import Region, Status
from deepregions.weights.bundle import Bundle
from deepregions.weights.manifest import BundleFacts, Degradation, OperatingPoint


class Grain(Tint):
    """Takes fine detail for fake."""

    name = "grain"

    def network(self, x: Tensor) -> Tensor:
        detail = (x - functional.avg_pool2d(x, 3, 1, 1)).abs().mean((1, 2, 3))
        return torch.stack([torch.zeros_like(detail), 100 * detail], 1)


def grainy_store(path: Path, count: int) -> FaceStore:
    """Genuine faces, and fakes that are noisy."""
    rng = np.random.default_rng(0)
    faces = []
    for number in range(count):
        picture, landmarks = draw_face(rng, 200)
        noisy = picture + (number % 2) * rng.normal(0, 12, picture.shape)
        image = torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1)
        who = {"identities": (f"p{number}",), "video": f"v{number}", "split": "test"}
        faces.append(record(number, image=encode_image(image), landmarks=landmarks, **who))
    return create_store(path, INFO, faces)


def test_curves_are_those_of_the_scores_and_tell_chance_from_loss(tmp_path):
    store = grainy_store(tmp_path / "store", 48)
    members = [member(Grain(size=64).eval())]
    scorer = StoreScorer(members, device="cpu")

    def scores(alteration: Alteration | None = None) -> np.ndarray:
        return scorer.score(store, ("test",), alteration).log_odds[:, 0, 0]

    plain, blurred = scores(), scores(Alteration("blur", 0.5))
    threshold = float(np.median(plain[store.labels == 0]))
    point = OperatingPoint("1 % false alarms", threshold, "video", "made up")
    bundle = Bundle(tuple(members), facts=BundleFacts(operating_points=(point,)))
    found = measure_degradation(bundle, [store], device="cpu")
    by_name = {(each.alteration, each.level): each for each in found}
    for odds, each in ((plain, by_name["", None]), (blurred, by_name["blur", 0.5])):
        both = ~np.isnan(plain) & ~np.isnan(odds)
        assert each.auc == pytest.approx(roc_auc_score(store.labels[both], odds[both]))
        genuine = odds[both & (store.labels == 0)]
        assert each.false_positive_rate == pytest.approx((genuine >= threshold).mean())
    assert not by_name["", None].worse
    assert not by_name["size", 96].worse
    assert by_name["size", 48].worse  # the noise is gone
    assert by_name["size", 48].measure == pytest.approx(48, abs=0.5)
    assert by_name["", None].people == 24  # the genuine ones, for false alarms
    few = measure_degradation(bundle, [store], faces=16, device="cpu")
    assert not any(each.worse for each in few)  # of fewer than 20 people nothing is said


def test_one_class_alone_has_no_curve(tmp_path):
    faces = [replace(face, label=0) for face in grainy_store(tmp_path / "both", 4)]
    store = create_store(tmp_path / "genuine", INFO, faces)
    with pytest.raises(UndefinedMetricError, match="no AUC of these faces"):
        measure_degradation(Bundle((member(Grain(size=64).eval()),)), [store], device="cpu")


CURVES = (
    Degradation("", 0.88, None, 200.0, 0.01, 90),
    Degradation("size", 0.87, 128, 128.0, 0.012, 90),
    Degradation("size", 0.80, 64, 64.0, 0.06, 90, worse=True),
    Degradation("jpeg", 0.70, 30, 30.0, 0.005, 90, worse=True),
    Degradation("blur", 0.85, 1, 0.5, 0.02, 90, worse=True),
)


def told(
    size: float,
    sharpness: float = 1.0,
    inside: float = 1.0,
    curves: tuple[Degradation, ...] = CURVES,
    **media: object,
) -> list[str]:
    quality = {"size": size, "sharpness": sharpness, "inside": inside}
    cell = ("xception", Region.ENTIRE)
    face = FaceResult(0, 0.0, 0, (0, 0, 9, 9), Status.OK, 1.0, {cell: 1.0}, quality=quality)
    result: Result = summarise_input("a.jpg", "image", 1, [face], media=media)
    return list(warnings_of(result, curves))


def test_a_face_is_told_where_its_networks_do_measurably_worse():
    assert told(60.2) == [
        "faces of this size (about 60 pixels wide): these networks' false alarms rise from 1 % to "
        "6 % (AUC .88 to .80)"
    ]
    assert told(200) == told(100) == []
    assert told(60, 0.4) == told(60.2)  # the worst of two
    assert "blurred as this one" in told(200, 0.4)[0]
    assert told(200, jpeg_quality=25) == [
        "faces compressed as in this file (JPEG quality about 25): these networks' false alarms "
        "fall from 1 % to 0.5 % (AUC .88 to .70)"
    ]
    assert told(400, jpeg_quality=25) == []  # twice as large as those that were measured


def test_where_false_alarms_do_not_change_only_the_auc_is_told():
    curves = (CURVES[0], replace(CURVES[2], false_positive_rate=0.01))
    assert told(60.2, curves=curves) == [
        "faces of this size (about 60 pixels wide): these networks tell fakes from genuine ones "
        "less well (AUC .88 to .80)"
    ]


def test_a_face_that_the_edge_cuts_off_is_told():
    assert "cuts off 6% of the face" in told(200, inside=0.94)[0]
    assert told(200, inside=0.98) == []
