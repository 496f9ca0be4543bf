"""How far above its minimum Cllr must be: ``python benchmarks/calibration.py BUNDLE STORE``.

Minimum Cllr is what the best monotonic calibration of the very same scores would cost, found with
their labels. On few scores it fits chance too, so that even a perfect calibration costs more. How
much more is simulated: the labels of the evaluation part are drawn anew from the likelihood ratios
of its own best logistic calibration, for which these are perfect by construction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from deepregions.data.store import FaceStore
from deepregions.evaluation.measures import minimum_cllr
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.fusion.calibration import cross_calibrated
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.training import fuse_table
from deepregions.fusion.training import train_fusion as train
from deepregions.fusion.trials import Trials, trials_of
from deepregions.roc import Floats, cllr, tally
from deepregions.weights.bundle import load_bundle


def main(bundle: Path, store: Path, draws: int = 500, seed: int = 0) -> None:
    """Prints what the development part's calibration costs on the evaluation part.

    Args:
        bundle: Networks; several are fused by their mean.
        store: Faces with a development and an evaluation part.
        draws: How often labels are drawn.
        seed: Random seed of these draws.
    """
    members = [*load_bundle(bundle)]
    table = StoreScorer(members).score(FaceStore(store), ("val", "test"))
    development, evaluation = (_videos(table.part(part)) for part in ("val", "test"))
    scores = np.concatenate([development.log_odds, evaluation.log_odds])
    fake = np.concatenate([development.fake, evaluation.fake])
    part = np.repeat([0, 1], [len(development.fake), len(evaluation.fake)])
    found = cross_calibrated("logistic", scores, fake, part)[part == 1]
    truth = evaluation.fake
    print(f"{len(truth)} videos, {(~truth).sum()} genuine; above minimum Cllr by")
    print(f"  the development part's calibration: {_excess(found, truth):.1%}")
    # Each half of a doubled set is calibrated by the other, which is the same: by itself.
    twice, halves = np.tile(evaluation.log_odds, 2), np.repeat([0, 1], len(truth))
    own = cross_calibrated("logistic", twice, np.tile(truth, 2), halves)[halves == 0]
    print(f"  the best logistic calibration:      {_excess(own, truth):.1%}")
    chance = 1 / (1 + np.exp(-(own + np.log(truth.mean() / (1 - truth.mean())))))
    random = np.random.default_rng(seed)
    drawn = [_excess(own, random.random(len(own)) < chance) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    print(
        f"  a perfect one, labels drawn {draws} times: {np.mean(drawn):.1%} [{low:.1%}, {high:.1%}]"
    )


def _videos(table: ScoreTable) -> Trials:
    trials = trials_of(table, fuse_table(train("mean", table), table))
    return trials.select(trials.judged)


def _excess(llrs: Floats, fake: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    counts = tally(llrs, fake)
    return cllr(counts) / minimum_cllr(counts) - 1


if __name__ == "__main__":
    auto_cli(main)
