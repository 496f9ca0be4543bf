"""Trials: the faces or videos that a system judges, with its score of each and who it shows.

A trial without a score stays, as NaN: measures are over the trials with one, and the share of
those (the coverage) stands beside every figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import ScoreTable, Strings, judged
from deepregions.people import Numbers, group_numbers, person_numbers
from deepregions.roc import NAN, Bools, Floats, equal_error_rate, tally
from deepregions.types import Level


@dataclass(frozen=True, eq=False)
class Trials:
    """N faces or videos of a database with the verdicts of one system.

    Attributes:
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
        return float(self.judged.mean()) if len(self) else NAN

    @property
    def methods(self) -> tuple[str, ...]:
        """How fakes were made, sorted, whether judged or not."""
        return tuple(sorted(set(self.method[self.fake].tolist())))

    def select(self, rows: npt.NDArray[Any]) -> Trials:
        """Returns some trials: ``rows`` are numbers or a mask."""
        columns = ("log_odds", "fake", "method", "group")
        chosen = {name: getattr(self, name)[rows] for name in columns}
        return replace(self, people=None if self.people is None else self.people[rows], **chosen)

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
    """Which faces belong together; all are numbered from 0 as they come."""

    group: Numbers
    """(N,) int64, equal for faces that share people, directly or through others."""
    video: Numbers
    """(N,) int64, equal for faces of one photo or video."""
    people: Numbers
    """(N, P) int64, who is in the photo or video of each, -1 in places that are left."""


def trials_of(
    table: ScoreTable,
    log_odds: Floats,
    level: Level = "video",
    pooling: Pooling | None = None,
    groups: Groups | None = None,
) -> Trials:
    """Returns a trial for each face, or for each photo or video in the order in which they come.

    A video is a fake if any of its faces is, and its method is that of the first of these. A face
    whose status is not ``ok`` has no verdict, whatever its log-odds (N,). ``groups`` are those of
    the table, if they are known already.
    """
    if log_odds.shape != (len(table),):
        raise UsageError(f"{log_odds.shape} log-odds of {len(table)} faces", "one of each face")
    logits = np.where(judged(table.status), log_odds, NAN)
    group, video, people = groups or groups_of(table)
    if level == "frame":
        return Trials("", logits, table.fake, table.method, group, people)
    count = int(video.max(initial=-1)) + 1
    rank = np.arange(len(table)) + np.where(table.fake, 0, len(table))
    first = np.full(count, 2 * len(table))  # the face that tells a video's label and method
    np.minimum.at(first, video, rank)
    first %= max(1, len(table))
    pooled = (pooling or Pooling()).over_videos(video, table.track, logits, count)
    return Trials("", pooled, table.fake[first], table.method[first], group[first], people[first])


def groups_of(table: ScoreTable) -> Groups:
    """Returns the group, the video and the people of each face.

    Faces are of one group if they share a person, or hang together through fakes that show two,
    or through a video that shows several. A video of nobody known is a group by itself.
    """
    names, people = table.video.tolist(), table.identities.tolist()
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    video = np.array([number[name] for name in names], dtype=np.int64)
    group = group_numbers(video.tolist(), people)
    return Groups(group[video], video, person_numbers(video.tolist(), people)[video])


def development_threshold(trials: Trials) -> float:
    """Returns the threshold of the EER over trials with a verdict.

    Raises:
        UndefinedMetricError: A class is absent.
    """
    if reason := trials.absent():
        raise UndefinedMetricError(f"no threshold for {trials.name}: {reason}")
    own = trials.select(trials.judged)
    return equal_error_rate(tally(own.log_odds, own.fake))[1]
