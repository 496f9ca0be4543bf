"""What a result says in words, and how its numbers, times and names are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deepregions.fusion.calibration import LikelihoodRatio
from deepregions.fusion.pooling import probability
from deepregions.types import Status

if TYPE_CHECKING:
    from deepregions.pipeline.explain.compute import CellExplanation
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

_LISTED = 4  # methods of a calibration


@dataclass(frozen=True)
class Answer:
    """What a result says: the same texts wherever it is shown, in this order; some may be empty."""

    conclusion: str  # what follows from it, or why nothing does
    ratio: str = ""  # the likelihood ratio, and the bounds that the calibration supports
    threshold: str = ""  # on which side of the chosen threshold it is
    error_rates: str = ""  # how often that threshold errs
    judged: str = ""  # who was found, whose score it is, and how much of the file was judged
    holds_for: str = ""  # what material this was measured on
    score: str = ""

    @property
    def details(self) -> list[str]:
        """What there is beside the conclusion."""
        return [each for each in list(asdict(self).values())[1:] if each]


def answer(result: Result) -> Answer:
    """Returns what an input's result says."""
    calibrated, facts = result.evidence, result.facts
    return Answer(
        conclude(result, facts),
        "" if calibrated is None else ratio(calibrated),
        threshold(result.above_threshold, facts.get("operating_point")),
        "" if result.above_threshold is None else _reached(facts["operating_point"]),
        _judged(result),
        "" if calibrated is None else _holds_for(facts.get("calibration")),
        _score(result),
    )


def conclude(result: Result | Person, facts: Mapping[str, Any]) -> str:
    """Says in one sentence what follows from an input's or a person's scores."""
    if result.log_odds is None:
        path, reason = getattr(result, "input", ""), getattr(result, "reason", "")
        return f"Not scored: {reason.removeprefix(f'{path}: ') or MEANING[result.status]}"
    if result.evidence is not None:
        return _strength(result.evidence)
    one = len(facts.get("models", ())) == 1
    measured = "this network's scores" if one else "the scores of these networks together"
    return (
        f"No conclusion possible: {facts.get('uncalibrated') or f'{measured} were never measured'}"
    )


def _strength(ratio: LikelihoodRatio) -> str:
    word, _, side = ratio.verbal.partition(" support for ")
    if side not in {"manipulated", "genuine"}:
        return "No conclusion: such a score is about as likely for a fake as for a genuine face"
    what, kinds = "of manipulation", ("a fake", "a genuine face")
    if side == "genuine":
        what, kinds = "that the face is genuine", ("a genuine face", "a fake")
    most = " (the most that this calibration can support)" if ratio.limited else ""
    return (
        f"{word.capitalize()} evidence {what}: such a score is about {_times(abs(ratio.log10))} "
        f"times as likely for {kinds[0]} as for {kinds[1]}{most}"
    )


def ratio(llr: LikelihoodRatio) -> str:
    """A likelihood ratio and its bounds: ``Likelihood ratio 1/10 (log10 -0.99), ...``."""
    low, high = (_fraction(bound) for bound in llr.bounds_log10)
    return (
        f"Likelihood ratio {_fraction(llr.log10)} (log10 {odds(llr.log10)}), which is evidence, "
        f"not the probability of a fake; this calibration supports {low} to {high}"
    )


def _times(log10: float) -> str:
    value = 10**log10
    return f"{value:.1f}" if value < 3 else f"{float(f'{value:.2g}'):,.0f}"


def _fraction(log10: float) -> str:
    return _times(log10) if log10 >= 0 else f"1/{_times(-log10)}"


def threshold(above: bool | None, point: Mapping[str, Any] | None) -> str:
    """Says on which side of a threshold a score is, if there are both."""
    if above is None or point is None:
        return ""
    return f"{'At or above' if above else 'Below'} the threshold for {point['name']}"


def error_rates(point: Mapping[str, Any]) -> str:
    """Says how many genuine faces and how many fakes reached a threshold."""
    interval, fakes = point["false_positive_interval"], point["true_positive_rate"]
    within = "too few for an interval"
    if interval is not None:
        within = "95 % interval {} to {} %".format(*(_percent(each) for each in interval))
    told = f"{_percent(point['false_positive_rate'] or 0)} % of genuine faces "
    told += f"({within}; {count(point['people'], 'person', 'people')})"
    return told + ("" if fakes is None else f" and {_percent(fakes)} % of fakes")


def _reached(point: Mapping[str, Any]) -> str:
    told = error_rates(point)
    return f"The threshold for {point['name']} was reached by {told} in {point['found_on']}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _holds_for(calibration: Any) -> str:
    if not isinstance(calibration, Mapping):
        return ""
    names = sorted(calibration["methods"])
    made = ", ".join(names[:_LISTED])
    made += f" and {len(names) - _LISTED} other methods" if len(names) > _LISTED else ""
    named = "" if names in ([], [calibration["database"]]) else f", made by {made}"
    return (
        f"Holds only for material like the calibration set: {calibration['database']} "
        f"({calibration['genuine']:,} genuine and {calibration['fake']:,} fake files{named})"
    )


def _judged(result: Result) -> str:
    if not result.frames:
        return ""
    judged, found = sum(face.log_odds is not None for face in result.faces), len(result.faces)
    share = f"{judged:,} of {count(found, 'face')}" if judged < found else count(judged, "face")
    frames = f", in {count(result.frames, 'frame')}" if result.kind == "video" else ""
    told = f"{share} judged{frames}." if found else ""
    return " ".join(part for part in (people(result), told) if part)


def _score(result: Result) -> str:
    if result.log_odds is None:
        return ""
    scale = "0 looks genuine, 1 looks fake"
    scale = scale if result.evidence is not None else f"uncalibrated: {scale}"
    return f"Score {score(result.log_odds, 2)} ({scale})"


def inside(cell: CellExplanation) -> str:
    """Says how much of a network's heat is on its region, and how much of what it saw that is."""
    if cell.inside is None:
        return "no heat"
    return (
        f"{100 * cell.inside:.0f} % of the heat falls on the region, which covers "
        f"{100 * cell.area:.0f} % of what it saw"
    )


def who(track: int) -> str:
    """What people call a track, whose numbers begin at 0: ``person 1``."""
    return f"person {track + 1}"


def people(result: Result) -> str:
    """Says how many people there are and whose score it is; nothing where there is none."""
    if result.log_odds is None:
        return ""
    found, track = len(result.people), result.source
    if track is None:
        return f"{found} people found. This is their mean score."
    if found == 1:
        if result.kind != "video":
            return "One person found."
        over = f": {track.rule} ({count(track.scored, 'frame')})"
        if track.rule.startswith("mean of log-odds"):
            over = f" averaged over {count(track.scored, 'frame')}"
        return f"One person found. Score{over}."
    rule = {
        "highest track": "the highest score",
        "track with the most faces": "that of the one with the most faces",
    }
    what = rule.get(result.rule, result.rule)
    return f"{found} people found. This is {what}, {who(track.track)}'s."


def score(log_odds: float | None, digits: int = 3) -> str:
    """A score in [0, 1], or that there is none."""
    value = probability(log_odds)
    return "no answer" if value is None else f"{value:.{digits}f}"


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


def count(number: int, what: str, several: str = "") -> str:
    """``1 face``, ``2 faces``."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"
