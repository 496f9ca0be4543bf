"""The fusions of an evaluation, and its calibrations.

Fusions are found on development parts and applied everywhere: the paper's two (three detectors on
the face; the regions of one detector) and all networks together, each for the networks trained on
one database. A bundle's own fusion and calibration are measured as they are stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from deepregions.errors import UsageError
from deepregions.evaluation.protocols import DEVELOPMENT, EVALUATION, Scored, Settings
from deepregions.evaluation.store_scorer import scores_of
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.rules import Fusion, MaxFusion, MeanFusion
from deepregions.fusion.score_table import Origin, ScoredSystem, ScoreTable
from deepregions.fusion.training import Kind, fuse_table
from deepregions.fusion.validation import train_calibrated
from deepregions.people import known_people
from deepregions.roc import Floats
from deepregions.system import TrainedNetwork
from deepregions.types import Cell, Region
from deepregions.weights.bundle import Bundle

UNTRAINED = {"mean": MeanFusion, "max": MaxFusion}
OF_PARTS = ("mean", "logistic")  # the others are for all networks together
TITLES: Mapping[Kind, str] = {
    "mean": "mean",
    "max": "maximum",
    "weighted": "weighted mean",
    "logistic": "logistic regression",
    "head": "learned head",
}


@dataclass(frozen=True, eq=False)
class FusedSystem:
    """A fusion that was found here, or that a bundle has.

    The calibration is from its log-odds to likelihood ratios, or why there is none.
    """

    system: ScoredSystem
    fusion: Fusion
    calibration: Calibration | str
    bundle: Bundle | None = None

    def log_odds(self, table: ScoreTable) -> Floats:
        """Returns (N,) its log-odds of faces that its networks scored, NaN where it has none.

        Raises:
            UsageError: The scores are of other networks.
        """
        own = table if self.bundle is None else scores_of(table, self.bundle.members)
        return fuse_table(self.fusion, own)

    def notes(self, origins: Sequence[Origin]) -> Iterator[str]:
        """Yields what a reader should know of where a bundle's fusion was found."""
        if self.bundle is None:
            return
        name, stored = self.system.name, self.bundle.calibration
        if stored is None:
            yield (
                f"{name} is as stored, and does not say on which store its fusion was "
                "found: people of the evaluation part may have been in it"
            )
            return
        about = stored.development
        prints = {each.database: each.store for each in origins}
        where = f"{name} is as stored: found on the part {about.split} of "
        if about.store in prints.values():
            return
        if about.database in prints:
            yield (
                f"{where}another store of {about.database} ({about.store[:12]}) than is evaluated "
                f"here ({prints[about.database][:12]}): people of the evaluation part may have "
                "been in it"
            )
        else:
            yield f"{where}{about.database} ({about.store[:12]}), which is not evaluated here"


def bundle_systems(bundles: Mapping[str, Bundle], settings: Settings) -> list[FusedSystem]:
    """Returns the fusions and calibrations of bundles, by name, that are more than networks."""
    found = []
    for name, bundle in bundles.items():
        stored = bundle.calibration
        if bundle.fusion is None and stored is None:
            continue
        calibration: Calibration | str = stored or f"the bundle {name} holds no calibration"
        if stored is not None:
            why = stored.quantity.mismatch(bundle.quantity(settings.level, settings.rule))
            calibration = f"bundle {name}: {why}" if why else stored
        fusion = bundle.fusion or MeanFusion()
        databases = {member.database for member in bundle}
        trained_on = databases.pop() if len(databases) == 1 else ""
        system = ScoredSystem(f"bundle {name}: {fusion.rule}", None, trained_on)
        found.append(FusedSystem(system, fusion, calibration, bundle))
    return found


def fit_fusions(
    scored: Sequence[Scored], kinds: Sequence[Kind], settings: Settings
) -> list[FusedSystem]:
    """Makes the fusions that databases allow, of the networks trained on one database each.

    Where a database has no development part that can be learned from, only fusions with nothing
    to find are made.
    """
    table = scored[0].table
    made = []
    for trained_on in dict.fromkeys(row.database for row in table.rows):
        development = _development(scored, trained_on)
        for name, cells in _fusible(table, trained_on):
            for kind in kinds:
                if name != "all" and kind not in OF_PARTS:
                    continue
                system = ScoredSystem(f"{name}: {TITLES[kind]}", None, trained_on)
                found = _calibrated(kind, development, cells, settings)
                if not isinstance(found, str):
                    made.append(FusedSystem(system, *found))
                elif kind in UNTRAINED:
                    made.append(FusedSystem(system, UNTRAINED[kind](cells).eval(), found))
    return made


def _fusible(table: ScoreTable, trained_on: str) -> Iterator[tuple[str, list[Cell]]]:
    """Yields the name and the cells of what can be fused: of two networks or more each."""
    rows = dict(zip(table.detectors, table.rows, strict=True))
    cells = [(table.detectors[d], table.regions[r]) for d, r in table.cells]
    cells = [cell for cell in cells if rows[cell[0]].database == trained_on]
    faces = [cell for cell in cells if cell[1] is Region.ENTIRE]
    groups = {"detectors on the face": faces}
    for row in dict.fromkeys(row for row, _ in cells):
        own = [cell for cell in cells if cell[0] == row and cell not in faces]
        groups[f"regions of {rows[row].detector}"] = own
    for name, group in (*groups.items(), ("all", cells)):
        if len(group) > 1 and (name == "all" or group != cells):
            yield name, group


def calibrations_of(
    scored: Sequence[Scored], fused: Sequence[FusedSystem], settings: Settings
) -> dict[ScoredSystem, Calibration | str]:
    """Returns each system's calibration for what is measured, or why there is none.

    A network is calibrated on the development part of the database that it was trained on.
    """
    table = scored[0].table
    found: dict[ScoredSystem, Calibration | str] = {}
    for system, (d, r) in table.systems.items():
        development = _development(scored, system.trained_on)
        cell = (table.detectors[d], table.regions[r])
        one = _calibrated("mean", development, [cell], settings)
        found[system] = one if isinstance(one, str) else one[1]
    return found | {one.system: one.calibration for one in fused}


def with_fusions(scored: Scored, fused: Sequence[FusedSystem]) -> Scored:
    """Returns a database with what each fusion says of its faces."""
    return replace(scored, fused={one.system: one.log_odds(scored.table) for one in fused})


def _development(scored: Sequence[Scored], database: str) -> ScoreTable | str:
    """Returns the development part of a database, or why there is none."""
    for each in scored:
        if each.database == database and len(part := each.table.part(DEVELOPMENT)):
            return part
    return f"no scores of the development part of {database}"


def _calibrated(
    kind: Kind, development: ScoreTable | str, cells: Sequence[Cell], settings: Settings
) -> tuple[Fusion, Calibration] | str:
    """Returns a fusion with its calibration, or why there is none."""
    if isinstance(development, str):
        return development
    try:
        return train_calibrated(
            kind, development, level=settings.level, pooling=settings.rule, cells=cells
        )[:2]
    except UsageError as error:
        return str(error)


def notes_on_manipulations(
    members: Sequence[TrainedNetwork], scored: Sequence[Scored]
) -> Iterator[str]:
    """Yields which manipulations of evaluation parts are new to networks, where bundles say it."""
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


def notes_on_people(
    bundles: Mapping[str, Bundle], people: Mapping[str, Sequence[Sequence[str]]]
) -> Iterator[str]:
    """Yields which evaluation parts show people that networks were trained on.

    ``people`` has, by database, who is in each face of its part. It may be called otherwise than
    the networks call it: the same names of people are told.
    """
    for database, identities in people.items():
        for name, bundle in bundles.items():
            where = f"of the {{}} people in the evaluation part of {database}"
            known, there = known_people(bundle.facts.people, database, identities)
            if known:
                yield (
                    f"{name} was trained on {known} {where.format(there)}: its figures there are "
                    "too good"
                )
                continue
            for other in sorted({member.database for member in bundle} - {database}):
                known, there = known_people(bundle.facts.people, other, identities)
                if known:
                    yield (
                        f"{name} was trained on people of {other} with the names of {known} "
                        f"{where.format(there)}: if they are the same people, its figures there "
                        "are too good"
                    )
