"""What a reader of a score should know of how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from deepregions.pipeline.results import Result
from deepregions.types import Status

FEW = 0.2
"""Share of the frames below which a video's highest person counts as hardly seen: a face on a
poster, or what was taken for a face, has a few frames."""


def warnings_of(result: Result) -> Iterator[str]:
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
    if result.evidence is not None and scored > 1:
        yield (
            f"the likelihood ratio is of one of {scored} people: the highest of many is higher by "
            "chance alone"
        )
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


def _silent(result: Result) -> Iterator[str]:
    """Networks that had nothing to say of the person who gives the score."""
    top = result.top_person
    cells = top.cells.items() if top is not None else ()
    silent = dict.fromkeys(str(region) for (_, region), log_odds in cells if log_odds is None)
    if silent:
        yield f"no answer on {', '.join(silent)}: the score is of the other regions"
        if result.evidence is not None:
            yield "few of the calibration's faces may have lacked these, so it may not hold here"
