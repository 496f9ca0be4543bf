"""Other people's model files: one cache folder, each file checked by SHA-256 before use.

``DEEPREGIONS_CACHE`` names the folder, which may be read-only and filled by hand;
``DEEPREGIONS_OFFLINE``, unless empty or ``0``, forbids downloads.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

import platformdirs

from deepregions import __version__
from deepregions.errors import AssetError
from deepregions.files import atomic_file, sha256

MAX_BYTES = 1 << 30  # no model here comes near; a server that never stops is cut off
_CHUNK = 1 << 18
_SCHEMES = ("http", "https")

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes that have arrived, and that of the file if it is known."""


@dataclass(frozen=True)
class Asset:
    """A file that this package uses but does not ship."""

    name: str  # in the cache folder
    url: str
    sha256: str  # hexadecimal, or as many of its first digits as are known
    license: str  # and what limits its use
    source: str  # the project and version that it comes from
    size: int | None = None  # bytes; without it, a download stops at MAX_BYTES


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
        AssetError: The file has another digest, or cannot be read.
    """
    try:
        digest = sha256(path)
    except OSError as error:
        raise AssetError(f"{path}: {error.strerror or error}", "check its permissions") from error
    if not digest.startswith(asset.sha256):
        raise AssetError(
            f"{path} is not {asset.name} of {asset.source}: {_difference(digest, asset)}",
            f"delete it, or put the file of {asset.url} in its place",
        )
    return path


def find(asset: Asset, *, folder: Path | None = None) -> Path | None:
    """Looks for an asset in the cache (or another folder), without using the network.

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
    progress: Progress | None = None,
) -> Path:
    """Returns an asset's verified path; downloads it first if it is not in the cache.

    The file appears in the cache complete and verified, or not at all.

    Raises:
        AssetError: Offline, no answer, wrong or too many bytes, or a cache that cannot be
            written. The hint says where to put the file by hand.
    """
    path = (folder or cache_dir()) / asset.name
    if path.is_file():
        return verify(path, asset)
    elsewhere = "" if folder else ", or set DEEPREGIONS_CACHE to where it is"
    hint = f"put the file of {asset.url} there by hand{elsewhere}"
    if offline():
        raise AssetError(f"{path} is missing, and DEEPREGIONS_OFFLINE forbids fetching it", hint)
    if urlsplit(asset.url).scheme not in _SCHEMES:
        raise AssetError(f"{asset.url}: only http and https are fetched", hint)
    request = Request(asset.url, headers={"User-Agent": f"deepregions/{__version__}"})  # noqa: S310
    opener = build_opener()  # urlopen would remember the first call's proxies
    try:
        with opener.open(request, timeout=timeout) as answer, atomic_file(path) as partial:
            digest = _download(answer, partial, asset.size or MAX_BYTES, progress)
            if not digest.startswith(asset.sha256):
                raise AssetError(
                    f"{path} is missing, and {asset.url} is not {asset.name} of {asset.source}: "
                    f"{_difference(digest, asset)}; it was deleted",
                    hint,
                )
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        if isinstance(error, HTTPError):
            error.close()
        ours = type(error) is HTTPException
        reason = str(error) if ours else f"{type(error).__name__}: {error}"
        raise AssetError(f"{path} is missing and could not be fetched: {reason}", hint) from error
    return path


def _download(answer: HTTPResponse, path: Path, limit: int, progress: Progress | None) -> str:
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if urlsplit(answer.url).scheme not in _SCHEMES:
        raise HTTPException(f"it leads to {answer.url}, and only http and https are fetched")
    if total is not None and total > limit:
        raise HTTPException(f"it has {total} bytes, more than {limit}")
    done, digest = 0, hashlib.sha256()
    with path.open("wb") as stream:
        while chunk := answer.read1(_CHUNK):
            done += len(chunk)
            if done > limit:
                raise HTTPException(f"it has more than {limit} bytes")
            digest.update(chunk)
            stream.write(chunk)
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise HTTPException(f"the connection ended after {done} of {total} bytes")
    return digest.hexdigest()


def _difference(digest: str, asset: Asset) -> str:
    return f"its SHA-256 is {digest[:12]}..., not {asset.sha256[:12]}..."
