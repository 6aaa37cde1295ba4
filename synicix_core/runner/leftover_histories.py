"""The files in the store of the histories: which there are, by their names, and how to remove one.

They lie where DataJoint's hash registry puts them: ``{hash_prefix}/{schema}/{folds, where configured}/{hash}``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from synicix_core.database.connection import STORE

__all__ = ["HistoryListing", "HistoryStore"]

_FOLDED = re.compile(r"((?:[a-z2-7]+/)*)([a-z2-7]{26})((?:\.[0-9a-f]{16})?\.saving)?")


class HistoryStore:
    """The store `STORE`, and the part of it that belongs to one schema: the one that is listed and removed from.

    Parameters
    ----------
    config
        DataJoint's configuration of the connection.
    schema_name : str
        The schema.

    Attributes
    ----------
    folder : str
        Where the schema's files lie, relative to the store.

    Raises
    ------
    Exception
        Whatever the storage raises when it is not there, or its driver is not installed.
    """

    def __init__(self, config: Any, schema_name: str) -> None:
        from datajoint.hash_registry import get_store_backend

        self._backend = get_store_backend(STORE, config=config)
        prefix = self._backend.spec["hash_prefix"].strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self.folder = f"{self._prefix}{schema_name}/"
        # Its own files a machine lists and removes much faster by itself.
        self._local = Path(self._backend._full_path("")) if self._backend.protocol == "file" else None
        self._sizes: dict[str, int] = {}

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the files, relative to the store; whatever is not named exactly as the registry names it is passed over.

        Parameters
        ----------
        folder : str
            Another schema's, to know what is there.

        Raises
        ------
        Exception
            Whatever the storage raises when it cannot be listed; a list that is not whole is never taken for one that is.
        """
        folder = folder or self.folder
        for relative in _local_files(self._local / folder) if self._local else self._remote_files(folder):
            if _is_ours(relative):
                yield folder + relative

    def folder_of(self, path: str) -> str:
        """Return the folder of the schema that stored a file; empty where the store has another layout by now."""
        name, _, rest = path.removeprefix(self._prefix).partition("/")
        return f"{self._prefix}{name}/" if rest and path.startswith(self._prefix) else ""

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

    def _remote_files(self, folder: str) -> Iterator[str]:
        root = self._backend._full_path(folder).rstrip("/")
        self._backend.fs.invalidate_cache()
        found = self._backend.fs.find(root, detail=True)
        for path, info in found.items():
            relative = path.lstrip("/").removeprefix(root.lstrip("/") + "/")
            self._sizes[folder + relative] = int(info.get("size") or 0)
            yield relative


class HistoryListing:
    """Which histories are there: the schema's own, and those of the schema that its rows were moved from.

    Parameters
    ----------
    store : HistoryStore
        The store.
    own : collection of str
        The schema's own files, as they were listed.
    """

    def __init__(self, store: HistoryStore, own: Collection[str]) -> None:
        self._store = store
        self._listed: dict[str, Collection[str] | None] = {store.folder: own, "": None}

    def has(self, path: str) -> bool:
        """Tell whether a file was there when its folder was listed; where that cannot be, the storage itself is asked."""
        folder = self._store.folder_of(path)
        if folder not in self._listed:
            try:
                self._listed[folder] = set(self._store.paths(folder))
            except Exception:  # each storage has errors of its own
                self._listed[folder] = None
        listed = self._listed[folder]
        return self._store.exists(path) if listed is None else path in listed


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
