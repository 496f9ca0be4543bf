"""``deepregions evaluate``: how well networks and their fusions tell fake from genuine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepregions import __version__
from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions, check_stores, check_there
from deepregions.errors import UsageError
from deepregions.faces.thresholds import Gates
from deepregions.fusion.pooling import Pooling

if TYPE_CHECKING:
    from deepregions.evaluation.measures import Measure
    from deepregions.evaluation.protocols import Settings
    from deepregions.evaluation.report.chapters import Outcome
    from deepregions.evaluation.running import Media
    from deepregions.fusion.score_table import Origin
    from deepregions.weights.bundle import Bundle

_LIBRARIES = ("torch", "numpy", "scipy", "pillow", "opencv-python", "av")


def evaluate(
    *,
    out: Path,
    store: list[Path] | None = None,
    scores: list[Path] | None = None,
    networks: NetworkOptions,
    level: Literal["video", "frame"] = "video",
    columns: list[str] | None = None,
    cells: Literal["interval", "value"] = "interval",
    fusions: list[str] | None = None,
    robustness: list[str] | None = None,
    attributes: Path | None = None,
    bootstrap_samples: int = 1000,
    ci: float = 0.95,
    seed: int = 0,
    pool: Pooling,
    gates: Gates,
    device: str = "auto",
    batch_size: int = 32,
    json: bool = False,
) -> None:
    """Measures networks and their fusions within and across databases.

    Every face of the development and evaluation parts of the stores is scored once. Scores are
    kept in OUT/scores by network and store, so a run that was stopped continues where it was.
    Thresholds, fusions and calibrations come from the development part of the database that the
    networks were trained on; the figures are for evaluation parts, with bootstrap intervals over
    people. A bundle's own fusion and calibration are measured too, as stored. Writes tables
    (Markdown, CSV, LaTeX), figures (PNG, SVG, PDF), results.json, and a page with all of it, and
    prints the page's path. OUT/summary.tex is a table for a paper: it fits a column and needs the
    packages booktabs, siunitx and tabularx. Exits with 4 if genuine or fake faces are missing.

    With --scores, all of this is computed from scores that an evaluation has written, without
    media and without networks; --bundle then adds the bundle's own fusion and calibration.

    Args:
        out: The folder to write to.
        store: Face stores of different databases, as `deepregions prepare` and `deepregions
            forge` write them.
        scores: Parquet files of scores instead of stores, as an evaluation writes them to
            OUT/scores, one for each database.
        networks: Which networks are measured.
        level: Judge whole photographs and videos, or single faces (frame).
        columns: Measures of the summary, such as AUC EER accuracy bpcer cllr (AUC EER by default).
        cells: What a cell of the summary has: value, or value and interval.
        fusions: The fusions to try: mean, max, weighted, logistic, head; all but max by default.
        robustness: Also measure on altered faces: jpeg, h264, resize, blur, noise, gamma, frames;
            or all.
        attributes: A CSV file with a column "identity" and a column for each attribute of people;
            figures are then given for each group.
        bootstrap_samples: Bootstrap samples; 0 disables intervals.
        ci: Confidence level of the intervals, such as 0.95.
        seed: Random seed of the bootstrap.
        pool: How the scores of a video's faces become one.
        gates: When a face is good enough to be judged.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Number of faces scored at once.
        json: Print the content of results.json instead of tables.
    """
    if (store is None) == (scores is None):
        raise UsageError("evaluate measures stores or scores", "--store DIR, or --scores FILE")
    check_stores(*store or ())
    check_there(attributes, *scores or ())

    from deepregions.evaluation.protocols import EVALUATION, Settings
    from deepregions.evaluation.report.render import write_outcome
    from deepregions.evaluation.running import read_tables, run
    from deepregions.evaluation.systems import notes_on_people
    from deepregions.files import Names
    from deepregions.fusion.training import KINDS

    checks.positive(batch_size=batch_size)
    unknown = set(fusions or ()) - set(KINDS)
    if unknown:
        raise UsageError(f"no fusion {min(unknown)!r}", f"there are {', '.join(KINDS)}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", "name a folder")
    altered = _robustness(robustness or [], from_scores=store is None)
    measures = [_measure(name) for name in columns or ("AUC", "EER")]
    settings = Settings(level, pool, bootstrap_samples, seed, ci)
    bundles = {} if scores and not networks.named else networks.load_each()
    cautions = [note for each in bundles.values() for note in (*each.facts.cautions(), *each.notes)]
    with checks.counted("scoring") as show:
        if store is not None:
            how = {"gates": gates, "device": device, "batch_size": batch_size, "progress": show}
            media = _media(store, bundles, out / "scores", **how)
            people, tables = media.people(), []
        else:
            media, tables = None, read_tables(scores or [], bundles)
            parts = [table.part(EVALUATION) for table in tables]
            people = {part.origin.database: [*part.identities] for part in parts}
        cautions += notes_on_people(bundles, people)
        for note in cautions:  # before hours of scoring
            checks.warn(note)
        if media is not None:
            tables = media.tables(settings)
        outcome = run(
            tables,
            settings,
            fusions=[kind for kind in KINDS if kind in (fusions or set(KINDS) - {"max"})],
            robustness=altered,
            attributes=attributes,
            bundles=bundles,
            media=media,
        )
    if media is not None:
        names = Names()
        for table in tables:
            table.write(out / "scores" / f"{names.unused(table.origin.database)}.parquet")
    outcome = replace(outcome, columns=measures, cells=cells)
    facts = _facts([table.origin for table in tables], settings)
    page = write_outcome(replace(outcome, notes=(*cautions, *outcome.notes)), out, facts)
    if json:
        sys.stdout.write((out / "results.json").read_text(encoding="utf-8"))
    else:
        _print(outcome, page)


def _media(
    paths: Sequence[Path],
    bundles: Mapping[str, Bundle],
    cache: Path,
    **how: Any,
) -> Media:
    from deepregions.data.store import FaceStore
    from deepregions.evaluation.running import Media
    from deepregions.evaluation.store_scorer import StoreScorer
    from deepregions.weights.selection import distinct

    scorer = StoreScorer(distinct(bundles.values()), cache, **how)
    return Media(scorer, [FaceStore(path) for path in paths])


def _robustness(kinds: Sequence[str], *, from_scores: bool) -> list[str]:
    """Returns the kinds that are wanted: keys of ``LEVELS``, or ``frames``."""
    from deepregions.evaluation.alterations import LEVELS
    from deepregions.evaluation.robustness import FRAMES

    known = [*LEVELS, FRAMES]
    for kind in kinds:
        if kind not in (*known, "all"):
            raise UsageError(f"no robustness to {kind!r}", f"there are {', '.join(known)}")
    wanted = known if "all" in kinds else [*kinds]
    if from_scores and set(wanted) - {FRAMES}:
        raise UsageError("altered faces must be scored", "--store DIR instead of --scores")
    return wanted


def _facts(origins: Sequence[Origin], settings: Settings) -> dict[str, Any]:
    return {
        "command": ["deepregions", *sys.argv[1:]],
        "models": origins[0].models,
        "stores": {each.database: each.store for each in origins},
        "landmarks": {
            each.database: each.settings["landmarks"].get("name")
            for each in origins
            if isinstance(each.settings.get("landmarks"), dict)
        },
        "rules": {"faces": settings.rule.frame_rule, "tracks": settings.rule.track_rule},
        "seed": settings.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "deepregions": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        },
        "gates": origins[0].settings.get("gates"),
    }


def _measure(name: str) -> Measure:
    from deepregions.evaluation.measures import MEASURES

    known = {each.name: each for each in MEASURES}
    if name.lower() not in known:
        raise UsageError(f"no measure {name!r}", f"there are {', '.join(known)}")
    return known[name.lower()]


def _print(outcome: Outcome, page: Path) -> None:
    from deepregions.evaluation.report.tables import format_estimate

    measures = outcome.columns
    for each in outcome.evaluated:
        rows = []
        for system in each.systems:
            found = [each.estimate(system, measure) for measure in measures]
            rows.append((system.name, *map(format_estimate, found), str(found[0].n)))
        heads = ("system", *(measure.title for measure in measures), "n")
        checks.print_table(heads, rows, title=each.database)
    for note in outcome.notes:
        checks.warn(note)
    checks.print_lines(str(page))
