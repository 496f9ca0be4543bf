"""What a fusion does on faces it was not trained on, from the development part alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregions.fusion import calibration as calibrating
from deepregions.fusion.calibration import Calibration, Development, calibrate, cross_calibrated
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
    """One score for each of V videos.

    Attributes:
        name: (V,) as in the table.
        log_odds: (V,) as ``detect`` gives it by default: the mean over a track's faces, then the
            highest track; NaN where no face has a score.
        fake: (V,) whether any of its faces is fake.
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


def by_video(table: ScoreTable, log_odds: Floats) -> Videos:
    """Makes one score per video.

    Args:
        table: Faces.
        log_odds: (N,) of each face; NaN for none.
    """
    names, first, video = np.unique(table.video.astype(str), return_index=True, return_inverse=True)
    fake = np.zeros(len(names), dtype=np.bool_)
    np.logical_or.at(fake, video, table.fake)
    return Videos(
        names.astype(object),
        Pooling().over_videos(video, table.track, log_odds, len(names)),
        fake,
        table.identities[first],
        table.method[first],
    )


def track_rule() -> str:
    """How faces became a video's score, in words; as :class:`~deepregions.fusion.pooling` says."""
    return Pooling().track_name


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
        detectors: As of :func:`~deepregions.fusion.train_fusion`.
        regions: Likewise.
        options: Its others.

    Raises:
        UsageError: As :func:`~deepregions.fusion.train_fusion`, or too few videos.
    """
    cells: dict[str, Any] = {"detectors": detectors, "regions": regions}
    train_fusion("mean", table, **cells)  # refuses what no kind can be trained on
    scored = by_video(table, fuse_table(MeanFusion(chosen_cells(table, **cells)), table)).known()
    dealt = deal_folds(scored.fake, scored.identities, folds)
    fused = out_of_fold(
        table, dealt, scored, lambda part: train_fusion(kind, part, **cells, **options)
    )
    videos = by_video(table, fused).known()
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
    **options: Any,
) -> tuple[Fusion, Calibration, CrossValidated]:
    """Trains a fusion on a development part, and calibrates it there.

    What is calibrated are the scores of cross-validation, since a fusion's scores of the faces
    that it was trained on are too good to be true; the fusion itself is trained on all.

    Args:
        kind: Of fusion.
        table: The development part, of one database.
        calibration: ``logistic`` or ``isotonic``.
        options: Others of :func:`cross_validate`.

    Raises:
        UsageError: As :func:`cross_validate`.
    """
    found = cross_validate(kind, table, calibration=calibration, **options)
    options.pop("folds", None)
    fusion = train_fusion(kind, table, **options)
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
        cross_validation={"folds": int(folds.number.max()) + 1, "by": folds.by},
    )
    return (
        fusion,
        calibrate(
            calibration,
            videos.log_odds,
            videos.fake,
            folds.number,
            rule=track_rule(),
            development=development,
        ),
        found,
    )


def compare(kinds: Sequence[Kind], table: ScoreTable, **options: Any) -> list[CrossValidated]:
    """Cross-validates kinds of fusion on the same folds; options as of :func:`cross_validate`."""
    return [cross_validate(kind, table, **options) for kind in kinds]
