"""The process's heap, where a memory budget is asked for: what is freed goes back to the system."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress

from ..errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 64 << 10


def parse_bytes(text: str) -> int:
    """`500MB`, `8GB`, `1.5GiB` or a number of bytes; ConfigError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if not found or not (size := int(float(found[1]) * _UNITS[found[2] or ""])):
        raise ConfigError(f"memory budget is {text[:40]!r}; write it as in 500MB or 8GB")
    return size


def map_large_blocks() -> None:
    """Weights get pages of their own, which go back when they are freed; glibc would rather keep them."""
    with suppress(AttributeError, OSError, TypeError):  # mallopt and malloc_trim are glibc's
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def trim() -> None:
    """What lies free on the heap goes back."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
