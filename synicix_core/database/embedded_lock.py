"""Locks on files that the kernel lets go of when their holders are gone, however they went."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from synicix_core.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

__all__ = ["held", "is_held", "run_holding"]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock `path` for the block, after whoever has it now.

    Raises
    ------
    ConfigurationError
        The file system knows no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether some process holds the lock `path`; False also if that is not ours to know."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        # Shared, so that two who look at once do not take each other for the holder.
        return not _lock(descriptor, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def run_holding(
    path: Path,
    command: Sequence[str],
    *,
    identity: tuple[int, int] | None,
    output: IO[bytes],
    environment: dict[str, str],
) -> str:
    """Start `command` as a daemon that holds the lock `path` for as long as it or any child of it lives.

    Parameters
    ----------
    path : Path
        The lock.
    command : sequence of str
        Program (an absolute path) and arguments.
    identity : (uid, gid), optional
        Whom to become; needs root.
    output : file
        Where the daemon's standard output and error go.
    environment : dict
        All of its environment variables.

    Returns
    -------
    str
        Empty once the program runs and holds the lock; otherwise why it does not.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    reader, writer = os.pipe()
    uid, gid = identity or (-1, -1)
    # A program of its own rather than a fork of this process, which may have threads.
    daemon = [sys.executable, "-I", "-S", str(Path(__file__).with_name("embedded_daemon.py"))]
    try:
        done = subprocess.run(
            [*daemon, *map(str, (lock, writer, uid, gid)), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            pass_fds=(lock, writer),
            check=False,
        )
        os.close(writer)
        writer = -1
        # Ends when the program has started, since that closes the other end.
        with os.fdopen(os.dup(reader), "rb") as pipe:
            complaint = pipe.read().decode(errors="replace")
    finally:
        for descriptor in (lock, reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
    return complaint or (f"the launcher ended with status {done.returncode}" if done.returncode else "")


def _lock(descriptor: int, path: Path, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        raise ConfigurationError(
            "The project lies on a file system without locks, where no database is safe",
            where=str(path),
            why=error.strerror or "",
            hint="Put the project on a local disk, or configure a database server.",
        ) from error
    return True
