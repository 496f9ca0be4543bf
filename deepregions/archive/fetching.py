"""The process that fetches files from elsewhere: it alone talks to servers.

It limits itself as the processes that decode do, which see neither the network nor what a server
says, and ends with the process that asks, when it removes its copies.
"""

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from deepregions.archive.remote import NOT_THERE, RemoteFile, open_filesystem
from deepregions.errors import DeepregionsError, MissingExtraError
from deepregions.media.frames import Limits
from deepregions.media.wire import Message, encode
from deepregions.media.worker import alarm, begin, limit_memory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_TRIES = (0.0, 0.5, 2.5)  # seconds before each
_BEAT = 0.5  # seconds between looks at how far it is
_UNTOLD = 4 << 30  # bytes of a file whose server does not say how many it has, at most


def main() -> None:
    """Runs the process, which answers requests one after the other."""
    mine: set[Path] = set()

    def remove() -> None:
        for path in mine:
            with suppress(OSError):
                path.unlink()

    limits, requests, answers = begin(remove)
    with Path(os.devnull).open("w") as nowhere:  # libraries may say what is secret
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
    limit_memory(limits.memory)
    fetching = _Fetching(limits, answers)
    fetching.answer({"kind": "ready"})
    while True:
        request = requests.get()
        mine = {path for path in mine if path.exists()}
        mine.add(Path(request["target"]))
        fetching.answer(fetching.serve(request["address"], Path(request["target"])))


class _Fetching:
    """Fetches files, and says as it does that it is alive."""

    def __init__(self, limits: Limits, answers: int) -> None:
        self._limits, self._answers, self._lock = limits, answers, Lock()

    def answer(self, message: Message) -> None:
        with self._lock:
            os.write(self._answers, encode(message))

    def serve(self, address: str, target: Path) -> Message:
        ended = Event()
        Thread(target=self._watch, args=(target, ended), daemon=True).start()
        try:
            return self._tried(address, target)
        except MissingExtraError as error:
            return {"kind": "missing", "message": error.args[0], "hint": error.hint}
        except DeepregionsError as error:
            return _failed(str(error), server=False)
        finally:
            with self._lock:
                ended.set()
                alarm(0)

    def _watch(self, target: Path, ended: Event) -> None:
        """Has this process end where nothing comes, or for too long."""
        size, start, beat = -1, time.monotonic(), encode({"kind": "busy"})
        alarm(self._limits.silence)
        while not ended.wait(_BEAT):
            now = target.stat().st_size if target.exists() else -1
            with self._lock:
                if ended.is_set():
                    return
                if time.monotonic() - start > self._limits.seconds:
                    over = f"fetching it takes more than {self._limits.seconds:g} s"
                    os.write(self._answers, encode(_failed(over) | {"ended": True}))
                    os._exit(1)
                if now != size:
                    size = now
                    alarm(self._limits.silence)
                    os.write(self._answers, beat)

    def _tried(self, address: str, target: Path) -> Message:
        system, path = open_filesystem(address)
        for wait in _TRIES:
            alarm(0)
            time.sleep(wait)
            alarm(self._limits.silence)
            about: Mapping[str, Any] = {}
            with suppress(Exception):  # to fetch it will say what is wrong
                about = system.info(path)
            if about.get("type", "file") != "file":
                return _failed("it is no regular file", server=False)
            told = RemoteFile.of(address, about)
            try:
                size = _copied(system, path, target, told.size)
            except Exception as error:  # noqa: BLE001 - of whatever package
                why, server, final = _reason(error, told.size)
                if final:
                    break
            else:
                if told.size in (None, size):
                    return {"kind": "fetched", "size": size, "mtime": told.mtime}
                why, server = f"it broke off after {size:,} of {told.size:,} bytes", True
        return _failed(why, server=server)


def _copied(system: Any, path: str, target: Path, size: int | None) -> int:
    """Copies a file that has so many bytes, and no more; returns how many came."""
    most = _UNTOLD if size is None else size
    if size and shutil.disk_usage(target.parent).free < size:
        raise OSError(errno.ENOSPC, "")
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    system.get_file(path, str(target))
    return target.stat().st_size


def _failed(why: str, *, server: bool = True) -> Message:
    """Says that a file cannot be had; ``server`` is whether that may be so of others too."""
    return {"kind": "failed", "why": why, "server": server}


def _reason(error: Exception, size: int | None) -> tuple[str, bool, bool]:
    """Returns why in our words, whether others may have it too, and whether that is final."""
    code = getattr(error, "status", None) or getattr(error, "code", None)
    for each in (error.__cause__, error):  # the Hub's answer to a wrong token is no file to fsspec
        code = getattr(getattr(each, "response", None), "status_code", None) or code
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError) or code in (401, 403):
        return "access is denied", True, True
    if isinstance(error, FileNotFoundError) or code in (404, 410):
        return NOT_THERE, False, True
    if number == errno.EFBIG:
        return (
            f"it is longer than the {_UNTOLD if size is None else size:,} bytes that it may have",
            False,
            False,
        )
    if number == errno.ENOSPC:
        return "there is no space left for a copy", True, False
    what = f"HTTP {code}" if isinstance(code, int) else type(error).__name__
    return f"fetching it failed ({what})", True, False
