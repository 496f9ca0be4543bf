"""``deepregions schema``: what is in the JSON that commands print."""

from __future__ import annotations

import sys
from typing import Literal


def schema(name: Literal["detect"]) -> int:
    """Prints the JSON Schema (draft 2020-12) of a command's JSON output.

    docs/outputs.md explains its versions.

    Args:
        name: The command; only detect has a schema.
    """
    from deepregions.pipeline.schemas import schema_text

    sys.stdout.write(schema_text(name))
    return 0
