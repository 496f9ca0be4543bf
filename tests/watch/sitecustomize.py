"""Traps every internet socket of a process and of its children; Python runs this file at start.

A seccomp filter answers ``socket(AF_INET or AF_INET6, ...)`` with SIGSYS, in native libraries too;
whoever asked is written to the file that $SOCKET_WATCH names, as a Python traceback.
"""

import ctypes
import faulthandler
import os
import platform
import signal
import struct
from pathlib import Path

# Linux: prctl's options, seccomp's answers, and the number of socket() on a machine.
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _TRAP = 0x7FFF0000, 0x00030000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_SOCKET = {"x86_64": 41, "aarch64": 198}
_PROGRAM = (
    (_LOAD, 0, 0, 0),  # the system call's number
    (_EQUAL, 0, 3, _SOCKET.get(platform.machine(), -1)),
    (_LOAD, 0, 0, 16),  # its first argument
    (_EQUAL, 2, 0, 2),  # AF_INET
    (_EQUAL, 1, 0, 10),  # AF_INET6
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _TRAP),
)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def _watch(log: Path) -> None:
    program = b"".join(struct.pack("HBBI", *line) for line in _PROGRAM)
    given = _Filter(
        len(_PROGRAM), ctypes.cast(ctypes.create_string_buffer(program), ctypes.c_char_p)
    )
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if library.prctl(_SECCOMP, _FILTER, ctypes.byref(given), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
    faulthandler.register(signal.SIGSYS, file=log.open("a"), chain=True)


if "SOCKET_WATCH" in os.environ:
    _watch(Path(os.environ["SOCKET_WATCH"]))
