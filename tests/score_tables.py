"""Tables of scores whose structure is known, without any network."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deepregions.fusion.score_table import Origin, ScoreRow, ScoreTable
from deepregions.fusion.trials import Trials
from deepregions.types import Region

DETECTORS = ("xception", "capsule")
REGIONS = (Region.ENTIRE, Region.EYES, Region.MOUTH)
SCALES = np.array([[6.0, 3.0, 2.0], [0.5, 0.2, 0.3]])
"""Deviation of each cell's log-odds: Capsule's are ten times smaller than Xception's."""
POWER = np.array([[0.3, 0.8, 0.5], [1.2, 0.1, 0.6]])
"""How far the classes are apart in each cell, in deviations."""


def make_trials(log_odds: Any, fake: Any, name: str = "a", method: Any = None) -> Trials:
    """Makes trials of people of their own."""
    labels = np.array(fake, dtype=bool)
    kinds = np.where(labels, "swap", "original") if method is None else method
    odds, group = np.array(log_odds, np.float64), np.arange(len(labels))
    return Trials(name, odds, labels, np.array(kinds, dtype=object), group)


def rows_of(names: Iterable[str], models: Mapping[str, str]) -> tuple[ScoreRow, ...]:
    """Finds who rows are by their names, a detector's, or a detector's and a database's."""
    parts = {model.partition(".")[::2] for model in models}
    known = {ScoreRow(network.rpartition("_")[0], database) for network, database in parts}
    whole = {f"{row.detector}.{row.database}": row for row in known}

    def row(name: str) -> ScoreRow:
        own = [row for row in known if row.detector == name]
        if name in whole or len(own) != 1:
            return whole.get(name, ScoreRow(*name.partition(".")[::2]))
        return own[0]

    return tuple(map(row, names))


def make_table(
    origin: Origin,
    detectors: tuple[str, ...],
    regions: tuple[Region, ...],
    faces: Iterable[dict[str, Any]],
) -> ScoreTable:
    """Makes a table of faces, each with all columns by name, ``log_odds`` (D, R)."""
    given = list(faces)
    texts = ("key", "video", "identities", "method", "compression", "split", "status")
    kinds = dict.fromkeys(texts, object) | {"track": np.int64, "label": np.int64}
    columns = {name: np.empty(len(given), kind) for name, kind in kinds.items()}
    for name, column in columns.items():
        column[:] = [face[name] for face in given]
    logits = np.array([face["log_odds"] for face in given], dtype=np.float64)
    return ScoreTable(
        origin,
        detectors,
        regions,
        **columns,
        log_odds=logits.reshape(len(given), len(detectors), len(regions)),
        rows=rows_of(detectors, origin.models),
    )


def face(video: str, log_odds: Any = 0.0, **other: Any) -> dict[str, Any]:
    """Makes a row of a table: a genuine face with a verdict, unless ``other`` says otherwise."""
    label = other.get("label", 0)
    return {
        "key": video,
        "video": video,
        "track": 0,
        "identities": (),
        "label": label,
        "method": "swap" if label else "original",
        "compression": "",
        "split": "test",
        "status": "ok",
        "log_odds": np.atleast_2d(log_odds),
    } | other


def score_table(
    people: int = 60,
    *,
    seed: int = 0,
    faces: int = 3,
    missing: float = 0.0,
    split: str = "val",
    power: np.ndarray = POWER,
    gap: float = 0.0,
    detectors: tuple[str, ...] = DETECTORS,
    regions: tuple[Region, ...] = REGIONS,
) -> ScoreTable:
    """Makes two videos of each person, one genuine and one swapped with the next person's face.

    Cells are normal, share some noise within a video, and lie ``power + gap`` deviations apart.
    """
    rng = np.random.default_rng(seed)
    shape = (len(detectors), len(regions))
    rows = []
    for person in range(people):
        for label in (0, 1):
            of_video = rng.normal(size=shape)
            for number in range(faces):
                noise = 0.8 * of_video + 0.6 * rng.normal(size=shape)
                z = noise + (label - 0.5) * (power[: shape[0], : shape[1]] + gap)
                logits = SCALES[: shape[0], : shape[1]] * (z + 0.7)
                logits[rng.uniform(size=shape) < missing] = np.nan
                rows.append(
                    face(
                        f"v{person}-{label}",
                        logits,
                        key=f"{person}-{label}-{number}",
                        identities=(f"p{person}", f"p{person ^ 1}")[: 1 + label],
                        label=label,
                        split=split,
                        status="too_small" if np.isnan(logits).all() else "ok",
                    )
                )
    origin = Origin("made", "f00d", {}, {"landmarks": {"name": "drawn", "version": "1"}})
    return make_table(origin, detectors, regions, rows)


def noisy_faces(
    seed: int = 0, splits: tuple[str, ...] = ("val",), people: int = 150, tracks: int = 1
) -> ScoreTable:
    """Makes videos of 12 faces, which differ more within a video than between videos."""
    rng = np.random.default_rng(seed)
    rows = []
    for split in splits:
        for person in range(people):
            for label in (0, 1):
                base = rng.normal() + 2 * label
                rows += [
                    face(
                        f"{split}{person}-{label}",
                        base + 2.5 * rng.normal(),
                        key=f"{split}{person}-{label}-{number}",
                        track=number % tracks,
                        identities=(f"{split}{person}",),
                        label=label,
                        split=split,
                    )
                    for number in range(12)
                ]
    origin = Origin("made", "f00d", {"xception_entire.made": "ab" * 32}, {})
    return make_table(origin, ("xception",), (Region.ENTIRE,), rows)
