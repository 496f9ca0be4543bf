"""From networks and stores to an outcome: scores, fusions, calibrations, figures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from deepregions.data.store import FaceStore
from deepregions.errors import UndefinedMetricError, UsageError
from deepregions.evaluation.alterations import LEVELS, Alteration
from deepregions.evaluation.bundle_systems import BundleSystem
from deepregions.evaluation.calibrated import calibrate_trials
from deepregions.evaluation.examples import load_examples
from deepregions.evaluation.fused_systems import (
    FittedFusion,
    calibrate_networks,
    development_parts,
    make_fusions,
    with_fusions,
)
from deepregions.evaluation.protocols import (
    DEVELOPMENT,
    EVALUATION,
    Evaluated,
    Scored,
    ScoredSystem,
    Settings,
    evaluate,
)
from deepregions.evaluation.report.chapters import Outcome
from deepregions.evaluation.report.grid import decision_grid, pick_examples
from deepregions.evaluation.robustness import FRAMES, Curve, altered_curve, frame_curve
from deepregions.evaluation.seen import notes_on_manipulations
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.fusion import Kind
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.score_table import ScoreTable
from deepregions.types import Region


@dataclass(frozen=True)
class Request:
    """What is to be found out.

    Attributes:
        settings: How systems are measured.
        fusions: Which kinds of fusion are tried.
        robustness: Which alterations, keys of ``LEVELS``, or ``frames``.
        attributes: A CSV file with a column ``identity``, and one for each attribute of people.
        stored: Bundles' own fusions and calibrations, of networks that are scored.
    """

    settings: Settings
    fusions: Sequence[Kind]
    robustness: Sequence[str] = ()
    attributes: Path | None = None
    stored: Sequence[BundleSystem] = ()

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.robustness if kind not in (*LEVELS, FRAMES)]
        if unknown:
            known = ", ".join((*LEVELS, FRAMES))
            raise UsageError(f"no robustness to {unknown[0]!r}", f"there are {known}")


def run(scorer: StoreScorer, stores: Sequence[FaceStore], request: Request) -> Outcome:
    """Scores stores and finds out everything that is asked for.

    Args:
        scorer: With all networks.
        stores: Of different databases.
        request: What.

    Raises:
        UsageError: Stores that do not go together, or one without a part that is needed.
        UndefinedMetricError: A class is absent.
        StoreError: A store cannot be read.
    """
    attributes = read_attributes(request.attributes) if request.attributes else {}
    names = [store.info.database for store in stores]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two stores are of {max(names, key=names.count)}", "evaluate each database once"
        )
    plain = [
        Scored(store.info.database, scorer.score(store, (DEVELOPMENT, EVALUATION)))
        for store in stores
    ]
    made = _fusions(scorer, plain, request)
    scored = with_fusions(plain, made, request.stored)
    settings = request.settings
    evaluated = evaluate(scored, settings)
    calibrations = _calibrations(scorer, plain, made, request)
    several = any(len(set(each.table.video)) < len(each.table) for each in scored)
    frames = (
        evaluate(scored, replace(settings, level="frame"))
        if several and settings.level == "video"
        else ()
    )
    return Outcome(
        scored=scored,
        settings=settings,
        evaluated=evaluated,
        calibrated=[calibrate_trials(each, calibrations) for each in evaluated],
        curves=_curves(scorer, stores, scored, evaluated, made=made, request=request),
        grids=_grids(scorer, stores, scored, frames or evaluated),
        frames=frames,
        slices=_slices(scored, evaluated, attributes, settings),
        notes=[
            *(note for each in request.stored for note in each.notes(stores)),
            *notes_on_manipulations(scorer.system.members, plain),
        ],
    )


def _rows(scorer: StoreScorer) -> dict[str, str]:
    """Of each row of the matrix, the database that its networks were trained on."""
    system = scorer.system
    return {
        system.rows[row]: member.database
        for member, (row, _) in zip(system.members, system.cells, strict=True)
    }


def _fusions(scorer: StoreScorer, plain: Sequence[Scored], request: Request) -> list[FittedFusion]:
    rows, parts = _rows(scorer), development_parts(plain)
    made = []
    for database in dict.fromkeys(rows.values()):
        own = [row for row, trained_on in rows.items() if trained_on == database]
        made += make_fusions(
            plain[0].table,
            own,
            database,
            request.fusions,
            parts.get(database),
            settings=request.settings,
        )
    return made


def _calibrations(
    scorer: StoreScorer, plain: Sequence[Scored], made: Sequence[FittedFusion], request: Request
) -> Mapping[ScoredSystem, Calibration | str]:
    settings = request.settings
    found = calibrate_networks(plain[0].table, _rows(scorer), development_parts(plain), settings)
    for one in made:
        system = ScoredSystem(one.recipe.label, None, one.trained_on)
        found[system] = one.calibration or one.reason
    for stored in request.stored:
        found[stored.system] = stored.calibration(settings.level, settings.rule)
    return found


def _curves(
    scorer: StoreScorer,
    stores: Sequence[FaceStore],
    scored: Sequence[Scored],
    evaluated: Sequence[Evaluated],
    *,
    made: Sequence[FittedFusion],
    request: Request,
) -> list[Curve]:
    measured = {each.database: each for each in evaluated}
    curves = []
    for store, each in zip(stores, scored, strict=True):
        if each.database not in measured:
            continue

        def score(alteration: Alteration, store: FaceStore = store) -> Scored:
            table = scorer.score(store, (EVALUATION,), alteration)
            return with_fusions([Scored(store.info.database, table)], made, request.stored)[0]

        for kind in request.robustness:
            if kind == FRAMES:
                curve = frame_curve(_part(each), request.settings)
                curves += [] if curve is None else [curve]
            else:
                known, levels = measured[each.database], LEVELS[kind]
                curves.append(altered_curve(known, kind, levels, score, request.settings))
    return curves


def _grids(
    scorer: StoreScorer,
    stores: Sequence[FaceStore],
    scored: Sequence[Scored],
    evaluated: Sequence[Evaluated],
) -> dict[str, Image.Image]:
    """Right and wrong decisions on faces, of networks of the whole face trained on a database.

    Faces are judged by the threshold of faces, whatever the level of the evaluation.
    """
    tables = {each.database: _part(each).table for each in scored}
    by_name = {store.info.database: store for store in stores}
    rows = _rows(scorer)
    grids = {}
    for each in evaluated:
        thresholds = {
            row: threshold.value
            for row, trained_on in rows.items()
            for system, threshold in zip(each.systems, each.thresholds, strict=True)
            if system == ScoredSystem(row.partition(".")[0], Region.ENTIRE, trained_on)
            and trained_on == each.database
            and not np.isnan(threshold.value)
        }
        if not thresholds:
            continue
        table = tables[each.database]
        picks = [
            pick
            for pick in pick_examples(_only(table, list(thresholds)), Region.ENTIRE, thresholds)
            if pick.detector in thresholds
        ]
        if picks:
            examples = load_examples(
                picks, by_name[each.database], scorer.system, device=scorer.device
            )
            grids[each.database] = decision_grid(examples, list(thresholds))
    return grids


def _only(table: ScoreTable, rows: Sequence[str]) -> ScoreTable:
    """A table of some detectors."""
    places = [table.detectors.index(row) for row in rows]
    return replace(table, detectors=tuple(rows), log_odds=table.log_odds[:, places])


def _part(scored: Scored) -> Scored:
    """The evaluation part alone."""
    rows = np.flatnonzero(scored.table.split == EVALUATION)
    return _select(scored, rows)


def _select(scored: Scored, rows: np.typing.NDArray[np.int64]) -> Scored:
    fused = {name: values[rows] for name, values in scored.fused.items()}
    return replace(scored, table=scored.table.select(rows), fused=fused)


def read_attributes(path: Path) -> dict[str, dict[str, set[str]]]:
    """Reads attributes of people: by attribute, by its value, who has it.

    Raises:
        UsageError: It cannot be read, or has no column ``identity``.
    """
    people: dict[str, dict[str, set[str]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            if "identity" not in names or len(names) < 2:
                raise UsageError(
                    f"{path} has no column 'identity', or no other",
                    "a line for each person: identity,age,skin_tone",
                )
            for line in reader:
                for name in names:
                    if name != "identity" and line.get(name):
                        own = people.setdefault(name, {})
                        who = own.setdefault(str(line[name]).strip(), set())
                        who.add(str(line["identity"]).strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}", "save it as UTF-8") from error
    return people


def _slices(
    scored: Sequence[Scored],
    evaluated: Sequence[Evaluated],
    attributes: Mapping[str, Mapping[str, set[str]]],
    settings: Settings,
) -> dict[str, dict[str, dict[str, Evaluated]]]:
    """By attribute, value and database; what cannot be measured there is left out."""
    found: dict[str, dict[str, dict[str, Evaluated]]] = {}
    wanted = {each.database for each in evaluated}
    for attribute, groups in attributes.items():
        for value, people in sorted(groups.items()):
            for each in scored:
                part = _part(each)
                whose = [bool(people.intersection(who)) for who in part.table.identities]
                rows = np.flatnonzero(np.array(whose, dtype=np.bool_))
                if each.database not in wanted or not len(rows):
                    continue
                try:
                    (measured,) = evaluate([_select(part, rows)], settings)
                except UndefinedMetricError:
                    continue
                found.setdefault(attribute, {}).setdefault(value, {})[each.database] = measured
    return found
