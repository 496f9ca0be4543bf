"""Right and wrong decisions of an evaluation, each with where the network looked.

As the paper's figure of Grad-CAM heat-maps: rows real and fake, columns detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from deepregions.errors import UsageError, printable
from deepregions.fusion.pooling import probability
from deepregions.fusion.score_table import ScoreTable
from deepregions.pipeline.explain.gradcam import Heat
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
from deepregions.pipeline.report.heat import legend, tile
from deepregions.types import BONA_FIDE, FAKE, Region

_TILE, _EDGE, _GAP, _LINE, _LABELS = 180, 6, 12, 20, 72
_HEAD, _FOOT = 64, 56
# Of Okabe and Ito's palette, told apart by the colour-blind; the words say it, too.
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)
_LABELLED = {BONA_FIDE: "real", FAKE: "fake"}


@dataclass(frozen=True)
class Pick:
    """A decision of a detector on a region of a face, the table's row, and its threshold."""

    row: int
    key: str
    detector: str
    region: Region
    label: int
    log_odds: float
    threshold: float

    @property
    def right(self) -> bool:
        """Whether the decision is that of the label."""
        return (self.log_odds >= self.threshold) == (self.label == FAKE)


@dataclass(frozen=True, eq=False)
class Example:
    """A decision with what the network saw, (3, S, S) uint8, and its heat (:func:`heat_picture`).

    ``inside`` is the share of the heat inside the region; None where there is no heat.
    """

    pick: Pick
    image: Tensor
    inside: float | None


def pick_examples(table: ScoreTable, region: Region, thresholds: Mapping[str, float]) -> list[Pick]:
    """Picks the most confident right and wrong decisions of detectors on real and fake faces.

    At most four for each detector: real right, real wrong, fake right, fake wrong. Most confident
    is farthest from the detector's threshold; of equals the first in the table.

    Raises:
        UsageError: The table has no such region, or a threshold is no number.
    """
    if region not in table.regions:
        known = ", ".join(map(str, table.regions))
        raise UsageError(f"there are no scores of the region {region}", f"one of {known}")
    column, picks = table.regions.index(region), []
    for detector, threshold in thresholds.items():
        if np.isnan(threshold):
            raise UsageError(f"{detector} has no threshold", "log-odds above which a face is fake")
        answers = table.log_odds[:, table.detectors.index(detector), column]
        for label in (BONA_FIDE, FAKE):
            for right in (True, False):
                called = (answers >= threshold) == (label == FAKE)
                wanted = ~np.isnan(answers) & (table.label == label) & (called == right)
                if wanted.any():
                    row = int(np.where(wanted, np.abs(answers - threshold), -1.0).argmax())
                    key, answer = str(table.key[row]), float(answers[row])
                    picks.append(Pick(row, key, detector, region, label, answer, float(threshold)))
    return picks


def heat_picture(heat: Heat) -> tuple[Tensor, float | None]:
    """Returns what a network saw of a batch's first face with its heat, (3, S, S) uint8.

    And the share of the heat inside the region, which is outlined; None without heat.
    """
    one = heat.of(0)
    picture = tile(one.crops[0], one.on_crop()[0], one.mask[0], _TILE)
    return picture, None if bool(one.empty) else float(one.inside())


def decision_grid(
    examples: Sequence[Example], detectors: Sequence[str] | None = None
) -> Image.Image:
    """Draws right and wrong decisions: rows real and fake, columns detectors, two for each.

    Frames are blue where the decision is right and orange where it is wrong; words below say the
    same with the score. A place without an example says that there was no such decision.

    Raises:
        UsageError: No examples, or two for one place.
    """
    if not examples:
        raise UsageError("there are no decisions to show", "score some faces first")
    places: dict[tuple[str, int, bool], Example] = {}
    for example in examples:
        place = (example.pick.detector, example.pick.label, example.pick.right)
        if place in places:
            raise UsageError(f"two examples of {place[0]} for one place", "give one of each kind")
        places[place] = example
    detectors = detectors or list(dict.fromkeys(example.pick.detector for example in examples))
    side = _TILE + 2 * _EDGE
    wide = 2 * side + _GAP  # of a detector
    width = _LABELS + len(detectors) * (wide + 2 * _GAP)
    row_height = side + 2 * _LINE + _GAP
    height = _HEAD + 2 * row_height + _FOOT
    picture = Image.new("RGB", (max(width, 560), height), PAPER)
    draw = ImageDraw.Draw(picture)
    for row, label in enumerate((BONA_FIDE, FAKE)):
        y = _HEAD + row * row_height
        draw.text((_GAP, y + side // 2 - 10), _LABELLED[label], INK, font(16))
        for column, detector in enumerate(detectors):
            for number, right in enumerate((True, False)):
                x = _LABELS + column * (wide + 2 * _GAP) + number * (side + _GAP)
                _draw(picture, draw, places.get((detector, label, right)), (x, y), right=right)
    for column, detector in enumerate(detectors):
        x = _LABELS + column * (wide + 2 * _GAP)
        name = fitting(draw, printable(detector), wide)
        centred(draw, x, 10, name, INK, width=wide, bold=True)
        centred(draw, x, 36, "right", _RIGHT, width=side)
        centred(draw, x + side + _GAP, 36, "wrong", _WRONG, width=side)
    _draw_foot(picture, draw, examples, height - _FOOT + 6)
    return picture


def _draw(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    example: Example | None,
    place: tuple[int, int],
    *,
    right: bool,
) -> None:
    x, y = place
    side = _TILE + 2 * _EDGE
    if example is None:
        draw.rectangle((x, y, x + side - 1, y + side - 1), MISSING)
        said = "no right decision" if right else "no wrong decision"
        centred(draw, x, y + side // 2 - 10, said, FAINT, width=side)
        return
    colour = _RIGHT if right else _WRONG
    draw.rectangle((x, y, x + side - 1, y + side - 1), colour)
    shown = to_picture(example.image, _TILE)
    picture.paste(shown, (x + _EDGE, y + _EDGE))
    pick = example.pick
    called = "fake" if pick.log_odds >= pick.threshold else "real"
    said = f"{probability(pick.log_odds):.3f}: called {called}"
    centred(draw, x, y + side + 1, said, colour, width=side, bold=True)
    inside = "no heat" if example.inside is None else f"{100 * example.inside:.0f} % inside"
    centred(draw, x, y + side + _LINE, inside, FAINT, width=side)


def _draw_foot(
    picture: Image.Image, draw: ImageDraw.ImageDraw, examples: Sequence[Example], y: int
) -> None:
    regions = ", ".join(dict.fromkeys(str(example.pick.region) for example in examples))
    picture.paste(legend(100, 14), (_LABELS, y + 4))
    draw.text((_LABELS + 110, y + 2), "what speaks for fake, to each picture's most", INK, font(14))
    said = f"region {regions}; of each kind the decision farthest from the threshold"
    draw.text((_LABELS, y + 24), said, FAINT, font(14))
