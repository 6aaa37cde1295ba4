"""End a process when the one that started it is gone. No torch here."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with"]

_SET_PARENT_DEATH_SIGNAL = 1
"""``PR_SET_PDEATHSIG`` of Linux's ``sys/prctl.h``."""


def die_with(parent: int) -> None:
    """Let the kernel end this process with its parent, where it can.

    Parameters
    ----------
    parent : int
        Its process id, as this process, or the parent itself, knows it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)
