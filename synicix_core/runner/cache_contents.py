"""What a dataset on disk consists of, whether it is the same as before, and how to read or copy it in one pass."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synicix_core.errors import DatasetError

__all__ = ["Contents", "GivenUp", "Pace", "copy", "digest", "remove", "scan"]

_CHUNK_BYTES = 1 << 20
_SYNC_BYTES = 32 << 20
_TICK_SECONDS = 0.25
_RACY_SECONDS = 2.0


class GivenUp(Exception):
    """The tick raised. Its error travels inside this one, so that nobody takes it for an error of the disk.

    Attributes
    ----------
    error : Exception
        What it raised.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Pace:
    """Calls `tick` at most four times a second, however often it is called itself.

    Parameters
    ----------
    tick : callable
        What to do now and then in long work; it may raise to give the work up.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._ticked = float("-inf")

    def __call__(self) -> None:
        """Call `tick` if it is time.

        Raises
        ------
        GivenUp
            If `tick` raises.
        """
        if time.monotonic() - self._ticked >= _TICK_SECONDS:
            try:
                self._tick()
            except Exception as error:
                raise GivenUp(error) from error
            self._ticked = time.monotonic()


@dataclass(frozen=True)
class _Member:
    relative: str
    """With forward slashes; empty for a dataset that is a single file."""
    size: int
    mtime_ns: int
    counts: bool
    """Whether the digest covers it: `synicix_core.hashing.file_sha256` leaves out hidden files and linked directories."""


@dataclass(frozen=True)
class Contents:
    """What a dataset consisted of at one moment.

    Attributes
    ----------
    root : Path
        The file or directory.
    is_directory : bool
        Which of them it is.
    folders : tuple of str
        Directories inside, each after the one that holds it.
    members : tuple
        Files inside, or the file itself.
    """

    root: Path
    is_directory: bool
    folders: tuple[str, ...]
    members: tuple[_Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what tells without reading that nothing changed: names, sizes and modification times."""
        lines = (f"{member.relative}\0{member.size}\0{member.mtime_ns}\n" for member in self.members if member.counts)
        text = f"{self.is_directory}\n" + "".join(lines)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    @property
    def is_recent(self) -> bool:
        """Whether a file was written so shortly ago that another write might leave its modification time as it is."""
        now = time.time()
        return any(abs(now - member.mtime_ns / 1e9) < _RACY_SECONDS for member in self.members)


def scan(root: Path, pace: Callable[[], None], links_within: Path | None = None) -> Contents:
    """Look at a dataset without reading it.

    Parameters
    ----------
    root : Path
        A file or a directory.
    pace : callable
        Called for every file.
    links_within : Path, optional
        Directory, without links in its own path, that links inside `root` must not lead out of.

    Raises
    ------
    DatasetError
        If it cannot be looked at, or a link leads out of `links_within`.
    """
    with _readable(root):
        stat = root.stat()
        if not root.is_dir():
            return Contents(root, False, (), (_Member("", stat.st_size, stat.st_mtime_ns, True),))
        folders: list[str] = []
        members: list[_Member] = []
        # Directories still to look at: name, whether it counts, and the directories above it.
        waiting = [("", True, frozenset({(stat.st_dev, stat.st_ino)}))]
        while waiting:
            folder, folder_counts, above = waiting.pop()
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    pace()
                    relative = f"{folder}/{entry.name}" if folder else entry.name
                    counts = folder_counts and not entry.name.startswith(".")
                    if entry.is_symlink() and links_within:
                        _refuse_to_leave(Path(entry.path), links_within)
                    if entry.is_file():
                        of_file = entry.stat()
                        members.append(_Member(relative, of_file.st_size, of_file.st_mtime_ns, counts))
                    elif entry.is_dir():
                        of_folder = entry.stat()
                        identity = (of_folder.st_dev, of_folder.st_ino)
                        # A link back to a directory above has no end; nothing can be meant by it.
                        if identity not in above:
                            folders.append(relative)
                            waiting.append((relative, counts and not entry.is_symlink(), above | {identity}))
    return Contents(root, True, tuple(folders), tuple(sorted(members, key=lambda member: member.relative)))


def digest(contents: Contents, pace: Callable[[], None]) -> str:
    """Return the sha256 that `synicix_core.hashing.file_sha256` returns for the dataset, calling `pace` for every chunk.

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    return _combined(
        contents, {m.relative: _read(contents.root / m.relative, None, pace) for m in contents.members if m.counts}
    )


def copy(contents: Contents, target: Path, pace: Callable[[], None]) -> str:
    """Copy a dataset to `target`, which must not exist, and return the sha256 of what was read and written.

    Links are replaced by what they point to; the copies keep the modification times, so that two copies of one file look
    the same. All data is on the disk at the end, where a power cut cannot take it back.

    Raises
    ------
    DatasetError
        If the dataset cannot be read.
    OSError
        If the copy cannot be written.
    """
    if contents.is_directory:
        target.mkdir()
        for folder in contents.folders:
            (target / folder).mkdir()
    digests: dict[str, str] = {}
    for member in contents.members:
        path = target / member.relative
        digests[member.relative] = _read(contents.root / member.relative, path, pace)
        os.utime(path, ns=(member.mtime_ns, member.mtime_ns))
    return _combined(contents, digests)


def remove(path: Path, pace: Callable[[], None] = lambda: None) -> None:
    """Remove a file or a directory with all in it, if it is there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            pace()
            Path(folder, name).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _refuse_to_leave(link: Path, folder: Path) -> None:
    real = link.resolve()
    # Where nothing is at the other end, nothing is read.
    if not real.is_relative_to(folder) and real.exists():
        raise DatasetError(
            "a link in the dataset leads out of dataset_dir",
            file=str(link),
            why=f"it points to {real}",
            hint="Set follow_symlinks = true in synicix.toml if that is meant.",
        )


def _combined(contents: Contents, digests: dict[str, str]) -> str:
    if not contents.is_directory:
        return digests[""]
    whole = hashlib.sha256()
    for member in contents.members:
        if member.counts:
            whole.update(f"{member.relative}\0{digests[member.relative]}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _read(path: Path, target: Path | None, pace: Callable[[], None]) -> str:
    """Return the sha256 of one file; write what is read to `target` at the same time, if there is one."""
    whole = hashlib.sha256()
    if target is None:
        for chunk in _chunks(path):
            whole.update(chunk)
            pace()
        return whole.hexdigest()
    unsynced = 0
    with target.open("xb", buffering=0) as file:
        for chunk in _chunks(path):
            whole.update(chunk)
            written = 0
            while written < len(chunk):
                written += file.write(chunk[written:])
            unsynced += len(chunk)
            # Piece by piece, because one sync of everything at the end could keep `pace` waiting for minutes.
            if unsynced >= _SYNC_BYTES:
                os.fsync(file.fileno())
                unsynced = 0
            pace()
        os.fsync(file.fileno())
    return whole.hexdigest()


def _chunks(path: Path) -> Iterator[memoryview]:
    """Yield what a file holds; each piece is overwritten by the next."""
    with _readable(path):
        file = path.open("rb", buffering=0)
    with file:
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        while True:
            with _readable(path):
                count = file.readinto(buffer)
            if not count:
                return
            yield buffer[:count]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            "the dataset cannot be read",
            file=str(error.filename or path),
            why=error.strerror or str(error),
            hint="Check the path and its permissions.",
        ) from error
