"""From many scores to one: a person's over the frames of a video, a file's over its people.

Both rules are named in every result, since the same scores give other verdicts under others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deepregions.errors import UsageError
from deepregions.people import Numbers
from deepregions.roc import Floats

FrameRule = Literal["mean", "median", "top"]
TrackRule = Literal["highest", "main", "mean"]

_FRAME_RULES: dict[FrameRule, str] = {
    "mean": "mean of log-odds over its faces",
    "median": "median of log-odds over its faces",
    "top": "mean of the highest {:.0%} of log-odds over its faces",
}
_TRACK_RULES: dict[TrackRule, str] = {
    "highest": "highest track",
    "main": "track with the most faces",
    "mean": "mean of log-odds over tracks",
}


@dataclass(frozen=True)
class Pooling:
    """How many scores become one.

    Attributes:
        frames: How the scores of one person's frames become one: mean, median, or top (the mean
            of the highest ones, as FWA scores a video: for forgeries that show in some frames).
        share: The share of frames that top takes, above 0 and at most 1.
        tracks: How the scores of several people become the file's: highest (one manipulated person
            makes a manipulated file), main (the person seen in most frames) or mean.

    Raises:
        UsageError: There is no such rule, or the share is out of range.
    """

    frames: FrameRule = "mean"
    share: float = 1 / 3
    tracks: TrackRule = "highest"

    def __post_init__(self) -> None:
        if self.frames not in _FRAME_RULES:
            raise UsageError(f"no rule {self.frames!r} over frames", "mean, median or top")
        if self.tracks not in _TRACK_RULES:
            raise UsageError(f"no rule {self.tracks!r} over tracks", "highest, main or mean")
        if not 0 < self.share <= 1:
            raise UsageError(f"a share of {self.share}", "above 0 and at most 1")

    @property
    def frame_rule(self) -> str:
        """The rule over a person's frames in words."""
        return _FRAME_RULES[self.frames].format(self.share)

    @property
    def track_rule(self) -> str:
        """The rule over tracks in words."""
        return _TRACK_RULES[self.tracks]

    def over_faces(self, log_odds: Sequence[float]) -> float | None:
        """Returns a track's log-odds, or None where none of its faces has any."""
        if not log_odds:
            return None
        one = np.zeros(len(log_odds), dtype=np.int64)
        return float(self._tracks(one, one, np.array(log_odds, dtype=np.float64))[2][0])

    def over_tracks(self, tracks: Sequence[tuple[int, float | None]]) -> float | None:
        """Returns a file's log-odds, or None where no track has any.

        Of each track it takes how many faces with a score there are, and its log-odds.
        """
        scored = [(faces, value) for faces, value in tracks if value is not None]
        if not scored:
            return None
        size, value = (np.array(column) for column in zip(*scored, strict=True))
        return float(self._videos(np.zeros_like(size), size, value, 1)[0])

    def over_videos(self, video: Numbers, track: Numbers, log_odds: Floats, count: int) -> Floats:
        """Returns the log-odds of V = ``count`` videos at once, NaN where no face of one has any.

        For each of N faces it takes the number of its video, from 0, the track in it, and its
        log-odds.
        """
        there = np.flatnonzero(~np.isnan(log_odds))
        tracks = self._tracks(video[there], track[there], log_odds[there])
        return self._videos(*tracks, count)

    def _tracks(
        self, video: Numbers, track: Numbers, logits: Floats
    ) -> tuple[Numbers, Numbers, Floats]:
        """Returns for each track its video, how many faces it has, and its log-odds."""
        order = np.lexsort((-logits, track, video))
        video, track, logits = video[order], track[order], logits[order]
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = (video[1:] != video[:-1]) | (track[1:] != track[:-1])
        start = np.flatnonzero(fresh)
        size = np.diff(start, append=len(order))
        if self.frames == "median":
            value = (logits[start + (size - 1) // 2] + logits[start + size // 2]) / 2
        else:
            kept = size
            if self.frames == "top":
                kept = np.maximum(1, np.ceil(self.share * size - 1e-9).astype(np.int64))
            unit = np.cumsum(fresh) - 1
            used = np.arange(len(order)) - start[unit] < kept[unit]
            value = np.bincount(unit, logits * used, len(start)) / kept
        return video[start], size, value

    def _videos(self, video: Numbers, size: Numbers, value: Floats, count: int) -> Floats:
        """Returns the log-odds of ``count`` videos; tracks are sorted by video."""
        if self.tracks == "mean":
            number = np.bincount(video, minlength=count)
            with np.errstate(invalid="ignore"):
                return np.asarray(np.bincount(video, value, count) / number, dtype=np.float64)
        # The best of each video is put first, the earlier track of equals; then firsts are taken.
        order = np.lexsort((-value if self.tracks == "highest" else -size, video))
        chosen, place = np.unique(video[order], return_index=True)
        result = np.full(count, np.nan)
        result[chosen] = value[order][place]
        return result


def probability(log_odds: float | None) -> float | None:
    """The score in [0, 1] of log-odds."""
    if log_odds is None:
        return None
    return 0.5 * (1 + math.tanh(0.5 * log_odds))  # the logistic function, safe at any size
