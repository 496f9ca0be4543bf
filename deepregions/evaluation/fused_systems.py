"""The fused systems of an evaluation: found on development parts, applied everywhere.

The paper's two fusions are here, three detectors on the face and the regions of one detector, and
all networks together; each for what was trained on one database, with the development part of that
database. Each system, a single network too, is also calibrated there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepregions.errors import UsageError
from deepregions.evaluation.bundle_systems import BundleSystem
from deepregions.evaluation.protocols import DEVELOPMENT, Scored, ScoredSystem, Settings
from deepregions.fusion import (
    Fusion,
    Kind,
    MaxFusion,
    MeanFusion,
    chosen_cells,
    fuse_table,
)
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.validation import train_calibrated
from deepregions.types import Region

UNTRAINED: tuple[Kind, ...] = ("mean", "max")
OF_PARTS: tuple[Kind, ...] = ("mean", "logistic")  # the others are for all networks together
TITLES: Mapping[Kind, str] = {
    "mean": "mean",
    "max": "maximum",
    "weighted": "weighted mean",
    "logistic": "logistic regression",
    "head": "learned head",
}


@dataclass(frozen=True)
class FusionSpec:
    """Which networks are fused, and how.

    Attributes:
        label: Its name.
        kind: Of fusion.
        detectors: Rows of the table of scores.
        regions: Columns.
    """

    label: str
    kind: Kind
    detectors: tuple[str, ...]
    regions: tuple[str, ...]


@dataclass(frozen=True)
class FittedFusion:
    """A fusion, and a calibration if the development part allowed one.

    Attributes:
        recipe: What it is.
        trained_on: The database whose networks it fuses.
        fusion: The fusion.
        calibration: From its log-odds to likelihood ratios; None without.
        reason: Why there is no calibration.
    """

    recipe: FusionSpec
    trained_on: str
    fusion: Fusion
    calibration: Calibration | None = None
    reason: str = ""


def recipes(table: ScoreTable, rows: Sequence[str], kinds: Sequence[Kind]) -> list[FusionSpec]:
    """Returns the fusions that some rows of a table allow: of two networks or more each."""
    there = [(table.detectors[d], str(table.regions[r])) for d, r in table.cells]
    cells = [cell for cell in there if cell[0] in rows]
    parts = {"detectors on the face": [cell for cell in cells if cell[1] == Region.ENTIRE]}
    for row in rows:
        own = [cell for cell in cells if cell[0] == row and cell[1] != Region.ENTIRE]
        parts[f"regions of {row.partition('.')[0]}"] = own
    found = []
    for name, group in (*parts.items(), ("all", cells)):
        if len(group) < 2 or (name != "all" and group == cells):
            continue
        detectors, regions = (tuple(dict.fromkeys(axis)) for axis in zip(*group, strict=True))
        found += [
            FusionSpec(f"{name}: {TITLES[kind]}", kind, detectors, regions)
            for kind in kinds
            if name == "all" or kind in OF_PARTS
        ]
    return found


def make_fusions(
    table: ScoreTable,
    rows: Sequence[str],
    trained_on: str,
    kinds: Sequence[Kind],
    development: ScoreTable | None,
    *,
    settings: Settings,
) -> list[FittedFusion]:
    """Makes the fusions of the networks that were trained on one database.

    Args:
        table: Any table of their scores: which networks there are.
        rows: Its rows of these networks.
        trained_on: The database.
        kinds: Of fusion.
        development: Scores of its development part; None where there is none, and then only
            fusions with nothing to find are made.
        settings: Which scores they are calibrated for.
    """
    made = []
    for recipe in recipes(table, rows, kinds):
        cells: dict[str, Any] = {"detectors": recipe.detectors, "regions": recipe.regions}
        try:
            if development is None or not len(development):
                raise UsageError(f"no scores of the development part of {trained_on}")
            fusion, calibration, _ = train_calibrated(
                recipe.kind, development, level=settings.level, pooling=settings.rule, **cells
            )
            made.append(FittedFusion(recipe, trained_on, fusion, calibration))
        except UsageError as error:
            if recipe.kind in UNTRAINED:
                fusion = _untrained(recipe, table)
                made.append(FittedFusion(recipe, trained_on, fusion, reason=str(error)))
    return made


def calibrate_networks(
    table: ScoreTable,
    rows: Mapping[str, str],
    development: Mapping[str, ScoreTable],
    settings: Settings,
) -> dict[ScoredSystem, Calibration | str]:
    """Calibrates each network on the development part of its database.

    Args:
        table: Any table of scores: which networks there are.
        rows: Of each row the database that it was trained on.
        development: Development parts by database.
        settings: Which scores are calibrated.

    Returns:
        Of each network its calibration, or why there is none.
    """
    found: dict[ScoredSystem, Calibration | str] = {}
    for d, r in table.cells:
        row, region = table.detectors[d], table.regions[r]
        system = ScoredSystem(row.partition(".")[0], region, rows[row])
        part = development.get(rows[row])
        if part is None or not len(part):
            found[system] = f"no scores of the development part of {rows[row]}"
            continue
        try:
            cells: dict[str, Any] = {"detectors": [row], "regions": [str(region)]}
            found[system] = train_calibrated(
                "mean", part, level=settings.level, pooling=settings.rule, **cells
            )[1]
        except UsageError as error:
            found[system] = str(error)
    return found


def with_fusions(
    scored: Sequence[Scored], made: Sequence[FittedFusion], stored: Sequence[BundleSystem] = ()
) -> list[Scored]:
    """Returns databases with what each fusion says of their faces.

    Args:
        scored: The databases.
        made: Fusions that were found here.
        stored: And those of bundles.
    """
    several = len({system.trained_on for each in scored for system in each.systems}) > 1
    return [
        Scored(
            each.database,
            each.table,
            {
                _named(one.recipe.label, one.trained_on, several): fuse_table(
                    one.fusion, each.table
                )
                for one in made
            }
            | {
                _named(one.system.detector, one.trained_on, several): one.log_odds(each.table)
                for one in stored
            },
        )
        for each in scored
    ]


def _named(label: str, trained_on: str, several: bool) -> str:
    """A fusion's name as :class:`Scored` has it."""
    return f"{label}.{trained_on}" if several and trained_on else label


def development_parts(scored: Sequence[Scored]) -> dict[str, ScoreTable]:
    """Returns the development part of each database."""
    return {each.database: each.table.part(DEVELOPMENT) for each in scored}


def _untrained(recipe: FusionSpec, table: ScoreTable) -> Fusion:
    """A fusion with nothing to find, made without a development part."""
    kind = MeanFusion if recipe.kind == "mean" else MaxFusion
    return kind(chosen_cells(table, recipe.detectors, recipe.regions)).eval()
