"""Which layout a file or folder has, found out by its content."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synicix_core.errors import DatasetError, SynicixError
from synicix_neurodata.layouts.experanto import EXPERANTO
from synicix_neurodata.layouts.file_tree_movie import MOVIE_TREE
from synicix_neurodata.layouts.file_tree_static import STATIC_TREE
from synicix_neurodata.layouts.movie_hdf5 import MOVIE_HDF5
from synicix_neurodata.layouts.nwb import NWB
from synicix_neurodata.layouts.open_retina import OPEN_RETINA
from synicix_neurodata.layouts.static_hdf5 import STATIC_HDF5
from synicix_neurodata.recording import Layout, Recording

__all__ = ["LAYOUTS", "describe_recording", "find_layout", "layout_of"]

LAYOUTS: tuple[Layout, ...] = (NWB, EXPERANTO, OPEN_RETINA, MOVIE_HDF5, STATIC_HDF5, MOVIE_TREE, STATIC_TREE)
"""Every layout that can be read. The first that recognises a path is taken."""

_FEW_FILES = 200

_MOST_FOLDERS = 1000
"""No recording has as many; what has is only looked at as far as that."""


def describe_recording(path: str | Path, options: Mapping[str, Any] | None = None) -> Recording:
    """Read what a recording holds, without its arrays; the answer is kept until the file changes.

    Parameters
    ----------
    path : str or Path
        A file or a folder.
    options : mapping, optional
        What the user says about the layout; the names are those of the layout's `options`.

    Raises
    ------
    DatasetError
        If there is nothing, it has no layout that is known, is cut off, or something in it is wrong.
    """
    place = Path(path)
    try:
        identity = _identity(place)
    except OSError as error:
        raise DatasetError(
            "The recording cannot be read",
            file=str(place),
            why=f"{error.strerror or error}" + (f": {error.filename}" if error.filename != str(place) else ""),
            hint="Check its name.",
        ) from error
    try:
        said = json.dumps(dict(options or {}), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            "layout_params cannot be used",
            file=str(place),
            why=f"{error}; values are texts, numbers, booleans, lists and tables",
        ) from error
    return _describe(str(place), identity, said)


def find_layout(place: Path) -> Layout | None:
    """Return the layout of a file or folder that exists, told by its content; None for any other.

    Raises
    ------
    DatasetError
        If what is in it makes a library fail.
    """
    # Opening a pipe would wait for ever.
    if not place.is_file() and not place.is_dir():
        return None
    for layout in LAYOUTS:
        with _told_which_file(place, layout):
            if layout.recognises(place):
                return layout
    return None


def layout_of(recording: Recording) -> Layout:
    """Return the layout of a recording."""
    return next(layout for layout in LAYOUTS if layout.name == recording.layout)


@functools.lru_cache(maxsize=256)
def _describe(path: str, identity: tuple[int, ...], options: str) -> Recording:
    place, said = Path(path), json.loads(options)
    layout = find_layout(place)
    if layout is None:
        raise _unknown(place)
    unknown = sorted(set(said) - set(layout.options))
    if unknown:
        known = f"its options are {', '.join(layout.options)}" if layout.options else "it has no options"
        raise DatasetError(
            f"layout_params names {', '.join(map(repr, unknown))}",
            file=path,
            why=f"this is a recording in the layout {layout.name}; {known}",
        )
    with _told_which_file(place, layout):
        described = layout.describe(place, said)
    return dataclasses.replace(described, identity=identity, options=options)


@contextmanager
def _told_which_file(place: Path, layout: Layout) -> Iterator[None]:
    """Tell the user which file it was, whatever a damaged or hostile one makes a library raise."""
    try:
        yield
    except SynicixError:
        raise
    except Exception as error:
        raise DatasetError(
            f"The recording cannot be understood as {layout.name}",
            file=str(place),
            why=f"{type(error).__name__}: {error}",
            hint="Check that the file is whole; docs/recordings.md describes the layouts.",
        ) from error


def _identity(place: Path) -> tuple[int, ...]:
    """Return numbers that change when a file or anything in a folder does.

    The files of a folder of trials, thousands, count by the folder's own time only, which changes when one of them is
    added, taken away or replaced: asking for each of them takes seconds on a network file system.
    """
    status = place.stat()
    numbers = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(place, followlinks=True):
        status = Path(folder).stat()
        # A link may lead back to a folder that holds it, or to the root of all.
        if (status.st_dev, status.st_ino) in seen or len(seen) == _MOST_FOLDERS:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        numbers += [len(files), status.st_mtime_ns]
        if len(files) <= _FEW_FILES:
            for name in sorted(files):
                numbers += _state(Path(folder) / name)
    return tuple(numbers)


def _state(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        # A link that leads nowhere, as some editors leave behind; whoever needs it says so.
        status = file.lstat()
    return status.st_size, status.st_mtime_ns


def _unknown(place: Path) -> DatasetError:
    from synicix_neurodata.layouts.hdf5_file import is_hdf5, top_level

    if place.is_dir():
        names = sorted(child.name for child in place.iterdir())
        held = f"the folder holds {', '.join(names[:12]) or 'nothing'}{', …' if len(names) > 12 else ''}"
    elif not place.is_file():
        held = "it is neither a file nor a folder"
    elif is_hdf5(place):
        held = f"the file is HDF5 and holds {top_level(place)}"
    else:
        held = "the file is neither HDF5 nor zip" if place.stat().st_size else "the file is empty"
    return DatasetError(
        "The recording has no layout that is known",
        file=str(place),
        why=held,
        hint=f"Known are {', '.join(layout.name for layout in LAYOUTS)}; docs/recordings.md describes them.",
    )
