"""The picture of a verdict: a face's regions as the networks saw them, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from deepregions.errors import printable
from deepregions.fusion.pooling import probability
from deepregions.pipeline.report.drawing import (
    FAINT,
    INK,
    PAPER,
    centred,
    fitting,
    font,
    to_picture,
)
from deepregions.pipeline.report.words import conclusion
from deepregions.pipeline.results import FaceResult, Result

_TILE, _GAP, _LINE, _LABELS = 200, 12, 26, 130
_HEAD = 3 * _LINE
_SINGLE = 400

Model = Mapping[str, str]
"""A network that was used: its ``name``, ``detector``, ``region`` and ``database``."""


def draw_verdict(result: Result, face: FaceResult, models: Sequence[Model]) -> Image.Image:
    """Draws an input's highest-scoring face: its regions side by side, and the scores under each.

    Of a single network, its region with its score, as the paper's program shows it.
    """
    crops = face.patch.crops if face.patch is not None else {}
    if len(models) == 1:
        return _draw_single(result, face, [*crops.values()], models[0])
    rows = list(dict.fromkeys(detector for detector, _ in face.cells))
    width = _LABELS + max(1, len(crops)) * (_TILE + _GAP) + _GAP
    height = _HEAD + _TILE + _LINE + (len(rows) + 1) * _LINE + 2 * _GAP
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_head(draw, result, face, models, width - 2 * _GAP)
    top = _HEAD + _TILE + _LINE + _GAP
    for index, row in enumerate([*rows, "fused"]):
        draw.text((_GAP, top + index * _LINE), row, INK, font(16))
    for column, ((region, users), crop) in enumerate(crops.items()):
        x = _LABELS + column * (_TILE + _GAP)
        picture.paste(to_picture(crop, _TILE), (x, _HEAD))
        centred(draw, x, _HEAD + _TILE + 2, region, INK, bold=True)
        for index, row in enumerate(rows):
            if row in users and (row, region) in face.cells:
                score = probability(face.cells[row, region])
                _bar(draw, x, top + index * _LINE, score, _TILE)
    wide = width - _LABELS - 2 * _GAP
    _bar(draw, _LABELS, top + len(rows) * _LINE, probability(face.log_odds), wide)
    return picture


def _draw_single(
    result: Result, face: FaceResult, crops: Sequence[Tensor], model: Model
) -> Image.Image:
    """One region and one score, with what the paper's program writes around them."""
    picture = Image.new("RGB", (_SINGLE + 2 * _GAP, _SINGLE + 6 * _LINE + 2 * _GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    top = _GAP + 2 * _LINE + _GAP // 2
    below = top + _SINGLE + _GAP // 2
    score = probability(result.log_odds)
    where = f", at {face.time:.1f} s" if result.kind == "video" else ""
    lines = (
        (_GAP, f"Detector: {model['detector']}", INK, True),
        (_GAP + _LINE, f"Database: {model['database']}  -  Region: {model['region']}", INK, True),
        (below, "Prediction (0 genuine, 1 fake)", FAINT, False),
        (below + _LINE, "none" if score is None else f"{score:.3f}", INK, True),
        (
            below + 2 * _LINE,
            fitting(draw, f"{Path(result.input).name}{where}", _SINGLE),
            FAINT,
            False,
        ),
    )
    for y, text, colour, bold in lines:
        centred(draw, _GAP, y, text, colour, width=_SINGLE, bold=bold)
    for crop in crops:
        picture.paste(to_picture(crop, _SINGLE), (_GAP, top))
    return picture


def _draw_head(
    draw: ImageDraw.ImageDraw,
    result: Result,
    face: FaceResult,
    models: Sequence[Model],
    width: int,
) -> None:
    where = f", shown at {face.time:.1f} s" if result.kind == "video" else ""
    names = [printable(model["name"]) for model in models]
    title = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    for y, text, colour, size in (
        (_GAP // 2, conclusion(result), INK, 16),
        (_LINE, f"{Path(result.input).name}{where}", INK, 16),
        (2 * _LINE - _GAP // 2, title, FAINT, 14),
    ):
        draw.text((_GAP, y), fitting(draw, text, width), colour, font(size))


def _bar(draw: ImageDraw.ImageDraw, x: int, y: int, score: float | None, width: int) -> None:
    if score is None:
        centred(draw, x, y, "no answer", FAINT, width=width)
        return
    draw.rectangle((x, y + 18, x + width, y + 21), (225, 227, 230))
    draw.rectangle((x, y + 18, x + round(width * score), y + 21), INK)
    centred(draw, x, y - 2, f"{score:.3f}", INK, width=width, bold=True)
