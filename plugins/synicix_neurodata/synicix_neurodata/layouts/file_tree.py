"""File trees: a folder or a zip file with one ``.npy`` file for each trial and part. What static and movie trees share.

``data/<part>/<trial>.npy`` hold the arrays, ``meta/trials/*.npy`` one value per trial, ``meta/neurons/*.npy`` one per
neuron; ``config.json`` may give parts other names. docs/recordings.md describes them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.file_tree_meta import bad_tree, read_json, read_table, read_tiers
from synicix_neurodata.layouts.npy import NUMBERS, NpyHeader, header_of
from synicix_neurodata.layouts.tree_files import TreeFiles, is_zip, open_tree

__all__ = [
    "STATIC_NAMES",
    "VIDEO_NAMES",
    "Arrays",
    "Trials",
    "checked_header",
    "kind_of_tree",
    "opened_tree",
    "read_trials",
]

STATIC_NAMES = {
    "stimulus": ("images",),
    "responses": ("responses",),
    "behavior": ("behavior",),
    "pupil_center": ("pupil_center",),
}
"""Folders of each part in a static tree."""

VIDEO_NAMES = {**STATIC_NAMES, "stimulus": ("videos", "inputs"), "pupil_center": ("pupil_center", "eye_position")}
"""Folders of each part in a movie tree, of the one form and of the other."""

_SIGNS_OF_DAMAGE = ("cut off", "damaged", "does not have the", "is not where")

_NUMBERED = re.compile(r"(0|[1-9][0-9]{0,11})\.npy")


@dataclass(frozen=True)
class Arrays:
    """The files of one part.

    Attributes
    ----------
    name : str
        By which the part was found: ``images``.
    folder : str
        ``data/images``, or where a link leads.
    sizes : list of int
        Bytes of each file, by trial.
    """

    name: str
    folder: str
    sizes: list[int]

    def file(self, trial: int) -> str:
        """Return the name of one trial's file."""
        return f"{self.folder}/{trial}.npy"


@dataclass(frozen=True)
class Trials:
    """What a tree holds, by trial.

    Attributes
    ----------
    count : int
    parts : dict of str to Arrays
    tiers : ndarray of str, (count,), or None
    columns : dict of str to ndarray, (count,)
    notes : tuple of str
        What is left out.
    """

    count: int
    parts: dict[str, Arrays]
    tiers: NDArray[np.str_] | None
    columns: dict[str, NDArray[Any]]
    notes: tuple[str, ...]


def kind_of_tree(path: Path) -> str:
    """Return ``static``, ``movie``, or ``""`` for what is no file tree; a zip file that is none counts as static."""
    if not path.is_dir() and not is_zip(path):
        return ""
    try:
        files = open_tree(path)
    except (OSError, ValueError):
        # The description says what is wrong with it.
        return "static" if is_zip(path) else ""
    try:
        folders = _data_folders(files)
        if {"videos", "inputs", "eye_position"} & folders.keys():
            return "movie"
        name = f"data/{folders.get('responses')}/0.npy"
        size = files.sizes(name.removesuffix("/0.npy")).get("0.npy")
        by_responses = "images" not in folders and size is not None
        if by_responses and len(header_of(name, files.head(name), size or 0).shape) == 2:
            return "movie"
        known = {name for names in STATIC_NAMES.values() for name in names}
        is_tree = is_zip(path) or known & folders.keys() or "trials" in files.folders("meta")
        return "static" if is_tree else ""
    except (OSError, ValueError, DatasetError):
        return "static"
    finally:
        files.close()


@contextmanager
def opened_tree(path: str | Path) -> Iterator[TreeFiles]:
    """Open a tree for as long as the context lasts; what cannot be read in it becomes a DatasetError."""
    try:
        files = open_tree(path)
        try:
            yield files
        finally:
            files.close()
    except (OSError, ValueError) as error:
        why = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
        damaged = any(word in why for word in _SIGNS_OF_DAMAGE)
        raise DatasetError(
            "The recording cannot be read",
            file=str(path),
            why=why,
            hint="Check who may read it."
            if isinstance(error, PermissionError)
            else "Copy it again from where it came from."
            if damaged
            else "Check how it was made; docs/recordings.md describes the layout.",
        ) from error


def read_trials(files: TreeFiles, names: Mapping[str, Sequence[str]]) -> Trials:
    """Find the files of each part, and read what has one value per trial.

    Parameters
    ----------
    files : TreeFiles
    names : mapping of str to sequence of str
        Folders that each part may have; the first that is there is taken.

    Raises
    ------
    DatasetError
        If there is no part, or a file of a trial is missing.
    OSError, ValueError
        If a file cannot be read.
    """
    folders = _data_folders(files)
    known = {part: next((name for name in options if name in folders), None) for part, options in names.items()}
    found = {part: (name, f"data/{folders[name]}") for part, name in known.items() if name is not None}
    if not found:
        wanted = ", ".join(name for options in names.values() for name in options)
        raise bad_tree(files, f"there is no folder data with one of {wanted}, at the top or in one folder")
    numbered = {part: _numbered(files.sizes(folder)) for part, (_, folder) in found.items()}
    tiers = read_tiers(files)
    most = max((max(sizes, default=-1) + 1 for sizes, _ in numbered.values()), default=0)
    count = most if tiers is None else len(tiers)
    by_tiers = f"meta/trials/tiers.npy has {count} trials" if tiers is not None else f"there is a trial {count - 1}"
    if not count:
        raise bad_tree(files, f"there is no file {next(iter(found.values()))[1]}/0.npy")
    parts, notes = {}, []
    for part, (name, folder) in found.items():
        sizes, others = numbered[part]
        missing = count - sum(trial < count for trial in sizes)
        if missing:
            # Not all of them: a number in the name of a file may be as large as it likes.
            some = itertools.islice((trial for trial in range(count) if trial not in sizes), 5)
            listed = ", ".join(map(str, some)) + (f", … ({missing} in all)" if missing > 5 else "")
            raise bad_tree(files, f"{folder} lacks {listed} of its trials, and {by_tiers}")
        if len(sizes) > count:
            raise bad_tree(files, f"{folder} has {len(sizes)} trials, and {by_tiers}")
        if others:
            notes.append(f"{folder} holds {_some(others)}, which is no trial and not used")
        parts[part] = Arrays(name, folder, [sizes[trial] for trial in range(count)])
    columns, column_notes = read_table(files, "meta/trials", count)
    columns.pop("tiers", None)
    flat = {name: values for name, values in columns.items() if values.ndim == 1}
    return Trials(count, parts, tiers, flat, (*notes, *column_notes))


def checked_header(files: TreeFiles, arrays: Arrays, trial: int) -> tuple[NpyHeader, bytes]:
    """Return the header of one trial's file, and the start of the file.

    Raises
    ------
    DatasetError
        If it holds no numbers, or none at all.
    OSError, ValueError
        If it cannot be read.
    """
    name = arrays.file(trial)
    start = files.head(name)
    header = header_of(name, start, arrays.sizes[trial])
    if header.dtype.kind not in NUMBERS:
        raise bad_tree(files, f"'{name}' holds {header.dtype} values, not numbers")
    if 0 in header.shape:
        raise bad_tree(files, f"'{name}' has shape {header.shape}: there is nothing in it")
    return header, start


def _data_folders(files: TreeFiles) -> dict[str, str]:
    """Return the folders in ``data`` by the names they go by, to which links in ``config.json`` may add."""
    held = files.folders("data")
    links = read_json(files, "config.json").get("links", {})
    if not isinstance(links, dict):
        raise bad_tree(files, "the links in config.json are no table of names")
    known = {name for names in VIDEO_NAMES.values() for name in names} | {"images"}
    links = {name: folder for name, folder in links.items() if name in known}
    broken = [f"{name} is {folder!r}" for name, folder in links.items() if folder not in held]
    if broken:
        raise bad_tree(files, f"config.json says that {broken[0]}, which is no folder in data")
    return {folder: folder for folder in held} | links


def _numbered(sizes: Mapping[str, int]) -> tuple[dict[int, int], list[str]]:
    """Return the size of each trial's file, and which other ``.npy`` files there are."""
    numbered, others = {}, []
    for name, size in sizes.items():
        if _NUMBERED.fullmatch(name):
            numbered[int(name[:-4])] = size
        elif name.endswith(".npy"):
            others.append(name)
    return numbered, sorted(others)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)} in all)" if len(names) > 3 else "")
