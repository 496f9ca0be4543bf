"""From networks and the names that a user gives (landmark backend, device) to an analyser."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from deepregions import __version__
from deepregions.aggregation import Aggregation
from deepregions.analysis.analyser import Analyser
from deepregions.analysis.scoring import Scorer
from deepregions.devices import choose_device
from deepregions.faces.landmarks import LandmarkDetector, landmark_detector
from deepregions.faces.thresholds import Gates
from deepregions.media import Sampling
from deepregions.system import Member, System

_LIBRARIES = ("torch", "timm", "av", "pillow", "opencv-python")  # whose numbers a score is made of


def make_analyser(
    members: Sequence[Member],
    *,
    landmarks: str | None,
    device: str = "auto",
    sampling: Sampling | None = None,
    rules: Aggregation | None = None,
    gates: Gates | None = None,
    batch_size: int = 16,
    pictures: bool = True,
) -> tuple[Analyser, dict[str, Any]]:
    """Loads what it takes to score.

    Args:
        members: The networks, used together.
        landmarks: A landmark backend's name; None where inputs are region canvases, on which no
            face is searched.
        device: A device's name.
        sampling: Which frames of a video to look at.
        rules: How scores become one.
        gates: What a face must be to be judged.
        batch_size: How many faces to score at once.
        pictures: Whether to collect the pictures behind a score.

    Returns:
        The analyser, and what results say about how they were made.

    Raises:
        UsageError: No network, or a device or backend that does not exist.
        AssetError: The landmark backend's files cannot be had.
    """
    where = choose_device(device)
    system = System(members)
    sampling, rules, gates = sampling or Sampling(), rules or Aggregation(), gates or Gates()
    find = None if landmarks is None else landmark_detector(landmarks, device)
    analyser = Analyser(
        Scorer(system, gates, where),
        find,
        sampling=sampling,
        rules=rules,
        batch_size=batch_size,
        pictures=pictures,
        warnings=tuple(_mismatches(members, find)),
    )
    facts = {
        "models": [
            {
                "name": member.name,
                "detector": system.rows[row],
                "region": str(member.region),
                "database": member.database,
                "sha256": member.sha256,
                "landmarks": member.training.get("landmarks"),
            }
            for member, (row, _) in zip(members, system.cells, strict=True)
        ],
        "fusion": system.fusion.rule,
        "rules": {"faces": rules.track_name, "tracks": rules.input_name},
        "calibration": "uncalibrated",
        **({} if find is None else {"gates": asdict(gates)}),
        "landmarks": None if find is None else {"name": find.name, "version": find.version},
        "device": str(where),
        "command": ["deepregions", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "deepregions": __version__,
    }
    return analyser, facts


def _mismatches(members: Sequence[Member], find: LandmarkDetector | None) -> Iterator[str]:
    """Networks see other crops than they were trained on where landmarks are another backend's."""
    if find is None:
        return
    others: dict[str, list[str]] = {}
    for member in members:
        backend = member.training.get("landmarks")
        trained_on = backend.get("name") if isinstance(backend, dict) else None
        if trained_on and trained_on != find.name:
            others.setdefault(str(trained_on), []).append(member.name)
    for backend_name, names in others.items():
        shown = names[0] if len(names) == 1 else f"{len(names)} networks"
        yield f"{shown} learned on landmarks by {backend_name}; here they are by {find.name}"
