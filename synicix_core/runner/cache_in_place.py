"""Verify what lies in `dataset_dir`, reading it only if no process of this machine has done so since it changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from synicix_core.errors import DatasetError
from synicix_core.runner.cache_contents import Contents, Pace, digest, scan
from synicix_core.runner.cache_locks import Lock, LocksUnavailable, acquire
from synicix_core.runner.cache_records import Record, read_record, write_record
from synicix_core.settings import Settings

__all__ = ["Originals"]


class Originals:
    """The datasets in `dataset_dir`, and what this machine knows of them.

    Parameters
    ----------
    settings : Settings
        Says where they are, whether links may lead out, and where the cache is, which keeps what is known.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._digests: dict[tuple[Path, str], str] = {}

    def scan(self, source: Path, pace: Pace) -> Contents:
        """Look at a dataset without reading it."""
        links_within = None if self._settings.follow_symlinks else self._settings.dataset_dir.resolve()
        return scan(source, pace, links_within)

    def verify(self, source: Path, name: str, sha256: str, pace: Pace) -> None:
        """Compare a dataset with its row.

        Raises
        ------
        DatasetError
            If it cannot be read, or is not what the row says.
        """
        contents = self.scan(source, pace)
        if not self.check_known(contents, name, sha256):
            with _alone(self._record(source), pace):
                # Another process may have read it while this one waited.
                if not self.check_known(contents, name, sha256):
                    self.check(contents, digest(contents, pace), name, sha256, pace)

    def check_known(self, contents: Contents, name: str, sha256: str) -> bool:
        """Tell whether a dataset is known to be what its row says, as far as that is known without reading it.

        Raises
        ------
        DatasetError
            If it is known to be something else.
        """
        known = self._digests.get((contents.root, contents.fingerprint))
        if known is None:
            record = read_record(self._record(contents.root))
            if record is None or record.fingerprint != contents.fingerprint:
                return False
            known = self._digests[contents.root, contents.fingerprint] = record.sha256
        if known != sha256:
            raise _changed(contents.root, name, known, sha256)
        return True

    def check(self, contents: Contents, found: str, name: str, sha256: str, pace: Pace) -> None:
        """Compare the digest of a dataset that was just read with its row, and keep it for all processes.

        Raises
        ------
        DatasetError
            If it is another one, or the dataset changed while it was read.
        """
        now = self.scan(contents.root, pace)
        if now.fingerprint != contents.fingerprint:
            raise DatasetError(
                f"the dataset file {name!r} changes while it is read",
                file=str(contents.root),
                why="its size or modification time is not the same as a moment before",
                hint="Wait until it is complete, and retry.",
            )
        if not now.is_recent:
            self._digests[contents.root, contents.fingerprint] = found
            real = str(contents.root.resolve())
            with suppress(OSError):  # a full disk: the next process reads it again
                self._settings.dataset_cache_dir.mkdir(parents=True, exist_ok=True)
                write_record(self._record(contents.root), Record(real, contents.fingerprint, found, contents.size))
        if found != sha256:
            raise _changed(contents.root, name, found, sha256)

    def _record(self, source: Path) -> Path:
        real = os.fsencode(source.resolve())
        return self._settings.dataset_cache_dir / f".in-place-{hashlib.sha256(real).hexdigest()[:32]}.json"


@contextmanager
def _alone(record: Path, pace: Pace) -> Iterator[None]:
    """Keep others from reading the same dataset inside the block, where that is possible; it would only be a waste."""
    lock: Lock | None = None
    with suppress(LocksUnavailable, OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(record.with_suffix(".lock"), pace)
    with lock or nullcontext():
        yield
        if lock:
            lock.path.unlink(missing_ok=True)


def _changed(source: Path, name: str, found: str, sha256: str) -> DatasetError:
    return DatasetError(
        f"the dataset file {name!r} has changed since its DatasetConfig was inserted",
        file=str(source),
        why=f"its sha256 is {found}, the row says {sha256}",
        hint="Put the old file back, or add a DatasetConfig for the new one.",
    )
