"""The picture of a verdict: a face's regions as the networks saw them, and their scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from deepregions.fusion.pooling import probability
from deepregions.pipeline.report.drawing import (
    FAINT,
    INK,
    PAPER,
    centred,
    fitting,
    font,
    to_picture,
    wrapped,
)
from deepregions.pipeline.results import FaceResult, Result

_TILE, _GAP, _LINE, _LABELS = 200, 12, 26, 130
_LEAST = 480  # pixels of a picture's width: what is said needs room
_LARGE, _SMALL = 20, 14

Model = Mapping[str, str]  # a network that was used: its name, detector, region and database


def draw_verdict(result: Result, face: FaceResult, models: Sequence[Model]) -> Image.Image:
    """Draws what a result says, above a face's regions as networks saw them, with their scores."""
    crops = face.patch.crops if face.patch is not None else {}
    rows = list(dict.fromkeys(detector for detector, _ in face.cells))
    width = max(_LEAST, _LABELS + len(crops) * (_TILE + _GAP) + _GAP)
    head = _draw_head(result, face, models, width)
    top = head.height + _TILE + _LINE + _GAP
    picture = Image.new("RGB", (width, top + (len(rows) + 1) * _LINE + _GAP), PAPER)
    picture.paste(head)
    draw = ImageDraw.Draw(picture)
    for index, row in enumerate([*rows, "fused"] if len(face.cells) > 1 else rows):
        name = fitting(draw, row, _LABELS - 2 * _GAP)
        draw.text((_GAP, top + index * _LINE), name, INK, font(_SMALL))
    for column, ((region, users), crop) in enumerate(crops.items()):
        x = _LABELS + column * (_TILE + _GAP)
        picture.paste(to_picture(crop, _TILE), (x, head.height))
        centred(draw, x, head.height + _TILE + 2, region, INK, bold=True)
        for index, row in enumerate(rows):
            if row in users and (row, region) in face.cells:
                score = probability(face.cells[row, region])
                _bar(draw, x, top + index * _LINE, score, _TILE)
    if len(face.cells) > 1:
        wide = width - _LABELS - 2 * _GAP
        _bar(draw, _LABELS, top + len(rows) * _LINE, probability(face.log_odds), wide)
    return picture


def _draw_head(
    result: Result, face: FaceResult, models: Sequence[Model], width: int
) -> Image.Image:
    when = f", shown at {face.time:.1f} s" if result.kind == "video" else ""
    names = [model["name"] for model in models]
    title = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    name = fitting(pen, f"{Path(result.input).name}{when} · {title}", width - 2 * _GAP)
    paragraphs = [
        (f"{result.answer.conclusion}.", INK, _LARGE),
        *((each, FAINT, _SMALL) for each in result.answer.details),
        (name, FAINT, _SMALL),
    ]
    lines = [
        (line, colour, size)
        for text, colour, size in paragraphs
        for line in wrapped(text, width - 2 * _GAP, font(size))
    ]
    height = sum(round(1.4 * size) for _, _, size in lines) + 2 * _GAP
    picture = Image.new("RGB", (width, height), PAPER)
    draw, y = ImageDraw.Draw(picture), _GAP
    for line, colour, size in lines:
        draw.text((_GAP, y), line, colour, font(size))
        y += round(1.4 * size)
    return picture


def _bar(draw: ImageDraw.ImageDraw, x: int, y: int, score: float | None, width: int) -> None:
    if score is None:
        centred(draw, x, y, "no answer", FAINT, width=width)
        return
    draw.rectangle((x, y + 18, x + width, y + 21), (225, 227, 230))
    draw.rectangle((x, y + 18, x + round(width * score), y + 21), INK)
    centred(draw, x, y - 2, f"{score:.3f}", INK, width=width, bold=True)
