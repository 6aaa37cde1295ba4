"""A recording appears under its name when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from synicix_core.errors import DatasetError

if TYPE_CHECKING:
    import h5py

__all__ = ["abandoned", "check_room", "placed"]

_FAILED: list[h5py.File] = []


@contextmanager
def placed(path: Path, *, overwrite: bool = False, parents: bool = False) -> Iterator[Path]:
    """Give a temporary name for a file or folder to write, which gets the name `path` at the end.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether what exists there is replaced.
    parents : bool
        Whether the folder that it is to be in is made where it is missing.

    Raises
    ------
    DatasetError
        If `path` exists and `overwrite` is false, its folder does not exist and `parents` is false, or it cannot be
        written. Then nothing is left behind.
    """
    if not parents and not path.parent.is_dir():
        raise DatasetError(
            "Nothing is written",
            file=str(path),
            why=f"there is no folder {path.parent}",
            hint="Make it first, or name another one.",
        )
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
    except (OSError, RuntimeError) as error:
        # HDF5 raises the one or the other, with a page about buffers and offsets.
        number = getattr(error, "errno", None)
        why = str(error) if number is None else os.strerror(number)
        raise DatasetError("The recording is not written", file=str(path), why=why) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def abandoned(file: h5py.File) -> None:
    """Close an HDF5 file that is thrown away, if it is open."""
    if not file:
        return
    if isinstance(sys.exc_info()[1], OSError | RuntimeError):
        # Closing would write once more what could not be written, and end the process: HDF5 crashes over it. So the file
        # stays open until the process ends, and goes as soon as nobody has it open.
        _FAILED.append(file)
        with suppress(OSError):
            Path(file.filename).unlink()
        return
    file.close()


def check_room(path: Path, needed: int) -> None:
    """Raise a DatasetError if the disk on which `path` is to be has less than `needed` bytes left."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    disk = shutil.disk_usage(folder)
    # Some network file systems do not tell.
    if disk.total and disk.free < needed:
        raise DatasetError(
            "The recording is not written",
            file=str(path),
            why=f"it takes {needed / 1e6:,.1f} MB and the disk has {disk.free / 1e6:,.1f} MB left",
            hint="Make room, or name a file on another disk.",
        )


def _synced(path: Path) -> None:
    if path.is_dir():
        # Thousands of small files: one call for them all takes seconds where one each takes minutes.
        os.sync()
        return
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())
