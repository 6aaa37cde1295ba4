"""The dataset file that an executor reads: verified against its row, and copied to this machine where that is faster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from synicix_core.errors import DatasetError
from synicix_core.runner.cache_contents import GivenUp, Pace, copy, scan
from synicix_core.runner.cache_in_place import Originals
from synicix_core.runner.cache_locks import Lock, LocksUnavailable, acquire
from synicix_core.runner.cache_records import Record, read_record, write_record
from synicix_core.runner.cache_space import Entry, NoRoom, discard, make_room
from synicix_core.settings import Settings
from synicix_core.tables.dataset_files import resolve_dataset_file

__all__ = ["DatasetCache"]

_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_RETRY_SECONDS = 600.0


class DatasetCache:
    """Dataset files of this machine, shared by all its processes.

    A dataset that lies on the same disk as the cache is read where it is; any other is copied once per machine. Either way
    its sha256 is verified once per machine, path, size and modification time. Where no copy can be made, because there is
    no room for it or the cache cannot be written, the dataset is read where it is, and that is said once.

    Parameters
    ----------
    settings : Settings
        Says where the files and the cache are, and how large the cache may become.
    warn : callable, optional
        Shows a sentence to people.
    """

    def __init__(self, settings: Settings, warn: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._directory = settings.dataset_cache_dir
        self._originals = Originals(settings)
        self._warn = warn or (lambda _: None)
        self._said: set[str] = set()
        self._held: dict[str, Lock] = {}
        # Path, size and modification time of each file that was fetched.
        self._fetched: dict[tuple[str, str], tuple[Path, int, int]] = {}
        self._not_before: dict[str, float] = {}

    def is_at_hand(self, name: str, sha256: str) -> bool:
        """Tell whether `fetch` was asked for this before and will not take long; a directory always does."""
        try:
            path, size, mtime_ns = self._fetched[name, sha256]
            stat = path.stat()
        except (KeyError, OSError):
            return False
        return (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns)

    def fetch(self, name: str, sha256: str, tick: Callable[[], None] = lambda: None) -> Path:
        """Return the path of a dataset whose content is what the row means; it stays there until `release`.

        Parameters
        ----------
        name : str
            Name relative to `dataset_dir`.
        sha256 : str
            Digest in the row.
        tick : callable
            Called several times a second while this reads, writes or waits for another process. It may raise to give up;
            then nothing half-made stays, and no lock.

        Raises
        ------
        DatasetError
            If the dataset cannot be read or has changed; in the latter case the message names both digests. Where the
            system refused something, its error is the cause.
        DatasetMissing
            If there is no such file.
        """
        pace = Pace(tick)
        try:
            source = resolve_dataset_file(
                self._settings.dataset_dir, name, follow_symlinks=self._settings.follow_symlinks
            )
            path = source if self._is_same_disk(source) else self._copied(source, name, sha256, pace)
            if path is source:
                self._originals.verify(source, name, sha256, pace)
            if path.is_file():
                stat = path.stat()
                self._fetched[name, sha256] = (path, stat.st_size, stat.st_mtime_ns)
        except GivenUp as given_up:
            raise given_up.error from given_up.error.__cause__
        except OSError as error:
            raise DatasetError(
                f"the dataset file {name!r} cannot be read",
                file=str(error.filename or self._settings.dataset_dir),
                why=error.strerror or str(error),
                hint="Check the path and its permissions.",
            ) from error
        return path

    def release(self) -> None:
        """Tell that what was fetched is not in use any more: it may be removed to make room for others."""
        for lock in self._held.values():
            _stamp(lock.path)
            lock.close()
        self._held.clear()

    def close(self) -> None:
        """Release everything."""
        self.release()

    def _is_same_disk(self, source: Path) -> bool:
        existing = next(folder for folder in (self._directory, *self._directory.parents) if folder.exists())
        return source.stat().st_dev == existing.stat().st_dev

    def _copied(self, source: Path, name: str, sha256: str, pace: Pace) -> Path:
        """Return the path of a verified copy, in use from now on, or `source` if there can be none."""
        entry = Entry(self._directory, sha256 + _suffix(source))
        try:
            if time.monotonic() < self._not_before.get(entry.name, 0.0):
                return source
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._in_use(entry, pace):
                if not _is_good(entry, sha256, pace):
                    with _made_alone(entry, pace) as locked:
                        if not _is_good(entry, sha256, pace):
                            self._make(entry, source, name, sha256, pace, locked=locked)
            return entry.path
        except NoRoom as reason:
            self._say(
                f"The dataset file {name!r} is read from dataset_dir, not copied into the cache: {reason}.", str(reason)
            )
        except OSError as error:
            # Not for every task again: a large copy takes long to fail.
            self._not_before[entry.name] = time.monotonic() + _RETRY_SECONDS
            why = error.strerror or str(error)
            self._say(
                f"The dataset file {name!r} is read from dataset_dir: it cannot be copied into the cache "
                f"({self._directory}): {why}. Make room there, or set dataset_cache_dir to another disk.",
                why,
            )
        return source

    @contextmanager
    def _in_use(self, entry: Entry, pace: Pace) -> Iterator[None]:
        """Keep others from removing an entry: inside the block and, if that ends well, until `release`."""
        lock: Lock | None = self._held.get(entry.name)
        if lock is None:
            with suppress(LocksUnavailable):  # then nobody removes anything there
                lock = acquire(entry.use_lock, pace, shared=True)
        _stamp(entry.use_lock)
        try:
            yield
        except BaseException:
            if lock and entry.name not in self._held:
                lock.close()
            raise
        if lock:
            self._held[entry.name] = lock

    def _make(self, entry: Entry, source: Path, name: str, sha256: str, pace: Pace, *, locked: bool) -> None:
        """Copy a dataset; `locked` tells whether nobody else does so now."""
        if entry.path.exists():
            if not locked:
                if _is_good(entry, sha256, pace):
                    return  # another process made it just now
                raise NoRoom(f"the copy {entry.path} is damaged, and without locks nobody knows who reads it")
            discard(entry, pace)
        before = self._originals.scan(source, pace)
        self._originals.check_known(before, name, sha256)  # a large one need not be copied to find out
        room = make_room(entry, before.size, self._settings.max_cache_bytes, self._held, pace)
        try:
            found = copy(before, room.half, pace)
            if found != sha256:
                self._originals.check(before, found, name, sha256, pace)
            made = scan(room.half, pace)
            # The record comes first: a copy that is there with no record would have to be made again.
            write_record(entry.record, Record(str(entry.path), made.fingerprint, sha256, made.size))
            try:
                room.half.rename(entry.path)
            except OSError:
                # A directory is not replaced; without locks another process may have been faster.
                if locked or not _is_good(entry, sha256, pace):
                    raise
        finally:
            room.close()

    def _say(self, text: str, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            self._warn(text)


def _suffix(source: Path) -> str:
    """Return the end of the name by which libraries know the format; of ``brain.nii.gz`` both parts."""
    suffixes = source.suffixes
    return "".join(suffixes[-2:] if suffixes and suffixes[-1] in _COMPRESSED else suffixes[-1:])


def _is_good(entry: Entry, sha256: str, pace: Pace) -> bool:
    """Tell whether a copy is there and as it was when it was made."""
    record = read_record(entry.record)
    try:
        return (
            record is not None
            and record.sha256 == sha256
            and entry.path.exists()
            and scan(entry.path, pace).fingerprint == record.fingerprint
        )
    except DatasetError:
        return False


@contextmanager
def _made_alone(entry: Entry, pace: Pace) -> Iterator[bool]:
    """Keep others from making the same copy inside the block, which is told whether that is possible."""
    lock: Lock | None = None
    with suppress(LocksUnavailable):
        lock = acquire(entry.make_lock, pace)
    with lock or nullcontext():
        yield lock is not None


def _stamp(file: Path) -> None:
    """Note that a copy is used now; in nanoseconds, because the system's own stamps may be equal for several."""
    with suppress(OSError):
        now = time.time_ns()
        os.utime(file, ns=(now, now))
