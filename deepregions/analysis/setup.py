"""From the names that a user gives (bundles, landmark backend, device) to an analyser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepregions import __version__
from deepregions.analysis.analyser import Analyser
from deepregions.devices import choose_device
from deepregions.errors import UsageError
from deepregions.faces.landmarks import landmark_detector
from deepregions.system import System
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle


def make_analyser(
    bundles: Sequence[Path],
    *,
    region: Region | None,
    landmarks: str,
    device: str,
    frames_per_video: int,
    batch_size: int,
) -> tuple[Analyser, dict[str, Any]]:
    """Loads what it takes to score.

    Args:
        bundles: Bundle folders; their networks are used together.
        region: Only the networks for this region, and no face search: inputs are its canvases.
        landmarks: A landmark backend's name.
        device: A device's name.
        frames_per_video: How many frames of a video to look at.
        batch_size: How many faces to score at once.

    Returns:
        The analyser, and what results say about how they were made.

    Raises:
        BundleError: A bundle cannot be loaded.
        UsageError: No network for the region, or a device or backend that does not exist.
        AssetError: The landmark backend's files cannot be had.
    """
    where = choose_device(device)
    members = [member for bundle in bundles for member in load_bundle(bundle)]
    if region is not None:
        held = sorted({str(member.region) for member in members})
        members = [member for member in members if member.region == region]
        if not members:
            raise UsageError(
                f"no bundle has a network for {region}", f"they have: {', '.join(held)}"
            )
    system = System(members)
    find = landmark_detector(landmarks, device) if region is None else None
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
