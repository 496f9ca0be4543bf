"""Bundles on the Hugging Face Hub: ``hf://owner/name``, or ``hf://owner/name@revision``.

Everything goes through :mod:`huggingface_hub`, by its own rules for tokens, caches and proxies.
Only a bundle's own files are asked for, and nothing in them is executed. Digests tell whether the
files belong together, not who made them: name a commit where that matters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from deepregions import __version__
from deepregions.assets import offline
from deepregions.errors import AssetError, UsageError

FILES = ("bundle.json", "README.md", "graph.onnx", "*.safetensors")
_FOLDERS = ["*/*"]  # a bundle has none

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_NAME = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9_][\w./-]{{0,200}}))?"
)


class HubName(NamedTuple):
    """A repository on the Hub, and which of its revisions (None for the main one)."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}"


def hub_name(path: Path | str) -> HubName | None:
    """Reads ``hf://owner/name[@revision]``.

    Raises:
        UsageError: It begins with ``hf:/`` and is no name on the Hub.
    """
    text = str(path)
    if not text.startswith("hf:/"):
        return None
    found = _NAME.fullmatch(text.removeprefix("hf:").lstrip("/"))
    if found is None or ".." in text or "--" in found["repository"]:
        raise UsageError(f"{text} is no name on the Hub", "hf://owner/name or hf://owner/name@v1")
    return HubName(found["repository"], found["revision"])


def download(name: HubName) -> Path:
    """Fetches a bundle into huggingface_hub's cache, or finds it there; returns its folder.

    Raises:
        AssetError: It cannot be had, or is no bundle.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    with _explained(name):
        folder = snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(FILES),
            ignore_patterns=_FOLDERS,
            local_files_only=offline(),
            library_name="deepregions",
            library_version=__version__,
            endpoint=_endpoint(),
        )
    path = Path(folder)
    if not (path / FILES[0]).is_file():
        raise AssetError(f"{name} holds no bundle", f"a bundle has a {FILES[0]}")
    return path


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Uploads a bundle as one commit; networks that an earlier one had and it lacks are deleted.

    Raises:
        AssetError: The Hub refuses it or cannot be reached.
    """
    if not (folder / FILES[0]).is_file():
        raise UsageError(f"{folder} is no bundle", f"it has no {FILES[0]}")
    name = hub_name(f"hf://{repository.removeprefix('hf://')}")
    if name is None or name.revision:
        raise UsageError(f"{repository} is no repository", "owner/name")
    if offline():
        raise AssetError(f"{name} cannot be written: DEEPREGIONS_OFFLINE is set", "unset it")
    from huggingface_hub import HfApi  # noqa: PLC0415

    api = HfApi(endpoint=_endpoint(), library_name="deepregions", library_version=__version__)
    with _explained(name):
        api.create_repo(name.repository, private=private or None, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name.repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            ignore_patterns=list(_FOLDERS),
            delete_patterns=["graph.onnx", "*.safetensors"],
            commit_message="Upload a deepregions bundle",
        )
    return str(commit.commit_url)


def _endpoint() -> str | None:
    # The library reads the variable once, when it is imported.
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _explained(name: HubName) -> Iterator[None]:
    """Turns the library's errors into one line with a hint."""
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The library's HTTP errors are those of the client that it is built on, which has changed.
    errors = cast(
        "tuple[type[Exception], ...]",
        (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__),
    )
    login = "log in with `hf auth login`, or set HF_TOKEN"
    away = "DEEPREGIONS_OFFLINE is set" if offline() else "the Hub cannot be reached"
    known = {  # what is wrong and what to do; the first is a kind of the second
        GatedRepoError: (" is only for those whom its owner lets in", login),
        RepositoryNotFoundError: (
            " is not on the Hub, or it is private",
            f"check the name; for a private one {login}",
        ),
        RevisionNotFoundError: (": there is no such revision", "a branch, tag or commit"),
        LocalEntryNotFoundError: (
            f" is not in the cache, and {away}",
            "try again with a network, or copy the bundle's folder and give its path",
        ),
    }
    try:
        yield
    except errors as error:
        refused = getattr(getattr(error, "response", None), "status_code", None) in (401, 403)
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        other = f": {type(error).__name__}: {reason}", login if refused else "try again later"
        what, hint = next((said for kind, said in known.items() if isinstance(error, kind)), other)
        raise AssetError(f"{name}{what}", hint) from error
