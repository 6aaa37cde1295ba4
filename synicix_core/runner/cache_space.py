"""Which copies a cache directory holds, what leaves it to make room, and what a killed process left behind.

In the directory, `<entry>` being a sha256 with the suffix of the dataset's name:

- ``<entry>``: a copy, complete and verified; it appears by a rename.
- ``.<entry>.json``: its record.
- ``.<entry>.lock``: locked while the copy is made.
- ``.<entry>.use``: locked, shared, while the copy is in use; its modification time is that of the last use.
- ``.<entry>.<8 digits>.half``: a copy that is being made, or an old one that is being removed.
- ``.<entry>.<8 digits>.reserved``: how many bytes the copy that is being made will have.
- ``.space.lock``: locked while somebody makes room.
- ``.in-place-<digits>.json``: the record of a dataset that is read where it is.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from synicix_core.errors import DatasetError
from synicix_core.runner.cache_contents import remove, scan
from synicix_core.runner.cache_locks import Lock, LocksUnavailable, acquire, try_acquire
from synicix_core.runner.cache_records import read_record

__all__ = ["Entry", "NoRoom", "Room", "discard", "make_room"]

_ENTRY = re.compile(r"[0-9a-f]{64}(\..*)?", re.DOTALL)
_UNFINISHED = re.compile(r"\.([0-9a-f]{64}(?:\..*)?)\.([0-9a-f]{8})\.(half|reserved)", re.DOTALL)
_ABANDONED_SECONDS = 86400.0


class NoRoom(Exception):
    """A copy cannot be made because the cache has no room for it; the text completes "because"."""


@dataclass(frozen=True)
class Entry:
    """One copy and the files around it, whether they exist or not."""

    directory: Path
    name: str

    @property
    def path(self) -> Path:
        """The copy."""
        return self.directory / self.name

    @property
    def record(self) -> Path:
        """Its record."""
        return self.directory / f".{self.name}.json"

    @property
    def make_lock(self) -> Path:
        """Locked while it is made."""
        return self.directory / f".{self.name}.lock"

    @property
    def use_lock(self) -> Path:
        """Locked while it is in use; modified when it was used."""
        return self.directory / f".{self.name}.use"

    def unfinished(self, number: str, kind: str) -> Path:
        """Return the path of a ``half`` or ``reserved`` file."""
        return self.directory / f".{self.name}.{number}.{kind}"


@dataclass(frozen=True)
class Room:
    """Room for one copy, kept until it is closed.

    Attributes
    ----------
    half : Path
        Where to make the copy.
    """

    half: Path
    reserved: Path

    def close(self) -> None:
        """Give the room back, and remove what is unfinished in it."""
        with suppress(OSError):
            remove(self.half)
        with suppress(OSError):
            self.reserved.unlink(missing_ok=True)


def make_room(entry: Entry, size: int, limit: int, held: Collection[str], pace: Callable[[], None]) -> Room:
    """Make room for a copy: remove what killed processes left and, if that is needed, the copies used longest ago.

    The caller holds the make lock of `entry`, unless the file system has no locks; then no copy is removed.

    Parameters
    ----------
    entry : Entry
        What will be copied.
    size : int
        Bytes that it needs.
    limit : int
        Bytes that all copies together may have; 0 is no limit.
    held : collection of str
        Entries that this process uses. Some network file systems would let a process lock those twice.
    pace : callable
        Called now and then; may raise to give up.

    Raises
    ------
    NoRoom
        If all that may be removed is not enough; then nothing is removed.
    OSError
        If the directory cannot be read or written.
    """
    if limit and size > limit:
        raise NoRoom(f"its {size} bytes are more than max_cache_bytes = {limit}")
    with ExitStack() as stack:
        try:
            stack.enter_context(acquire(entry.directory / ".space.lock", pace))
            locks = True
        except LocksUnavailable:
            locks = False
        copies, coming = _survey(entry, locks, pace)
        free = shutil.disk_usage(entry.directory).free
        missing = max(sum(copies.values()) + coming + size - limit if limit else 0, size - free)
        if missing > 0:
            if not locks:
                raise NoRoom(
                    "the cache is full, and its file system has no locks that would tell which copies are in use"
                )
            place = f"max_cache_bytes = {limit}" if size <= free else "what is free on its disk"
            _evict(entry.directory, copies, missing, {*held, entry.name}, place, pace)
        number = uuid.uuid4().hex[:8]
        room = Room(entry.unfinished(number, "half"), entry.unfinished(number, "reserved"))
        try:
            room.reserved.write_text(str(size), encoding="ascii")
        except BaseException:
            room.close()
            raise
        return room


def discard(entry: Entry, pace: Callable[[], None]) -> None:
    """Remove a copy: first out of sight in one step, then from the disk.

    Raises
    ------
    OSError
        If it cannot be removed.
    """
    entry.record.unlink(missing_ok=True)
    half = entry.unfinished(uuid.uuid4().hex[:8], "half")
    with suppress(FileNotFoundError):
        entry.path.rename(half)
        remove(half, pace)


def _survey(own: Entry, locks: bool, pace: Callable[[], None]) -> tuple[dict[str, int], int]:
    """Return the size of each copy and the bytes of those that are being made; remove what nobody makes any more."""
    copies: dict[str, int] = {}
    unfinished: dict[str, list[tuple[Path, str]]] = {}
    for path in own.directory.iterdir():
        if _ENTRY.fullmatch(path.name):
            copies[path.name] = _size(Entry(own.directory, path.name), pace)
        elif found := _UNFINISHED.fullmatch(path.name):
            unfinished.setdefault(found[1], []).append((path, found[3]))
        elif path.name.endswith(".new") and path.name.startswith(".") and _is_abandoned(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    coming = 0
    for name, files in unfinished.items():
        maker = try_acquire(Entry(own.directory, name).make_lock) if locks and name != own.name else None
        try:
            for path, kind in files:
                if maker or (locks and name == own.name) or _is_abandoned(path):
                    with suppress(OSError):  # another user's
                        remove(path, pace)
                elif kind == "reserved" and name not in copies:
                    coming += _reserved_bytes(path)
        finally:
            if maker:
                with suppress(OSError):
                    maker.path.unlink(missing_ok=True)
                maker.close()
    return copies, coming


def _evict(
    directory: Path, copies: dict[str, int], missing: int, held: Collection[str], place: str, pace: Callable[[], None]
) -> None:
    with ExitStack() as stack:
        chosen: list[tuple[Entry, Lock]] = []
        for name in sorted(set(copies) - set(held), key=lambda name: _used_ns(Entry(directory, name))):
            entry = Entry(directory, name)
            lock = try_acquire(entry.use_lock)
            if lock is None:
                continue
            stack.enter_context(lock)
            chosen.append((entry, lock))
            missing -= copies[name]
            if missing <= 0:
                break
        if missing > 0:
            raise NoRoom(f"it does not fit into {place} beside the copies that are in use")
        for entry, lock in chosen:
            discard(entry, pace)
            # Nobody makes or uses the entry while we hold this lock; who waits for either file finds it gone.
            entry.make_lock.unlink(missing_ok=True)
            lock.path.unlink(missing_ok=True)
            lock.close()


def _size(entry: Entry, pace: Callable[[], None]) -> int:
    record = read_record(entry.record)
    if record is not None:
        return record.size
    try:
        return scan(entry.path, pace).size
    except DatasetError:
        return 0


def _used_ns(entry: Entry) -> int:
    for path in (entry.use_lock, entry.path):
        with suppress(OSError):
            return path.stat().st_mtime_ns
    return 0


def _reserved_bytes(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except OSError:
        return False
