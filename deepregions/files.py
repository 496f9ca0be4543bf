"""Files and folders that appear whole or not at all, their names, and their digests."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 120  # bytes of a name: room for endings, and for the hidden name of a partial file


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; on success it becomes ``path``, on any error it is removed.

    Raises:
        OSError: The folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())  # mkstemp makes private files
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it replaces ``path``, on any error it is removed.

    Raises:
        OSError: The parent cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _prefix(path: Path) -> str:
    return f".{path.name[:32]}."  # names have 255 bytes at most, and this one gets longer


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Names:
    """Gives each input a file name of its own, on any system."""

    def __init__(self) -> None:
        self._used = {"results", "index"}

    def take(self, name: str) -> None:
        """Marks a name as used."""
        self._used.add(_folded(name))

    def unused(self, stem: str) -> str:
        """Returns the stem made plain, with a number where another input has it."""
        plain = re.sub(r"[^\w.+ ()-]", "_", stem).strip(" .-") or "input"
        plain = plain.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
        name, number = plain, 2
        while _folded(name) in self._used:
            name, number = f"{plain}-{number}", number + 1
        self.take(name)
        return name


def _folded(name: str) -> str:
    """Returns what two names share that are one to a system that ignores case and accents' form."""
    return unicodedata.normalize("NFKC", name).casefold()
