"""One input as one HTML file that opens offline: nothing in it is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from deepregions import pages
from deepregions.files import atomic_file
from deepregions.pipeline.report import words
from deepregions.pipeline.report.plots import Sampled, Timeline, time_axis
from deepregions.pipeline.report.views import HeatMap, TrackView, frame_view, gate, track_view
from deepregions.pipeline.results import FaceResult, InputResult, TrackResult, probability
from deepregions.pipeline.top_faces import Analysis

# Beyond these a page would be too long to be read: what is left out is said, and is in the JSON.
_DETAILED = 24  # tracks
_LISTED = 600  # faces
_TILE, _SMALL_TILE, _FEW = 200, 112, 6  # pixels, pixels, tracks with the larger ones

UNCALIBRATED = "uncalibrated"


def write_page(
    analysis: Analysis,
    facts: Mapping[str, Any],
    path: Path,
    *,
    heatmaps: Sequence[HeatMap] = (),
    shares: Mapping[int, Image.Image] | None = None,
) -> None:
    """Writes the report of one input.

    Args:
        analysis: The input's result and pictures.
        facts: What it was made with, as in :func:`~deepregions.pipeline.results.to_json`.
        path: The HTML file; it appears whole or not at all.
        heatmaps: Where networks looked, if that is known.
        shares: By track, a picture of what the score of its highest face is made of.

    Raises:
        OSError: The file cannot be written.
    """
    text = render_page(analysis, facts, heatmaps=heatmaps, shares=shares)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def render_page(
    analysis: Analysis,
    facts: Mapping[str, Any],
    *,
    heatmaps: Sequence[HeatMap] = (),
    shares: Mapping[int, Image.Image] | None = None,
) -> str:
    """Returns the report of one input as HTML; arguments as of :func:`write_page`."""
    result = analysis.result
    sampled = Sampled(result, (frame.frame for frame in analysis.strip))
    ends = [_duration(result), *(face.time for face in result.faces)]
    timeline = Timeline(time_axis(max(ends)), sampled)
    tracks = _track_views(analysis, heatmaps, shares or {}, timeline)
    by_frame: dict[int, list[FaceResult]] = {}
    for face in result.faces:
        by_frame.setdefault(face.frame, []).append(face)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            result=result,
            facts=facts,
            name=Path(result.input).name or result.input,
            axis=timeline.axis,
            timed=result.kind == "video" and len({face.time for face in result.faces}) > 1,
            tracks=tracks,
            details=_detailed(tracks),
            source=_source(result),
            frames=[frame_view(frame, by_frame.get(frame.frame, ())) for frame in analysis.strip],
            faces=result.faces[:_LISTED],
            calibration=facts.get("calibration") or UNCALIBRATED,
            command=pages.command_line(facts.get("command")),
            gates={name: gate(name, facts.get("gates") or {}) for name in _measures(result)},
            trained_on=_trained_on(facts.get("models", ())),
            judged=sum(face.log_odds is not None for face in result.faces),
        )
    )


def _track_views(
    analysis: Analysis,
    heatmaps: Sequence[HeatMap],
    shares: Mapping[int, Image.Image],
    timeline: Timeline,
) -> list[TrackView]:
    result = analysis.result
    evidence = {each.face.track: each for each in analysis.evidence}
    faces: dict[int, list[FaceResult]] = {}
    for face in sorted(result.faces, key=lambda face: face.time):
        faces.setdefault(face.track, []).append(face)
    chosen = {track.track for track in _by_score(result.tracks)[:_DETAILED]}
    tile = _TILE if len(result.tracks) <= _FEW else _SMALL_TILE
    return [
        track_view(
            track,
            faces.get(track.track, ()),
            evidence.get(track.track),
            [heat for heat in heatmaps if heat.track == track.track],
            shares.get(track.track),
            timeline=timeline,
            tile=tile if track.track in chosen else 0,
        )
        for track in result.tracks
    ]


def _by_score(tracks: Sequence[TrackResult]) -> list[TrackResult]:
    """The highest first; those without a score last."""
    return sorted(tracks, key=lambda track: (track.log_odds is None, -(track.log_odds or 0.0)))


def _detailed(tracks: Sequence[TrackView]) -> list[TrackView]:
    chosen = {track.track for track in _by_score([view.track for view in tracks])[:_DETAILED]}
    return [view for view in tracks if view.track.track in chosen]


def _source(result: InputResult) -> TrackResult | None:
    """The track whose score is the input's, if the rule takes one track's."""
    if result.log_odds is None:
        return None
    return next((track for track in result.tracks if track.log_odds == result.log_odds), None)


def _duration(result: InputResult) -> float:
    duration = result.media.get("duration")
    return float(duration) if isinstance(duration, int | float) else 0.0


def _measures(result: InputResult) -> list[str]:
    return list(dict.fromkeys(name for face in result.faces for name in face.quality))


def _trained_on(models: Sequence[Mapping[str, Any]]) -> list[tuple[Any, list[str]]]:
    """The landmark backends that networks were trained with, and which networks."""
    found: dict[str, tuple[Any, list[str]]] = {}
    for model in models:
        if model.get("landmarks"):
            what = model["landmarks"]
            found.setdefault(str(what), (what, []))[1].append(str(model.get("name", "")))
    return list(found.values())


@cache
def environment() -> Environment:
    """What renders the templates."""
    environment = pages.environment("deepregions.pipeline.report")
    environment.globals |= {
        "probability": probability,
        "score": words.score,
        "odds": words.odds,
        "clock": words.clock,
        "count": words.count,
        "meaning": words.MEANING,
        "who": words.who,
        "conclusion": words.conclusion,
        "people": words.people,
    }
    return environment
