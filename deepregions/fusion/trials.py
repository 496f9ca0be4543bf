"""Trials: the faces or videos that a system judges, with its score of each and who it shows.

A trial without a score stays, as NaN: measures are over the trials with one, and the share of
those (the coverage) stands beside every figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.fusion.pooling import Level, Pooling
from deepregions.fusion.score_table import Numbers, ScoreTable, Strings, judged
from deepregions.people import group_numbers
from deepregions.roc import NAN, Bools, Floats, equal_error_rate, tally


@dataclass(frozen=True, eq=False)
class Trials:
    """N faces or videos of a database with the verdicts of one system.

    Attributes:
        name: The system.
        log_odds: (N,) float64, higher is more fake; NaN where there is no verdict.
        fake: (N,) whether it is a fake.
        method: (N,) how it was made; ``"original"`` if genuine.
        group: (N,) int64 from 0, equal for trials that share people, directly or through others.
        people: (N, P) int64 from 0, who is in each, -1 in places that are left; None if that is
            not known.

    Raises:
        UsageError: Columns of different lengths, or a log-odds is infinite.
    """

    name: str
    log_odds: Floats
    fake: Bools
    method: Strings
    group: Numbers
    people: Numbers | None = None

    def __post_init__(self) -> None:
        columns = (self.log_odds, self.fake, self.method, self.group, self.people)
        lengths = {len(x) for x in columns if x is not None}
        if len(lengths) != 1:
            raise UsageError(f"trials of {self.name} have columns of different lengths")
        if bool(np.isinf(self.log_odds).any()):
            raise UsageError(f"a log-odds of {self.name} is infinite", "it must be finite")

    def __len__(self) -> int:
        return len(self.log_odds)

    @property
    def judged(self) -> Bools:
        """(N,), whether there is a verdict."""
        return ~np.isnan(self.log_odds)

    @property
    def coverage(self) -> float:
        """The share of trials with a verdict; NaN where there are none."""
        return _share(self.judged)

    @property
    def coverage_of_fakes(self) -> float:
        """The share of fakes with a verdict."""
        return _share(self.judged[self.fake])

    @property
    def coverage_of_genuine(self) -> float:
        """The share of genuine ones with a verdict."""
        return _share(self.judged[~self.fake])

    @property
    def methods(self) -> tuple[str, ...]:
        """How fakes were made, sorted, whether judged or not."""
        return tuple(sorted(set(self.method[self.fake].tolist())))

    def select(self, rows: npt.NDArray[Any]) -> Trials:
        """Returns some trials: ``rows`` are numbers or a mask."""
        columns = {n: getattr(self, n)[rows] for n in ("log_odds", "fake", "method", "group")}
        people = None if self.people is None else self.people[rows]
        return replace(self, people=people, **columns)

    def absent(self) -> str:
        """Returns what is missing for measures of two classes, in words; empty if nothing is."""
        there = self.judged
        if not len(self):
            return "nothing to judge"
        if not there.any():
            return "no verdict"
        if not bool((there & self.fake).any()):
            return "no fake with a verdict"
        return "" if bool((there & ~self.fake).any()) else "nothing genuine with a verdict"


class Groups(NamedTuple):
    """Which faces belong together; both are numbered from 0 as they come."""

    group: Numbers
    """(N,) int64, equal for faces that share people, directly or through others."""
    video: Numbers
    """(N,) int64, equal for faces of one photo or video."""
    people: Numbers
    """(N, P) int64, who is in the photo or video of each, -1 in places that are left."""


def trials_of(
    table: ScoreTable, log_odds: Floats, level: Level, pooling: Pooling, groups: Groups
) -> Trials:
    """Returns the trials of a level: each face, or each photo or video."""
    if level == "frame":
        return frame_trials(table, log_odds, groups=groups)
    return video_trials(table, log_odds, pooling, groups=groups)


def frame_trials(
    table: ScoreTable, log_odds: Floats, name: str = "", groups: Groups | None = None
) -> Trials:
    """Returns a trial for each face.

    Args:
        table: The faces. One whose status is not ``ok`` has no verdict, whatever its log-odds.
        log_odds: (N,) what the system says; NaN where nothing.
        name: The system.
        groups: Those of the table, if they are known already.
    """
    logits = _verdicts(table, log_odds)
    groups = groups or groups_of(table)
    return Trials(name, logits, table.fake, table.method, groups.group, groups.people)


def video_trials(
    table: ScoreTable,
    log_odds: Floats,
    rule: Pooling,
    name: str = "",
    groups: Groups | None = None,
) -> Trials:
    """Returns a trial for each photo or video, in the order in which they come.

    Scores go from faces to tracks to videos by the rule, as ``detect`` joins them. A video is a
    fake if any of its faces is, and its method is that of the first of these.

    Args:
        table: The faces, as for :func:`frame_trials`.
        log_odds: (N,).
        rule: How many scores become one.
        name: The system.
        groups: As there.
    """
    logits = _verdicts(table, log_odds)
    group, video, people = groups or groups_of(table)
    count = int(video.max()) + 1 if len(video) else 0
    rank = np.arange(len(table)) + np.where(table.fake, 0, len(table))
    first = np.full(count, 2 * len(table))  # the face that tells a video's label and method
    np.minimum.at(first, video, rank)
    first %= max(1, len(table))
    return Trials(
        name,
        rule.over_videos(video, table.track, logits, count),
        table.fake[first],
        table.method[first],
        group[first],
        people[first],
    )


def groups_of(table: ScoreTable) -> Groups:
    """Returns the group and the video of each face.

    Faces are of one group if they share a person, or hang together through fakes that show two,
    or through a video that shows several. A video of nobody known is a group by itself.
    """
    video = _codes(table.video)
    people = table.identities.tolist()
    count = int(video.max()) + 1 if len(video) else 0
    pairs = set(zip(video.tolist(), people, strict=True))
    return Groups(group_numbers(video.tolist(), people)[video], video, _people(pairs, count)[video])


def _people(pairs: Iterable[tuple[int, tuple[str, ...]]], count: int) -> Numbers:
    """Returns (V, P) numbers of who is in each video; a video of nobody known is one by itself."""
    of_video: list[dict[str, None]] = [{} for _ in range(count)]
    for number, names in sorted(pairs):
        of_video[number] |= dict.fromkeys(f"p{name}" for name in names if name)
    everybody: dict[str, int] = {}
    most = max((len(names) for names in of_video), default=0)
    people = np.full((count, max(1, most)), -1, dtype=np.int64)
    for number, known in enumerate(of_video):
        for place, name in enumerate(known or [f"v{number}"]):
            people[number, place] = everybody.setdefault(name, len(everybody))
    return people


def development_threshold(trials: Trials) -> float:
    """Returns the threshold of the EER over trials with a verdict.

    Raises:
        UndefinedMetricError: A class is absent.
    """
    if reason := trials.absent():
        raise UndefinedMetricError(f"no threshold for {trials.name}: {reason}")
    own = trials.select(trials.judged)
    return equal_error_rate(tally(own.log_odds, own.fake))[1]


def _verdicts(table: ScoreTable, log_odds: Floats) -> Floats:
    if log_odds.shape != (len(table),):
        raise UsageError(f"{log_odds.shape} log-odds of {len(table)} faces", "one of each face")
    return np.where(judged(table.status), log_odds, NAN)


def _share(mask: Bools) -> float:
    return float(mask.mean()) if len(mask) else NAN


def _codes(names: Strings) -> Numbers:
    """Numbers names from 0 as they come."""
    encoded = pa.array(names.tolist(), pa.string()).dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
