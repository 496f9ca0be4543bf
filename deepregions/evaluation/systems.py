"""The systems of an evaluation: networks, fusions found here, and what bundles hold.

Fusions are found on development parts and applied everywhere: the paper's two (three detectors on
the face; the regions of one detector) and all networks together, each for the networks trained on
one database, with the development part of that database. Every system is calibrated there for the
quantity that is measured. A bundle's own fusion and calibration are measured as they are
stored, as ``deepregions detect`` uses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepregions.data.store import FaceStore
from deepregions.errors import UsageError
from deepregions.evaluation.bootstrap import Bootstrap, bootstrap
from deepregions.evaluation.measures import LLR_MEASURES
from deepregions.evaluation.protocols import DEVELOPMENT, EVALUATION, Evaluated, Scored, Settings
from deepregions.evaluation.store_scorer import scores_of
from deepregions.fusion import (
    Fusion,
    Kind,
    MaxFusion,
    MeanFusion,
    chosen_cells,
    fuse_table,
)
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.score_table import ScoredSystem, ScoreTable
from deepregions.fusion.trials import Trials
from deepregions.fusion.validation import train_calibrated
from deepregions.roc import Floats
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import Bundle

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
        kind: Kind of fusion.
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

    @property
    def system(self) -> ScoredSystem:
        """Who it is among systems."""
        return ScoredSystem(self.recipe.label, None, self.trained_on)


@dataclass(frozen=True, eq=False)
class BundleSystem:
    """A bundle's networks with its own fusion and calibration.

    Attributes:
        name: What the bundle is called, unique among those that are evaluated.
        bundle: With a fusion, a calibration or both.
    """

    name: str
    bundle: Bundle

    @property
    def fusion(self) -> Fusion:
        """Its fusion; the mean, if it has none of its own."""
        return self.bundle.fusion or MeanFusion()

    @property
    def trained_on(self) -> str:
        """The database that its networks were trained on; empty if these are several."""
        databases = {member.database for member in self.bundle}
        return databases.pop() if len(databases) == 1 else ""

    @property
    def system(self) -> ScoredSystem:
        """Who it is among systems."""
        return ScoredSystem(f"bundle {self.name}: {self.fusion.rule}", None, self.trained_on)

    def log_odds(self, table: ScoreTable) -> Floats:
        """Returns (N,) its log-odds of faces that its networks scored, NaN where it has none.

        Raises:
            UsageError: The scores are of other networks.
        """
        return fuse_table(self.fusion, scores_of(table, self.bundle.members))

    def calibration(self, settings: Settings) -> Calibration | str:
        """Returns its calibration, or why it has none for what is measured, in words."""
        found = self.bundle.calibration
        if found is None:
            return f"the bundle {self.name} holds no calibration"
        why = found.quantity.mismatch(self.bundle.quantity(settings.level, settings.rule))
        return f"bundle {self.name}: {why}" if why else found

    def notes(self, stores: Sequence[FaceStore]) -> Iterator[str]:
        """Yields what a reader should know of where it was fitted.

        Args:
            stores: Those that are evaluated.
        """
        found = self.bundle.calibration
        if found is None:
            yield (
                f"{self.system.name} is as stored, and does not say on which store its fusion was "
                "found: people of the evaluation part may have been in it"
            )
            return
        about = found.development
        prints: Mapping[str, str] = {each.info.database: each.fingerprint for each in stores}
        if about.store in prints.values():
            return
        where = f"{self.system.name} is as stored: found on the part {about.split} of "
        if about.database in prints:
            yield (
                f"{where}another store of {about.database} ({about.store[:12]}) than is evaluated "
                f"here ({prints[about.database][:12]}): people of the evaluation part may have "
                "been in it"
            )
        else:
            yield f"{where}{about.database} ({about.store[:12]}), which is not evaluated here"


def bundle_systems(bundles: Mapping[str, Bundle]) -> list[BundleSystem]:
    """Returns those bundles, given by name, that are more than networks."""
    return [
        BundleSystem(name, bundle)
        for name, bundle in bundles.items()
        if bundle.fusion is not None or bundle.calibration is not None
    ]


def fusion_specs(table: ScoreTable, rows: Sequence[str], kinds: Sequence[Kind]) -> list[FusionSpec]:
    """Returns the fusions that some rows of a table allow: of two networks or more each."""
    cells = [(d, r) for d, r in table.cells if table.detectors[d] in rows]
    regions, entire = table.regions, Region.ENTIRE
    parts = {"detectors on the face": [cell for cell in cells if regions[cell[1]] == entire]}
    for d in dict.fromkeys(d for d, _ in cells):
        own = [cell for cell in cells if cell[0] == d and regions[cell[1]] != entire]
        parts[f"regions of {table.rows[d].detector}"] = own
    found = []
    for name, group in (*parts.items(), ("all", cells)):
        if len(group) < 2 or (name != "all" and group == cells):
            continue
        detectors = tuple(dict.fromkeys(table.detectors[d] for d, _ in group))
        columns = tuple(dict.fromkeys(str(regions[r]) for _, r in group))
        found += [
            FusionSpec(f"{name}: {TITLES[kind]}", kind, detectors, columns)
            for kind in kinds
            if name == "all" or kind in OF_PARTS
        ]
    return found


def fit_fusions(
    scored: Sequence[Scored], kinds: Sequence[Kind], settings: Settings
) -> list[FittedFusion]:
    """Makes the fusions that databases allow, of the networks trained on one database each.

    Where a database has no development part that can be learned from, only fusions with nothing
    to find are made.
    """
    table = scored[0].table
    by_database: dict[str, list[str]] = {}
    for name, row in zip(table.detectors, table.rows, strict=True):
        by_database.setdefault(row.database, []).append(name)
    made = []
    for trained_on, rows in by_database.items():
        development = _development(scored, trained_on)
        for spec in fusion_specs(table, rows, kinds):
            cells: dict[str, Any] = {"detectors": spec.detectors, "regions": spec.regions}
            found = _calibrated(spec.kind, development, trained_on, settings, cells)
            if not isinstance(found, str):
                made.append(FittedFusion(spec, trained_on, *found))
            elif spec.kind in UNTRAINED:
                untrained = MeanFusion if spec.kind == "mean" else MaxFusion
                fusion = untrained(chosen_cells(table, **cells)).eval()
                made.append(FittedFusion(spec, trained_on, fusion, reason=found))
    return made


def calibrations_of(
    scored: Sequence[Scored],
    made: Sequence[FittedFusion],
    stored: Sequence[BundleSystem],
    settings: Settings,
) -> dict[ScoredSystem, Calibration | str]:
    """Returns each system's calibration for what is measured, or why there is none.

    A network is calibrated on the development part of the database that it was trained on.

    Args:
        scored: The databases.
        made: Fusions that were found here.
        stored: Systems of bundles.
        settings: What is measured: the level, and the rules of pooling.
    """
    table = scored[0].table
    found: dict[ScoredSystem, Calibration | str] = {}
    for system, (d, r) in table.systems.items():
        cells = {"detectors": [table.detectors[d]], "regions": [str(table.regions[r])]}
        development = _development(scored, system.trained_on)
        one = _calibrated("mean", development, system.trained_on, settings, cells)
        found[system] = one if isinstance(one, str) else one[1]
    found |= {one.system: one.calibration or one.reason for one in made}
    return found | {one.system: one.calibration(settings) for one in stored}


def with_fusions(
    scored: Sequence[Scored], made: Sequence[FittedFusion], stored: Sequence[BundleSystem] = ()
) -> list[Scored]:
    """Returns databases with what each fusion says of their faces.

    Args:
        scored: The databases.
        made: Fusions that were found here.
        stored: And those of bundles.
    """
    return [
        replace(
            each,
            fused={one.system: fuse_table(one.fusion, each.table) for one in made}
            | {one.system: one.log_odds(each.table) for one in stored},
        )
        for each in scored
    ]


def _development(scored: Sequence[Scored], database: str) -> ScoreTable | None:
    """Returns the development part of a database, if it has one."""
    for each in scored:
        if each.database == database:
            part = each.table.part(DEVELOPMENT)
            return part if len(part) else None
    return None


def _calibrated(
    kind: Kind,
    development: ScoreTable | None,
    database: str,
    settings: Settings,
    cells: Mapping[str, Any],
) -> tuple[Fusion, Calibration] | str:
    """Returns a fusion with its calibration, or why there is none."""
    if development is None:
        return f"no scores of the development part of {database}"
    try:
        fusion, calibration, _ = train_calibrated(
            kind, development, level=settings.level, pooling=settings.rule, **cells
        )
    except UsageError as error:
        return str(error)
    return fusion, calibration


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A database's evaluation part in likelihood ratios.

    Attributes:
        database: Its name.
        systems: Those that are calibrated.
        trials: The trials of each, with natural LLRs instead of log-odds.
        result: What was measured, for systems by number.
        reasons: Why others are not calibrated.
    """

    database: str
    systems: tuple[ScoredSystem, ...]
    trials: tuple[Trials, ...]
    result: Bootstrap | None
    reasons: Mapping[ScoredSystem, str]


def calibrate_trials(
    each: Evaluated, calibrations: Mapping[ScoredSystem, Calibration | str]
) -> Calibrated:
    """Turns what systems say into likelihood ratios, and measures these.

    Args:
        each: A database, measured.
        calibrations: Each system's calibration, or why it has none.
    """
    systems, trials, reasons = [], [], {}
    for system, own in zip(each.systems, each.trials, strict=True):
        calibration = calibrations.get(system, "no calibration")
        if isinstance(calibration, str):
            reasons[system] = calibration
            continue
        systems.append(system)
        trials.append(replace(own, log_odds=calibration.llr(own.log_odds)))
    settings, result = each.settings, None
    if trials:
        result = bootstrap(
            trials,
            LLR_MEASURES,
            rounds=settings.rounds,
            seed=settings.seed,
            confidence=settings.confidence,
        )
    return Calibrated(each.database, tuple(systems), tuple(trials), result, reasons)


def notes_on_manipulations(
    members: Sequence[TrainedNetwork], scored: Sequence[Scored]
) -> Iterator[str]:
    """Yields which manipulations of evaluation parts are new to networks, where bundles say it.

    Args:
        members: The networks.
        scored: The databases.
    """
    fakes: set[str] = set()
    for each in scored:
        part = each.table.part(EVALUATION)
        fakes |= {str(name).partition(":")[0] for name in part.method[part.fake]}
    known = {member.name: manipulations_of(member) for member in members}
    kinds = {seen for seen in known.values() if seen is not None}
    for seen in sorted(kinds, key=sorted):
        own = [name for name, of in known.items() if of == seen]
        who = "all networks" if len(own) == len(known) else ", ".join(own)
        new = sorted(fakes - seen)
        yield (
            f"by their bundles, {who} learned from {', '.join(sorted(seen))}; never seen in "
            f"training: {', '.join(new) or 'none of the manipulations here'}"
        )
    silent = [name for name, seen in known.items() if seen is None]
    if kinds and silent:
        yield f"bundles do not say which manipulations were seen in training by {', '.join(silent)}"


def manipulations_of(member: TrainedNetwork) -> frozenset[str] | None:
    """Returns the manipulations that a network learned from, or None if its bundle does not say.

    It does where all fakes were made on the way (``forge``). Those by which the best epoch was
    chosen count too.
    """
    forge = member.training.get("forge")
    if not isinstance(forge, Mapping) or forge.get("share") != 1:
        return None
    lists = (forge.get("methods"), forge.get("held_out"))
    return frozenset(str(name) for names in lists if isinstance(names, list) for name in names)
