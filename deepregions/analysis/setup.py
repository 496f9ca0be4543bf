"""From networks and the names that a user gives (landmark backend, device) to an analyser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepregions import __version__
from deepregions.analysis.analyser import Analyser
from deepregions.devices import choose_device
from deepregions.faces.landmarks import landmark_detector
from deepregions.system import Member, System


def make_analyser(
    members: Sequence[Member],
    *,
    landmarks: str | None,
    device: str,
    frames_per_video: int,
    batch_size: int,
) -> tuple[Analyser, dict[str, Any]]:
    """Loads what it takes to score.

    Args:
        members: The networks, used together.
        landmarks: A landmark backend's name; None where inputs are region canvases, on which no
            face is searched.
        device: A device's name.
        frames_per_video: How many frames of a video to look at.
        batch_size: How many faces to score at once.

    Returns:
        The analyser, and what results say about how they were made.

    Raises:
        UsageError: No network, or a device or backend that does not exist.
        AssetError: The landmark backend's files cannot be had.
    """
    where = choose_device(device)
    system = System(members)
    find = None if landmarks is None else landmark_detector(landmarks, device)
    analyser = Analyser(
        system, find, device=where, frames_per_video=frames_per_video, batch_size=batch_size
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
        "landmarks": None if find is None else {"name": find.name, "version": find.version},
        "frames_per_video": frames_per_video,
        "deepregions": __version__,
    }
    return analyser, facts
