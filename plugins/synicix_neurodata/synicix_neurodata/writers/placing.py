"""A recording appears under its name when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synicix_core.errors import DatasetError

__all__ = ["placed"]


@contextmanager
def placed(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name for a file or folder to write, which gets the name `path` at the end.

    Raises
    ------
    DatasetError
        If `path` exists and `overwrite` is false, or it cannot be written. Then nothing is left behind.
    """
    if path.exists() and not overwrite:
        raise DatasetError(
            "The recording is not written",
            file=str(path),
            why="it exists already",
            hint="Name another one, or add --force to replace it.",
        )
    # In the same folder, because a rename is atomic only within one file system; hidden, so that no glob finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _synced(temporary)
        if temporary.is_dir() and path.is_dir():
            # A folder cannot be replaced by a rename.
            old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        elif path.is_dir():
            raise IsADirectoryError(f"a folder is in the place of the file {path.name}")
        else:
            temporary.replace(path)
    except OSError as error:
        raise DatasetError("The recording is not written", file=str(path), why=str(error)) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def _synced(path: Path) -> None:
    if path.is_dir():
        # Thousands of small files: one call for them all takes seconds where one each takes minutes.
        os.sync()
        return
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
