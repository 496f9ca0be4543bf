"""The process that decodes: it reads requests on standard input, and answers on standard output.

It is started by ``sandbox.py``, holds no torch, and limits itself: the kernel ends it where a
decoder hangs, and refuses it memory beyond its limit and files to write. It ends when its input
does, so it does not outlive the process that asks.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread

import numpy as np

from deepregions.errors import DeepregionsError, UnreadableError
from deepregions.media.credentials import read_credentials
from deepregions.media.frames import Limits
from deepregions.media.kinds import opened
from deepregions.media.origin import read_origin
from deepregions.media.sampling import Sampling
from deepregions.media.source import Source, open_source
from deepregions.media.wire import Message, encode, receive

try:
    import resource
except ImportError:  # Windows, where being a process of its own is all the protection
    resource = None  # type: ignore[assignment]

_AHEAD = 32 << 20  # bytes decoded before they are asked for: five frames of 1080p
_BEAT = 0.5  # seconds between signs of life
_FILES = 64  # open at once; a decoder needs one
_STATM = Path("/proc/self/statm")  # Linux: the first number is the pages of address space

Requests = SimpleQueue[Message]


def main() -> None:
    """Runs the process; ``sandbox.py`` gives the limits as the last argument, as JSON."""
    limits, requests, answers = begin()
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes do not count
        with suppress(ValueError, OSError):  # a lower limit is there already
            resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    os.write(answers, encode({"kind": "ready"}))
    worker = _Worker(limits, requests, _Outbox(answers))
    try:
        request = requests.get()
        while True:
            request = worker.serve(request) if request["kind"] == "open" else requests.get()
    except Exception:  # noqa: BLE001 - a mistake of ours, whose last line the error will show
        traceback.print_exc()
        os._exit(1)  # at once: the other threads are never done


def begin(at_end: Callable[[], None] = lambda: None) -> tuple[Limits, Requests, int]:
    """Sets up a process that ``sandbox.py`` started; returns limits, requests, where answers go.

    ``at_end`` is called before the process ends with the one that asks.
    """
    limits = Limits(**json.loads(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    if hasattr(signal, "setitimer"):  # whatever was inherited
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    answers = os.dup(sys.stdout.fileno())
    with Path(os.devnull).open("w") as nowhere:  # for what libraries print
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    requests: Requests = SimpleQueue()
    Thread(target=_listen, args=(requests, at_end), daemon=True).start()
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return limits, requests, answers


class _Outbox:
    """Sends while the next frame is decoded; holds one message, or several that are small."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes | memoryview] = deque()
        self._bytes = 0
        self._changed = Condition()
        Thread(target=self._send, daemon=True).start()

    def put(self, message: Message, *pixels: memoryview) -> None:
        """Queues a message; waits while there is much unsent."""
        parts: list[bytes | memoryview] = [encode(message), *pixels]
        size = sum(len(part) for part in parts)
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes or self._bytes + size <= _AHEAD)
            self._waiting.extend(parts)
            self._bytes += size
            self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                part = self._waiting[0]
            rest = memoryview(part)
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except OSError:  # nobody reads any more
                    os._exit(0)
            with self._changed:
                self._waiting.popleft()
                self._bytes -= len(part)
                self._changed.notify_all()


class _Worker:
    """Serves one file after the other, and counts the time of work on each."""

    def __init__(self, limits: Limits, requests: Requests, outbox: _Outbox) -> None:
        self._limits = limits
        self._requests = requests
        self._outbox = outbox
        self._path = Path()
        self._worked = self._since = self._beat = 0.0  # seconds

    def serve(self, request: Message) -> Message:
        """Serves a file until another request than for its frames comes; returns that one."""
        path = self._path = Path(request["path"])
        self._worked = 0.0
        limit_memory(self._limits.memory)
        self._work()
        error: DeepregionsError
        try:
            with open_source(path, self._limits, self._progress) as source:
                return self._rounds(source, Sampling(**request["sampling"]))
        except MemoryError:
            what = f"{path}: reading it needs more memory than it may have"
            error = UnreadableError(what, "make it smaller")
        except DeepregionsError as refusal:
            error = refusal
        says = {"error": type(error).__name__, "message": str(error.args[0]), "hint": error.hint}
        self._put({"kind": "error", **says})
        self._rest()
        return self._after_origin()

    def _rounds(self, source: Source, sampling: Sampling) -> Message:
        choice = source.choose(sampling)
        numbers = list(choice.numbers)
        record: Message | None = choice.record(sampling)
        while True:
            for frame in source.frames(numbers):
                if record is not None:
                    self._put({"kind": "opened", "info": asdict(source.info), "choice": record})
                    record = None
                pixels = np.ascontiguousarray(frame.image)
                header = {"kind": "frame", "number": frame.number, "time": frame.time}
                self._put({**header, "shape": pixels.shape}, pixels.data.cast("B"))
            self._put({"kind": "end", "info": asdict(source.info)})
            self._rest()
            request = self._after_origin()
            if request["kind"] != "read":
                return request
            self._work()
            numbers = request["numbers"]

    def _after_origin(self) -> Message:
        """Says what is asked of where the file comes from; returns the next other request."""
        while (request := self._requests.get())["kind"] in ("origin", "credentials"):
            self._work()
            with opened(self._path) as file:
                if request["kind"] == "origin":
                    said = asdict(read_origin(self._path, file, self._limits))
                else:
                    said = asdict(read_credentials(file, self._progress))
            self._put({"kind": request["kind"], "said": said})
            self._rest()
        return request

    def _put(self, message: Message, *pixels: memoryview) -> None:
        self._rest()  # to wait for whoever takes it is no work
        self._outbox.put(message, *pixels)
        self._work()

    def _progress(self) -> None:
        now = time.monotonic()
        if self._worked + now - self._since > self._limits.seconds:
            what = f"{self._path}: reading it takes more than {self._limits.seconds:g} s"
            raise UnreadableError(what, "make it shorter or smaller")
        if now - self._beat > _BEAT:
            self._put({"kind": "busy"})

    def _work(self) -> None:
        self._beat = self._since = time.monotonic()
        alarm(self._limits.silence)

    def _rest(self) -> None:
        alarm(0)
        self._worked += time.monotonic() - self._since


def _listen(requests: Requests, at_end: Callable[[], None]) -> None:
    """Takes requests in; at their end it ends the process, whatever that is doing."""

    def read(count: int) -> bytes:
        content = b""
        while len(content) < count:
            # Not through Python's buffer, whose lock would be in the way when this process ends.
            part = os.read(sys.stdin.fileno(), count - len(content))
            if not part:
                at_end()
                os._exit(0)
            content += part
        return content

    while True:
        requests.put(receive(read))


def limit_memory(most: int) -> None:
    """Allows so many bytes more than there are now (so what leaked before does not count)."""
    if resource is None or not _STATM.exists():  # other systems do not enforce this limit
        return
    now = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or now + most < hard:
        resource.setrlimit(resource.RLIMIT_AS, (now + most, hard))


def alarm(seconds: float) -> None:
    """Lets the kernel end this process after so long, also in the midst of a decoder."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
