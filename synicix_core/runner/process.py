"""Name a process for ever, so that another process on the same machine can prove that it is gone.

A process id alone names nothing: it is given out again, and each container counts its own. The name holds the boot of the
machine, the namespace in which the id counts, the id, and the moment at which the process began.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["is_gone", "name_of", "namespace"]


def name_of(pid: int | None = None) -> str:
    """Return the name of a process that runs now, this one by default; empty where the machine does not tell."""
    pid = pid or os.getpid()
    began = _began(pid)
    return f"{namespace()}/{pid}/{began}" if namespace() and began else ""


def is_gone(name: str) -> bool:
    """Tell whether the process of that name has certainly ended; False where it cannot be known from here."""
    here, _, rest = name.rpartition("/")[0].rpartition("/")
    if not name or here != namespace() or not rest.isdigit():
        return False
    pid, began = int(rest), name.rpartition("/")[2]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's; who began when it did tells
    now = _began(pid)
    return now is not None and now != began


@functools.cache
def namespace() -> str:
    """Return what names the boot of this machine and the namespace of its process ids; empty where neither is known."""
    try:
        if sys.platform == "linux":
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            # Two containers on one machine share the boot; a number that is used again means that its old owner is gone.
            return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return ""


def _began(pid: int) -> str | None:
    """Return when a process began; ``"ended"`` for one that waits for its parent to look, None where it is not told."""
    try:
        if sys.platform == "linux":
            # The name in parentheses may hold blanks and parentheses; state and start are fields 3 and 22.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return "ended" if fields[0] in "ZX" else fields[19]
        if sys.platform == "darwin":
            command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
            state, *began = subprocess.run(
                command, capture_output=True, text=True, timeout=10, check=True
            ).stdout.split()
            return "ended" if state.startswith("Z") else "-".join(began)
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    return None
