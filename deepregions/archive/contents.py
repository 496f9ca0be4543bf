"""Results by content, so that copies of a file are scored once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepregions.archive.columns import as_line
from deepregions.files import atomic_file, sha256
from deepregions.media.kinds import known_ending


class KnownContents:
    """A folder with a small file for each content; any number of processes may share it.

    What cannot be read or written there is scored again: no result depends on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, path: Path) -> str:
        """Returns what tells a file's content, and its kind where that says nothing.

        Nothing where it cannot be read.
        """
        with suppress(OSError, ValueError):
            if path.is_file():
                return f"{sha256(path)}{known_ending(path.name)}"
        return ""

    def find(self, key: str) -> dict[str, Any] | None:
        """Returns the result of a content, as ``detect --json`` has it; None if it has none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(self._place(key).read_bytes())
            del told["id"], told["seconds"]
            return dict(told) if told["media"]["sha256"] == key[:64] else None
        return None

    def keep(self, key: str, told: Mapping[str, Any], name: str) -> None:
        """Keeps a result, unless it is of another content by now or speaks of the file's name."""
        texts = (told["message"], *told["warnings"])
        if told["media"].get("sha256") != key[:64] or any(name in text for text in texts):
            return
        with suppress(OSError), atomic_file(self._place(key)) as partial:
            partial.write_bytes(as_line(0, told, 0.0))

    def _place(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
