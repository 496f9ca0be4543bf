"""What the page says of each track and frame, ready to be laid out."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image
from torch import Tensor

from deepregions.pipeline.report import pictures, words
from deepregions.pipeline.report.colours import track_colours
from deepregions.pipeline.report.picture import from_pixels, square
from deepregions.pipeline.report.plots import ScoreCurve, Timeline
from deepregions.pipeline.results import Cell, FaceResult, TrackResult
from deepregions.pipeline.top_faces import Evidence, Thumbnail
from deepregions.types import REGIONS, Region

_PORTRAIT = 192  # pixels; shown at half of that, for screens of twice the density
_SIDES = {"min": "at least", "max": "at most"}
_TOLD = 6  # faces whose scores are under a frame's picture


@dataclass(frozen=True)
class HeatMap:
    """Where a network looked on a track's highest face.

    Attributes:
        track: Whose face.
        detector: The network's row, as in :class:`~deepregions.pipeline.results.Cell`.
        region: Its region.
        image: (3, H, W) uint8 RGB, the heat over the face.
        inside: The share of the heat that lies inside the region's mask, if it was measured.
        empty: There is no heat at all: the picture is there to show just that.
        towards: What the heat speaks for, ``"fake"`` or ``"genuine"``.
    """

    track: int
    detector: str
    region: Region
    image: Tensor
    inside: float | None = None
    empty: bool = False
    towards: str = "fake"


@dataclass(frozen=True)
class CellView:
    """A cell of a track's table.

    Attributes:
        log_odds: Over the track; None where there is no answer.
        curve: Its scores over time, in a video.
        answered: In how many faces there is an answer.
        why: Why there is none.
    """

    log_odds: float | None
    curve: ScoreCurve
    answered: int
    why: str


@dataclass(frozen=True)
class TileView:
    """What networks saw of a track's highest face, and the scores that they gave it."""

    region: str
    picture: Markup
    scores: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class MeasureView:
    """A measured quality of a track's faces: of its highest face, and over all."""

    name: str
    top: float | None
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class TrackView:
    """A track."""

    track: TrackResult
    colours: tuple[str, str]
    curve: ScoreCurve
    top: FaceResult | None
    top_place: tuple[float, float]
    portrait: Markup | None
    detectors: tuple[str, ...]
    regions: tuple[str, ...]
    cells: Mapping[tuple[str, str], CellView]
    tiles: tuple[TileView, ...]
    measures: tuple[MeasureView, ...]
    heatmaps: tuple[tuple[HeatMap, Markup], ...]
    shares: Markup | None


@dataclass(frozen=True)
class BoxView:
    """A face's box on a thumbnail, in the thumbnail's pixels."""

    face: FaceResult
    colours: tuple[str, str]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class FrameView:
    """A frame of the strip."""

    thumbnail: Thumbnail
    picture: Markup
    size: tuple[int, int]
    boxes: tuple[BoxView, ...]
    told: tuple[FaceResult, ...]
    text: str


def track_view(
    track: TrackResult,
    faces: Sequence[FaceResult],
    evidence: Evidence | None,
    heatmaps: Iterable[HeatMap],
    shares: Image.Image | None = None,
    *,
    timeline: Timeline,
    tile: int,
) -> TrackView:
    """Puts together what is said of a track.

    Args:
        track: The track.
        faces: Its own, by time.
        evidence: Its highest face.
        heatmaps: Of this track.
        shares: Picture of what its score is made of.
        timeline: The input's.
        tile: Side of the regions' pictures in pixels; 0 for none.
    """
    top = evidence.face if evidence is not None else None
    return TrackView(
        track=track,
        colours=track_colours(track.track),
        curve=timeline.curve(faces, [face.log_odds for face in faces]),
        top=top,
        top_place=timeline.place(top) if top is not None else (0.0, 0.0),
        portrait=pictures.portrait(evidence, _PORTRAIT) if evidence is not None else None,
        detectors=tuple(dict.fromkeys(cell.detector for cell in track.cells)),
        regions=tuple(dict.fromkeys(str(cell.region) for cell in track.cells)),
        cells=_cells(track, faces, timeline),
        tiles=_tiles(evidence, tile) if evidence is not None and tile else (),
        measures=_measures(faces, top),
        heatmaps=tuple((heat, pictures.data_uri(from_pixels(heat.image))) for heat in heatmaps),
        shares=pictures.data_uri(shares, 92) if shares is not None else None,
    )


def _cells(
    track: TrackResult, faces: Sequence[FaceResult], timeline: Timeline
) -> dict[tuple[str, str], CellView]:
    values: dict[tuple[str, str], list[float | None]] = {}
    for face in faces:
        for cell in face.cells:
            values.setdefault((cell.detector, str(cell.region)), []).append(cell.log_odds)
    views = {}
    for cell in track.cells:
        own = values.get((cell.detector, str(cell.region)), [])
        drawn = timeline.curve(faces[: len(own)], own)
        why = "" if cell.log_odds is not None else why_not(cell, track.reasons)
        views[cell.detector, str(cell.region)] = CellView(cell.log_odds, drawn, drawn.count, why)
    return views


def why_not(cell: Cell, reasons: Sequence[str]) -> str:
    """Picks from a track's reasons those that are about a cell, its region's own first."""
    about = {reason: set(re.findall(r"\w+", reason.lower())) & set(REGIONS) for reason in reasons}
    own = [reason for reason, regions in about.items() if cell.region in regions]
    own += [reason for reason, regions in about.items() if not regions]
    return "; ".join(own[:2]) or "the region was not judged"


def _tiles(evidence: Evidence, size: int) -> tuple[TileView, ...]:
    tiles = []
    for crop in evidence.crops:
        said = (crop.score_of(detector, evidence.face.cells) for detector in crop.detectors)
        scores = tuple((cell.detector, cell.log_odds) for cell in said if cell is not None)
        picture = pictures.data_uri(square(crop.image, size))
        tiles.append(TileView(str(crop.region), picture, scores))
    return tuple(tiles)


def _measures(faces: Sequence[FaceResult], top: FaceResult | None) -> tuple[MeasureView, ...]:
    names = dict.fromkeys(name for face in faces for name in face.quality)
    measures = []
    for name in names:
        known = [value for face in faces if (value := face.quality.get(name)) is not None]
        if known:
            shown = top.quality.get(name) if top is not None else None
            measures.append(
                MeasureView(name, shown, min(known), statistics.median(known), max(known))
            )
    return tuple(measures)


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


def frame_view(thumbnail: Thumbnail, faces: Sequence[FaceResult]) -> FrameView:
    """Puts together a picture of the strip.

    Args:
        thumbnail: The frame.
        faces: Those in it.
    """
    with Image.open(io.BytesIO(thumbnail.jpeg)) as picture:
        size = picture.size
    ordered = sorted(faces, key=lambda face: face.track)
    shown = sorted(ordered, key=lambda face: face.log_odds is None)[:_TOLD]
    said = "; ".join(f"{words.who(face.track)} {_verdict(face)}" for face in ordered[:_TOLD])
    more = f"; and {len(ordered) - _TOLD} more" if len(ordered) > _TOLD else ""
    return FrameView(
        thumbnail,
        pictures.data_uri(thumbnail.jpeg),
        size,
        tuple(_box(face, thumbnail.scale) for face in ordered),
        tuple(shown),
        f"Frame at {words.clock(thumbnail.time)}: {said or 'no face'}{more}",
    )


def _verdict(face: FaceResult) -> str:
    if face.log_odds is None:
        return f"not judged, {words.MEANING[face.status]}"
    return f"judged, {words.score(face.log_odds)}"


def _box(face: FaceResult, scale: float) -> BoxView:
    x0, y0, x1, y1 = (round(value * scale, 1) for value in face.box)
    size = (round(max(0.0, x1 - x0), 1), round(max(0.0, y1 - y0), 1))
    return BoxView(face, track_colours(face.track), x0, y0, *size)
