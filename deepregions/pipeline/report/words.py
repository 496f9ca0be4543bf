"""How numbers, times and names are written for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepregions.fusion.calibration import LikelihoodRatio
from deepregions.fusion.pooling import probability
from deepregions.types import Status

if TYPE_CHECKING:
    from deepregions.pipeline.results import Person, Result

MEANING = {
    Status.OK: "scored",
    Status.NO_FACE: "no face found",
    Status.TOO_SMALL: "face too small",
    Status.LOW_QUALITY: "not good enough to be judged",
    Status.UNREADABLE: "cannot be opened",
    Status.UNSUPPORTED: "a kind of file that is not opened",
    Status.ERROR: "the networks' answers are not finite numbers",
}
"""Statuses for people; JSON and tables have the codes."""


def who(track: int) -> str:
    """What people call a track, whose numbers begin at 0: ``person 1``."""
    return f"person {track + 1}"


def conclusion(result: Result) -> str:
    """Says what came of an input, in one sentence: the same wherever a result is shown."""
    if result.log_odds is None:
        return f"Not scored: {result.reason or MEANING[result.status]}"
    if result.evidence is not None:
        return _evidence(result.evidence)
    value = probability(result.log_odds)
    return f"Score {value:.2f} (uncalibrated: 0 looks genuine, 1 looks fake)"


def _evidence(ratio: LikelihoodRatio) -> str:
    word, _, side = ratio.verbal.partition(" support for ")
    if side not in {"manipulated", "genuine"}:
        return "No conclusion: such a score is about as likely for a fake as for a genuine face"
    for_fake = side == "manipulated"
    times = 10 ** abs(ratio.log10)
    shown = f"{times:.1f}" if times < 3 else f"{float(f'{times:.2g}'):,.0f}"
    what = "of manipulation" if for_fake else "that the face is genuine"
    kinds = ("a fake", "a genuine face") if for_fake else ("a genuine face", "a fake")
    most = " (the most that this calibration can support)" if ratio.limited else ""
    return (
        f"{word.capitalize()} evidence {what}: such a score is about {shown} times as likely "
        f"for {kinds[0]} as for {kinds[1]}{most}"
    )


def source(result: Result) -> Person | None:
    """Returns the track whose score is the input's, if the rule takes one track's."""
    if result.log_odds is None:
        return None
    return next((track for track in result.people if track.log_odds == result.log_odds), None)


def people(result: Result) -> str:
    """Says how many people there are and whose score it is; nothing where there is none."""
    if result.log_odds is None:
        return ""
    found, track = len(result.people), source(result)
    if track is None:
        return f"{found} people found. This is their mean score."
    if found == 1:
        if result.kind != "video":
            return "One person found."
        over = f"{track.rule} ({count(track.scored, 'frame')})"
        if track.rule.startswith("mean of log-odds"):
            over = f"averaged over {count(track.scored, 'frame')}"
        return f"One person found. Score: {over}."
    rule = {
        "highest track": "the highest score",
        "track with the most faces": "that of the one with the most faces",
    }
    what = rule.get(result.rule, result.rule)
    return f"{found} people found. This is {what}, {who(track.track)}'s."


def score(log_odds: float | None) -> str:
    """A score in [0, 1] to three places, or that there is none."""
    value = probability(log_odds)
    return "no answer" if value is None else f"{value:.3f}"


def odds(log_odds: float) -> str:
    """Log-odds with their sign, to two places; what rounds to nothing has none."""
    rounded = round(log_odds, 2)
    return f"{rounded:+.2f}" if rounded else "0.00"


def clock(seconds: float) -> str:
    """A time in a video: ``3.20 s``, from a minute on ``1:03.20``."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest:05.2f}"


def count(number: int, what: str) -> str:
    """``1 face``, ``2 faces``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
