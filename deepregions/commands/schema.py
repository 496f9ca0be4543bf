"""``deepregions schema``: what is in the JSON that commands print."""

from __future__ import annotations

import sys
from typing import Literal


def schema(
    name: Literal["detect"],
) -> int:
    """Prints the JSON Schema (draft 2020-12) of a command's JSON output.

    docs/outputs.md says how it is versioned.

    Args:
        name: The command: detect.
    """
    from deepregions.pipeline.schemas import schema_text

    sys.stdout.write(schema_text(name))
    return 0
