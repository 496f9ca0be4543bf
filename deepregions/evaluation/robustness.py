"""What is left of a system when pictures suffer, or when there are fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepregions.errors import UndefinedMetricError
from deepregions.evaluation.alterations import Alteration
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import AUC, Measure
from deepregions.evaluation.protocols import Evaluated, Scored, Settings, evaluate
from deepregions.evaluation.report.tables import Table
from deepregions.fusion.score_table import ScoredSystem, ScoreTable

FRAMES = "frames"
UNALTERED = "as it is"
COUNTS = (1, 2, 4, 8, 16, 32)

AXES: Mapping[str, str] = {
    "jpeg": "JPEG quality",
    "h264": "H.264 CRF",
    "resize": "Side after reduction (1 is as it is)",
    "blur": "Blur: deviation, % of the longer side",
    "noise": "Noise: deviation, grey values",
    "gamma": "Gamma",
    FRAMES: "Frames a video",
}


@dataclass(frozen=True, eq=False)
class Curve:
    """A database's evaluation part at several levels of one alteration.

    Attributes:
        database: Its name.
        kind: Of alteration, a key of :data:`AXES`.
        levels: K names, the first is :data:`UNALTERED` or the fewest frames.
        points: K times the database, measured; or why it cannot be, such as that no face is left
            that is sharp enough to be judged.
    """

    database: str
    kind: str
    levels: tuple[str, ...]
    points: tuple[Evaluated | str, ...]

    @property
    def measured(self) -> list[Evaluated]:
        """Those points that could be measured."""
        return [point for point in self.points if not isinstance(point, str)]

    def estimates(self, system: ScoredSystem, measure: Measure) -> list[Estimate]:
        """Returns a system's figure at each level, or why there is none."""
        return [
            Estimate.none(point) if isinstance(point, str) else point.estimate(system, measure)
            for point in self.points
        ]

    def table(self, measure: Measure) -> Table:
        """Returns a measure of all systems at all levels."""
        systems = self.measured[0].systems
        cells = [self.estimates(system, measure) for system in systems]
        return Table(
            f"{measure.title} on {self.database}, {AXES[self.kind]}",
            tuple(system.name for system in systems),
            self.levels,
            tuple(map(tuple, cells)),
            measure.best,
            "Genuine and fake faces are altered alike, after faces were found.",
            "System",
        )


def altered_curve(
    unaltered: Evaluated,
    kind: str,
    levels: Sequence[float],
    score: Callable[[Alteration], Scored],
    settings: Settings,
) -> Curve:
    """Measures a database at several levels of an alteration.

    Args:
        unaltered: The database as it is, measured.
        kind: Of alteration.
        levels: How strong.
        score: Scores its evaluation part, altered.
        settings: How it is measured.
    """
    names: list[str] = [UNALTERED]
    points: list[Evaluated | str] = [unaltered]
    for level in levels:
        names.append(f"{level:g}")
        points.append(_measured(score(Alteration(kind, level)), settings))
    return Curve(unaltered.database, kind, tuple(names), tuple(points))


def _measured(scored: Scored, settings: Settings) -> Evaluated | str:
    try:
        return evaluate([scored], settings, (AUC,))[0]
    except UndefinedMetricError as error:
        return str(error)


def frame_curve(scored: Scored, settings: Settings) -> Curve | None:
    """Measures videos by ever more of their frames; None where all have one only."""
    table = scored.table
    most = max(np.unique(table.video.astype(str), return_counts=True)[1], default=0)
    counts = [count for count in COUNTS if count < most] + [int(most)]
    if len(counts) < 2:
        return None
    points = [_measured(scored.select(first_frames(table, n)), settings) for n in counts]
    return Curve(scored.database, FRAMES, tuple(map(str, counts)), tuple(points))


def first_frames(table: ScoreTable, count: int) -> np.typing.NDArray[np.int64]:
    """Returns rows of at most so many faces of each track, evenly over it."""
    names = [f"{video}\0{track}" for video, track in zip(table.video, table.track, strict=True)]
    _, place = np.unique(names, return_inverse=True)
    order = np.argsort(place, kind="stable")
    kept = []
    for rows in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
        few = min(count, len(rows))
        kept.append(rows[((np.arange(few) + 0.5) * len(rows) / max(few, 1)).astype(np.int64)])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)
