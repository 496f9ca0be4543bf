"""What a reader of a score should know of how it came about."""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from deepregions.pipeline.results import Result
from deepregions.pipeline.words import who
from deepregions.types import Status
from deepregions.weights.manifest import Degradation

FEW = 0.2
"""Share of the frames below which a video's highest person counts as hardly seen: a face on a
poster, or what was taken for a face, has a few frames."""


LEAST_INSIDE = 0.97
"""Share of a face inside the picture below which its score is doubtful (docs/faces.md)."""

_CLEAR = math.log(9)  # log-odds of a frame that looks fake, or genuine, by itself: .9, or .1
_BOTH = 0.2  # share of a person's frames that must look like each, and be _FRAMES at least
_FRAMES = 3

_LIKE_MEASURED = 1.5  # a JPEG's quality says little of faces this many times as wide as measured

_WORDS = {
    "size": ("faces of this size (about {:.0f} pixels wide)", "size"),
    "blur": ("faces as blurred as this one (sharpness {:.2f})", "sharpness"),
    "jpeg": ("faces compressed as in this file (JPEG quality about {:.0f})", ""),
}


def warnings_of(result: Result, degradation: Sequence[Degradation] = ()) -> Iterator[str]:
    """Yields short sentences without a full stop, the gravest first."""
    lost = sum(face.status is Status.ERROR for face in result.faces)
    if lost and result.status is not Status.ERROR:
        yield f"the networks' answers on {lost} of {len(result.faces)} faces are not finite numbers"
    top = result.top_person
    if top is not None and result.kind == "video" and top.scored < FEW * result.frames:
        yield (
            f"the score rests on {top.scored} of {result.frames} frames: check that it really is "
            "a face"
        )
    scored = sum(track.log_odds is not None for track in result.people)
    if result.evidence is not None and scored > 1 and result.rule == "highest track":
        yield (
            f"the likelihood ratio is of one of {scored} people: the highest of many is higher by "
            "chance alone"
        )
    yield from _divided(result)
    yield from _cut_off(result)
    yield from _degraded(result, degradation)
    yield from _unjudged(result)
    yield from _silent(result)
    if result.sampling.get("limited"):
        yield f"the video is longer than the frames asked for cover: {result.frames} were taken"
    yield from map(str, result.media.get("notes", ()))


def _unjudged(result: Result) -> Iterator[str]:
    """Faces that were found and have no score, in an input that has one."""
    unjudged = [face for face in result.faces if face.log_odds is None]
    if unjudged and result.log_odds is not None:
        reasons = Counter(reason for face in unjudged for reason in face.reasons)
        most = reasons.most_common(1)
        why = f", most often: {most[0][0]}" if most else ""
        yield f"{len(unjudged)} of {len(result.faces)} faces were not judged{why}"


def _divided(result: Result) -> Iterator[str]:
    """People whose frames clearly disagree, which a mean hides: part of a video may be genuine."""
    for person in result.people if result.kind == "video" else ():
        own = [face.log_odds for face in result.faces if face.track == person.track]
        scores = [score for score in own if score is not None]
        fake, genuine = (sum(way * score >= _CLEAR for score in scores) for way in (1, -1))
        if min(fake, genuine) >= max(_FRAMES, _BOTH * len(scores)):
            whose = f" of {who(person.track)}" if len(result.people) > 1 else ""
            yield (
                f"{fake} of {len(scores)} frames{whose} look fake by themselves, and {genuine} "
                "genuine: perhaps a part of the video is manipulated (--pool.frames top scores "
                "the highest frames)"
            )


def _typical(result: Result, name: str) -> float | None:
    """The median of a measure over the scored faces of the person who gives the score."""
    top = result.top_person
    faces = [f for f in result.faces if top and f.track == top.track and f.log_odds is not None]
    known = [value for face in faces if (value := face.quality.get(name)) is not None]
    return statistics.median(known) if known else None


def _cut_off(result: Result) -> Iterator[str]:
    inside = _typical(result, "inside")
    if inside is not None and inside < LEAST_INSIDE:
        yield (
            f"the picture's edge cuts off {1 - inside:.0%} of the face: such scores are less "
            "reliable, and often too high"
        )


def _degraded(result: Result, degradation: Sequence[Degradation]) -> Iterator[str]:
    """Says where on the networks' curves this face is, if they are worse there: the worst of it."""
    plain = next((each for each in degradation if not each.alteration), None)
    width = _typical(result, "size")
    if plain is None or width is None:
        return
    found = []
    for kind, (words, quality) in _WORDS.items():
        value = _typical(result, quality) if quality else result.media.get("jpeg_quality")
        if value is None or (kind == "jpeg" and width > _LIKE_MEASURED * (plain.measure or 0)):
            continue
        there = [d for d in degradation if d.alteration == kind and value <= (d.measure or 0)]
        worse = [d for d in there if d.worse]
        if worse:
            found.append((min(worse, key=lambda d: d.measure or 0), words.format(value)))
    if found:
        worst, words = max(found, key=lambda each: (_alarms(each[0]), -each[0].auc))
        yield f"{words}: {_change(plain, worst)}"


def _alarms(point: Degradation) -> float:
    return point.false_positive_rate or 0.0


def _change(plain: Degradation, worse: Degradation) -> str:
    before, after = (f"{each.auc:.2f}".lstrip("0") for each in (plain, worse))
    areas = f"AUC {before} to {after}"
    before, after = (f"{100 * _alarms(each):.2g} %" for each in (plain, worse))
    if None in (plain.false_positive_rate, worse.false_positive_rate) or before == after:
        return f"these networks tell fakes from genuine ones less well ({areas})"
    way = "rise" if _alarms(worse) > _alarms(plain) else "fall"
    return f"these networks' false alarms {way} from {before} to {after} ({areas})"


def _silent(result: Result) -> Iterator[str]:
    """Networks that had nothing to say of the person who gives the score."""
    top = result.top_person
    cells = top.cells.items() if top is not None else ()
    silent = dict.fromkeys(str(region) for (_, region), log_odds in cells if log_odds is None)
    if silent:
        yield f"no answer on {', '.join(silent)}: the score is of the other regions"
        if result.evidence is not None:
            yield "few of the calibration's faces may have lacked these, so it may not hold here"
