"""A decoder that does what the file's name says; ``test_media_reader.py`` puts it in the sandbox.

It is imported by the processes that decode, before they start to.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deepregions.media import worker
from deepregions.media.credentials import read_credentials
from deepregions.media.frames import Limits, Progress
from deepregions.media.provenance import Credentials
from deepregions.media.source import Source, open_source
from deepregions.media.wire import encode


def hang_in_c() -> None:
    """Holds the interpreter's lock, as a loop in a decoder could."""
    ctypes.PyDLL(None).sleep(1000)


def take_memory() -> None:
    kept = []
    while True:
        kept.append(np.ones(1 << 20))


def take_memory_in_c() -> None:
    """Asks the C library, and fails as C++ does when it gets none."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    while malloc(ctypes.c_size_t(1 << 26)):
        pass
    os.abort()


def write_a_file() -> None:
    Path(os.environ["SABOTEUR"]).write_bytes(bytes(1 << 20))


def complain() -> None:
    for _ in range(10_000):
        with suppress(BlockingIOError):  # C does not look
            os.write(2, b"warning: 8 bytes of padding at the end, this is not an error\n" * 20)


def chatter() -> None:
    for _ in range(10_000):
        os.write(1, b"a library that prints")


def fail() -> None:
    raise KeyError("a bug")


def answer(content: bytes) -> None:
    for descriptor in range(3, 20):  # wherever answers go
        with suppress(OSError):
            os.write(descriptor, content)
    time.sleep(1000)


FAULTS: dict[str, Callable[[], None]] = {
    "hang": lambda: time.sleep(1000),
    "hang-in-c": hang_in_c,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": os.abort,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(0),
    "memory": take_memory,
    "memory-in-c": take_memory_in_c,
    "write": write_a_file,
    "complain": complain,
    "chatter": chatter,
    "bug": fail,
    "rubbish": lambda: answer(b"\xff" * 1000),
    "no-json": lambda: answer(b"\5\0\0\0{{{{{"),
    "empty-end": lambda: answer(encode({"kind": "end"})),
    "no-number": lambda: answer(encode({"kind": "frame", "shape": [1, 1, 3]}) + bytes(3)),
    "huge-frame": lambda: answer(encode({"kind": "frame", "shape": [10**9, 10**9, 3]})),
}


@contextmanager
def sabotaged(path: Path, limits: Limits, progress: Progress) -> Iterator[Source]:
    if path.stem == "endless":
        while True:
            progress()
            time.sleep(0.001)
    FAULTS.get(path.stem, lambda: None)()
    with open_source(path, limits, progress) as source:
        yield source


def sabotaged_credentials(file: BinaryIO, progress: Progress) -> Credentials:
    FAULTS.get(Path(file.name).stem.removeprefix("credentials-"), lambda: None)()
    return read_credentials(file, progress)


worker.open_source = sabotaged
worker.read_credentials = sabotaged_credentials
