"""The catalogue of what others have trained and offer: ``checkpoints/registry.json``.

It holds facts, no weights; of most files the SHA-256 is not known, or only its first digits.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import deepregions
from deepregions.assets import Asset
from deepregions.errors import AssetError, UsageError
from deepregions.weights.manifest import Form, Span, checked

SCHEMA = "deepregions.registry"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A file, or a folder of files, that somebody offers.

    Attributes:
        kind: ``detector``, ``backbone``, ``landmarks``, or ``archive`` of several.
        url: Where it is fetched from; None where it takes a browser.
        sha256_prefix: The first digits, if its name has them (PyTorch's custom).
        license: Its licence, and that of its data.
    """

    name: str
    kind: str
    title: str
    file: Annotated[str, Form(r"[^/\\]*[^/\\.]", "a file name")]
    url: str | None
    page: str
    sha256: str | None
    sha256_prefix: str | None
    size: Annotated[int, Span(0, 1e15)] | None
    project: str
    license: str
    citation: str
    use: str
    read: tuple[str, ...]
    remarks: tuple[str, ...]


def registry_file() -> Path:
    """Returns the list's path: in the installed package, or in the repository around it."""
    package = Path(deepregions.__file__).parent
    for folder in (package, package.parent):
        path = folder / "checkpoints" / "registry.json"
        if path.is_file():
            return path
    raise AssetError("checkpoints/registry.json is missing", "install deepregions again")


def entries() -> tuple[Entry, ...]:
    """Returns all entries, in the list's order."""
    path = registry_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA or content["version"] != VERSION:
            raise ValueError(f"it is {content['schema']} {content['version']}")
        return tuple(checked(values, Entry, "an entry") for values in content["entries"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(
            f"{path} is not the registry: {type(error).__name__}: {error}",
            "install deepregions again",
        ) from error


def entry(name: str) -> Entry:
    """Returns the entry of a name; the error of a wrong one names those that are like it."""
    known = {each.name: each for each in entries()}
    if name not in known:
        like = difflib.get_close_matches(name, known) or list(known)
        raise UsageError(f"the registry has no {name!r}", f"one of {', '.join(like)}")
    return known[name]


def asset(entry: Entry, sha256: str | None = None) -> Asset:
    """Makes an entry something to fetch.

    Raises:
        AssetError: It cannot be fetched. The hint says what to do.
    """
    if entry.url is None:
        raise AssetError(
            f"{entry.name} cannot be fetched by a program",
            f"get {entry.file} from {entry.page} with a browser, then: {entry.use}",
        )
    known = entry.sha256 or entry.sha256_prefix or ""
    digest = known if sha256 is None else sha256.lower()
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UsageError(f"{sha256} is no SHA-256", "it has 64 hexadecimal digits")
    if not digest.startswith(known):
        raise UsageError(
            f"the SHA-256 of {entry.name} is not {digest[:12]}...", f"it begins with {known[:12]}"
        )
    return Asset(entry.file, entry.url, digest, entry.license, entry.project, entry.size)
