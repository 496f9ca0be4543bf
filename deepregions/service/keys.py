"""Keys of a service: who has one may use it. Only their digests are kept, in a file."""

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from deepregions.errors import DeepregionsError, UsageError, printable
from deepregions.files import atomic_file

_KEY = re.compile(r"dr_([0-9a-f]{12})_([\w-]{43})", re.ASCII)
_LONGEST_NAME = 100  # characters


@dataclass(frozen=True)
class KeyEntry:
    """A key as it is kept. Its secret has 256 random bits, so a plain digest keeps it."""

    id: str
    name: str
    sha256: str
    created: str


def read_keys(path: Path) -> list[KeyEntry]:
    """Returns the keys of a file; none if it is not there.

    Raises:
        DeepregionsError: It cannot be read as what it should be.
    """
    try:
        return [KeyEntry(**each) for each in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise DeepregionsError(
            f"{path}: no file of keys", "remove it, and add keys again"
        ) from error


def add_key(path: Path, name: str) -> str:
    """Makes a key and returns it: it is not kept, and cannot be shown again.

    Raises:
        UsageError: There is one of this name, or it is no name.
    """
    if not name.strip() or name != printable(name) or len(name) > _LONGEST_NAME:
        hint = f"give it 1 to {_LONGEST_NAME} characters that can be shown"
        raise UsageError(f"no name for a key: {name!r:.120}", hint)
    keys = read_keys(path)
    if any(key.name == name for key in keys):
        raise UsageError(f"there is a key named {name!r}", "revoke it, or give another name")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    _write(path, [*keys, KeyEntry(id, name, _digest(secret), f"{datetime.now(UTC):%F %T}Z")])
    return f"dr_{id}_{secret}"


def revoke_key(path: Path, name: str) -> None:
    """Removes a key by its name or id; a running service refuses it from then on.

    Raises:
        UsageError: There is none.
    """
    keys = read_keys(path)
    kept = [key for key in keys if name not in (key.name, key.id)]
    if len(kept) == len(keys):
        raise UsageError(f"there is no key {name!r}", "deepregions serve keys list")
    _write(path, kept)


class KeyRing:
    """The keys of a running service, read again whenever the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._keys: dict[str, KeyEntry] = {}

    def owner(self, key: str) -> str | None:
        """Returns the id of a key, or None if it is not one of ours."""
        found = _KEY.fullmatch(key)
        id, secret = found.groups() if found else ("", "")
        entry = self._read().get(id)
        same = hmac.compare_digest(entry.sha256 if entry else "", _digest(secret))
        return id if same else None

    def _read(self) -> dict[str, KeyEntry]:
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_ino
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return self._keys
        if seen != self._seen:
            self._keys = {key.id: key for key in read_keys(self._path)}
            self._seen = seen
        return self._keys


def _write(path: Path, keys: list[KeyEntry]) -> None:
    with atomic_file(path) as partial:
        os.chmod(partial, 0o600)  # noqa: PTH101 - before there is anything in it
        partial.write_text(json.dumps([asdict(key) for key in keys], indent=1), encoding="utf-8")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
