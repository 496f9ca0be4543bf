"""The networks that come with deepregions."""

from __future__ import annotations

from pathlib import Path

import deepregions

_PLACES = ("checkpoints/default", "../checkpoints/default")  # in a wheel; in a checkout


def default_bundle() -> Path | None:
    """Returns the folder of the bundle that is used where none is named; None if there is none."""
    package = Path(deepregions.__file__).parent
    found = ((package / place).resolve() for place in _PLACES)
    return next((path for path in found if (path / "bundle.json").is_file()), None)
