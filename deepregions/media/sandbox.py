"""The sandbox: a process that decodes, as the process that asks sees it."""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from deepregions.errors import DeepregionsError, printable
from deepregions.media.frames import Limits
from deepregions.media.wire import Message, encode, receive

# Isolated: neither the folder where the user is nor their environment decides what is imported. The
# standard library comes first, or a user's script called html.py would run in place of its module.
_START = (
    "import json, sys; sys.path += json.loads(sys.argv[1]); "
    "from deepregions.media.worker import main; sys.exit(main())"
)
_DECODER = "deepregions.media.worker"
# For glibc's malloc. Two arenas: threads take address space by the 64 MB each, which would count as
# the file's memory. Frames are used again: to map each anew costs more than to decode it.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}
_PIPE = 1 << 20  # bytes; what Linux allows without privileges
_GRACE = 30.0  # seconds to start, or to end by its own limits, on a busy machine


class Died(Exception):  # noqa: N818 - what happened, not what is wrong
    """The process ended, or had to be ended; the message says why."""


class Child:
    """Starts a process that decodes, or does other work for this one.

    It imposes the limits on itself. It is in a process group of its own, so Ctrl-C does not reach
    it; it ends when it is closed, or when this process does. It runs the ``main`` of ``module``;
    errors call it ``what``.
    """

    def __init__(self, limits: Limits, module: str = _DECODER, what: str = "decoder") -> None:
        self._limits, self._what = limits, what
        self._ready = False
        self.served = 0
        self._complaints, complaints = os.pipe()
        for end in (self._complaints, complaints):
            os.set_blocking(end, False)  # nobody reads them as long as it runs
        try:
            self._process = subprocess.Popen(
                isolated(module, json.dumps(asdict(limits))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                bufsize=0,
                pipesize=_PIPE,
                env={**os.environ, **_ENVIRONMENT},
                process_group=0,
            )
        except OSError as error:
            os.close(self._complaints)
            raise _not_started(f"{error.filename}: {error.strerror}") from error
        finally:
            os.close(complaints)
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def send(self, request: Message) -> None:
        """Sends a request."""
        content = encode(request)
        try:
            while content:
                content = content[self._requests.write(content) :]
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise Died(self._cause()) from error

    def receive(self) -> tuple[Message, NDArray[np.uint8] | None]:
        """Returns its next answer, and a frame's pixels.

        Raises:
            Died: It is gone, or silent for too long.
            DeepregionsError: It could not be started.
        """
        try:
            while True:
                message = receive(self._bytes)
                self._ready |= message["kind"] == "ready"
                if message["kind"] not in ("ready", "busy"):
                    break
            pixels = None
            if message["kind"] == "frame":
                height, width, depth = message["shape"]
                if depth != 3 or not 0 < height * width <= self._limits.pixels:
                    raise ValueError(f"a frame of {message['shape']}")
                pixels = np.empty((height, width, 3), np.uint8)
                self._read_into(pixels.data.cast("B"))
        except (ValueError, KeyError, TypeError) as error:
            self.close()
            raise Died(f"its {self._what} went wrong ({printable(str(error))})") from error
        return message, pixels

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel; leave it behind
            self._process.wait(_GRACE)
        for stream in (self._requests, self._answers):
            with suppress(OSError):
                stream.close()
        if self._complaints >= 0:
            os.close(self._complaints)
            self._complaints = -1

    def _bytes(self, count: int) -> bytes:
        content = bytearray(count)
        self._read_into(memoryview(content))
        return bytes(content)

    def _read_into(self, rest: memoryview) -> None:
        while rest:
            # It ends itself after its time of silence; this is for one that was stopped.
            if not self._poll.poll(1000 * (self._limits.silence + _GRACE)):
                self.close()
                raise Died(self._hangs())
            count = self._answers.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise Died(self._cause())
            rest = rest[count:]

    def _cause(self) -> str:
        """Waits for its end, and says what it died of."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        code = self._process.poll()
        said = ""
        with suppress(OSError):
            lines = os.read(self._complaints, 1 << 16).decode(errors="replace").split("\n")
            said = printable(next((line for line in reversed(lines) if line.strip()), ""))[:200]
        self.close()
        if not self._ready:
            raise _not_started(said or f"exit code {code}")
        if code == -signal.SIGALRM:
            return self._hangs()
        of = f" of {signal.Signals(-code).name}" if code is not None and code < 0 else ""
        return f"its {self._what} died{of}{said and f': {said}'}"

    def _hangs(self) -> str:
        return f"its {self._what} hangs (no progress in {self._limits.silence:g} s)"


def _not_started(reason: str) -> DeepregionsError:
    what = f"the process that reads files does not start: {reason}"
    return DeepregionsError(what, "check the installation with pip check")


def isolated(module: str, *arguments: str) -> list[str]:
    """Returns the command of a process that runs a module's ``main`` with ``sys.argv[2:]``."""
    paths = [*(path for path in sys.path if path), str(Path(__file__).parents[2])]
    absolute = json.dumps([str(Path(path).absolute()) for path in paths])
    start = _START.replace(_DECODER, module)
    return [sys.executable, "-I", "-S", "-B", "-c", start, absolute, *arguments]


def ending(code: int) -> str:
    """Says how a process ended, by its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def end_with_parent() -> None:
    """Ends this process, started by ``multiprocessing``, when the one that started it ends."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
