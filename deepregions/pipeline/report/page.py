"""One input as one HTML file that opens offline: nothing in it is fetched from anywhere."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from deepregions import pages
from deepregions.files import atomic_file
from deepregions.fusion.pooling import probability
from deepregions.pipeline import words
from deepregions.pipeline.origin_words import origin_facts
from deepregions.pipeline.report.drawing import data_uri, small_uri, to_picture, track_colours
from deepregions.pipeline.report.timeline import Timeline
from deepregions.types import REGIONS, Region

if TYPE_CHECKING:
    from deepregions.pipeline.explain.compute import CellExplanation
    from deepregions.pipeline.results import FaceResult, Person, Result, Thumbnail

# Beyond these a page would be too long to be read: what is left out is said, and is in the JSON.
_DETAILED = 24  # tracks
_LISTED = 600  # faces
_TOLD = 6  # faces whose scores are under a frame's picture
_FRAMES = 6  # frames that are not folded
_TILE, _SMALL_TILE, _FEW = 200, 112, 6  # pixels, pixels, tracks with the larger ones
_PORTRAIT = 320  # pixels; shown at half of that, for screens of twice the density
_SIDES = {"min": "at least", "max": "at most"}

HeatMaps = Sequence[tuple["CellExplanation", Image.Image]]
"""Where networks looked on one face, each with its picture."""


def write_page(result: Result, path: Path, **parts: Any) -> None:
    """Writes what :func:`render_page` returns; the file appears whole or not at all."""
    text = render_page(result, **parts)
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def render_page(
    result: Result,
    *,
    heatmaps: Mapping[int, HeatMaps] = MappingProxyType({}),
    shares: Mapping[int, Image.Image] = MappingProxyType({}),
    towards: str = "",
) -> str:
    """Returns the report of one input as HTML.

    By track, ``heatmaps`` are where networks looked on its highest face, ``shares`` a picture of
    what its score is made of; heat speaks for ``towards``, ``"fake"`` or ``"genuine"``.
    """
    facts, timeline = result.facts, Timeline(result)
    by_score = sorted(result.people, key=lambda t: (t.log_odds is None, -(t.log_odds or 0.0)))
    detailed = {track.track for track in by_score[:_DETAILED]}
    tile = _TILE if len(result.people) <= _FEW else _SMALL_TILE
    tracks = [
        _track_view(
            result,
            track,
            timeline,
            tile=tile if track.track in detailed else 0,
            heatmaps=heatmaps.get(track.track, ()),
            shares=shares.get(track.track),
        )
        for track in result.people
    ]
    source = result.top_person
    template = environment().get_template("page.html.j2")
    return template.render(
        result=result,
        facts=facts,
        answer=result.answer,
        above=result.above_threshold,
        name=Path(result.input).name or result.input,
        timeline=timeline,
        timed=result.kind == "video" and len({face.time for face in result.faces}) > 1,
        tracks=tracks,
        details=[view for view in tracks if view["track"].track in detailed],
        source=result.source,
        face=next((view["portrait"] for view in tracks if view["track"] is source), None),
        **_frames(result, None if source is None else result.shown.get(source.track)),
        faces=result.faces[:_LISTED],
        limits=facts.get("limits", ""),
        command=pages.command_line(facts.get("command")),
        gates=facts.get("gates") or {},
        networks=_networks(facts.get("models", ())),
        trained_on=_trained_on(facts.get("models", ())),
        towards=towards,
        conclude=partial(words.conclude, facts=facts),
    )


def _frames(result: Result, top: FaceResult | None) -> dict[str, Any]:
    """Chooses the frames to show: the most telling one, some evenly in time, and all others."""
    by_frame: dict[int, list[FaceResult]] = {}
    for face in sorted(result.faces, key=lambda face: face.track):
        by_frame.setdefault(face.frame, []).append(face)
    frames = [(frame, by_frame.get(frame.frame, [])) for frame in result.strip]
    telling = next((each for each in frames if top and each[0].frame == top.frame), None)
    places = {round(n * (len(frames) - 1) / (_FRAMES - 1)) for n in range(_FRAMES)}
    shown = [each for place, each in enumerate(frames) if place in places]
    if len(frames) == 1 and telling and len(result.people) == 1:
        shown = []  # a portrait, which is in the card
    others = [each for place, each in enumerate(frames) if place not in places]
    return {"telling": telling, "frames": shown, "others": others}


def _track_view(
    result: Result,
    track: Person,
    timeline: Timeline,
    *,
    tile: int,
    heatmaps: HeatMaps,
    shares: Image.Image | None,
) -> dict[str, Any]:
    """Puts together what is shown of a track; without a tile's side there are no pictures."""
    own = (face for face in result.faces if face.track == track.track)
    faces = sorted(own, key=lambda face: face.time)
    top = result.shown.get(track.track)
    portrait, x, y = None, 0.0, 0.0
    if top is not None and top.patch is not None:
        x, y = timeline.place(top, top.log_odds)
        portrait = small_uri(to_picture(top.patch.image), _PORTRAIT, 80)
    looks = _looks(top, tile, heatmaps) if tile and top is not None else []
    return {
        "track": track,
        "curve": timeline.curve(faces, [face.log_odds for face in faces]),
        "curves": {
            cell: timeline.curve(faces, [face.cells.get(cell) for face in faces])
            for cell in track.cells
        },
        "top": top,
        "top_place": (round(x, 2), round(y, 2)),
        "portrait": portrait,
        "looks": looks,
        "heated": any(look["heats"] for look in looks),
        "detectors": list(dict.fromkeys(detector for detector, _ in track.cells)),
        "regions": list(dict.fromkeys(region for _, region in track.cells)),
        "measures": _measures(faces, top),
        "shares": None if shares is None else data_uri(shares, 92),
    }


def _looks(top: FaceResult, tile: int, heatmaps: HeatMaps) -> list[dict[str, Any]]:
    """What networks saw of a face's regions, with their scores, and where they looked on it."""
    crops = {} if top.patch is None else top.patch.crops
    return [
        {
            "region": region,
            "crop": data_uri(to_picture(crop, min(tile, crop.shape[0]))),  # browsers enlarge it
            "scores": {row: top.cells[row, region] for row in rows if (row, region) in top.cells},
            "heats": [
                (cell, data_uri(picture))
                for cell, picture in heatmaps
                if cell.region == region and cell.detector in rows
            ],
        }
        for (region, rows), crop in crops.items()
    ]


def _measures(
    faces: Sequence[FaceResult], top: FaceResult | None
) -> list[tuple[str, float | None, float, float, float]]:
    """Quality of a track's faces: name, the highest face's, least, median and most."""
    measures = []
    for name in dict.fromkeys(name for face in faces for name in face.quality):
        known = [value for face in faces if (value := face.quality.get(name)) is not None]
        if known:
            shown = None if top is None else top.quality.get(name)
            measures.append((name, shown, min(known), statistics.median(known), max(known)))
    return measures


def why_not(region: Region, reasons: Sequence[str]) -> str:
    """Picks from a track's reasons those that are about a region, its own first."""
    about = {reason: set(re.findall(r"\w+", reason.lower())) & set(REGIONS) for reason in reasons}
    own = [reason for reason, regions in about.items() if region in regions]
    own += [reason for reason, regions in about.items() if not regions]
    return "; ".join(own[:2]) or "the region was not judged"


def gate(measure: str, gates: Mapping[str, Any]) -> str:
    """Says what gates ask of a measure: those named ``min_MEASURE``, ``max_MEASURE_PART``."""
    told = []
    for name, limit in gates.items():
        side, _, what = name.partition("_")
        if what != measure and not what.startswith(f"{measure}_"):
            continue
        if side in _SIDES and isinstance(limit, int | float):
            part = what.removeprefix(measure).strip("_").replace("_", " ")
            told.append(f"{_SIDES[side]} {limit:g}{f' ({part})' if part else ''}")
    return ", ".join(told)


def _box(face: FaceResult, frame: Thumbnail) -> tuple[float, float, float, float]:
    """Left, top, width and height of a face's box on a thumbnail, in its pixels."""
    x0, y0, x1, y1 = (round(value * frame.scale, 1) for value in face.box)
    return x0, y0, round(max(0.0, x1 - x0), 1), round(max(0.0, y1 - y0), 1)


def _told(faces: Sequence[FaceResult]) -> list[FaceResult]:
    """The faces whose scores are under a frame's picture, those that have one first."""
    return sorted(faces, key=lambda face: face.log_odds is None)[:_TOLD]


def _frame_text(frame: Thumbnail, faces: Sequence[FaceResult]) -> str:
    said = [
        f"{words.who(face.track)} not judged, {words.MEANING[face.status]}"
        if face.log_odds is None
        else f"{words.who(face.track)} judged, {words.score(face.log_odds)}"
        for face in faces[:_TOLD]
    ]
    more = f"; and {len(faces) - _TOLD} more" if len(faces) > _TOLD else ""
    return f"Frame at {words.clock(frame.time)}: {'; '.join(said) or 'no face'}{more}"


def _networks(models: Sequence[Mapping[str, Any]]) -> list[str]:
    regions: dict[tuple[str, str], list[str]] = {}
    for model in models:
        detector, database = str(model.get("detector", "")), str(model.get("database", ""))
        regions.setdefault((detector, database), []).append(str(model.get("region", "")))
    return [
        f"{detector} ({', '.join(own)}), trained on {database}"
        for (detector, database), own in regions.items()
    ]


def _trained_on(models: Sequence[Mapping[str, Any]]) -> list[tuple[Any, list[str]]]:
    found: dict[str, tuple[Any, list[str]]] = {}
    for model in models:
        if model.get("landmarks"):
            what = model["landmarks"]
            found.setdefault(str(what), (what, []))[1].append(str(model.get("name", "")))
    return list(found.values())


def fact(value: Any) -> Markup:
    """Returns a fact as HTML."""
    return _fact(json.dumps(value, default=str))


@lru_cache(64)  # most are the same in every result of a run, and take a third of a page's time
def _fact(text: str) -> Markup:
    common: Any = environment().get_template("common.html.j2").module
    return Markup(common.value(json.loads(text)))  # noqa: S704 - what the template has escaped


@cache
def environment() -> Environment:
    """Returns what renders the templates."""
    environment = pages.environment("deepregions.pipeline.report")
    environment.globals |= {
        "box": _box,
        "clock": words.clock,
        "colours": track_colours,
        "count": words.count,
        "data_uri": data_uri,
        "fact": fact,
        "frame_text": _frame_text,
        "gate": gate,
        "meaning": words.MEANING,
        "odds": words.odds,
        "origin_facts": origin_facts,
        "inside": words.inside,
        "probability": probability,
        "ratio": words.ratio,
        "score": words.score,
        "told": _told,
        "who": words.who,
        "why_not": why_not,
    }
    return environment
