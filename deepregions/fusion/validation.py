"""What a fusion does on faces that it was not trained on, from the development part alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepregions.fusion import calibration as calibrating
from deepregions.fusion.calibration import Calibration, Development, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import Fusion
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.training import Kind, fuse_table, train_fusion
from deepregions.fusion.trials import Groups, Trials, groups_of, trials_of
from deepregions.people import Numbers, deal_folds
from deepregions.roc import area_under_curve, cllr, equal_error_rate, tally
from deepregions.types import Cell, Level


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """How a kind of fusion does on faces or videos whose people it did not see.

    Attributes:
        trials: Those with a score, by fusions that did not see their fold.
        fold: (N,) their folds.
        by: What is never in two folds, as :attr:`deepregions.people.Folds.by`.
        cllr: Cost in bits of LLRs, each by a calibration that did not see its fold either.
    """

    kind: Kind
    trials: Trials
    fold: Numbers
    by: str
    auc: float
    eer: float
    cllr: float


def cross_validate(
    kind: Kind,
    table: ScoreTable,
    *,
    level: Level = "video",
    pooling: Pooling | None = None,
    folds: int = 5,
    calibration: calibrating.Kind = "logistic",
    cells: Sequence[Cell] | None = None,
    **options: Any,
) -> CrossValidated:
    """Cross-validates a kind of fusion; the folds depend on the table and the cells alone.

    There are at most ``folds``. Cllr is measured by the calibration, cross-validated too. Cells and
    further options are those of :func:`~deepregions.fusion.training.train_fusion`, and so are
    errors, but for too few videos.

    Raises:
        UsageError: As there, or too few videos.
    """
    mean = train_fusion("mean", table, cells=cells)  # refuses what no kind can be trained on
    table = table.select(np.argsort(table.video.astype(str), kind="stable"))
    groups = groups_of(table)
    _, first = np.unique(groups.video, return_index=True)
    fold, by = _folds(table, mean, groups, first, folds)
    fused = np.full(len(table), np.nan)
    for number in range(int(fold.max()) + 1):
        own = fold == number
        fusion = train_fusion(kind, table.select(~own), cells=cells, **options)
        fused[own] = fuse_table(fusion, table.select(own))
    trials = trials_of(table, fused, level, pooling, groups)
    place = fold if level == "frame" else fold[first]
    place, trials = place[trials.judged], trials.select(trials.judged)
    counts = tally(trials.log_odds, trials.fake)
    llrs = calibrating.cross_calibrated(calibration, trials.log_odds, trials.fake, place)
    return CrossValidated(
        kind,
        trials,
        place,
        by,
        auc=area_under_curve(counts),
        eer=equal_error_rate(counts)[0],
        cllr=cllr(tally(llrs, trials.fake)),
    )


def train_calibrated(
    kind: Kind,
    table: ScoreTable,
    *,
    level: Level = "video",
    pooling: Pooling | None = None,
    calibration: calibrating.Kind = "logistic",
    **options: Any,
) -> tuple[Fusion, Calibration, CrossValidated]:
    """Trains a fusion on a development part, and calibrates one quantity of it there.

    What is calibrated are the scores of cross-validation, since a fusion's scores of the faces
    that it was trained on are too good to be true; the fusion itself is trained on all.

    Arguments and errors are those of :func:`cross_validate`; the table is of one database.
    """
    pooling = pooling or Pooling()
    found = cross_validate(
        kind, table, level=level, pooling=pooling, calibration=calibration, **options
    )
    options.pop("folds", None)
    fusion = train_fusion(kind, table, **options)
    trials, landmarks = found.trials, table.origin.settings.get("landmarks")
    development = Development(
        database=table.origin.database,
        store=table.origin.store,
        split=", ".join(sorted({str(split) for split in table.split})),
        genuine=int((~trials.fake).sum()),
        fake=int(trials.fake.sum()),
        methods=dict(sorted(Counter(map(str, trials.method[trials.fake])).items())),
        landmarks={"name": landmarks} if isinstance(landmarks, str) else landmarks,
        cross_validation={"folds": int(found.fold.max()) + 1, "by": found.by},
        people=len(np.unique(trials.group)),
    )
    calibrated = calibrating.calibrate(
        calibration,
        trials.log_odds,
        trials.fake,
        found.fold,
        quantity=Quantity.pooled(level, pooling, fusion.rule, table.networks(fusion.cells)),
        development=development,
    )
    return fusion, calibrated, found


def _folds(
    table: ScoreTable, mean: Fusion, groups: Groups, first: Numbers, count: int
) -> tuple[Numbers, str]:
    """Returns (N,) folds of faces, -1 for videos without any score, and what is never parted."""
    videos = trials_of(table, fuse_table(mean, table), groups=groups)
    known = np.flatnonzero(videos.judged)
    dealt = deal_folds(videos.fake[known], table.identities[first[known]], count)
    fold = np.full(len(videos), -1, dtype=np.int64)
    fold[known] = dealt.number
    return fold[groups.video], dealt.by if any(table.identities) else "video"
