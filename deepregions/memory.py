"""Has glibc keep the memory that is freed, for what is computed next, or return it."""

import ctypes
import sys

# Of malloc.h: what is freed at the heap's end and returned to the system beyond so many bytes; how
# many blocks are mapped by themselves; how many heaps threads have.
_OPTIONS = {-1: 256 << 20, -4: 0, -8: 1}


def keep_freed() -> None:
    """Keeps this process's freed memory for its next arrays, where malloc is glibc's.

    To map a network's large maps anew each time takes a sixth of a photograph's time.
    """
    library = _glibc()
    if library is not None:
        for option, value in _OPTIONS.items():
            library.mallopt(option, value)


def return_freed() -> None:
    """Returns what is free to the system, gaps too: in a long film or a service they would grow."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "mallopt") else None  # musl has none
