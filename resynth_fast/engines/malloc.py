"""The process's heap, where a memory budget is asked for: what is freed goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 64 << 10


def map_large_blocks() -> None:
    """Weights get pages of their own, which go back when they are freed; glibc would rather keep them."""
    with suppress(AttributeError, OSError, TypeError):  # mallopt and malloc_trim are glibc's
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def trim() -> None:
    """What lies free on the heap goes back."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
