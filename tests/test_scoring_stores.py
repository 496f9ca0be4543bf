"""Scoring a store: the scores of detect's own path, once, whatever interrupts it."""

import numpy as np
import pytest
import torch
from data_helpers import small_store
from networks import member, xception

from deepregions.data.store import decode_image
from deepregions.errors import UsageError
from deepregions.evaluation import store_scorer as scoring
from deepregions.evaluation.alterations import Alteration
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.faces.thresholds import Gates
from deepregions.fusion.score_table import ScoreTable
from deepregions.system import System
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle

ALL = Gates(min_size=0, min_sharpness=0, max_dark=1, max_bright=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    splits = ["train"] * 3 + ["val"] * 4 + ["test"] * 5
    return small_store(tmp_path_factory.mktemp("s") / "store", splits, size=160)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("b") / "bundle"
    save_bundle([member(xception()), member(xception(), Region.EYES)], path)
    return list(load_bundle(path))


def equal(one: ScoreTable, two: ScoreTable) -> bool:
    return bool(
        one.origin == two.origin
        and (one.key == two.key).all()
        and (one.status == two.status).all()
        and np.array_equal(
            one.log_odds.astype(np.float32), two.log_odds.astype(np.float32), equal_nan=True
        )
    )


def test_scores_are_the_systems(store, members):
    table = StoreScorer(members, gates=ALL, device="cpu", batch_size=5).score(store)
    rows = np.flatnonzero(store.splits != "train")
    assert list(table.key) == [store[int(row)].key for row in rows]
    assert set(table.split) == {"val", "test"}
    faces = [store[int(row)] for row in rows]
    images = torch.stack([decode_image(face.image) for face in faces])
    points = torch.stack([torch.from_numpy(face.landmarks) for face in faces])
    with torch.inference_mode():
        output = System(members)(images, points)
    assert output.valid.all()
    np.testing.assert_allclose(table.log_odds, output.logits.numpy(), atol=2e-4)
    assert set(table.status) == {"ok"}


def test_refused_faces_stay_and_say_why(store, members):
    table = StoreScorer(members, gates=Gates(min_size=1e4), device="cpu").score(store)
    assert len(table) == 9
    assert not table.valid.any()
    assert set(table.status) == {"too_small"}


@pytest.mark.parametrize(("confidence", "judged"), [(0.4, False), (0.6, True), (None, True)])
def test_faces_whose_landmarks_are_doubted_are_refused_as_by_detect(
    tmp_path, members, confidence, judged
):
    store = small_store(tmp_path / "s", ["test"] * 2, size=160, confidence=confidence)
    table = StoreScorer(members, gates=ALL, device="cpu").score(store)
    assert set(table.status) == {"ok" if judged else "low_quality"}


def test_what_was_scored_is_not_scored_again(store, members, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_CHUNK", 4)
    cache = tmp_path / "cache"
    one = StoreScorer(members[:1], cache, gates=ALL, device="cpu").score(store)
    files = sorted(cache.iterdir())
    assert len(files) == 3
    scored: list[int] = []

    class Counting(scoring.FaceScorer):
        def score(self, faces):  # type: ignore[no-untyped-def]
            scored.append(len(faces) * len(self.system.members))
            return super().score(faces)

    monkeypatch.setattr(scoring, "FaceScorer", Counting)
    told: list[tuple[int, int]] = []
    again = StoreScorer(
        members[:1], cache, gates=ALL, device="cpu", progress=lambda *x: told.append(x)
    )
    assert equal(again.score(store), one)
    assert not scored
    assert told[-1] == (9, 9)
    both = StoreScorer(members, cache, gates=ALL, device="cpu").score(store)
    assert sum(scored) == 9  # the second network only
    fresh = StoreScorer(members, gates=ALL, device="cpu").score(store)
    np.testing.assert_allclose(both.log_odds, fresh.log_odds, atol=2e-4)
    # A run that was killed: some files are missing, one is half there.
    scored.clear()
    left = sorted(cache.iterdir())
    left[0].unlink()
    left[3].write_bytes(left[3].read_bytes()[:100])
    assert equal(StoreScorer(members, cache, gates=ALL, device="cpu").score(store), both)
    assert 0 < sum(scored) <= 8


def test_other_gates_and_other_networks_have_their_own_scores(store, members, tmp_path):
    for gates in (ALL, Gates(min_size=1e4)):
        StoreScorer(members, tmp_path, gates=gates, device="cpu").score(store)
    before = len(list(tmp_path.iterdir()))
    assert before == 4
    other = [member(xception(2.0))]
    other[0].sha256 = "another"
    table = StoreScorer(other, tmp_path, gates=ALL, device="cpu").score(store)
    np.testing.assert_allclose(table.log_odds, 2.0, atol=1e-5)
    assert len(list(tmp_path.iterdir())) == before + 1


def test_a_split_without_faces_is_an_empty_table(store, members):
    table = StoreScorer(members, device="cpu").score(store, ("nothing",))
    assert len(table) == 0
    assert table.log_odds.shape == (0, 1, 2)


def test_a_face_without_an_answer_is_an_error_not_a_score(store):
    broken = [member(xception(float("nan"))), member(xception(1.0), Region.EYES)]
    table = StoreScorer(broken, gates=ALL, device="cpu").score(store)
    assert not table.valid[:, 0, 0].any()
    assert set(table.status) == {"ok"}  # the other network did answer
    alone = StoreScorer(broken[:1], gates=ALL, device="cpu").score(store)
    assert set(alone.status) == {"error"}


def test_alterations_change_scores_and_have_their_own_file(store, members, tmp_path):
    scorer = StoreScorer(members[:1], tmp_path, gates=ALL, device="cpu")
    plain = scorer.score(store, ("test",))
    darker = scorer.score(store, ("test",), Alteration("gamma", 2))
    assert not np.allclose(plain.log_odds, darker.log_odds)
    assert darker.origin.settings["alteration"] == "gamma 2"
    assert equal(scorer.score(store, ("test",)), plain)


def test_no_network_is_refused():
    with pytest.raises(UsageError, match="no network"):
        StoreScorer([])
