"""What one recording file holds: the static HDF5 layout of the lab, one file per recording, checked once and read.

The layout is that of ``cajal/neuro_data`` (static_images/data_schemas.py); docs/neurodata.md describes it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError

__all__ = ["COLUMNS", "PARTS", "Recording", "describe_recording", "open_recording", "read_column", "read_rows"]

PARTS = {"images": 4, "responses": 2, "behavior": 2, "pupil_center": 2}
"""The arrays that a dataset is made of and their number of axes; the first axis is trials in each."""

COLUMNS = ("tiers", "types", "trial_idx", "condition_hashes")
"""Columns with one value per trial that stand beside ``/item_info/*``."""


@dataclass(frozen=True)
class Recording:
    """A recording file as it was when it was described. Two are equal where path, size and times are.

    Attributes
    ----------
    path : str
        The file.
    identity : tuple of int
        Device, inode, size in bytes and time of the last change in ns.
    shapes : dict of str to tuple of int
        Shape of one trial of each part that the file holds.
    tiers : ndarray of str, (trials,)
        Tier of each trial.
    columns : tuple of str
        Names that `read_column` knows.
    noise_ceiling : dict of str to float
        Highest mean single-trial correlation that a model can reach on the test tier, by mode; empty where the file
        does not state it.
    """

    path: str
    identity: tuple[int, int, int, int]
    shapes: dict[str, tuple[int, ...]] = field(compare=False)
    tiers: NDArray[Any] = field(compare=False)
    columns: tuple[str, ...] = field(compare=False)
    noise_ceiling: dict[str, float] = field(compare=False)

    def rows(self, tier: str) -> NDArray[np.intp]:
        """Return the trials of a tier, in the order of the file."""
        return np.flatnonzero(self.tiers == tier)

    def tier_sizes(self) -> dict[str, int]:
        """Return how many trials each tier has, whatever tiers there are."""
        names, counts = np.unique(self.tiers, return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    def contents(self) -> str:
        """Say in one line what the file holds, for messages."""
        parts = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        tiers = ", ".join(f"{name} {count}" for name, count in self.tier_sizes().items())
        return f"the file holds, per trial, {parts}; its tiers are {tiers}"


def describe_recording(path: str | Path) -> Recording:
    """Read what a file holds, without its arrays; the answer is kept until the file changes.

    Raises
    ------
    DatasetError
        If the file is missing, is no HDF5 file, is cut off, or does not have the layout.
    """
    file = Path(path)
    try:
        status = file.stat()
    except OSError as error:
        raise DatasetError(
            "The recording cannot be read", file=str(file), why=error.strerror or str(error), hint="Check its name."
        ) from error
    return _describe(str(file), (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@contextmanager
def open_recording(path: str) -> Iterator[h5py.File]:
    """Open a recording for reading for as long as the context lasts; what HDF5 cannot read becomes a DatasetError."""
    try:
        with h5_file(path) as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error


def h5_file(path: str) -> h5py.File:
    """Open a recording for reading and leave it open."""
    # Recordings are complete before they get their name, and locks fail on many network file systems.
    return h5py.File(path, "r", locking=False)


def unreadable(path: str, error: OSError) -> DatasetError:
    """Return the error for a file that HDF5 cannot read."""
    why, hint = str(error), "Check the file and who may read it."
    if "signature not found" in why:
        why, hint = "it is not an HDF5 file", "Check that it is the right file."
    elif "truncated" in why:
        why, hint = f"the file is cut off ({why})", "Copy it again from where it came from."
    return DatasetError("The recording cannot be read", file=path, why=why, hint=hint)


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Read trials in any order, repeated or not. HDF5 itself wants them sorted and once."""
    unique, inverse = np.unique(rows, return_inverse=True)
    return np.asarray(dataset[unique][inverse])


def read_column(recording: Recording, name: str) -> NDArray[Any]:
    """Read one value per trial: a name of `COLUMNS`, or of ``/item_info``; bytes become strings.

    Raises
    ------
    DatasetError
        If the file has no such column.
    """
    if name not in recording.columns:
        raise DatasetError(
            f"There is no column {name!r}",
            file=recording.path,
            why=f"its columns are {', '.join(recording.columns)}",
        )
    with open_recording(recording.path) as file:
        return _decoded(file[name if name in COLUMNS and name in file else f"item_info/{name}"])


@functools.lru_cache(maxsize=256)
def _describe(path: str, identity: tuple[int, int, int, int]) -> Recording:
    with open_recording(path) as file:
        if "tiers" not in file or not isinstance(file["tiers"], h5py.Dataset):
            raise _bad_layout(path, "it has no dataset 'tiers'", file)
        tiers = _decoded(file["tiers"])
        if tiers.ndim != 1 or tiers.dtype.kind != "U":
            raise _bad_layout(path, f"'tiers' is no list of names: shape {tiers.shape}, {file['tiers'].dtype}", file)
        shapes = {name: _shape(path, file, name, len(tiers)) for name in PARTS if name in file}
        return Recording(path, identity, shapes, tiers, _columns(file, len(tiers)), _noise_ceiling(path, file))


def _shape(path: str, file: h5py.File, name: str, trials: int) -> tuple[int, ...]:
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise _bad_layout(path, f"'{name}' is a group, not a dataset", file)
    if dataset.dtype.kind not in "fiub":
        raise _bad_layout(path, f"'{name}' holds {dataset.dtype} values, not numbers", file)
    if dataset.ndim != PARTS[name]:
        axes = "(trials, channels, height, width)" if name == "images" else "(trials, columns)"
        raise _bad_layout(path, f"'{name}' has shape {dataset.shape}, expected {axes}", file)
    if dataset.shape[0] != trials:
        raise _bad_layout(path, f"'{name}' has {dataset.shape[0]} trials and 'tiers' has {trials}", file)
    if 0 in dataset.shape[1:]:
        raise _bad_layout(path, f"'{name}' has shape {dataset.shape}: there is nothing in it", file)
    return tuple(int(size) for size in dataset.shape[1:])


def _columns(file: h5py.File, trials: int) -> tuple[str, ...]:
    info = file.get("item_info")
    found = [name for name in COLUMNS if name in file]
    if isinstance(info, h5py.Group):
        found += [name for name in info if name not in found and info[name].shape[:1] == (trials,)]
    return tuple(found)


def _noise_ceiling(path: str, file: h5py.File) -> dict[str, float]:
    stated = file.get("simulation/noise_ceiling")
    if stated is None:
        return {}
    ceilings = {mode: float(stated[mode].attrs["mean"]) for mode in stated}
    for mode, ceiling in ceilings.items():
        if not 0 < ceiling <= 1:
            raise _bad_layout(path, f"the noise ceiling for {mode} is {ceiling}, expected 0 < ceiling <= 1", file)
    return ceilings


def _decoded(dataset: h5py.Dataset) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[:], dtype=str)
    return np.asarray(dataset[()])


def _bad_layout(path: str, why: str, file: h5py.File) -> DatasetError:
    held = ", ".join(
        f"{name} {item.shape}" if isinstance(item, h5py.Dataset) else f"{name}/" for name, item in file.items()
    )
    return DatasetError(
        "The recording does not have the layout of a static recording",
        file=path,
        why=f"{why}; the file holds {held or 'nothing'}",
        hint="docs/neurodata.md describes the layout.",
    )
