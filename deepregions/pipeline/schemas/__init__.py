"""JSON Schemas of what this package prints, as files."""

from importlib.resources import files


def schema_text(name: str) -> str:
    """Returns the schema of a command's output."""
    return files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
