"""Whether the C library gives freed memory back to the system."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of parameters in glibc's ``malloc.h``."""

_LARGEST_FROM_HEAP = 1 << 30
_KEPT_AT_LEAST = 2_000_000_000


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next allocation instead of returning it to the system.

    By default it maps each tensor of more than some megabytes anew, and the system clears every page of it at the first touch.
    A training step on the CPU makes and frees such tensors all the time; kept memory makes it up to a third faster.

    Returns
    -------
    bool
        False where nothing was changed: there is no glibc, or the user's own ``MALLOC_*`` or ``GLIBC_TUNABLES`` says how it is
        to be.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        # musl and macOS have a malloc of their own, without these parameters.
        mallopt = library.mallopt if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, TypeError):
        return False
    return (
        mallopt is not None
        and bool(mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP))
        and bool(mallopt(_TRIM_THRESHOLD, _KEPT_AT_LEAST))
    )
