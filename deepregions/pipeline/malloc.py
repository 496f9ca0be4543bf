"""Gives memory that is no longer used back to the system: glibc's malloc keeps the gaps in it."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Returns the free pages of the heap to the system; does nothing where glibc is not."""
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # musl has none
        library.malloc_trim(0)
