"""Results by content, so that copies of a file are scored once."""

import hashlib
import json
import secrets
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deepregions.archive.columns import as_line
from deepregions.files import sha256
from deepregions.media.kinds import known_ending

_RECORD = struct.Struct("<16s8sQI")  # of an index: the key's digest, whose file, where, how long


class KnownContents:
    """A folder of results by content; any number of processes may share it.

    Each process appends its results to a file of its own, and where they are to one of 256
    indices: few files, however many contents. What cannot be read or written there, or is cut off,
    is scored again: no result depends on it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mine = secrets.token_bytes(8)

    def key(self, path: Path) -> str:
        """Returns what tells a file's content, and its kind; nothing where it cannot be read."""
        with suppress(OSError, ValueError):
            if path.is_file():
                return f"{sha256(path)}{known_ending(path.name)}"
        return ""

    def find(self, key: str) -> dict[str, Any] | None:
        """Returns the result of a content, as ``detect --json`` has it; None if it has none."""
        with suppress(OSError, ValueError, KeyError, TypeError, struct.error, zlib.error):
            records = self._index(key).read_bytes()
            found = records.rfind(_digest(key))
            if found < 0:
                return None
            _, whose, place, length = _RECORD.unpack_from(records, found)
            with self._results(whose).open("rb") as stream:
                stream.seek(place)
                told = json.loads(zlib.decompress(stream.read(length)))
            del told["id"], told["seconds"]
            return dict(told) if told["media"]["sha256"] == key[:64] else None
        return None

    def keep(self, key: str, told: Mapping[str, Any], name: str) -> None:
        """Keeps a result, unless it is of another content by now or speaks of the file's name."""
        texts = (told["message"], *told["warnings"])
        if told["media"].get("sha256") != key[:64] or any(name in text for text in texts):
            return
        packed = zlib.compress(as_line(0, told, 0.0), 1)
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            with self._results(self._mine).open("ab") as stream:
                place = stream.tell()
                stream.write(packed)
            with self._index(key).open("ab", buffering=0) as index:
                index.write(_RECORD.pack(_digest(key), self._mine, place, len(packed)))

    def _index(self, key: str) -> Path:
        return self._folder / f"{key[:2]}.index"

    def _results(self, whose: bytes) -> Path:
        return self._folder / f"{whose.hex()}.results"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()[:16]
