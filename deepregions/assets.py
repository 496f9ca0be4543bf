"""Model files from the network: one cache folder, each verified by SHA-256 before use.

Environment:
    DEEPREGIONS_CACHE: the cache folder; may be read-only and filled by hand.
    DEEPREGIONS_OFFLINE: anything but empty or ``0`` forbids downloads.
    Proxies as :mod:`urllib.request` reads them (``https_proxy``, ``no_proxy``).
"""

from __future__ import annotations

import http.client
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from deepregions.errors import AssetError
from deepregions.files import atomic_file, sha256

MAX_BYTES = 1 << 30  # no model here comes near; a server that never stops is cut off
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Asset:
    """A file that this package uses and does not ship.

    Attributes:
        name: Its name in the cache folder.
        url: Where it is fetched from (http or https).
        sha256: The hexadecimal digest that it must have.
        license: Its licence, with what limits its use.
        source: Who made it: project and version.
    """

    name: str
    url: str
    sha256: str
    license: str
    source: str


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


def find(asset: Asset) -> Path | None:
    """Looks an asset up in the cache folder, without any network.

    Returns:
        Its verified path, or None where it is not there.

    Raises:
        AssetError: The file is there but is not the asset, or cannot be read.
    """
    path = cache_dir() / asset.name
    return verify(path, asset) if path.is_file() else None


def fetch(asset: Asset, *, timeout: float = 30.0) -> Path:
    """Returns an asset's verified path, after downloading it if the cache lacks it.

    The file appears in the cache whole and verified, or not at all.

    Args:
        asset: What to fetch.
        timeout: Seconds that the server may stay silent.

    Raises:
        AssetError: It cannot be had: offline, no answer, wrong bytes, a cache that cannot be
            written. The hint says where to put the file by hand.
    """
    path = find(asset)
    if path is not None:
        return path
    path = cache_dir() / asset.name
    hint = f"put the file of {asset.url} there by hand, or set DEEPREGIONS_CACHE to where it is"
    if offline():
        raise AssetError(f"{path} is missing, and DEEPREGIONS_OFFLINE forbids to fetch it", hint)
    if urlsplit(asset.url).scheme not in ("http", "https"):
        raise AssetError(f"{asset.url}: only http and https are fetched", hint)
    try:
        with atomic_file(path) as partial:
            _download(asset.url, partial, timeout)
            verify(partial, asset)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = f"{type(error).__name__}: {error}"
        raise AssetError(f"{path} is missing and could not be fetched: {reason}", hint) from error
    return path


def _download(url: str, path: Path, timeout: float) -> None:
    # The scheme was checked by the caller.
    with urllib.request.urlopen(url, timeout=timeout) as answer, path.open("wb") as stream:  # noqa: S310
        size = 0
        while chunk := answer.read(_CHUNK):
            size += len(chunk)
            if size > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES} bytes")
            stream.write(chunk)
