"""Model files from the network: one cache folder, each verified by SHA-256 before use.

A download that was cut off is resumed, in the same call or in a later one: what has arrived waits
beside the file's place, under a hidden name with the digest. One process at a time writes there.

Environment:
    DEEPREGIONS_CACHE: the cache folder; may be read-only and filled by hand.
    DEEPREGIONS_OFFLINE: anything but empty or ``0`` forbids downloads.
    Proxies as :mod:`urllib.request` reads them (``https_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import platformdirs

from deepregions import __version__
from deepregions.errors import AssetError
from deepregions.files import sha256

if sys.platform != "win32":
    import fcntl

MAX_BYTES = 1 << 30  # no model here comes near; a server that never stops is cut off
PAUSES = (0.5, 2.0, 8.0)  # seconds before each further attempt
_CHUNK = 1 << 18
_SCHEMES = ("http", "https")
_BUSY = (408, 429, 500, 502, 503, 504)  # answers that another attempt may better

Progress = Callable[[int, int | None], None]
"""Told how many bytes have arrived, and how many there will be if the server has said so."""


@dataclass(frozen=True)
class Asset:
    """A file that this package uses and does not ship.

    Attributes:
        name: Its name in the cache folder.
        url: Where it is fetched from (http or https).
        sha256: The hexadecimal digest that it must have.
        license: Its licence, with what limits its use.
        source: Who made it: project and version.
        size: Its bytes, if known; without, a download stops at :data:`MAX_BYTES`.
    """

    name: str
    url: str
    sha256: str
    license: str
    source: str
    size: int | None = None


def cache_dir() -> Path:
    """Returns ``$DEEPREGIONS_CACHE``, or else the platform's cache folder of this package."""
    folder = os.environ.get("DEEPREGIONS_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(platformdirs.user_cache_dir("deepregions", appauthor=False))


def offline() -> bool:
    """Returns whether ``DEEPREGIONS_OFFLINE`` forbids downloads."""
    return os.environ.get("DEEPREGIONS_OFFLINE", "") not in ("", "0")


def verify(path: Path, asset: Asset) -> Path:
    """Returns the path of a file that has the asset's digest.

    Raises:
        AssetError: It has another one, or cannot be read.
    """
    try:
        digest = sha256(path)
    except OSError as error:
        raise AssetError(f"{path}: {error.strerror or error}", "check its permissions") from error
    if digest != asset.sha256:
        raise AssetError(
            f"{path} is not {asset.name} of {asset.source}: its SHA-256 is {digest[:12]}..., "
            f"not {asset.sha256[:12]}...",
            f"delete it, or put the file of {asset.url} in its place",
        )
    return path


def find(asset: Asset, *, folder: Path | None = None) -> Path | None:
    """Looks an asset up in the cache folder, without any network.

    Args:
        asset: What to look up.
        folder: Another folder to look in.

    Returns:
        Its verified path, or None where it is not there.

    Raises:
        AssetError: The file is there but is not the asset, or cannot be read.
    """
    path = (folder or cache_dir()) / asset.name
    return verify(path, asset) if path.is_file() else None


def fetch(
    asset: Asset,
    *,
    folder: Path | None = None,
    timeout: float = 30.0,
    pauses: Sequence[float] = PAUSES,
    progress: Progress | None = None,
) -> Path:
    """Returns an asset's verified path, after downloading it if the cache lacks it.

    The file appears in the cache whole and verified, or not at all. Where the connection drops,
    the rest is asked for after each of the pauses, and from the first pause on again whenever
    more has arrived. A server that has not answered at all is asked once.

    Args:
        asset: What to fetch.
        folder: Where to look for it and put it; the cache folder if left out.
        timeout: Seconds that the server may stay silent.
        pauses: Seconds to wait before each further attempt.
        progress: Told how far it is.

    Raises:
        AssetError: It cannot be had: offline, no answer, wrong bytes, too many of them, a cache
            that cannot be written. The hint says where to put the file by hand.
    """
    path = find(asset, folder=folder)
    if path is not None:
        return path
    path = (folder or cache_dir()) / asset.name
    elsewhere = "" if folder else ", or set DEEPREGIONS_CACHE to where it is"
    hint = f"put the file of {asset.url} there by hand{elsewhere}"
    if offline():
        raise AssetError(f"{path} is missing, and DEEPREGIONS_OFFLINE forbids to fetch it", hint)
    if urlsplit(asset.url).scheme not in _SCHEMES:
        raise AssetError(f"{asset.url}: only http and https are fetched", hint)
    partial = path.with_name(f".{asset.name}.{asset.sha256[:16]}.part")
    try:
        with _locked(partial) as stream:
            if not path.is_file():  # unless another process has fetched it meanwhile
                _fill(_Part(partial, stream), asset, timeout, pauses, progress)
                partial.replace(path)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = str(error) if type(error) in (_DroppedError, _WrongError) else _line_of(error)
        kept = f"; {partial.stat().st_size} bytes are kept" if partial.is_file() else ""
        raise AssetError(
            f"{path} is missing and could not be fetched: {reason}{kept}", hint
        ) from error
    return verify(path, asset)


def _line_of(error: BaseException) -> str:
    """Returns an exception as one line."""
    return f"{type(error).__name__}: {error}"


class _DroppedError(OSError):
    """The connection ended before the file did: worth another attempt."""


class _WrongError(OSError):
    """What came is not the file: no attempt will better that."""


class _Part:
    """What has arrived of a file, on disk, with its digest.

    Beside it lies the server's name for this version of the file (its ETag), so that a later run
    does not put halves of two versions together.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.answered = False
        self._version = path.with_suffix(".etag")
        self._stream = stream
        self._stream.seek(0)
        self._hash = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            self._hash.update(chunk)
        self.size = stream.tell()
        self.pieces = int(self.size > 0)  # how many answers it is put together from

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def version(self) -> str:
        return self._version.read_text("utf-8") if self._version.is_file() else ""

    @version.setter
    def version(self, name: str) -> None:
        self._version.write_text(name, "utf-8")

    def write(self, chunk: bytes, limit: int) -> None:
        if self.size + len(chunk) > limit:
            self.discard()
            raise _WrongError(f"it is of more than {limit} bytes")
        self._stream.write(chunk)
        self._stream.flush()
        self._hash.update(chunk)
        self.size += len(chunk)

    def rewind(self) -> None:
        self._stream.seek(0)
        self._stream.truncate()
        self._hash, self.size, self.pieces = hashlib.sha256(), 0, 0
        self._version.unlink(missing_ok=True)

    def discard(self) -> None:
        self.rewind()
        self.path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Opens a partial file for this process alone; leaves none behind that is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+b") as stream:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held the lock may have moved the file to its place, or removed it.
            if not path.is_file() or not os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                continue
            try:
                yield stream
            finally:
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
                if not path.is_file():
                    path.with_suffix(".etag").unlink(missing_ok=True)
            return


def _fill(
    part: _Part, asset: Asset, timeout: float, pauses: Sequence[float], progress: Progress | None
) -> None:
    """Asks until the part is the whole file."""
    reached, left, restarted = part.size, list(pauses), False
    limit = MAX_BYTES if asset.size is None else asset.size
    while part.digest != asset.sha256:
        try:
            _ask(part, asset.url, limit, timeout, progress)
        except _DroppedError:
            if part.size >= reached + _CHUNK:
                reached, left = part.size, list(pauses)
            if part.digest == asset.sha256:
                return  # the server only said that there was more
            if not left:
                raise
            time.sleep(left.pop(0))
            continue
        if part.digest == asset.sha256:
            return
        if part.pieces == 1 or restarted:
            digest = part.digest
            part.discard()
            raise _WrongError(
                f"what {asset.url} gives is not {asset.name} of {asset.source}: its SHA-256 is "
                f"{digest[:12]}..., not {asset.sha256[:12]}...; it was deleted"
            )
        restarted = True  # it was put together from several answers, maybe of several files
        part.rewind()


def _ask(part: _Part, url: str, limit: int, timeout: float, progress: Progress | None) -> None:
    """Makes one request, and adds to the part what the server gives."""
    headers = {"User-Agent": f"deepregions/{__version__}"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.version:
            headers["If-Range"] = part.version
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # fetch checks the scheme
    with _opened(request, part, timeout) as answer:
        total = _begin(part, answer)
        if total is not None and total > limit:
            part.discard()
            raise _WrongError(f"it is of {total} bytes, more than {limit}")
        while True:
            try:
                chunk = answer.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _DroppedError(f"{url}: the connection broke: {_line_of(error)}") from error
            if not chunk:
                break
            part.write(chunk, limit)
            if progress is not None:
                progress(part.size, total)
    if total is not None and part.size < total:
        raise _DroppedError(f"{url}: the connection ended after {part.size} of {total} bytes")


def _opened(
    request: urllib.request.Request, part: _Part, timeout: float
) -> http.client.HTTPResponse:
    """Sends a request.

    Raises:
        _DroppedError: Another attempt is worth while.
        OSError: It is not.
    """
    url = request.full_url
    try:
        opener = urllib.request.build_opener()  # urlopen would remember the first call's proxies
        answer: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
            part.rewind()  # the server's file has become shorter
            raise _DroppedError(f"{url}: there is nothing after what has arrived") from error
        if error.code in _BUSY:
            raise _DroppedError(f"{url}: {_line_of(error)}") from error
        raise
    except (OSError, http.client.HTTPException) as error:
        if part.answered:
            raise _DroppedError(f"{url}: {_line_of(error)}") from error
        raise
    if urlsplit(answer.url).scheme not in _SCHEMES:
        answer.close()
        raise _WrongError(f"{url} leads to {answer.url}: only http and https are fetched")
    return answer


def _begin(part: _Part, answer: http.client.HTTPResponse) -> int | None:
    """Makes the part ready for an answer's body; returns the whole file's length, if said."""
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if version.startswith("W/"):
        version = ""  # promises the same meaning, not the same bytes
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        given = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip()
        )
        changed = bool(version and part.version and version != part.version)
        if given is None or int(given[1]) != part.size or changed:
            part.rewind()
            raise _DroppedError(f"{answer.url}: the server gave another part of the file")
        if given[2] != "*":
            total = int(given[2])
        elif total is not None:
            total += part.size
    elif answer.status == http.HTTPStatus.OK:
        part.rewind()  # the server takes no ranges, or its file has changed
    else:
        raise _WrongError(f"{answer.url} answers {answer.status}")
    part.pieces += 1
    part.answered = True
    if version:
        part.version = version
    return total
