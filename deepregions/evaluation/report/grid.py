"""Right and wrong decisions of an evaluation, each with where the network looked (Grad-CAM)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from deepregions.errors import UsageError, printable
from deepregions.evaluation.report.figures import style
from deepregions.fusion.pooling import probability
from deepregions.fusion.score_table import ScoreTable
from deepregions.pipeline.explain.gradcam import Heat
from deepregions.pipeline.report.heat import tile
from deepregions.types import BONA_FIDE, FAKE, Region

_SIDE = 180  # pixels of a face
_INCHES = 2.1
_COLOURS = {True: style.PALETTE[0], False: style.PALETTE[1]}  # the words say it, too


@dataclass(frozen=True)
class Pick:
    """A decision of a detector on a region of a face, and its threshold."""

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
                    row = np.where(wanted, np.abs(answers - threshold), -1.0).argmax()
                    key, answer = str(table.key[row]), float(answers[row])
                    picks.append(Pick(key, detector, region, label, answer, float(threshold)))
    return picks


def heat_picture(heat: Heat) -> tuple[Tensor, float | None]:
    """Returns what a network saw of a batch's first face with its heat, (3, S, S) uint8.

    And the share of the heat inside the region, which is outlined; None without heat.
    """
    one = heat.of(0)
    picture = tile(one.crops[0], one.on_crop()[0], one.mask[0], _SIDE)
    return picture, None if bool(one.empty) else float(one.inside())


def decision_grid(examples: Sequence[Example], detectors: Sequence[str] | None = None) -> Figure:
    """Draws right and wrong decisions: rows real and fake, columns detectors, two for each.

    Frames are blue where the decision is right and orange where it is wrong; words say the same
    with the score. A place without an example says that there was no such decision.

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
    regions = ", ".join(dict.fromkeys(str(example.pick.region) for example in examples))
    told = [f"{d}, {('real', 'fake')[label]}: {_call(e)}" for (d, label, _), e in places.items()]
    with style.styled():
        size = (1 + 2 * _INCHES * len(detectors), 1.6 + 2.5 * _INCHES)
        figure = Figure(figsize=size, layout="constrained")
        figure.set_label(printable(f"Decisions: {'; '.join(told)}"))
        axes = figure.subplots(2, 2 * len(detectors), squeeze=False)
        for (row, column), each in np.ndenumerate(axes):
            detector, right = detectors[column // 2], column % 2 == 0
            each.set(xticks=[], yticks=[])
            each.set_title(f"{style.plain(detector, 20)}, {'right' if right else 'wrong'}")
            _draw(each, places.get((detector, (BONA_FIDE, FAKE)[row], right)), right=right)
        for label, each in zip(("real", "fake"), axes[:, 0], strict=True):
            each.set_ylabel(label)
        said = (
            f"what speaks for fake, to each picture's most, in the region {regions};\n"
            "of each kind the decision farthest from the threshold"
        )
        colours = ScalarMappable(cmap="plasma")
        figure.colorbar(colours, ax=axes, location="bottom", ticks=[], aspect=40, label=said)
    return figure


def _draw(axes: Axes, example: Example | None, *, right: bool) -> None:
    if example is None:
        said = f"no {'right' if right else 'wrong'} decision"
        axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes)
        axes.set_box_aspect(1)
        return
    axes.imshow(example.image.permute(1, 2, 0))
    axes.spines[:].set(visible=True, color=_COLOURS[right], linewidth=4)
    inside = "no heat" if example.inside is None else f"{100 * example.inside:.0f} % inside"
    axes.set_xlabel(f"{_call(example)}\n{inside}", color=_COLOURS[right])


def _call(example: Example) -> str:
    pick = example.pick
    called = "fake" if pick.log_odds >= pick.threshold else "real"
    return f"{probability(pick.log_odds):.3f}: called {called}"
