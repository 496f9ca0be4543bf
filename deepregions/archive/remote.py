"""Files elsewhere, by the file systems of fsspec: their addresses, lists of them, and their copies.

What is read of a server is what a stranger says: a name that it gives never becomes the path of a
local file, and what a library says of an error, which may hold a signed address, is never shown.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from deepregions.errors import MissingExtraError, UnreachableError, UsageError, require
from deepregions.files import scratch_folder
from deepregions.media.frames import DEFAULT_LIMITS, Limits
from deepregions.media.kinds import known_ending
from deepregions.media.sandbox import Child, Died

TELLTALE = r"^(?:[A-Za-z][A-Za-z0-9+.-]+://[^/]*:[^/]*@|[Hh][Tt][Tt][Pp][Ss]?://[^?]*\?)"
"""Addresses that may hold a password or a signature, which would stand in manifests and results."""

NOT_THERE = "it is not there"  # why there is no copy of a file that its server does not have

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OURS = {"s3", "s3a", "gs", "gcs", "hf", "http", "https"}  # that the extra brings
_LONGEST = 4096  # characters of an address
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "Last-Modified", "created")
_FAILURES = 10  # files in a row that cannot be fetched, after which there is no use in another


def is_remote(path: str) -> bool:
    """Returns whether a path is an address, such as ``s3://bucket/key``."""
    return _ADDRESS.match(path) is not None


def refuse_secrets(addresses: str) -> UsageError:
    """Returns the error for addresses that hold a secret; it does not repeat them."""
    return UsageError(
        f"{addresses} with a password or a signature: it would stand in the results",
        "credentials are read from the environment, as fsspec and its packages document",
    )


def open_filesystem(address: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path there.

    Not by ``fsspec.url_to_fs``, for which ``::`` in a name opens another file system.

    Raises:
        MissingExtraError: fsspec, or what it needs for this protocol, is not installed.
        UsageError: The address holds a secret, or is of no known protocol.
    """
    if re.match(TELLTALE, address):
        raise refuse_secrets("an address")
    registry: Any = require("fsspec.registry", "remote")
    protocol = address.partition("://")[0].lower()
    try:
        kind = registry.get_filesystem_class(protocol)
        options = kind._get_kwargs_from_urls(address)
        return kind(**options, use_listings_cache=False), kind._strip_protocol(address)
    except ImportError as error:
        known = registry.known_implementations.get(protocol, {}).get("err", "")
        hint = "pip install 'deepregions[remote]'" if protocol in _OURS else known
        raise MissingExtraError(f"{protocol}:// needs a package that is missing", hint) from error
    except Exception as error:
        hint = "such as s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, hf://datasets/OWNER/NAME"
        raise UsageError(f"{protocol}:// is no address that can be read", hint) from error


class RemoteFile(NamedTuple):
    """A file elsewhere, as its server has it; ``mtime`` is in microseconds, of whole seconds."""

    path: str
    size: int | None
    mtime: int | None

    @classmethod
    def of(cls, path: str, info: Mapping[str, Any]) -> RemoteFile:
        """Returns what a file system's ``info`` says of an address."""
        size = info.get("size")
        found = (_seconds(info.get(name)) for name in _TIMES)
        mtime = next((each * 1_000_000 for each in found if each is not None), None)
        return cls(path, size if isinstance(size, int) and size >= 0 else None, mtime)


def _seconds(value: Any) -> int | None:
    """Returns a time as whole seconds: lists and headers of one server differ in the rest."""
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
        return int(value.timestamp() if isinstance(value, datetime) else value)
    except (ValueError, TypeError, OverflowError):
        return None


def list_remote(root: str, warn: Callable[[str], None]) -> Iterator[RemoteFile]:
    """Yields the files below an address, or the one there, folder by folder; no hidden ones.

    Raises:
        UsageError: There is nothing, or :func:`open_filesystem` raises it.
        UnreachableError: The server does not answer.
    """
    system, path = open_filesystem(root)
    if not root.endswith("/"):
        info = _asked(system.info, root, path)
        if info.get("type") == "file":
            yield RemoteFile.of(root, info)
            return
    top, base = path.rstrip("/"), root.rstrip("/")
    open_folders = [("", iter(_entries(system, base, top, warn)))]
    while open_folders:
        above, entries = open_folders[-1]
        name, entry = next(entries, ("", {}))
        name = above + name
        if not entry:
            open_folders.pop()
        elif entry["type"] == "directory":
            try:
                inside = _entries(system, base + name, top + name, warn)
                open_folders.append((name, iter(inside)))
            except UsageError as error:  # it has gone, or is not for us; others are there
                warn(f"{error.args[0]}: not listed")
        else:
            yield RemoteFile.of(base + name, entry)


def _entries(
    system: Any, address: str, folder: str, warn: Callable[[str], None]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns what is in a folder, in the order of names, each with a slash before it."""
    found, strange = [], 0
    for entry in _asked(system.ls, address, folder or "/", detail=True):
        whole = str(entry["name"]).rstrip("/")
        before, _, name = whole.rpartition("/")
        is_folder = entry.get("type") == "directory"
        query = folder.startswith("http") and re.search("[?#]", name)  # what pages sort by
        nameless = name in ("", ".", "..") or (whole == folder and is_folder)  # as a//b on S3
        if not nameless and (whole == folder or name.startswith(".") or query):
            continue
        if nameless or before != folder or len(address) + len(name) > _LONGEST:
            strange += 1
        elif entry.get("type") == "file" or (is_folder and not entry.get("islink")):
            found.append((f"/{name}", entry))
    getattr(system, "dircache", {}).clear()
    if strange:
        warn(f"{address}: {strange} names that are none of files in it: not listed")
    return sorted(found, key=lambda each: each[0] + "/" * (each[1]["type"] == "directory"))


def _asked(ask: Callable[..., Any], address: str, path: str, **how: Any) -> Any:
    """Asks a server; what goes wrong is said in our words."""
    try:
        return ask(path, **how)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{address}: no such file or folder", "check the address") from error
    except PermissionError as error:
        raise UsageError(f"{address}: access is denied", "check your credentials") from error
    except Exception as error:
        said = f"{address} cannot be listed ({type(error).__name__})"
        raise UnreachableError(said, "check the network, and try again") from error


class LocalCopy(NamedTuple):
    """A copy of a file elsewhere; where there is none, ``why`` says why.

    ``size`` and ``mtime`` are those of the file now; the size is None where it is not there.
    """

    path: Path
    size: int | None = None
    mtime: int | None = None
    why: str = ""


class Fetcher:
    """Fetches files from elsewhere, one at a time, by a process that may hang or die.

    Copies go when they are dropped, or else when this process ends, however that is.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._child: Child | None = None
        self._at_end = ExitStack()
        self._folder = self._at_end.enter_context(scratch_folder())
        self._name = secrets.token_hex(8)
        self._count = self._failures = 0

    def close(self) -> None:
        """Ends the process, and removes the copies."""
        if self._child is not None:
            self._child.close()
        self._at_end.close()

    def fetch(self, address: str) -> LocalCopy:
        """Fetches a file; that it cannot be had is told, not raised.

        Raises:
            MissingExtraError: What it takes is not installed.
            UnreachableError: It is the last of many in a row that could not be had.
        """
        self._count += 1
        target = self._folder / f"{self._name}-{self._count}{known_ending(address)}"
        said = self._ask({"kind": "fetch", "address": address, "target": str(target)})
        if said["kind"] == "missing":
            raise MissingExtraError(said["message"], said["hint"])
        if said["kind"] == "fetched":
            self._failures = 0
            return LocalCopy(target, said["size"], said["mtime"])
        self.drop(target)
        if said["server"]:
            self._failures += 1
            if self._failures >= _FAILURES:
                raise UnreachableError(
                    f"{self._failures} files in a row could not be fetched, the last because "
                    f"{said['why']}",
                    "check the network and your credentials; the same command goes on",
                )
        return LocalCopy(target, None, None, said["why"])

    def drop(self, path: Path) -> None:
        """Removes a copy."""
        path.unlink(missing_ok=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        while True:
            child = self._child or Child(self._limits, "deepregions.archive.fetching", "connection")
            self._child = None
            try:
                child.send(request)
            except Died:  # while it was idle
                continue
            try:
                said = child.receive()[0]
            except Died as error:
                return {"kind": "failed", "server": True, "why": str(error)}
            if said.get("ended"):
                child.close()
            else:
                self._child = child
            return said
