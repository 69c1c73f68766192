"""The process's heap under a memory budget: freed memory returns to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 64 << 10


def map_large_blocks() -> None:
    """Give weights pages of their own, which return to the system when they are freed; glibc would keep them otherwise."""
    with suppress(AttributeError, OSError, TypeError):  # mallopt and malloc_trim are glibc's
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def trim() -> None:
    """Return free memory of the heap to the system."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
