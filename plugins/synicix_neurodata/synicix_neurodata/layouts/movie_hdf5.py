"""Movie HDF5: one file per recording, one clip per trial, time before height and first elsewhere.

The layout is that of ``cajal/neuro_data`` (movies/data_schemas.py); docs/recordings.md describes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.hdf5_file import (
    bad_layout,
    get_array,
    is_hdf5,
    open_for_reading,
    opened,
    read_columns,
)
from synicix_neurodata.layouts.static_hdf5 import read_noise_ceiling, read_tiers, read_trial_columns
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["ARRAYS", "MOVIE_HDF5", "frame_rate_of"]

_NAME = "movie HDF5"

ARRAYS = {"stimulus": "inputs", "responses": "responses", "behavior": "behavior", "pupil_center": "eye_position"}
"""Name in the file of each part: an array, or a group of one array per trial, called ``0``, ``1``, …"""

_SMALL_BYTES = 2**26

_TRIAL_COLUMNS = (
    "types",
    "condition_hashes",
    "movie_names",
    "trial_idx",
    "durations",
    "train_idx",
    "val_idx",
    "test_idx",
)


def frame_rate_of(frames: NDArray[np.int64], durations: NDArray[Any] | None) -> float | None:
    """Return the frames per second that the durations of the trials tell.

    Parameters
    ----------
    frames : ndarray of int64, (trials,)
    durations : ndarray, (trials,), or None
        Seconds.

    Returns
    -------
    float or None
        None where there are no durations, or they contradict one another by more than a frame.
    """
    if durations is None or durations.dtype.kind not in "fiu" or not len(durations):
        return None
    seconds = durations.astype(np.float64)
    if not (np.isfinite(seconds).all() and seconds.min() > 0 and frames.min() > 0):
        return None
    rate = round(float(np.median(frames / seconds)), 3)
    return rate if rate > 0 and (np.abs(frames - rate * seconds) <= 1).all() else None


def _recognises(path: Path) -> bool:
    if not path.is_file() or not is_hdf5(path):
        return False
    try:
        with open_for_reading(path) as file:
            named = any(file.get(name, getlink=True) is not None for name in ("inputs", "eye_position"))
            # Not `in`, which follows a link into another file.
            return named or (_is_group(file, "responses") and file.get("images", getlink=True) is None)
    except (OSError, RuntimeError):
        return False


def _is_group(file: h5py.File, name: str) -> bool:
    here = isinstance(file.get(name, getlink=True), h5py.HardLink)
    return here and file.get(name, getclass=True) is h5py.Group


def _describe(path: Path, _options: Mapping[str, Any]) -> Recording:
    with opened(path) as file:
        tiers = read_tiers(file)
        parts = {part: name for part, name in ARRAYS.items() if file.get(name, getlink=True) is not None}
        if not parts:
            raise bad_layout(file, f"it has none of {', '.join(ARRAYS.values())}")
        counts = {part: _count(file, name) for part, name in parts.items()}
        trials = len(tiers) if tiers is not None else max(counts.values())
        for part, name in parts.items():
            if counts[part] != trials:
                other = f"'tiers' has {trials}" if tiers is not None else f"another part has {trials}"
                raise bad_layout(file, f"'{name}' has {counts[part]} trials and {other}")
        if not trials:
            raise bad_layout(file, "it has no trials")
        shapes, frames = _lengths(file, parts, trials)
        columns = read_trial_columns(file, _TRIAL_COLUMNS, trials)
        return Recording(
            path=str(path),
            layout=_NAME,
            shapes=shapes,
            trials=trials,
            frames=frames,
            frame_rate=frame_rate_of(frames, columns.get("durations")),
            tiers=tiers,
            stimulus_ids=stimulus_identity(columns),
            columns=columns,
            neurons=read_columns(file, "neurons", shapes["responses"][0]) if "responses" in shapes else {},
            noise_ceiling=read_noise_ceiling(file),
        )


def _count(file: h5py.File, name: str) -> int:
    """Return how many trials a part has, after a look at whether each of them is there."""
    if not _is_group(file, name):
        array = get_array(file, name)
        return int(array.shape[0]) if array is not None and array.shape else 0
    held = set(file[name])
    count = sum(1 for key in held if key.isascii() and key.isdigit())
    missing = [str(trial) for trial in range(count) if str(trial) not in held]
    if missing:
        raise bad_layout(file, f"'{name}' lacks the trial {', '.join(missing[:5])}")
    return count


def _lengths(
    file: h5py.File, parts: Mapping[str, str], trials: int
) -> tuple[dict[str, tuple[int, ...]], NDArray[np.int64]]:
    """Return the shape of each part without time, and the frames of each trial."""
    shapes: dict[str, tuple[int, ...]] = {}
    lengths: dict[str, NDArray[np.int64]] = {}
    for part, name in parts.items():
        lengths[part] = np.empty(trials, np.int64)
        for first, shape in _trial_shapes(file, name, trials):
            shown = name if first.stop - first.start > 1 else f"{name}/{first.start}"
            own, length = _split_shape(file, part, shown, shape)
            if shapes.setdefault(part, own) != own:
                raise bad_layout(file, f"'{shown}' has shape {own} without time, and that of trial 0 is {shapes[part]}")
            lengths[part][first] = length
    frames = next(iter(lengths.values()))
    for part, own_frames in lengths.items():
        other = np.flatnonzero(own_frames != frames)
        if len(other):
            trial = int(other[0])
            raise bad_layout(
                file,
                f"in trial {trial}, '{parts[part]}' has {own_frames[trial]} frames and "
                f"'{next(iter(parts.values()))}' {frames[trial]}",
            )
    return shapes, frames


def _trial_shapes(file: h5py.File, name: str, trials: int) -> list[tuple[slice, tuple[int, ...]]]:
    """Return the shape of the trials, for all at once where they are one array."""
    if isinstance(file[name], h5py.Dataset):
        return [(slice(0, trials), _checked(file, name).shape[1:])]
    group, shapes = file[name], []
    for trial in range(trials):
        shape = _plain_shape(group, str(trial))
        if shape is None:
            shape = _checked(file, f"{name}/{trial}").shape
        shapes.append((slice(trial, trial + 1), shape))
    return shapes


def _plain_shape(group: h5py.Group, name: str) -> tuple[int, ...] | None:
    """Return the shape of a small array of numbers within the file; None for anything else, which wants a closer look.

    A recording has thousands of these arrays, and h5py's own objects take half a millisecond for each.
    """
    key = name.encode()
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        return None
    try:
        array = h5py.h5d.open(group.id, key)
        shape, dtype = array.shape, array.dtype
    except (KeyError, ValueError, TypeError, RuntimeError):
        return None
    layout = array.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        return None
    if shape is None or dtype.kind not in "fiub":
        return None
    return shape if math.prod(shape) * dtype.itemsize <= _SMALL_BYTES else None


def _checked(file: h5py.File, name: str) -> h5py.Dataset:
    array = get_array(file, name)
    if array is None or array.shape is None or array.dtype.kind not in "fiub":
        held = "nothing" if array is None or array.shape is None else f"{array.dtype} values"
        raise bad_layout(file, f"'{name}' holds {held}, not numbers")
    return array


def _split_shape(file: h5py.File, part: str, name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    if len(shape) != (4 if part == "stimulus" else 2):
        axes = "(channels, frames, height, width)" if part == "stimulus" else "(frames, columns)"
        raise bad_layout(file, f"a trial of '{name}' has shape {shape}, expected {axes}")
    if 0 in shape:
        raise bad_layout(file, f"a trial of '{name}' has shape {shape}: there is nothing in it")
    return ((shape[0], *shape[2:]), shape[1]) if part == "stimulus" else ((shape[1],), shape[0])


class _MovieReader:
    def __init__(self, path: str) -> None:
        self._file = open_for_reading(path)

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        whole = self._file[ARRAYS[part]]
        before: tuple[Any, ...] = (trial,)
        if isinstance(whole, h5py.Group):
            whole, before = whole[str(trial)], ()
        if part == "stimulus":
            return np.asarray(whole[(*before, slice(None), slice(start, stop))])
        return np.asarray(whole[(*before, slice(start, stop))]).T

    def close(self) -> None:
        self._file.close()


def _open(recording: Recording) -> Reader:
    return _MovieReader(recording.path)


MOVIE_HDF5 = Layout(_NAME, _recognises, _describe, _open)
