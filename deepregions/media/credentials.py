"""Reads content credentials (C2PA) by the extra ``c2pa``, whose library is native code.

Nothing is fetched: its settings forbid remote manifests, OCSP and every host, and while it reads,
the kernel gives this process no further file or socket.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from deepregions.media.frames import Progress
from deepregions.media.provenance import Credentials

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
}
_UNTRUSTED = "signingCredential.untrusted"  # there is no trust list here; it says nothing
_STATES = {"Trusted": "trusted", "Valid": "valid"}


def read_credentials(file: BinaryIO, progress: Progress) -> Credentials:
    """Reads and verifies a file's credentials, and tells ``progress`` of each part that is read."""
    try:
        import c2pa  # noqa: PLC0415 - it is not always there
    except (ImportError, OSError, RuntimeError):  # not there, or its library does not load
        return Credentials(problems=("install deepregions[c2pa] to read them",))
    try:
        context = c2pa.Context.from_dict(_SETTINGS)
        watched = _Watched(file, progress)
        with _no_new_files(), c2pa.Reader(None, watched, context=context) as reader:
            return _told(json.loads(reader.json()))
    except (c2pa.C2paError, ValueError, LookupError, TypeError, AttributeError) as error:
        return Credentials(problems=(f"they cannot be read: {error}",))


class _Watched(io.BufferedReader):
    """A file whose reading is progress."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        super().__init__(io.FileIO(file.fileno(), closefd=False))
        self._progress = progress

    def readinto(self, buffer: Any, /) -> int:
        """Reads into a buffer."""
        self._progress()
        return super().readinto(buffer)


@contextmanager
def _no_new_files() -> Iterator[None]:
    """Has the kernel refuse new descriptors, so also sockets, in the block."""
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        if resource is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _told(store: Mapping[str, Any]) -> Credentials:
    """Takes what matters from the library's report."""
    label, manifests = store["active_manifest"], store["manifests"]
    active = manifests[label]
    results = (store.get("validation_results") or {}).get("activeManifest") or {}
    codes = [each["code"] for each in results.get("failure") or ()]
    signature = active.get("signature_info") or {}
    actions = list(_actions(active))
    before = [each for name, one in manifests.items() if name != label for each in _actions(one)]
    generators = active.get("claim_generator_info") or [{"name": active.get("claim_generator")}]
    return Credentials(
        _STATES.get(str(store.get("validation_state")), "broken"),
        tuple(code for code in codes if code != _UNTRUSTED),
        issuer=signature.get("issuer") or "",
        common_name=signature.get("common_name") or "",
        time=signature.get("time") or "",
        generator=_program(generators[0]),
        actions=tuple(_named(action) for action in actions),
        source_types=_source_types(actions),
        ingredient_source_types=_source_types(before),
    )


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in manifest.get("assertions") or ():
        if str(assertion["label"]).startswith("c2pa.actions"):
            yield from assertion["data"]["actions"]


def _named(action: Mapping[str, Any]) -> str:
    program = _program(action.get("softwareAgent"))
    return f"{action['action']}{program and f' ({program})'}"


def _program(named: Any) -> str:
    if isinstance(named, Mapping):
        named = " ".join(str(named[key]) for key in ("name", "version") if named.get(key))
    return str(named or "")


def _source_types(actions: list[Mapping[str, Any]]) -> tuple[str, ...]:
    declared = (str(action.get("digitalSourceType") or "") for action in actions)
    return tuple(dict.fromkeys(each.rpartition("/")[2] for each in declared if each))
