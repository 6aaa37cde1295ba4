"""The dataset file that an executor reads: verified against its row, and copied to this machine where that is faster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from synicix_core.errors import DatasetError
from synicix_core.hashing import file_sha256
from synicix_core.settings import Settings
from synicix_core.tables.dataset_files import resolve_dataset_file

__all__ = ["DatasetCache"]


class DatasetCache:
    """Dataset files of this machine.

    A file that lies on the same disk as the cache is read where it is; any other is copied once per machine, under a lock.
    Either way its sha256 is verified once per path, size and modification time.

    Parameters
    ----------
    settings : Settings
        Says where the files and the cache are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verified: dict[tuple[str, int, int], str] = {}
        self._fetched: set[tuple[str, str]] = set()

    def is_at_hand(self, name: str, sha256: str) -> bool:
        """Tell whether `fetch` was asked for this before and will not take long; a directory always does."""
        return (name, sha256) in self._fetched

    def fetch(self, name: str, sha256: str) -> Path:
        """Return the path of a file whose content is what the row means.

        Parameters
        ----------
        name : str
            Name relative to `dataset_dir`.
        sha256 : str
            Digest in the row.

        Raises
        ------
        DatasetError
            If the file is missing or has changed; the message names both digests.
        """
        settings = self._settings
        source = resolve_dataset_file(settings.dataset_dir, name, follow_symlinks=settings.follow_symlinks)
        cached = settings.dataset_cache_dir / f"{sha256}{source.suffix}"
        if cached.exists() or not _same_disk(source, settings.dataset_cache_dir):
            source = self._copy(source, cached, name, sha256)
        else:
            self._verify(source, name, sha256)
        if source.is_file():
            self._fetched.add((name, sha256))
        return source

    def _copy(self, source: Path, cached: Path, name: str, sha256: str) -> Path:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with _locked(cached.parent / f".{sha256}.lock"):
            if not cached.exists():
                half = cached.parent / f".{sha256}.half"
                _remove(half)
                try:
                    shutil.copytree(source, half) if source.is_dir() else shutil.copyfile(source, half)
                    self._verify(half, name, sha256)
                    half.rename(cached)
                except OSError as error:
                    _remove(half)
                    raise DatasetError(
                        f"the dataset file {name!r} cannot be copied into the cache",
                        file=str(cached.parent),
                        why=error.strerror or str(error),
                        hint="Make room there, or set dataset_cache_dir to another disk.",
                    ) from error
        return cached

    def _verify(self, path: Path, name: str, sha256: str) -> None:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        digest = self._verified.get(key)
        if digest is None or path.is_dir():
            digest = self._verified[key] = file_sha256(path)
        if digest != sha256:
            _remove(path) if path.name.endswith(".half") else None
            raise DatasetError(
                f"the dataset file {name!r} has changed since its DatasetConfig was inserted",
                file=str(path),
                why=f"its sha256 is {digest}, the row says {sha256}",
                hint="Put the old file back, or add a DatasetConfig for the new one.",
            )


def _same_disk(source: Path, cache: Path) -> bool:
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return source.stat().st_dev == existing.stat().st_dev


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
