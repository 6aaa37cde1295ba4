"""HDF5 files that nobody vouches for: opened without a lock, never following links out of the file, sizes checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError

__all__ = [
    "bad_layout",
    "get_array",
    "get_group",
    "is_hdf5",
    "open_for_reading",
    "opened",
    "read_columns",
    "read_rows",
    "read_values",
    "top_level",
]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_LARGEST_EXPANSION = 4096
"""Times the size of its file that an array may claim: deflate packs at most 1032 bytes into one."""

_ALWAYS_ALLOWED = 2**30

_MOST_TEXTS = 2**22

_MOST_LINKS = 16

_SLAB_BYTES = 16 * 2**20


def is_hdf5(path: Path) -> bool:
    """Tell whether a file starts as HDF5 files do; a file that is cut off does so too."""
    try:
        # Opening a pipe would wait for ever.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def open_for_reading(path: str | Path) -> h5py.File:
    """Open a file and leave it open."""
    # Recordings are complete before they get their name, and locks fail on many network file systems.
    return h5py.File(path, "r", locking=False)


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open a file for as long as the context lasts; what HDF5 cannot read becomes a DatasetError."""
    try:
        with open_for_reading(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise _unreadable(str(path), error) from error


def top_level(path: Path) -> str:
    """Return the names at the top of a file, for messages."""
    try:
        with opened(path) as file:
            return _held(file)
    except DatasetError as error:
        return error.why or str(error)


def get_array(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Return an array of the file, or None where there is none.

    Raises
    ------
    DatasetError
        If it is a group, a link to another file, keeps its values outside of the file, or claims more than it can hold.
    """
    item = _inside(file, name)
    if item is None:
        return None
    if not isinstance(item, h5py.Dataset):
        raise bad_layout(file, f"'{name}' is a group, not an array")
    if item.external or item.is_virtual:
        raise bad_layout(file, f"the values of '{name}' are in another file, which is never followed")
    # Not `item.size`, which counts in 64 bits and so takes some absurd shapes for small ones.
    claimed = math.prod(item.shape) * item.dtype.itemsize if item.shape is not None else 0
    size = Path(file.filename).stat().st_size
    if claimed > _LARGEST_EXPANSION * size + _ALWAYS_ALLOWED:
        raise bad_layout(file, f"'{name}' claims {claimed:.1e} bytes (shape {item.shape}) in a file of {size:.1e}")
    return item


def get_group(file: h5py.File, name: str) -> h5py.Group | None:
    """Return a group of the file, or None where there is none; raises as `get_array`."""
    item = _inside(file, name)
    if item is not None and not isinstance(item, h5py.Group):
        raise bad_layout(file, f"'{name}' is an array, not a group")
    return item


def read_values(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a whole array; bytes and HDF5 strings become str.

    Raises
    ------
    DatasetError
        If it claims more text than there is about the trials or neurons of any recording.
    """
    if dataset.shape is None:
        return np.empty(0)
    if h5py.check_string_dtype(dataset.dtype) is None:
        return np.asarray(dataset[()])
    count = math.prod(dataset.shape)
    if count <= _MOST_TEXTS:
        texts = np.asarray(dataset.asstr("utf-8", errors="replace")[()], dtype=object)
        # Each takes as much memory as the longest.
        longest = max(map(len, texts.flat), default=0)
        if 4 * count * longest <= _ALWAYS_ALLOWED:
            return texts.astype(str)
    raise bad_layout(dataset.file, f"'{dataset.name.strip('/')}' claims {count} texts, too many or too long ones")


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Read rows that are sorted and unique.

    HDF5 spends about 50 microseconds on each single row. So rows of an array that lies in the file in one piece are
    taken from there directly, and rows of any other that lie close together are cut out of slabs of at most 16 MiB.
    """
    if not len(rows):
        return np.asarray(dataset[:0])
    if rows[0] < 0 or rows[-1] >= len(dataset):
        raise IndexError(f"rows {rows[0]} to {rows[-1]} of an array with {len(dataset)}")
    span = int(rows[-1]) - int(rows[0]) + 1
    if span == len(rows):
        return np.asarray(dataset[rows[0] : rows[-1] + 1])
    # Without chunks, filters or another byte order, and once anything was written, this is where the values begin.
    offset = dataset.id.get_offset() if dataset.chunks is None and dataset.dtype.kind in "fiu" else None
    if offset is not None and hasattr(os, "preadv"):
        return _read_pieces(dataset, rows, offset)
    if span > 4 * len(rows):
        return np.asarray(dataset[rows])
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    step = max(1, _SLAB_BYTES // max(1, values[:1].nbytes))
    for start in range(int(rows[0]), int(rows[-1]) + 1, step):
        first, last = np.searchsorted(rows, [start, start + step])
        if last > first:
            values[first:last] = dataset[start : int(rows[last - 1]) + 1][rows[first:last] - start]
    return values


def _read_pieces(dataset: h5py.Dataset, rows: NDArray[np.intp], offset: int) -> NDArray[Any]:
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    row_bytes = values[:1].nbytes
    handle = dataset.file.id.get_vfd_handle()
    # Rows that follow each other are one piece.
    breaks = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for first, last in pairwise(breaks):
        piece = values[first:last].data.cast("B")
        start = offset + int(rows[first]) * row_bytes
        while len(piece):
            read = os.preadv(handle, [piece], start)
            if not read:
                raise OSError("the file ends before its values do")
            piece, start = piece[read:], start + read
    return values


def read_columns(file: h5py.File, group: str, length: int) -> dict[str, NDArray[Any]]:
    """Read every array in a group whose first axis has `length` entries and that holds numbers or text."""
    if get_group(file, group) is None:
        return {}
    found = {}
    for name in file[group]:
        path = f"{group}/{name}"
        if isinstance(file.get(path, getlink=True), h5py.HardLink) and isinstance(file[path], h5py.Dataset):
            array = get_array(file, path)
            text = h5py.check_string_dtype(array.dtype) is not None if array is not None else False
            if array is not None and (array.shape or ())[:1] == (length,) and (text or array.dtype.kind in "fiub"):
                found[name] = read_values(array)
    return found


def bad_layout(file: h5py.File, why: str) -> DatasetError:
    """Return the error for a file that does not have the layout that it seems to have."""
    return DatasetError(
        "The recording does not have the layout that it seems to have",
        file=file.filename,
        why=f"{why}; the file holds {_held(file)}",
        hint="docs/recordings.md describes the layouts.",
    )


def _inside(file: h5py.File, name: str, links: int = 0) -> Any:
    """Return an item reached through groups and links of this very file only, or None."""
    here: Any = file
    steps = [step for step in name.split("/") if step not in ("", ".")]
    for number, step in enumerate(steps):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(step, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise bad_layout(file, f"'{name}' is a link into the file {link.filename!r}, which is never followed")
        if isinstance(link, h5py.SoftLink):
            # Resolved here, because HDF5 would follow a link to another file on the way.
            if links > _MOST_LINKS:
                raise bad_layout(file, f"'{name}' is a link that leads to itself")
            target = link.path if link.path.startswith("/") else f"{here.name}/{link.path}"
            return _inside(file, "/".join([target, *steps[number + 1 :]]), links + 1)
        here = here[step]
    return here


def _held(file: h5py.File) -> str:
    told = []
    for name in list(file)[:20]:
        link = file.get(name, getlink=True)
        item = file.get(name) if isinstance(link, h5py.HardLink) else None
        told.append(f"{name} {item.shape}" if isinstance(item, h5py.Dataset) else f"{name}/")
    return (", ".join(told) or "nothing") + (", …" if len(file) > 20 else "")


def _unreadable(path: str, error: Exception) -> DatasetError:
    why, hint = str(error), "Check the file and who may read it."
    if "signature not found" in why:
        why, hint = "it is not an HDF5 file", "Check that it is the right file."
    elif "truncated" in why:
        why, hint = f"the file is cut off ({why})", "Copy it again from where it came from."
    return DatasetError("The recording cannot be read", file=path, why=why, hint=hint)
