"""Measures of many scores, and their intervals: ``python benchmarks/evaluation.py``.

A made-up database, of which every face has scores by 15 networks and 3 fusions, goes the whole
way: from a table of scores to all measures with intervals, by face and by video, and to a curve of
robustness. The peak is the process's, with torch and all else that the package loads. Set
OMP_NUM_THREADS to measure on fewer cores.
"""

from __future__ import annotations

import resource
import time
from functools import partial
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from deepregions.evaluation.alterations import LEVELS, Alteration
from deepregions.evaluation.measures import MEASURES
from deepregions.evaluation.protocols import EVALUATION, Scored, Settings, evaluate
from deepregions.evaluation.report.comparisons import (
    fusion_tables,
    method_tables,
    pairs_table,
    within_tables,
)
from deepregions.evaluation.report.tables import to_csv, to_latex, to_markdown
from deepregions.evaluation.robustness import altered_curve
from deepregions.fusion.pooling import Pooling
from deepregions.fusion.score_table import Origin, ScoredSystem, ScoreRow, ScoreTable, Strings
from deepregions.fusion.trials import trials_of
from deepregions.roc import Floats
from deepregions.types import REGIONS

DETECTORS = ("xception", "capsule", "dsp-fwa")
METHODS = ("original", "original", "swap", "reenact", "blend")


def main(
    faces: int = 10_000, rounds: int = 1000, per_video: int = 10, many: int = 1_000_000
) -> None:
    """Measures time and memory.

    Args:
        faces: How many are evaluated with intervals; as many again are for development.
        rounds: Bootstrap samples.
        per_video: Faces a video.
        many: How many are measured once, and put together to videos.
    """
    print(f"before anything: {_peak():.0f} MB")
    table = _table(2 * faces, per_video)
    scored = Scored(table, _fusions(table))
    for level in ("frame", "video"):
        start, worked = time.perf_counter(), time.process_time()
        evaluated = evaluate([scored], Settings(level, rounds=rounds))
        took, worked = time.perf_counter() - start, time.process_time() - worked
        each = evaluated[0]
        count = f"{len(each.result.trials[0])} {level}s, {len(each.systems)} systems"
        figures = f"{len(each.result.measures)} measures, {rounds} rounds"
        print(f"{count}, {figures}: {took:.1f} s ({worked:.1f} s of CPU), peak {_peak():.0f} MB")
        start = time.perf_counter()
        tables = [
            *within_tables(each),
            *method_tables(each),
            *fusion_tables(each),
            pairs_table(each),
        ]
        size = sum(len(to_markdown(t)) + len(to_latex(t)) for t in tables) + len(to_csv(tables))
        took = time.perf_counter() - start
        print(f"{len(tables)} tables in three formats, {size / 1000:.0f} kB: {took:.1f} s")
        part = scored.part(EVALUATION)
        start = time.perf_counter()
        altered_curve(each, "jpeg", LEVELS["jpeg"], partial(_given, part))
        took = time.perf_counter() - start
        print(f"a robustness curve of {len(LEVELS['jpeg'])} levels: {took:.1f} s")
    _once(many, per_video)


def _given(part: Scored, _: Alteration) -> Scored:
    """Stands for scoring altered faces, which is measured elsewhere."""
    return part


def _once(faces: int, per_video: int) -> None:
    table = _table(faces, per_video, networks=1)
    logits = table.log_odds[:, 0, 0]
    for rule in ("mean", "median", "top"):
        start = time.perf_counter()
        trials = trials_of(table, logits, pooling=Pooling(rule))
        took = time.perf_counter() - start
        print(f"{faces} faces to {len(trials)} videos by {rule}: {took:.1f} s")
    start = time.perf_counter()
    settings = Settings("frame", rounds=0)
    evaluate([Scored(table)], settings)
    took = time.perf_counter() - start
    print(
        f"{faces} faces by five networks, every measure once: {took:.1f} s, peak {_peak():.0f} MB"
    )
    names = ", ".join(measure.title for measure in MEASURES)
    print(f"measures: {names}; and of each method APCER, AUC and EER")


def _table(faces: int, per_video: int, networks: int = len(DETECTORS)) -> ScoreTable:
    rng = np.random.default_rng(0)
    video = np.arange(faces) // per_video
    kind = video % len(METHODS)
    fake = kind > 1
    shape = (faces, networks, len(REGIONS))
    logits = 1.5 * rng.normal(size=shape) + np.where(fake, 1.0, -1.0)[:, None, None]
    logits[rng.uniform(size=shape) < 0.02] = np.nan
    person = video // len(METHODS)
    people: Strings = np.empty(faces, dtype=np.object_)
    people[:] = [(f"p{n}", f"q{n}") if f else (f"p{n}",) for n, f in zip(person, fake, strict=True)]
    models = {f"{d}_{r}.made": "" for d in DETECTORS[:networks] for r in REGIONS}

    def words(values: list[str]) -> Strings:
        return np.array(values, dtype=np.object_)

    columns: dict[str, Any] = {
        "key": words([str(n) for n in range(faces)]),
        "video": words([f"v{n}" for n in video]),
        "track": np.zeros(faces, dtype=np.int64),
        "identities": people,
        "label": fake.astype(np.int64),
        "method": words([METHODS[n] for n in kind]),
        "compression": words([""] * faces),
        "split": words([("test", "val")[n % 2] for n in person]),
        "status": words(["ok"] * faces),
    }
    detectors = DETECTORS[:networks]
    rows = tuple(ScoreRow(detector, "made") for detector in detectors)
    origin = Origin("made", models=models)
    return ScoreTable(origin, detectors, REGIONS, **columns, log_odds=logits, rows=rows)


def _fusions(table: ScoreTable) -> dict[ScoredSystem, Floats]:
    flat = np.where(table.valid, table.log_odds, 0.0).reshape(len(table), -1)
    found = {"mean": flat.mean(1), "highest": flat.max(1), "middle": np.median(flat, 1)}
    return {ScoredSystem(name, None, "made"): values for name, values in found.items()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in kB


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
