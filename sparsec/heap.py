"""Memory that was freed but not given back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return freed memory to the system, where the C library keeps it and can be told to.

    The GNU C library keeps blocks of up to 32 MiB for later allocations. Between two stages that each hold a copy of the
    weights, that adds the temporary arrays of the first to the peak of the second.
    """
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
