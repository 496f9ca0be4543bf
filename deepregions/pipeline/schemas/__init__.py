"""JSON Schemas of what this package prints, as files."""

from __future__ import annotations

from importlib.resources import files


def schema_text(name: str) -> str:
    """Returns a schema's text.

    Args:
        name: Whose output it describes: ``"detect"``.

    Raises:
        OSError: There is no such schema.
    """
    return files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
