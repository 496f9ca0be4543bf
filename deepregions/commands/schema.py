"""``deepregions schema``: what is in the JSON that commands print."""

import sys
from typing import Literal


def schema(name: Literal["detect"]) -> None:
    """Prints the JSON Schema (draft 2020-12) of a command's JSON output.

    docs/outputs.md explains its versions.

    Args:
        name: The command; only detect has a schema.
    """
    from deepregions.pipeline.schemas import schema_text

    sys.stdout.write(schema_text(name))
