"""The pictures of an explanation: where networks looked, and what the fused score is made of."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from deepregions.errors import printable
from deepregions.faces.regions import context_box
from deepregions.files import atomic_folder
from deepregions.fusion.pooling import probability
from deepregions.pipeline.explain.compute import CellExplanation, FaceExplanation, to_json
from deepregions.pipeline.report.drawing import (
    FAINT,
    INK,
    MISSING,
    PAPER,
    centred,
    fitting,
    font,
    to_picture,
)
from deepregions.pipeline.report.heat import legend, overlay, tile
from deepregions.pipeline.report.page import HeatMaps, write_page
from deepregions.pipeline.results import FacePatch, Result
from deepregions.pipeline.words import who
from deepregions.pixels.tensors import as_array, as_tensor

PAGE, FACTS = "explain.html", "explain.json"

_TILE, _GAP, _LINE, _LABELS = 200, 12, 22, 130
_HEAD, _FOOT = 92, 52
_FAKE, _GENUINE = "#5c44be", "#8a9099"
_SPEAKS = {"fake": "speaks for fake", "genuine": "speaks for genuine"}
_ON_PAGE = 256  # pixels of a heat-map's longer side


def write_explanation(result: Result, faces: Sequence[FaceExplanation], folder: Path) -> None:
    """Writes all that is to be seen and read of one input; the folder is replaced as a whole.

    Of each track with a score it has ``track-N.png``, where the networks looked, and
    ``track-N-shares.png``, what they add.
    """
    with atomic_folder(folder) as partial:
        parts = page_parts(faces)
        for each in faces:
            track = each.face.track
            draw_heat(result, each).save(partial / f"track-{track}.png")
            parts["shares"][track].save(partial / f"track-{track}-shares.png")
        write_page(result, partial / PAGE, **parts)
        text = json.dumps(to_json(result, faces), indent=1, allow_nan=False)
        (partial / FACTS).write_text(f"{text}\n", encoding="utf-8")


def page_parts(faces: Sequence[FaceExplanation]) -> dict[str, Any]:
    """Returns what :func:`render_page` needs to show explanations."""
    return {
        "heatmaps": {each.face.track: heatmaps_of(each) for each in faces},
        "shares": {each.face.track: draw_shares(each) for each in faces},
        "towards": faces[0].towards if faces else "",
    }


def draw_heat(result: Result, explanation: FaceExplanation) -> Image.Image:
    """Draws where each network looked on a face, as the paper shows it (section 5, Grad-CAM)."""
    columns = list(dict.fromkeys(cell.region for cell in explanation.cells))
    rows = list(dict.fromkeys(cell.detector for cell in explanation.cells))
    cells = {(cell.detector, cell.region): cell for cell in explanation.cells}
    width = _LABELS + max(len(columns), 3) * (_TILE + _GAP) + _GAP
    height = _HEAD + len(rows) * (_TILE + 2 * _LINE + _GAP) + _FOOT
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_words(draw, result, explanation, (width, height))
    picture.paste(legend(120, 14), (_LABELS, height - _FOOT + 11))
    for column, region in enumerate(columns):
        centred(draw, _LABELS + column * (_TILE + _GAP), _HEAD - 24, region, INK, bold=True)
    for row, detector in enumerate(rows):
        y = _HEAD + row * (_TILE + 2 * _LINE + _GAP)
        for line, part in enumerate(detector.split(".", maxsplit=1)):  # its database below it
            name = fitting(draw, printable(part), _LABELS - 2 * _GAP)
            draw.text((_GAP, y + _TILE // 2 - 10 + line * _LINE), name, INK, font(16))
        for column, region in enumerate(columns):
            x = _LABELS + column * (_TILE + _GAP)
            _draw_cell(picture, draw, cells.get((detector, region)), x, y)
    return picture


def _draw_words(
    draw: ImageDraw.ImageDraw, result: Result, explanation: FaceExplanation, size: tuple[int, int]
) -> None:
    face, foot = explanation.face, size[1] - _FOOT + 8
    draw.text((_GAP, 8), fitting(draw, result.conclusion, size[0] - 2 * _GAP), INK, font(16))
    when = f" at {face.time:.1f} s" if result.kind == "video" else ""
    name = f"{Path(result.input).name}, {who(face.track)}: the highest face{when}"
    if face.log_odds is not None:
        name += f", score {probability(face.log_odds):.2f}"
    draw.text((_GAP, 36), fitting(draw, name, size[0] - 2 * _GAP), INK, font(16))
    speaks = f"what {_SPEAKS[explanation.towards]}, from none to the most of each picture"
    draw.text((_LABELS + 130, foot), speaks, INK, font(14))
    said = "a % on b %: a % of the heat falls on the region, which covers b % of what it saw"
    draw.text((_LABELS + 130, foot + 18), said, FAINT, font(14))


def _draw_cell(
    picture: Image.Image, draw: ImageDraw.ImageDraw, cell: CellExplanation | None, x: int, y: int
) -> None:
    if cell is None or cell.log_odds is None:
        draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), MISSING)
        said = "no network" if cell is None else "no answer"
        centred(draw, x, y + _TILE // 2 - 10, said, FAINT)
        return
    heat = cell.heat
    shown = tile(heat.crops[0], heat.on_crop()[0], heat.mask[0], _TILE)
    picture.paste(to_picture(as_array(shown)), (x, y))
    centred(draw, x, y + _TILE + 2, f"{probability(cell.log_odds):.3f}", INK, bold=True)
    said = "no heat"
    if cell.inside is not None:
        said = f"{100 * cell.inside:.0f} % on {100 * cell.area:.0f} %"
    centred(draw, x, y + _TILE + _LINE, said, FAINT)


def draw_shares(explanation: FaceExplanation) -> Image.Image:
    """Draws what each region, detector and, as points, network adds to a face's fused log-odds."""
    cells = [cell for cell in explanation.cells if cell.share is not None]
    sums = {"By region": explanation.by_region, "By detector": explanation.by_detector}
    names = {
        "By region": [str(cell.region) for cell in cells],
        "By detector": [cell.detector for cell in cells],
    }
    told = [title for title in sums if len(sums[title]) > 1] or ["By region"]  # one is all there is
    bars = max(len(sums[title]) for title in told)
    figure = Figure(
        figsize=(5.0 + 2.0 * len(told), 1.5 + 0.42 * bars), dpi=110, layout="constrained"
    )
    plots = figure.subplots(1, len(told), sharex=True, squeeze=False, gridspec_kw={"wspace": 0.12})
    for axes, title in zip(plots[0], told, strict=True):
        shares = [(name, cell.share or 0.0) for name, cell in zip(names[title], cells, strict=True)]
        _bars(axes, sums[title], shares, title, bars)
    said = f"What the fused log-odds {explanation.total:+.2f} is made of"
    figure.suptitle(f"{said}: violet towards fake, grey away from it", fontsize=11)
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


def heatmaps_of(explanation: FaceExplanation) -> HeatMaps:
    """Returns a face's heat-maps for its page, over the face with a little around it."""
    patch = explanation.face.patch
    if patch is None:
        return []
    window, found = _window(patch), []
    for cell in explanation.cells:
        if cell.log_odds is None:
            continue
        height, width = patch.image.shape[:2]
        heat = cell.heat.on_picture(width, height)[0]
        shown = to_picture(as_array(overlay(as_tensor(patch.image[window]), heat[window])))
        shown.thumbnail((_ON_PAGE, _ON_PAGE), Image.Resampling.LANCZOS)
        found.append((cell, shown))
    return found


def _window(patch: FacePatch) -> tuple[slice, slice]:
    """Rows and columns of a face's picture that are worth showing; all of a canvas."""
    if patch.landmarks is None:
        return slice(None), slice(None)
    x0, y0, x1, y1 = context_box(torch.from_numpy(patch.landmarks)[None])[0].tolist()
    rows = slice(max(0, y0 - (y1 - y0) // 8), max(1, y1))  # the forehead is above all landmarks
    return rows, slice(max(0, x0), max(1, x1))
