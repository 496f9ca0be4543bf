"""From many scores to one: a person's over the frames of a video, a file's over its people.

Both rules are named in every result, since the same scores give other verdicts under others.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deepregions.errors import UsageError

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Level = Literal["frame", "video"]
FrameRule = Literal["mean", "median", "top"]
TrackRule = Literal["highest", "main", "mean"]

_FRAME_RULES = {
    "mean": "mean of log-odds over its faces",
    "median": "median of log-odds over its faces",
}
_TRACK_RULES = {
    "highest": "highest track",
    "main": "track with the most faces",
    "mean": "mean of log-odds over tracks",
}


@dataclass(frozen=True)
class Pooling:
    """How many scores become one.

    Attributes:
        frames: Over the frames of a person (a track). ``mean``: each frame counts the same.
            ``median``: a few frames do not decide. ``top``: the mean of the highest share, as FWA
            scores a video (yuezunli/CVPRW2019_Face_Artifacts: the top third of its frames), for
            forgeries that show in some frames only.
        top_share: The share of frames that ``top`` takes, above 0 and at most 1.
        tracks: Over the people of a file. ``highest``: one manipulated person makes a manipulated
            file. ``main``: the person seen in most frames, the earliest of equals. ``mean``: each
            person counts the same.

    Raises:
        UsageError: There is no such rule, or the share is out of range.
    """

    frames: FrameRule = "mean"
    top_share: float = 1 / 3
    tracks: TrackRule = "highest"

    def __post_init__(self) -> None:
        if self.frames not in (*_FRAME_RULES, "top"):
            raise UsageError(f"no rule {self.frames!r} over frames", "mean, median or top")
        if self.tracks not in _TRACK_RULES:
            raise UsageError(f"no rule {self.tracks!r} over tracks", "highest, main or mean")
        if not 0 < self.top_share <= 1:
            raise UsageError(f"a share of {self.top_share}", "above 0 and at most 1")

    @property
    def frame_rule(self) -> str:
        """The rule over a person's frames in words."""
        top = f"mean of the highest {self.top_share:.0%} of log-odds over its faces"
        return _FRAME_RULES.get(self.frames, top)

    @property
    def track_rule(self) -> str:
        """The rule over tracks in words."""
        return _TRACK_RULES[self.tracks]

    def over_faces(self, log_odds: Sequence[float]) -> float | None:
        """Returns a track's log-odds, or None where none of its faces has any."""
        if not log_odds:
            return None
        if self.frames == "median":
            return statistics.median(log_odds)
        kept = sorted(log_odds, reverse=True)
        if self.frames == "top":
            kept = kept[: max(1, math.ceil(self.top_share * len(kept) - 1e-9))]
        return math.fsum(kept) / len(kept)

    def over_tracks(self, tracks: Sequence[tuple[int, float | None]]) -> float | None:
        """Returns a file's log-odds, or None where no track has any.

        Args:
            tracks: For each track how many faces with a score it has, and its log-odds.
        """
        scored = [(faces, value) for faces, value in tracks if value is not None]
        if not scored:
            return None
        if self.tracks == "main":
            return max(scored, key=lambda track: track[0])[1]
        values = [value for _, value in scored]
        return max(values) if self.tracks == "highest" else math.fsum(values) / len(values)

    def over_videos(self, video: Numbers, track: Numbers, log_odds: Floats, count: int) -> Floats:
        """Returns what :meth:`over_faces` and :meth:`over_tracks` make of many videos at once.

        Args:
            video: (N,) of each face the number of its video, from 0.
            track: (N,) its track in the video.
            log_odds: (N,) float64, NaN for none.
            count: How many videos there are, V.

        Returns:
            (V,) log-odds, NaN where no face of a video has any.
        """
        there = np.flatnonzero(~np.isnan(log_odds))
        tracks = self._tracks(video[there], track[there], log_odds[there])
        return self._videos(*tracks, count)

    def _tracks(
        self, video: Numbers, track: Numbers, logits: Floats
    ) -> tuple[Numbers, Numbers, Floats]:
        """Returns of each track its video, how many faces it has, and its log-odds."""
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
                kept = np.maximum(1, np.ceil(self.top_share * size - 1e-9).astype(np.int64))
            unit = np.cumsum(fresh) - 1
            used = np.arange(len(order)) - start[unit] < kept[unit]
            value = np.bincount(unit, logits * used, len(start)) / kept
        return video[start], size, value

    def _videos(self, video: Numbers, size: Numbers, value: Floats, count: int) -> Floats:
        """Returns the log-odds of each of ``count`` videos; tracks are sorted by video."""
        result = np.full(count, np.nan)
        if self.tracks == "mean":
            number = np.bincount(video, minlength=count)
            with np.errstate(invalid="ignore"):
                return np.asarray(np.bincount(video, value, count) / number, dtype=np.float64)
        # The best of each video is put first, the earlier track of equals; then firsts are taken.
        order = np.lexsort((-value if self.tracks == "highest" else -size, video))
        chosen, place = np.unique(video[order], return_index=True)
        result[chosen] = value[order][place]
        return result
