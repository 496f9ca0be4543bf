"""``deepregions schema``: what is in the JSON that commands print."""

from __future__ import annotations

import sys
from typing import Literal


def schema(
    name: Literal["detect"],
) -> int:
    """Prints the JSON Schema of a command's JSON.

    Draft 2020-12. docs/outputs.md says how it is versioned.

    Args:
        name: Whose: detect.
    """
    from deepregions.pipeline.schemas import schema_text

    sys.stdout.write(schema_text(name))
    return 0
