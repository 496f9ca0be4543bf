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
from deepregions.evaluation.measures import AUC, MEASURES
from deepregions.evaluation.protocols import (
    DEVELOPMENT,
    EVALUATION,
    Evaluated,
    Scored,
    Settings,
    evaluate,
)
from deepregions.evaluation.report.chapters import Outcome
from deepregions.evaluation.report.grid import decision_grid, pick_examples
from deepregions.evaluation.robustness import FRAMES, Curve, altered_curve, frame_curve
from deepregions.evaluation.store_faces import load_examples
from deepregions.evaluation.store_scorer import StoreScorer
from deepregions.evaluation.systems import (
    BundleSystem,
    FittedFusion,
    calibrate_trials,
    calibrations_of,
    fit_fusions,
    notes_on_manipulations,
    with_fusions,
)
from deepregions.fusion import Kind
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
    settings = request.settings
    made = fit_fusions(plain, request.fusions, settings)
    scored = with_fusions(plain, made, request.stored)
    evaluated = evaluate(scored, settings)
    calibrations = calibrations_of(plain, made, request.stored, settings)
    several = any(len(set(each.table.video)) < len(each.table) for each in scored)
    frames = (
        evaluate(scored, replace(settings, level="frame"), MEASURES)
        if several and settings.level == "video"
        else []
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
                curve = frame_curve(each.part(EVALUATION), request.settings)
                curves += [] if curve is None else [curve]
            else:
                known, levels = measured[each.database], LEVELS[kind]
                curves.append(altered_curve(known, kind, levels, score, request.settings))
    return curves


def _grids(
    scorer: StoreScorer,
    stores: Sequence[FaceStore],
    scored: Sequence[Scored],
    faces: Sequence[Evaluated],
) -> dict[str, Image.Image]:
    """Right and wrong decisions of networks on the whole face that were trained on a database.

    Args:
        scorer: With all networks.
        stores: The databases' faces.
        scored: The databases.
        faces: The same, measured face by face: a face is judged by the threshold of faces.
    """
    tables = {each.database: each.table.part(EVALUATION) for each in scored}
    by_name = {store.info.database: store for store in stores}
    grids = {}
    for each in faces:
        table = tables[each.database]
        thresholds = {
            table.detectors[table.systems[system][0]]: threshold.value
            for system, threshold in zip(each.systems, each.thresholds, strict=True)
            if system.region is Region.ENTIRE
            and system.trained_on == each.database
            and not np.isnan(threshold.value)
        }
        if not thresholds:
            continue
        picks = pick_examples(_only(table, list(thresholds)), Region.ENTIRE, thresholds)
        if picks:
            examples = load_examples(
                picks, by_name[each.database], scorer.system, device=scorer.device
            )
            grids[each.database] = decision_grid(examples, list(thresholds))
    return grids


def _only(table: ScoreTable, names: Sequence[str]) -> ScoreTable:
    """A table of some rows."""
    places = [table.detectors.index(name) for name in names]
    return replace(
        table,
        detectors=tuple(names),
        rows=tuple(table.rows[place] for place in places),
        log_odds=table.log_odds[:, places],
    )


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
                part = each.part(EVALUATION)
                whose = [bool(people.intersection(who)) for who in part.table.identities]
                rows = np.flatnonzero(np.array(whose, dtype=np.bool_))
                if each.database not in wanted or not len(rows):
                    continue
                try:
                    (measured,) = evaluate([part.select(rows)], settings, (AUC,))
                except UndefinedMetricError:
                    continue
                found.setdefault(attribute, {}).setdefault(value, {})[each.database] = measured
    return found
