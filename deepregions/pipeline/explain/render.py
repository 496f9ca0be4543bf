"""The pictures of an explanation: where networks looked, and what the fused score is made of."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from deepregions.errors import printable
from deepregions.faces.regions import context_box
from deepregions.files import atomic_folder
from deepregions.pipeline.explain.compute import CellExplanation, FaceExplanation, to_json
from deepregions.pipeline.explain.overlay import legend, overlay, tile
from deepregions.pipeline.report import HeatMap, write_page
from deepregions.pipeline.report.picture import centred, fitting, font, from_pixels
from deepregions.pipeline.report.words import who
from deepregions.pipeline.results import InputResult, probability
from deepregions.pipeline.top_faces import Analysis

PAGE, FACTS = "explain.html", "explain.json"

_TILE, _GAP, _LINE, _LABELS = 200, 12, 22, 130
_HEAD, _FOOT = 92, 52
_INK, _FAINT, _PAPER, _MISSING = (32, 33, 36), (110, 114, 120), (255, 255, 255), (238, 239, 241)
_FAKE, _GENUINE = "#c8323c", "#268b57"
_SPEAKS = {"fake": "speaks for fake", "genuine": "speaks for genuine"}
_ON_PAGE = 256  # pixels of a heat-map's longer side


def write_explanation(
    analysis: Analysis,
    faces: Sequence[FaceExplanation],
    facts: Mapping[str, Any],
    folder: Path,
) -> None:
    """Writes all that is to be seen and read of one input; the folder appears whole or not at all.

    In it: :data:`PAGE`, :data:`FACTS`, and of each track with a score ``track-N.png``, where the
    networks looked, and ``track-N-shares.png``, what they add.

    Args:
        analysis: What came of the input.
        faces: The explanation of each track's highest face.
        facts: What it was made with.
        folder: It is replaced if it is there.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_folder(folder) as partial:
        shares = {}
        for each in faces:
            track = each.evidence.face.track
            draw_heat(analysis.result, each).save(partial / f"track-{track}.png")
            shares[track] = draw_shares(each)
            shares[track].save(partial / f"track-{track}-shares.png")
        heatmaps = [heat for each in faces for heat in heatmaps_of(each)]
        write_page(analysis, facts, partial / PAGE, heatmaps=heatmaps, shares=shares)
        text = json.dumps(to_json(analysis.result, faces, facts), indent=1, allow_nan=False)
        (partial / FACTS).write_text(f"{text}\n", encoding="utf-8")


def draw_heat(result: InputResult, explanation: FaceExplanation) -> Image.Image:
    """Draws where each network looked on a face, as the paper shows it (section 5, Grad-CAM).

    Args:
        result: What came of the input.
        explanation: The face.

    Returns:
        An RGB picture: a row per detector, a column per region; each crop in grey, its heat over
        it in colours from 0 to its own highest, and below it the score and the energy inside.
    """
    columns = list(dict.fromkeys(cell.region for cell in explanation.cells))
    rows = list(dict.fromkeys(cell.detector for cell in explanation.cells))
    cells = {(cell.detector, cell.region): cell for cell in explanation.cells}
    width = _LABELS + max(len(columns), 3) * (_TILE + _GAP) + _GAP
    height = _HEAD + len(rows) * (_TILE + 2 * _LINE + _GAP) + _FOOT
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_head(draw, result, explanation, width)
    for column, region in enumerate(columns):
        centred(draw, _LABELS + column * (_TILE + _GAP), _HEAD - 24, region, _INK, bold=True)
    for row, detector in enumerate(rows):
        y = _HEAD + row * (_TILE + 2 * _LINE + _GAP)
        for line, part in enumerate(detector.split(".", maxsplit=1)):  # its database below it
            name = fitting(draw, printable(part), _LABELS - 2 * _GAP)
            draw.text((_GAP, y + _TILE // 2 - 10 + line * _LINE), name, _INK, font(16))
        for column, region in enumerate(columns):
            x = _LABELS + column * (_TILE + _GAP)
            _draw_cell(picture, draw, cells.get((detector, region)), x, y)
    _draw_legend(picture, draw, explanation, height - _FOOT + 8)
    return picture


def _draw_head(
    draw: ImageDraw.ImageDraw, result: InputResult, explanation: FaceExplanation, width: int
) -> None:
    face = explanation.evidence.face
    score = probability(face.log_odds)
    if score is not None:
        said = f"Score of this face {score:.2f} (0 looks genuine, 1 looks fake)"
        draw.text((_GAP, 8), said, _INK, font(20))
    where = f", {face.time:.1f} s" if result.kind == "video" else ""
    name = f"{printable(Path(result.input).name)}{where}, {who(face.track)}"
    draw.text((_GAP, 36), fitting(draw, name, width - 2 * _GAP), _INK, font(16))


def _draw_cell(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    cell: CellExplanation | None,
    x: int,
    y: int,
) -> None:
    if cell is None or cell.heat is None:
        draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), _MISSING)
        said = "no network" if cell is None else "no answer"
        centred(draw, x, y + _TILE // 2 - 10, said, _FAINT)
        return
    picture.paste(from_pixels(tile(cell.crop, cell.heat, cell.mask, _TILE)), (x, y))
    score = probability(cell.log_odds)
    if score is not None:
        centred(draw, x, y + _TILE + 2, f"{score:.3f}", _INK, bold=True)
    centred(draw, x, y + _TILE + _LINE, inside_words(cell), _FAINT)


def inside_words(cell: CellExplanation) -> str:
    """Says how much of a cell's heat is inside its region, and how much of the crop that is."""
    if cell.inside is None:
        return "no heat"
    return f"{100 * cell.inside:.0f} % on {100 * cell.area:.0f} %"


def _draw_legend(
    picture: Image.Image, draw: ImageDraw.ImageDraw, explanation: FaceExplanation, y: int
) -> None:
    picture.paste(legend(120, 14), (_LABELS, y + 3))
    speaks = f"what {_SPEAKS[explanation.towards]}, from none to the most of each picture"
    draw.text((_LABELS + 130, y), speaks, _INK, font(14))
    said = "a % on b %: a % of the heat falls on the region, which covers b % of the picture"
    draw.text((_LABELS + 130, y + 18), said, _FAINT, font(14))


def draw_shares(explanation: FaceExplanation) -> Image.Image:
    """Draws what each region and each detector adds to a face's fused log-odds.

    Args:
        explanation: The face.

    Returns:
        An RGB picture of bars, red towards fake; the points are the single networks.
    """
    detectors, regions = explanation.by_detector, explanation.by_region
    bars = max(len(detectors), len(regions))
    figure = Figure(figsize=(9.0, 1.5 + 0.42 * bars), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=False, gridspec_kw={"wspace": 0.12})
    cells = [cell for cell in explanation.cells if cell.share is not None]
    by_region = [(str(cell.region), cell.share or 0.0) for cell in cells]
    by_detector = [(cell.detector, cell.share or 0.0) for cell in cells]
    _bars(left, regions, by_region, "By region", bars)
    _bars(right, detectors, by_detector, "By detector", bars)
    total = explanation.shares.total
    figure.suptitle(
        f"What the fused log-odds {total:+.2f} is made of: red towards fake, green away from it",
        fontsize=11,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as picture:
        return picture.convert("RGB")


def _bars(
    axes: Axes, sums: Mapping[str, float], cells: Sequence[tuple[str, float]], title: str, rows: int
) -> None:
    names, values = list(sums), list(sums.values())
    places = range(len(names))
    colours = [_FAKE if value > 0 else _GENUINE for value in values]
    axes.barh(places, values, 0.62, color=colours, alpha=0.85)
    digits = 2 if max(map(abs, values), default=0.0) >= 0.1 else 3
    for place, value in zip(places, values, strict=True):
        edge = axes.get_yaxis_transform()  # x in shares of the plot, beside which no point lies
        axes.text(1.02, place, f"{value:+.{digits}f}", va="center", fontsize=9, transform=edge)
    if len(cells) > len(names):
        y = [names.index(name) for name, _ in cells]
        x = [value for _, value in cells]
        axes.scatter(x, y, 20, "black", zorder=3, linewidths=0.8, edgecolors="white")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [printable(name) for name in names], parse_math=False)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("adds to the log-odds", fontsize=9)
    axes.tick_params(labelsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def heatmaps_of(explanation: FaceExplanation) -> list[HeatMap]:
    """Returns a face's heat-maps for its page, over the face with a little around it."""
    evidence = explanation.evidence
    window = _window(evidence.landmarks)
    found = []
    for cell in explanation.cells:
        if cell.on_face is None:
            continue
        shown = from_pixels(overlay(evidence.image[:, *window], cell.on_face[window]))
        shown.thumbnail((_ON_PAGE, _ON_PAGE), Image.Resampling.LANCZOS)
        pixels = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8)
        image = pixels.view(shown.height, shown.width, 3).permute(2, 0, 1)
        found.append(
            HeatMap(
                evidence.face.track,
                cell.detector,
                cell.region,
                image,
                cell.inside,
                cell.empty,
                explanation.towards,
            )
        )
    return found


def _window(landmarks: Tensor | None) -> tuple[slice, slice]:
    """Rows and columns of a face's picture that are worth showing; all of a canvas."""
    if landmarks is None:
        return slice(None), slice(None)
    x0, y0, x1, y1 = context_box(landmarks[None])[0].tolist()
    rows = slice(max(0, y0 - (y1 - y0) // 8), max(1, y1))  # the forehead is above all landmarks
    return rows, slice(max(0, x0), max(1, x1))
