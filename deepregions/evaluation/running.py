"""From stores or tables of scores to an outcome: fusions, calibrations, figures."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from deepregions.data.store import FaceStore
from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.alterations import LEVELS, Alteration
from deepregions.evaluation.measures import AUC, MEASURES
from deepregions.evaluation.protocols import (
    DEVELOPMENT,
    EVALUATION,
    Evaluated,
    Scored,
    Settings,
    evaluate,
    require_classes,
)
from deepregions.evaluation.report.chapters import Outcome
from deepregions.evaluation.report.grid import decision_grid, pick_examples
from deepregions.evaluation.robustness import FRAMES, Curve, altered_curve, frame_curve
from deepregions.evaluation.store_faces import load_examples
from deepregions.evaluation.store_scorer import StoreScorer, scores_of
from deepregions.evaluation.systems import (
    FusedSystem,
    bundle_systems,
    calibrations_of,
    fit_fusions,
    notes_on_manipulations,
    with_fusions,
)
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.training import Kind
from deepregions.types import FAKE, Region
from deepregions.weights.bundle import Bundle
from deepregions.weights.selection import distinct


@dataclass(frozen=True)
class Media:
    """The faces that tables of scores are of, to be looked at again: altered, or in a figure."""

    scorer: StoreScorer
    stores: Sequence[FaceStore]

    def tables(self, settings: Settings) -> list[ScoreTable]:
        """Scores the development and evaluation parts of the stores.

        Raises:
            UndefinedMetricError: A class is absent.
            UsageError: Two stores are of one database.
        """
        check_databases([store.info.database for store in self.stores])
        for store in self.stores:  # before hours of scoring
            fake = store.labels[store.splits == EVALUATION] == FAKE
            if len(fake):
                require_classes(store.info.database, fake, settings.level)
        return [self.scorer.score(store, (DEVELOPMENT, EVALUATION)) for store in self.stores]

    def people(self) -> dict[str, list[Sequence[str]]]:
        """Returns, by database, who is in each face of the evaluation parts."""
        return {
            store.info.database: [*compress(store.column("identities"), store.splits == EVALUATION)]
            for store in self.stores
        }

    def store(self, database: str) -> FaceStore:
        """Returns the store of a database."""
        return next(store for store in self.stores if store.info.database == database)


def check_databases(names: Sequence[str]) -> None:
    """Raises a UsageError where two inputs are of one database."""
    if len(set(names)) < len(names):
        raise UsageError(
            f"two inputs are of {max(names, key=names.count)}", "evaluate each database once"
        )


def read_tables(paths: Sequence[Path], bundles: Mapping[str, Bundle]) -> list[ScoreTable]:
    """Reads tables of scores, only those of the networks of bundles if there are bundles.

    Raises:
        UnreadableError: A file is none.
        UsageError: Two are of one database, of different networks, or not of the bundles'.
    """
    tables = [ScoreTable.read(path) for path in paths]
    if members := distinct(bundles.values()):
        tables = [scores_of(table, members) for table in tables]
    check_databases([table.origin.database for table in tables])
    for path, table in zip(paths, tables, strict=True):
        if (table.systems, table.origin.models) != (tables[0].systems, tables[0].origin.models):
            raise UsageError(
                f"{path} is of other networks than {paths[0]}", "--bundle names those of both"
            )
    return tables


def run(
    tables: Sequence[ScoreTable],
    settings: Settings,
    *,
    fusions: Sequence[Kind],
    robustness: Sequence[str] = (),
    attributes: Path | None = None,
    bundles: Mapping[str, Bundle] | None = None,
    media: Media | None = None,
) -> Outcome:
    """Finds out everything that is asked for from the scores of different databases.

    Robustness is against alterations, keys of ``LEVELS``, or ``frames``; the first need ``media``.
    The CSV file ``attributes`` has a column ``identity``, and one for each attribute of people.
    Bundles by name, whose networks' scores these are, are measured with their own fusions and
    calibrations.

    Raises:
        UndefinedMetricError: A class is absent.
    """
    people = read_attributes(attributes) if attributes else {}
    plain = [Scored(table) for table in tables]
    own = bundles or {}
    fused = [*fit_fusions(plain, fusions, settings), *bundle_systems(own, settings)]
    scored = [with_fusions(each, fused) for each in plain]
    calibrations = calibrations_of(plain, fused, settings)
    evaluated = [each.calibrated(calibrations) for each in evaluate(scored, settings)]
    several = any(len(set(each.table.video)) < len(each.table) for each in scored)
    frames = (
        evaluate(scored, replace(settings, level="frame"), MEASURES)
        if several and settings.level == "video"
        else []
    )
    parts = {each.database: each.part(EVALUATION) for each in scored}
    return Outcome(
        scored=scored,
        settings=settings,
        evaluated=evaluated,
        curves=[
            curve
            for each in evaluated
            for curve in _curves(media, parts, each, fused=fused, kinds=robustness)
        ],
        grids={} if media is None else _grids(media, parts, frames or evaluated),
        frames=frames,
        slices=_slices(parts, evaluated, people),
        notes=[
            *(
                f"{name} has no evaluation part: only its development part was used"
                for name in parts
                if name not in {each.database for each in evaluated}
            ),
            *(note for one in fused for note in one.notes([each.table.origin for each in plain])),
            *notes_on_manipulations(distinct(own.values()), plain),
        ],
    )


def _curves(
    media: Media | None,
    parts: Mapping[str, Scored],
    whole: Evaluated,
    *,
    fused: Sequence[FusedSystem],
    kinds: Sequence[str],
) -> Iterator[Curve]:
    for kind in kinds:
        if kind == FRAMES:
            if curve := frame_curve(whole, parts[whole.database]):
                yield curve
        elif media is not None:
            score = partial(_altered, media, whole.database, fused)
            yield altered_curve(whole, kind, LEVELS[kind], score)


def _altered(
    media: Media, database: str, fused: Sequence[FusedSystem], alteration: Alteration
) -> Scored:
    table = media.scorer.score(media.store(database), (EVALUATION,), alteration)
    return with_fusions(Scored(table), fused)


def _grids(
    media: Media,
    parts: Mapping[str, Scored],
    faces: Sequence[Evaluated],
) -> dict[str, Figure]:
    """Right and wrong decisions of networks on the whole face that were trained on a database."""
    grids = {}
    for each in faces:
        table = parts[each.database].table
        thresholds = {
            table.detectors[table.systems[system][0]]: threshold
            for system, threshold in each.thresholds.items()
            if system.region is Region.ENTIRE
            and system.trained_on == each.database
            and not isinstance(threshold, str)
        }
        picks = pick_examples(table, Region.ENTIRE, thresholds) if thresholds else []
        if picks:
            store, scorer = media.store(each.database), media.scorer
            examples = load_examples(picks, store, scorer.system, device=scorer.device)
            grids[each.database] = decision_grid(examples, list(thresholds))
    return grids


def read_attributes(path: Path) -> dict[str, dict[str, set[str]]]:
    """Reads attributes of people: by attribute, by its value, who has it.

    Raises:
        UsageError: It cannot be read, or has no column ``identity``.
    """
    people: dict[str, dict[str, set[str]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = [name for name in reader.fieldnames or () if name != "identity"]
            if not names or "identity" not in (reader.fieldnames or ()):
                raise UsageError(
                    f"{path} has no column 'identity', or no other",
                    "a line for each person: identity,age,skin_tone",
                )
            for line in reader:
                for name in names:
                    if value := (line[name] or "").strip():
                        own = people.setdefault(name, {})
                        own.setdefault(value, set()).add((line["identity"] or "").strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}", "save it as UTF-8") from error
    return people


def _slices(
    parts: Mapping[str, Scored],
    evaluated: Sequence[Evaluated],
    attributes: Mapping[str, Mapping[str, set[str]]],
) -> dict[str, dict[str, dict[str, Evaluated]]]:
    """By attribute, database and value; what cannot be measured there is left out."""
    found: dict[str, dict[str, dict[str, Evaluated]]] = {}
    for attribute, groups in attributes.items():
        for each in evaluated:
            part = parts[each.database]
            for value, people in sorted(groups.items()):
                shown = np.array([bool(people & {*who}) for who in part.table.identities], bool)
                if not shown.any():
                    continue
                try:
                    (measured,) = evaluate([part.select(shown)], each.settings, (AUC,))
                except UndefinedMetricError:
                    continue
                own = found.setdefault(attribute, {}).setdefault(each.database, {})
                own[value] = measured
    return found
