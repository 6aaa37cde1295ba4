"""Which processes belong to the PostgreSQL of a data directory.

A process is known by its working directory, which for every PostgreSQL process is the data directory: that stays true when
the directory is moved, and never becomes true for a process that got the number of a dead one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from synicix_core.errors import ConfigurationError

__all__ = ["end_orphans", "postmaster_pid", "runs_on_another_host"]

_NETWORK = (
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "smb",
    "wekafs",
)
_CLOCK_SET = 300.0


def postmaster_pid(data: Path) -> int | None:
    """Return the number of the running server's first process, or None: no such process, whatever the file says."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, started = int(lines[0]), int(lines[2])
    except (OSError, ValueError, IndexError):
        return None
    return pid if _works_in(pid, data, started) else None


def end_orphans(data: Path) -> int:
    """Kill the processes of a server whose first process is gone; return how many there were.

    They would end by themselves once they look, but one that computes may not look for long, and until then no new server
    can start. PostgreSQL recovers from this as from a power failure.
    """
    import psutil  # type: ignore[import-untyped]

    ended = 0
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _works_in(process.pid, data):
            process.kill()
            ended += 1
    return ended


def runs_on_another_host(data: Path, host: str) -> bool:
    """Return whether a server may be running on `host`, which started it last, where its locks do not show here.

    Some network file systems keep locks to the machine that made them. There, a ``postmaster.pid`` left by another machine
    has to be taken at its word. On a local disk it is a leftover: of a killed container, or of a copied project.
    """
    if not host or host == socket.gethostname() or not (data / "postmaster.pid").exists():
        return False
    return _file_system(data).startswith(_NETWORK)


def _works_in(pid: int, data: Path, started: int | None = None) -> bool:
    try:
        import psutil
    except ImportError as error:
        raise ConfigurationError(
            "The PostgreSQL inside the project is not fully installed",
            why=str(error),
            hint="Run `pip install 'synicix-core[embedded]'`.",
        ) from error
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not process.name().startswith("postgres"):
            return False
        return os.path.samefile(process.cwd(), data)  # noqa: PTH121
    except psutil.AccessDenied:
        # Root in a container may not look at another user's processes. The owner and the time (seconds since the epoch;
        # a clock may have been set meanwhile) then tell a postmaster from one that got the number of a dead one.
        return (
            started is not None
            and process.uids().real == data.stat().st_uid
            and abs(process.create_time() - started) < _CLOCK_SET
        )
    except (psutil.NoSuchProcess, OSError):
        return False


def _file_system(path: Path) -> str:
    import psutil

    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    return str(max(mounts, key=lambda p: len(p.mountpoint)).fstype) if mounts else ""
