"""``deepregions evaluate``: how well networks and their fusions tell fake from genuine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
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
    from deepregions.data.store import FaceStore
    from deepregions.evaluation.measures import Measure
    from deepregions.evaluation.protocols import Settings
    from deepregions.evaluation.report.chapters import Outcome
    from deepregions.system import TrainedNetwork

_LIBRARIES = ("torch", "numpy", "scipy", "pillow", "opencv-python", "av")


def evaluate(
    *,
    store: list[Path],
    out: Path,
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

    Args:
        store: Face stores of different databases, as `deepregions prepare` and `deepregions
            forge` write them.
        out: The folder to write to.
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
    check_stores(*store)
    check_there(attributes)

    from deepregions.data.store import FaceStore
    from deepregions.evaluation.alterations import LEVELS
    from deepregions.evaluation.protocols import Settings
    from deepregions.evaluation.report.render import write_outcome
    from deepregions.evaluation.robustness import FRAMES
    from deepregions.evaluation.running import run
    from deepregions.evaluation.store_scorer import StoreScorer
    from deepregions.evaluation.systems import notes_on_people
    from deepregions.files import Names
    from deepregions.fusion.training import KINDS
    from deepregions.weights.selection import distinct

    checks.positive(batch_size=batch_size)
    unknown = set(fusions or ()) - set(KINDS)
    if unknown:
        raise UsageError(f"no fusion {min(unknown)!r}", f"there are {', '.join(KINDS)}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", "name a folder")
    wanted = robustness or []
    measures = [_measure(name) for name in columns or ("AUC", "EER")]
    settings = Settings(level, pool, bootstrap_samples, seed, ci)
    stores = [FaceStore(path) for path in store]
    bundles = networks.load_each()
    members = distinct(member for each in bundles.values() for member in each)
    cautions = [note for each in bundles.values() for note in (*each.facts.cautions(), *each.notes)]
    cautions += notes_on_people(bundles, stores)
    for note in cautions:  # before hours of scoring
        checks.warn(note)
    with checks.counted("scoring") as show:
        scorer = StoreScorer(
            members,
            out / "scores",
            gates=gates,
            device=device,
            batch_size=batch_size,
            progress=show,
        )
        outcome = run(
            scorer,
            stores,
            settings,
            fusions=[kind for kind in KINDS if kind in (fusions or set(KINDS) - {"max"})],
            robustness=[*LEVELS, FRAMES] if "all" in wanted else wanted,
            attributes=attributes,
            bundles=bundles,
        )
    names = Names()
    for each in outcome.scored:
        each.table.write(out / "scores" / f"{names.unused(each.database)}.parquet")
    outcome = replace(outcome, columns=measures, cells=cells)
    facts = _facts(members, stores, settings) | {"gates": asdict(gates)}
    page = write_outcome(replace(outcome, notes=(*cautions, *outcome.notes)), out, facts)
    if json:
        sys.stdout.write((out / "results.json").read_text(encoding="utf-8"))
    else:
        _print(outcome, page)


def _facts(
    members: Sequence[TrainedNetwork], stores: Sequence[FaceStore], settings: Settings
) -> dict[str, Any]:
    return {
        "command": ["deepregions", *sys.argv[1:]],
        "models": {member.name: member.sha256 for member in members},
        "stores": {each.info.database: each.fingerprint for each in stores},
        "landmarks": {each.info.database: each.info.landmarks for each in stores},
        "rules": {"faces": settings.rule.frame_rule, "tracks": settings.rule.track_rule},
        "seed": settings.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "deepregions": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        },
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
