"""The faces behind decisions, from a store, with where the networks looked."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepregions.data.store import FaceStore, decode_image
from deepregions.errors import StoreError, UsageError
from deepregions.evaluation.report.grid import Example, Pick, heat_picture
from deepregions.pipeline.explain.gradcam import Towards, heats
from deepregions.system import System


def load_examples(
    picks: Sequence[Pick],
    store: FaceStore,
    system: System,
    *,
    device: torch.device | str = "cpu",
    towards: Towards = "fake",
) -> list[Example]:
    """Reads the faces of decisions, and computes where the networks looked.

    Args:
        picks: The decisions, as :func:`~deepregions.evaluation.report.grid.pick_examples` chooses
            them.
        store: Where their faces are, by key.
        system: The networks that decided; moved to ``device``.
        device: Where to compute.
        towards: What heat speaks for.

    Returns:
        An example for each decision, in their order.

    Raises:
        StoreError: A face is not in the store.
        UsageError: A network is not in the system.
    """
    system = system.to(device)
    cells = {
        (system.rows[row], system.regions[column]): member
        for member, (row, column) in zip(system.members, system.cells, strict=True)
    }
    places = {str(key): row for row, key in enumerate(store.column("key"))}
    examples = []
    for pick in picks:
        if pick.key not in places:
            raise StoreError(f"{store.path} has no face {pick.key}", "give the store it is from")
        member = cells.get((pick.detector, pick.region))
        if member is None:
            known = ", ".join(sorted(f"{row} {region}" for row, region in cells))
            raise UsageError(f"no network {pick.detector} {pick.region}", f"there is {known}")
        face = store[places[pick.key]]
        (heat,) = heats(
            System([member]),
            decode_image(face.image)[None].to(device),
            torch.from_numpy(face.landmarks)[None].to(device),
            towards=towards,
        )
        examples.append(Example(pick, *heat_picture(heat)))
    return examples
