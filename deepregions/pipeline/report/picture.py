"""The picture of a verdict: a face's regions as the networks saw them, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deepregions.errors import printable
from deepregions.files import atomic_file
from deepregions.pipeline.report.words import conclusion
from deepregions.pipeline.results import FaceResult, InputResult, probability
from deepregions.pipeline.top_faces import Evidence, RegionCrop

_TILE = 200
_GAP = 12
_LINE = 26
_LABELS = 130
_HEAD = 3 * _LINE
_INK, _FAINT, _PAPER = (32, 33, 36), (110, 114, 120), (255, 255, 255)
_SINGLE = 400


Model = Mapping[str, str]
"""A network that was used: its ``name``, ``detector``, ``region`` and ``database``."""


def draw_verdict(result: InputResult, evidence: Evidence, models: Sequence[Model]) -> Image.Image:
    """Draws an input's highest-scoring face.

    Args:
        result: What came of the input.
        evidence: The picture behind its score.
        models: The networks that were used.

    Returns:
        An RGB picture: the face's regions side by side, and under each region one score per
        detector. Of a single network, its region with its score, as the paper's
        program shows it.
    """
    if len(models) == 1:
        return _draw_single(result, evidence, models[0])
    tiles = evidence.crops
    rows = list(dict.fromkeys(cell.detector for cell in evidence.face.cells))
    width = _LABELS + max(1, len(tiles)) * (_TILE + _GAP) + _GAP
    height = _HEAD + _TILE + _LINE + (len(rows) + 1) * _LINE + 2 * _GAP
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_head(draw, result, evidence.face, _title(models), width - 2 * _GAP)
    for column, tile in enumerate(tiles):
        x = _LABELS + column * (_TILE + _GAP)
        picture.paste(square(tile.image, _TILE), (x, _HEAD))
        centred(draw, x, _HEAD + _TILE + 2, tile.region, _INK, bold=True)
    _draw_scores(draw, evidence.face, rows, tiles)
    return picture


def save_verdict(picture: Image.Image, path: Path) -> None:
    """Writes a picture as a PNG file, whole or not at all."""
    with atomic_file(path) as partial:
        picture.save(partial, format="PNG")


def _draw_single(result: InputResult, evidence: Evidence, model: Model) -> Image.Image:
    """One region and one score, with what the paper's program writes around them."""
    picture = Image.new("RGB", (_SINGLE + 2 * _GAP, _SINGLE + 6 * _LINE + 2 * _GAP), _PAPER)
    draw = ImageDraw.Draw(picture)
    score = probability(result.log_odds)
    lines = (
        (f"Detector: {model['detector']}", _INK),
        (f"Database: {model['database']}  -  Region: {model['region']}", _INK),
    )
    for row, (text, colour) in enumerate(lines):
        centred(draw, _GAP, _GAP + row * _LINE, text, colour, width=_SINGLE, bold=True)
    top = _GAP + 2 * _LINE + _GAP // 2
    for tile in evidence.crops:
        picture.paste(square(tile.image, _SINGLE), (_GAP, top))
    below = top + _SINGLE + _GAP // 2
    prediction = "none" if score is None else f"{score:.3f}"
    centred(draw, _GAP, below, "Prediction (0 genuine, 1 fake)", _FAINT, width=_SINGLE)
    centred(draw, _GAP, below + _LINE, prediction, _INK, width=_SINGLE, bold=True)
    where = f", at {evidence.face.time:.1f} s" if result.kind == "video" else ""
    name = fitting(draw, f"{Path(result.input).name}{where}", _SINGLE)
    centred(draw, _GAP, below + 2 * _LINE, name, _FAINT, width=_SINGLE)
    return picture


def fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Shortens a text in its middle until it is one line no wider than this, in pixels."""
    text = printable(text)
    keep = len(text)
    shown = text
    while keep > 2 and draw.textlength(shown, font(16)) > width:
        keep -= 1
        shown = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return shown


def _title(models: Sequence[Model]) -> str:
    names = [printable(model["name"]) for model in models]
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def square(image: Tensor, side: int) -> Image.Image:
    """Makes a picture of an image (3, S, S) uint8, of another size where it must."""
    picture = from_pixels(image)
    if picture.size == (side, side):
        return picture
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def from_pixels(image: Tensor) -> Image.Image:
    """Makes a picture of (3, H, W) uint8."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _draw_head(
    draw: ImageDraw.ImageDraw, result: InputResult, face: FaceResult, title: str, width: int
) -> None:
    where = f", shown at {face.time:.1f} s" if result.kind == "video" else ""
    draw.text((_GAP, _GAP // 2), fitting(draw, conclusion(result), width), _INK, font(16))
    name = fitting(draw, f"{Path(result.input).name}{where}", width)
    draw.text((_GAP, _LINE), name, _INK, font(16))
    draw.text((_GAP, 2 * _LINE - _GAP // 2), fitting(draw, title, width), _FAINT, font(14))


def _draw_scores(
    draw: ImageDraw.ImageDraw, face: FaceResult, rows: Sequence[str], tiles: Sequence[RegionCrop]
) -> None:
    top = _HEAD + _TILE + _LINE + _GAP
    for index, row in enumerate(rows):
        y = top + index * _LINE
        draw.text((_GAP, y), row, _INK, font(16))
        for column, tile in enumerate(tiles):
            x = _LABELS + column * (_TILE + _GAP)
            if (cell := tile.score_of(row, face.cells)) is not None:
                _bar(draw, x, y, probability(cell.log_odds))
    y = top + len(rows) * _LINE
    draw.text((_GAP, y), "fused", _INK, font(16))
    width = max(1, len(tiles)) * (_TILE + _GAP) - _GAP
    _bar(draw, _LABELS, y, probability(face.log_odds), width)


def _bar(
    draw: ImageDraw.ImageDraw, x: int, y: int, score: float | None, width: int = _TILE
) -> None:
    if score is None:
        centred(draw, x, y, "no answer", _FAINT, width=width)
        return
    draw.rectangle((x, y + 18, x + width, y + 21), (225, 227, 230))
    draw.rectangle((x, y + 18, x + round(width * score), y + 21), _INK)
    centred(draw, x, y - 2, f"{score:.3f}", _INK, width=width, bold=True)


def centred(
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
    text: str,
    colour: tuple[int, int, int],
    *,
    width: int = _TILE,
    bold: bool = False,
) -> None:
    """Writes a line in the middle of a box that is ``width`` pixels wide."""
    text, letters = printable(text), font(16)
    left = x + (width - draw.textlength(text, letters)) / 2
    draw.text((left, y), text, colour, letters, stroke_width=0.3 if bold else 0, stroke_fill=colour)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters of all pictures, of this size in pixels."""
    return ImageFont.load_default(size)
