"""How numbers, times and names are written for people."""

from __future__ import annotations

from deepregions.pipeline.results import probability
from deepregions.types import Status

MEANING = {
    Status.OK: "judged",
    Status.NO_FACE: "no face was found",
    Status.TOO_SMALL: "too small to be judged",
    Status.LOW_QUALITY: "not good enough to be judged",
    Status.UNREADABLE: "the file cannot be read",
    Status.UNSUPPORTED: "a kind of file that is not opened",
    Status.ERROR: "the networks' answers are not finite numbers",
}


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
