"""The files in the store of the histories: which there are, by their names, and how to remove one.

They lie where DataJoint's hash registry puts them: ``{hash_prefix}/{schema}/{folds, where configured}/{hash}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synicix_core.database.connection import STORE

__all__ = ["HistoryStore"]

_FOLDED = re.compile(r"((?:[a-z2-7]+/)*)([a-z2-7]{26})((?:\.[0-9a-f]{16})?\.saving)?")


class HistoryStore:
    """The part of the store `STORE` that belongs to one schema.

    Parameters
    ----------
    config
        DataJoint's configuration of the connection.
    schema_name : str
        The schema.

    Raises
    ------
    Exception
        Whatever the storage raises when it is not there, or its driver is not installed.
    """

    def __init__(self, config: Any, schema_name: str) -> None:
        from datajoint.hash_registry import get_store_backend

        self._backend = get_store_backend(STORE, config=config)
        prefix = self._backend.spec["hash_prefix"].strip("/")
        self._section = f"{prefix}/{schema_name}/" if prefix else f"{schema_name}/"
        # Its own files a machine lists and removes much faster by itself.
        self._local = Path(self._backend._full_path("")) if self._backend.protocol == "file" else None
        self._sizes: dict[str, int] = {}

    def paths(self) -> Iterator[str]:
        """Yield the files, relative to the store; whatever is not named exactly as the registry names it is passed over.

        Raises
        ------
        Exception
            Whatever the storage raises when it cannot be listed; a list that is not whole is never taken for one that is.
        """
        for relative in _local_files(self._local / self._section) if self._local else self._remote_files():
            if _is_ours(relative):
                yield self._section + relative

    def size(self, path: str) -> int:
        """Return the size of a file in bytes; 0 if it is gone."""
        if self._local is None:
            return self._sizes.get(path, 0)
        try:
            return (self._local / path).stat().st_size
        except FileNotFoundError:
            return 0

    def exists(self, path: str) -> bool:
        """Ask the storage itself whether a file is there.

        Raises
        ------
        Exception
            Whatever the storage raises when it cannot tell; DataJoint's own question takes that for a no.
        """
        try:
            if self._local is not None:
                (self._local / path).stat()
            else:
                # Some keep the listing of a directory, from before a worker wrote into it.
                self._backend.fs.invalidate_cache()
                self._backend.fs.info(self._backend._full_path(path))
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """Remove a file.

        Raises
        ------
        FileNotFoundError
            If it is gone already, as far as the storage tells.
        """
        if self._local is not None:
            (self._local / path).unlink()
        else:
            self._backend.remove(path)

    def _remote_files(self) -> Iterator[str]:
        root = self._backend._full_path(self._section).rstrip("/")
        self._backend.fs.invalidate_cache()
        found = self._backend.fs.find(root, detail=True)
        for path, info in found.items():
            relative = path.lstrip("/").removeprefix(root.lstrip("/") + "/")
            self._sizes[self._section + relative] = int(info.get("size") or 0)
            yield relative


def _local_files(root: Path) -> Iterator[str]:
    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    # A section that is not there yet has no files.
    for folder, _, names in os.walk(root, onerror=failed):
        inner = Path(folder).relative_to(root).as_posix()
        for name in names:
            yield name if inner == "." else f"{inner}/{name}"


def _is_ours(relative: str) -> bool:
    match = _FOLDED.fullmatch(relative)
    return match is not None and match[2].startswith(match[1].replace("/", ""))
