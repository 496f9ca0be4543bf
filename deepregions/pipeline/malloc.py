"""Gives memory that is no longer used back to the system.

The little that is kept of each frame comes to lie between large frames that are not kept, and
glibc holds on to the gaps: a quarter of a gigabyte of them after ten minutes of video.
"""

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
