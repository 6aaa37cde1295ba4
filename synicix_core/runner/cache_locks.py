"""Locks between the processes of a machine, which the kernel drops when their holder ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Lock", "LocksUnavailable", "acquire", "try_acquire"]

# What file systems say that have no such locks, NFS without its lock daemon above all.
_UNAVAILABLE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_LONGEST_PAUSE = 0.2


class LocksUnavailable(Exception):
    """The file system has no locks."""


class Lock:
    """A lock that this process holds, until it closes it or ends.

    Attributes
    ----------
    path : Path
        The file that is locked. Whoever holds the lock exclusively may remove it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the lock back."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def acquire(path: Path, pace: Callable[[], None], *, shared: bool = False) -> Lock:
    """Wait for a lock, calling `pace` meanwhile.

    Parameters
    ----------
    path : Path
        File to lock; it is made if it is not there.
    pace : callable
        May raise to give up.
    shared : bool
        Whether others may hold the lock at the same time, if they want it shared, too.

    Raises
    ------
    LocksUnavailable
        If the file system has no locks.
    OSError
        If the file cannot be made.
    """
    pause = 0.005
    while True:
        lock = try_acquire(path, shared=shared)
        if lock is not None:
            return lock
        pace()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def try_acquire(path: Path, *, shared: bool = False) -> Lock | None:
    """Return a lock, or None if somebody else holds it; see `acquire`."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_same_file(descriptor, path):
                return Lock(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _UNAVAILABLE:
                raise LocksUnavailable(str(error)) from error
            raise
        # Its last holder removed the file after we opened it: a lock that nobody else would find.
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except PermissionError:
        # Another user's file can be locked, too, where the directory is for everybody.
        return os.open(path, os.O_RDONLY)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
