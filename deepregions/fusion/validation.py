"""What a fusion does on faces it was not trained on, from the development part alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregions.fusion import calibration as calibrating
from deepregions.fusion.calibration import (
    Calibration,
    Development,
    Level,
    Quantity,
    calibrate,
    cross_calibrated,
)
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.rules import Fusion, MeanFusion
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.training import Kind, chosen_cells, fuse_table, train_fusion
from deepregions.people import Folds, deal_folds
from deepregions.roc import area_under_curve, cllr, equal_error_rate, tally

Strings = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Videos:
    """V scores to calibrate or to validate by: one a video, or one a face.

    Attributes:
        name: (V,) the video of each, as in the table.
        log_odds: (V,) NaN where there is no score.
        fake: (V,) whether it is a fake; a video is if any of its faces is.
        identities: (V,) who is in it.
        methods: (V,) how it was made.
    """

    name: Strings
    log_odds: Floats
    fake: Bools
    identities: Strings
    methods: Strings

    def known(self) -> Videos:
        """Returns those that have a score."""
        kept = ~np.isnan(self.log_odds)
        return Videos(
            self.name[kept],
            self.log_odds[kept],
            self.fake[kept],
            self.identities[kept],
            self.methods[kept],
        )


def by_video(
    table: ScoreTable, log_odds: Floats, pooling: Pooling | None = None, level: Level = "video"
) -> Videos:
    """Makes one score per video, or leaves one per face.

    Args:
        table: Faces.
        log_odds: (N,) the score of each face; NaN for none.
        pooling: How faces become a video; as ``detect`` does by default.
        level: ``"frame"`` leaves each face by itself.
    """
    if level == "frame":
        return Videos(table.video, log_odds, table.fake, _keepers(table), table.method)
    names, first, video = np.unique(table.video.astype(str), return_index=True, return_inverse=True)
    fake = np.zeros(len(names), dtype=np.bool_)
    np.logical_or.at(fake, video, table.fake)
    return Videos(
        names.astype(object),
        (pooling or Pooling()).over_videos(video, table.track, log_odds, len(names)),
        fake,
        table.identities[first],
        table.method[first],
    )


def _keepers(table: ScoreTable) -> Strings:
    """Returns (N,) who keeps faces together: their people, or their video where nobody is known."""
    keepers = np.empty(len(table), dtype=object)
    for row, people in enumerate(table.identities):
        keepers[row] = people or (f"video {table.video[row]}",)
    return keepers


def out_of_fold(
    table: ScoreTable, folds: Folds, videos: Videos, train: Callable[[ScoreTable], Fusion]
) -> Floats:
    """Returns (N,) fused log-odds of each face by a fusion that saw nobody of its fold.

    Args:
        table: Faces of the development part.
        folds: Of the videos.
        videos: The same videos.
        train: Makes a fusion of a table.
    """
    place = {str(name): number for name, number in zip(videos.name, folds.number, strict=True)}
    fold = np.array([place.get(str(name), -1) for name in table.video], dtype=np.int64)
    fused = np.full(len(table), np.nan)
    for number in range(int(folds.number.max()) + 1):
        own = fold == number
        fused[own] = fuse_table(train(table.select(~own)), table.select(own))
    return fused


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """How a kind of fusion does on videos whose people it did not see.

    Attributes:
        kind: Of fusion.
        videos: Those with a score, scored by fusions that did not see their fold.
        folds: Of these videos.
        auc: Area under the ROC curve of these scores.
        eer: Their equal error rate.
        cllr: Cost in bits of LLRs, each by a calibration that did not see its fold either.
    """

    kind: Kind
    videos: Videos
    folds: Folds
    auc: float
    eer: float
    cllr: float


def cross_validate(
    kind: Kind,
    table: ScoreTable,
    *,
    folds: int = 5,
    calibration: calibrating.Kind = "logistic",
    level: Level = "video",
    pooling: Pooling | None = None,
    detectors: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    **options: Any,
) -> CrossValidated:
    """Cross-validates a kind of fusion; the folds depend on the table and the cells alone.

    Args:
        kind: Of fusion.
        table: The development part.
        folds: How many at most.
        calibration: By which Cllr is measured, cross-validated too.
        level: Whether a score is a face's or a video's.
        pooling: How the scores of faces become a video's.
        detectors: As of :func:`~deepregions.fusion.train_fusion`.
        regions: Likewise.
        options: Its others.

    Raises:
        UsageError: As :func:`~deepregions.fusion.train_fusion`, or too few videos.
    """
    cells: dict[str, Any] = {"detectors": detectors, "regions": regions}
    train_fusion("mean", table, **cells)  # refuses what no kind can be trained on
    mean = fuse_table(MeanFusion(chosen_cells(table, **cells)), table)
    scored = by_video(table, mean, pooling, level).known()
    dealt = deal_folds(scored.fake, scored.identities, folds)
    fused = out_of_fold(
        table, dealt, scored, lambda part: train_fusion(kind, part, **cells, **options)
    )
    videos = by_video(table, fused, pooling, level).known()
    llrs = cross_calibrated(calibration, videos.log_odds, videos.fake, dealt.number)
    counts = tally(videos.log_odds, videos.fake)
    return CrossValidated(
        kind,
        videos,
        dealt,
        auc=area_under_curve(counts),
        eer=equal_error_rate(counts)[0],
        cllr=cllr(tally(llrs, videos.fake)),
    )


def train_calibrated(
    kind: Kind,
    table: ScoreTable,
    *,
    calibration: calibrating.Kind = "logistic",
    level: Level = "video",
    pooling: Pooling | None = None,
    **options: Any,
) -> tuple[Fusion, Calibration, CrossValidated]:
    """Trains a fusion on a development part, and calibrates it there.

    What is calibrated are the scores of cross-validation, since a fusion's scores of the faces
    that it was trained on are too good to be true; the fusion itself is trained on all.

    Args:
        kind: Of fusion.
        table: The development part, of one database.
        calibration: ``logistic`` or ``isotonic``.
        level: Whether a score is a face's or a video's.
        pooling: How the scores of faces become a video's.
        options: Others of :func:`cross_validate`.

    Raises:
        UsageError: As :func:`cross_validate`.
    """
    found = cross_validate(
        kind, table, calibration=calibration, level=level, pooling=pooling, **options
    )
    options.pop("folds", None)
    fusion = train_fusion(kind, table, **options)
    networks = table.networks(chosen_cells(table, options.get("detectors"), options.get("regions")))
    videos, folds = found.videos, found.folds
    landmarks = table.origin.settings.get("landmarks")
    development = Development(
        database=table.origin.database,
        store=table.origin.store,
        split=", ".join(sorted({str(split) for split in table.split})),
        genuine=int((~videos.fake).sum()),
        fake=int(videos.fake.sum()),
        methods=dict(sorted(Counter(map(str, videos.methods[videos.fake])).items())),
        landmarks={"name": landmarks} if isinstance(landmarks, str) else landmarks,
        cross_validation={"folds": int(folds.number.max()) + 1, "by": _kept_by(table, folds.by)},
    )
    return (
        fusion,
        calibrate(
            calibration,
            videos.log_odds,
            videos.fake,
            folds.number,
            quantity=Quantity.pooled(level, pooling or Pooling(), fusion.rule, networks),
            development=development,
        ),
        found,
    )


def _kept_by(table: ScoreTable, by: str) -> str:
    """What folds never part; where nobody is known, videos kept their faces together."""
    return by if any(table.identities) else "video"


def compare(kinds: Sequence[Kind], table: ScoreTable, **options: Any) -> list[CrossValidated]:
    """Cross-validates kinds of fusion on the same folds; options as of :func:`cross_validate`."""
    return [cross_validate(kind, table, **options) for kind in kinds]
