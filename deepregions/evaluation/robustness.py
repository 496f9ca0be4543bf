"""Robustness: what is left of a system when pictures suffer, or when there are fewer of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepregions.errors import UndefinedMetricError
from deepregions.evaluation.alterations import Alteration
from deepregions.evaluation.bootstrap import Estimate
from deepregions.evaluation.measures import AUC
from deepregions.evaluation.protocols import Evaluated, Scored, Settings, evaluate
from deepregions.evaluation.report.tables import Table
from deepregions.fusion.score_table import ScoredSystem, ScoreTable
from deepregions.people import Numbers

FRAMES = "frames"
UNALTERED = "as it is"
COUNTS = (1, 2, 4, 8, 16, 32)

AXES: Mapping[str, str] = {
    "size": "Widest face, pixels",
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
    """The AUC on a database's evaluation part at levels of one alteration, a key of ``AXES``.

    Where a level cannot be measured, such as when no face is left to judge, the cells say why.
    """

    database: str
    kind: str
    table: Table


def altered_curve(
    unaltered: Evaluated, kind: str, levels: Sequence[float], score: Callable[[Alteration], Scored]
) -> Curve:
    """Measures a database at levels of an alteration; ``score`` is given each of them."""
    altered = [
        (f"{level:g}", _measured(score(Alteration(kind, level)), unaltered.settings))
        for level in levels
    ]
    return _curve(unaltered, kind, [(UNALTERED, unaltered), *altered])


def frame_curve(whole: Evaluated, scored: Scored) -> Curve | None:
    """Measures videos by ever more of their frames; None where all have one only."""
    table = scored.table
    most = max(np.unique(table.video.astype(str), return_counts=True)[1], default=0)
    counts = [count for count in COUNTS if count < most] + [int(most)]
    if len(counts) < 2:
        return None
    points = [
        (str(count), _measured(scored.select(first_frames(table, count)), whole.settings))
        for count in counts
    ]
    return _curve(whole, FRAMES, points)


def _measured(scored: Scored, settings: Settings) -> Evaluated | str:
    try:
        return evaluate([scored], settings, (AUC,))[0]
    except UndefinedMetricError as error:
        return str(error)


def _curve(whole: Evaluated, kind: str, points: Sequence[tuple[str, Evaluated | str]]) -> Curve:
    def cell(system: ScoredSystem, point: Evaluated | str) -> Estimate:
        return Estimate.none(point) if isinstance(point, str) else point.estimate(system, AUC)

    title = f"{AUC.title} on {whole.database}, {AXES[kind]}"
    note = "Genuine and fake faces are altered alike, after faces were found."
    table = Table.of_systems(title, whole.systems, points, cell, best=AUC.best, note=note)
    return Curve(whole.database, kind, table)


def first_frames(table: ScoreTable, count: int) -> Numbers:
    """Returns rows of at most so many faces of each track, evenly over it."""
    tracks: dict[tuple[str, int], list[int]] = {}
    for row, track in enumerate(zip(table.video, table.track, strict=True)):
        tracks.setdefault(track, []).append(row)
    kept: list[int] = []
    for rows in tracks.values():
        few = min(count, len(rows))
        kept += [rows[int((turn + 0.5) * len(rows) / few)] for turn in range(few)]
    return np.array(sorted(kept), dtype=np.int64)
