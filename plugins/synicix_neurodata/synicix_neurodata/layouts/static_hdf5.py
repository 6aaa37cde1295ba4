"""Static HDF5: one file per recording, one image per trial.

The layout is that of ``cajal/neuro_data`` (static_images/data_schemas.py); docs/recordings.md describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.hdf5_file import (
    bad_layout,
    get_array,
    get_group,
    is_hdf5,
    open_for_reading,
    opened,
    read_columns,
    read_rows,
    read_values,
)
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["STATIC_HDF5", "read_noise_ceiling", "read_tiers", "read_trial_columns"]

_NAME = "static HDF5"

ARRAYS = {"stimulus": "images", "responses": "responses", "behavior": "behavior", "pupil_center": "pupil_center"}
"""Name in the file of each part."""

_AXES = {"stimulus": 4, "responses": 2, "behavior": 2, "pupil_center": 2}

_TRIAL_COLUMNS = ("types", "trial_idx", "condition_hashes")


def _recognises(path: Path) -> bool:
    if not path.is_file() or not is_hdf5(path):
        return False
    try:
        with open_for_reading(path) as file:
            return any(get_array(file, name) is not None for name in ("images", "tiers", "responses"))
    except DatasetError:
        return True
    except (OSError, RuntimeError):
        # Cut off behind the signature: most files with one are of this layout, and the description says what is wrong.
        return True


def _describe(path: Path, _options: Mapping[str, Any]) -> Recording:
    with opened(path) as file:
        tiers = read_tiers(file)
        arrays = {part: array for part, name in ARRAYS.items() if (array := get_array(file, name)) is not None}
        trials = len(tiers) if tiers is not None else next((len(array) for array in arrays.values() if array.shape), 0)
        shapes = {part: _shape(file, part, array, trials, tiers is not None) for part, array in arrays.items()}
        if not shapes:
            raise bad_layout(file, f"it has none of {', '.join(ARRAYS.values())}")
        columns = read_trial_columns(file, _TRIAL_COLUMNS, trials)
        return Recording(
            path=str(path),
            layout=_NAME,
            shapes=shapes,
            trials=trials,
            tiers=tiers,
            stimulus_ids=stimulus_identity(columns),
            columns=columns,
            neurons=read_columns(file, "neurons", shapes["responses"][0]) if "responses" in shapes else {},
            noise_ceiling=read_noise_ceiling(file),
        )


def read_tiers(file: h5py.File) -> NDArray[np.str_] | None:
    """Return the tier of each trial in the words of the file, (trials,), or None where it has none.

    Raises
    ------
    DatasetError
        If it is no list of names.
    """
    array = get_array(file, "tiers")
    if array is None:
        return None
    tiers = read_values(array)
    if tiers.ndim != 1 or tiers.dtype.kind != "U":
        raise bad_layout(file, f"'tiers' is no list of names: shape {tiers.shape}, {array.dtype}")
    return tiers


def read_trial_columns(file: h5py.File, names: Sequence[str], trials: int) -> dict[str, NDArray[Any]]:
    """Return what has one value per trial: arrays of these names, and all in the group ``item_info``."""
    columns = {
        name: read_values(array)
        for name in names
        if (array := get_array(file, name)) is not None and array.shape == (trials,)
    }
    info = read_columns(file, "item_info", trials)
    return columns | {name: values for name, values in info.items() if values.ndim == 1}


def read_noise_ceiling(file: h5py.File) -> dict[str, float]:
    """Return what the group ``simulation/noise_ceiling`` states, by mode: the attribute ``mean`` of each array.

    Raises
    ------
    DatasetError
        If one is no correlation above 0.
    """
    group = get_group(file, "simulation/noise_ceiling")
    ceilings = {}
    for mode in group if group is not None else ():
        array = get_array(file, f"simulation/noise_ceiling/{mode}")
        stated = None if array is None else array.attrs.get("mean")
        if not isinstance(stated, np.integer | np.floating) or not 0 < stated <= 1:
            raise bad_layout(file, f"the noise ceiling for {mode} is {stated!r:.60}, expected 0 < ceiling <= 1")
        ceilings[mode] = float(stated)
    return ceilings


class _StaticReader:
    def __init__(self, path: str) -> None:
        self._file = open_for_reading(path)

    def trials(self, part: str, trials: NDArray[np.intp]) -> NDArray[Any]:
        return read_rows(self._file[ARRAYS[part]], trials)

    def close(self) -> None:
        self._file.close()


def _open(recording: Recording) -> Reader:
    return _StaticReader(recording.path)


def _shape(file: h5py.File, part: str, array: h5py.Dataset, trials: int, by_tiers: bool) -> tuple[int, ...]:
    name = ARRAYS[part]
    if array.dtype.kind not in "fiub":
        raise bad_layout(file, f"'{name}' holds {array.dtype} values, not numbers")
    if array.ndim != _AXES[part]:
        axes = "(trials, channels, height, width)" if part == "stimulus" else "(trials, columns)"
        raise bad_layout(file, f"'{name}' has shape {array.shape}, expected {axes}")
    if array.shape[0] != trials:
        other = "'tiers' has" if by_tiers else "the others have"
        raise bad_layout(file, f"'{name}' has {array.shape[0]} trials and {other} {trials}")
    if 0 in array.shape[1:]:
        raise bad_layout(file, f"'{name}' has shape {array.shape}: there is nothing in it")
    return tuple(int(size) for size in array.shape[1:])


STATIC_HDF5 = Layout(_NAME, _recognises, _describe, _open)
