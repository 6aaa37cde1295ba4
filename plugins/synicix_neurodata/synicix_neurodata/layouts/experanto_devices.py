"""What a device of experanto recorded, sampled regularly or as spike times: stated in one file and held by another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.experanto_meta import (
    bad_experiment,
    read_mapping,
    stated_integer,
    stated_number,
)
from synicix_neurodata.layouts.npy import NUMBERS
from synicix_neurodata.layouts.tree_files import FolderFiles

__all__ = ["Device", "phase_shifts", "raw_values", "read_device", "spike_indices"]

_RATE_TOLERANCE = 0.05
"""By how much of itself the stated sampling rate may differ from that of the stated times."""

_SPIKE_BLOCK = 2**21


@dataclass(frozen=True)
class Device:
    """A folder of signals, as its ``meta.yml`` states it and its files bear out.

    Attributes
    ----------
    name : str
        The folder.
    file : str
        Where the values are.
    columns, rows : int
        Signals, and samples of each; for spikes, neurons and spikes in all.
    dtype : str
        Of a raw file.
    start, end : float
        Seconds.
    rate : float
        Samples per second; 0 for spikes.
    shifted : bool
        Whether each signal was sampled at a time of its own.
    """

    name: str
    file: str
    columns: int
    rows: int
    dtype: str
    start: float
    end: float
    rate: float = 0.0
    shifted: bool = False


def read_device(recording: Path, name: str) -> Device:
    """Read what a folder of signals holds, and compare it with its files.

    Raises
    ------
    DatasetError
        If it is missing, of another modality, or its files are not as long as it says.
    """
    place = f"{name}/meta.yml"
    said = read_mapping(recording, place)
    modality = str(said.get("modality")).lower()
    start, end = (stated_number(recording, place, said, key) for key in ("start_time", "end_time"))
    if not start < end:
        raise bad_experiment(recording, f"'{place}' states that it ran from {start} to {end} s")
    if modality == "sequence":
        return _sequence(recording, name, said, start, end)
    if modality == "spikes":
        return _spikes(recording, name, said, start, end)
    raise bad_experiment(
        recording, f"'{place}' states modality {said.get('modality')!r}, expected 'sequence' or 'spikes'"
    )


def _sequence(recording: Path, name: str, said: Mapping[str, Any], start: float, end: float) -> Device:
    place = f"{name}/meta.yml"
    rate = stated_number(recording, place, said, "sampling_rate")
    columns = stated_integer(recording, place, said, "n_signals", least=1)
    if rate <= 0:
        raise bad_experiment(recording, f"'{place}' states a sampling_rate of {rate}")
    shifted = said.get("phase_shift_per_signal") is True
    if said.get("is_mem_mapped") is True:
        rows = stated_integer(recording, place, said, "n_timestamps", least=1)
        dtype = _dtype(recording, place, said)
        _check_raw(recording, name, columns, rows, dtype)
        device = Device(name, f"{name}/data.mem", columns, rows, dtype.str, start, end, rate, shifted)
    else:
        values = _array(recording, f"{name}/data.npy")
        if values.ndim != 2 or values.dtype.kind not in NUMBERS or not values.size:
            raise bad_experiment(
                recording,
                f"'{name}/data.npy' has shape {values.shape} of {values.dtype}, expected (samples, signals)",
            )
        if values.shape[1] != columns:
            raise _other_columns(recording, name, columns, values.shape[1], "data.npy")
        rows = len(values)
        if said.get("n_timestamps", rows) != rows:
            raise bad_experiment(
                recording, f"'{place}' says n_timestamps is {said['n_timestamps']}, and 'data.npy' has {rows} samples"
            )
        device = Device(name, f"{name}/data.npy", columns, rows, values.dtype.str, start, end, rate, shifted)
    # From the first sample to the last there is one interval fewer than samples; exporters count either way.
    by_times = rows / (end - start)
    if abs(rows - 1 - rate * (end - start)) > max(2.0, _RATE_TOLERANCE * rows):
        raise bad_experiment(
            recording,
            f"'{place}' says sampling_rate is {rate:g} Hz, but its {rows} samples from {start:g} to {end:g} s are "
            f"{by_times:g} Hz",
            hint="Correct what is wrong in it; with another rate every sample would be taken for another time.",
        )
    phase_shifts(recording, device)
    return device


def _check_raw(recording: Path, name: str, columns: int, rows: int, dtype: np.dtype[Any]) -> None:
    size = _size(recording, f"{name}/data.mem")
    expected = columns * rows * dtype.itemsize
    if size == expected:
        return
    found, rest = divmod(size, rows * dtype.itemsize)
    if found and not rest:
        raise _other_columns(recording, name, columns, found, "data.mem")
    raise bad_experiment(
        recording,
        f"'{name}/data.mem' has {size} bytes, and {rows} samples of {columns} signals in {dtype} are {expected}"
        f"{'; it is cut off' if size < expected else ''}",
    )


def _other_columns(recording: Path, name: str, stated: int, found: int, file: str) -> Exception:
    return bad_experiment(
        recording,
        f"'{name}/meta.yml' says n_signals is {stated}, and '{name}/{file}' has {found} columns",
        hint=f"Correct n_signals, or leave {name} out: behavior in layout_params lists the folders that are used."
        if name != "responses"
        else "Correct n_signals.",
    )


def _spikes(recording: Path, name: str, said: Mapping[str, Any], start: float, end: float) -> Device:
    indices = spike_indices(recording, name, said)
    count = int(indices[-1])
    if said.get("is_mem_mapped") is True:
        dtype = _dtype(recording, f"{name}/meta.yml", said, "float64")
        file = f"{name}/spikes.mem"
        size = _size(recording, file)
        if size != count * dtype.itemsize:
            raise bad_experiment(
                recording, f"'{file}' has {size} bytes, and {count} spikes in {dtype} are {count * dtype.itemsize}"
            )
    else:
        file = f"{name}/spikes.npy"
        values = _array(recording, file)
        dtype = values.dtype
        if values.shape != (count,) or dtype.kind not in "fiu":
            raise bad_experiment(
                recording,
                f"'{file}' has shape {values.shape} of {dtype}, and spike_indices in '{name}/meta.yml' ends at {count}",
            )
    device = Device(name, file, len(indices) - 1, count, dtype.str, start, end)
    _check_sorted(recording, device, indices)
    return device


def spike_indices(recording: Path, name: str, said: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return where the spikes of each neuron begin, and where the last ones end: (neurons + 1,); raises as `read_device`."""
    told = said.get("spike_indices")
    whole = isinstance(told, list) and all(type(index) is int for index in told)
    indices = np.array(told, dtype=np.int64) if whole and max(map(abs, told or [0])) < 2**62 else np.array([-1])
    if len(indices) < 2 or indices[0] != 0 or (np.diff(indices) < 0).any():
        raise bad_experiment(
            recording, f"'{name}/meta.yml' must state spike_indices, whole numbers that start at 0 and never fall"
        )
    return indices


def _check_sorted(recording: Path, device: Device, indices: NDArray[np.int64]) -> None:
    """Refuse spikes that are out of order, of which a search would count the wrong ones."""
    values = raw_values(recording, device)
    starts = np.zeros(device.rows + 1, dtype=bool)
    starts[indices] = True
    for first in range(0, device.rows, _SPIKE_BLOCK):
        block = np.asarray(values[first : first + _SPIKE_BLOCK + 1], dtype=np.float64)
        in_order = (np.diff(block) >= 0) | starts[first + 1 : first + len(block)]
        if not in_order.all() or not np.isfinite(block).all():
            raise bad_experiment(
                recording, f"the spikes in '{device.file}' are not finite, or not sorted within each neuron"
            )


def phase_shifts(recording: Path, device: Device) -> NDArray[np.float64] | None:
    """Return by how many seconds each signal was sampled late, or None where all were sampled at once; raises as `read_device`."""
    if not device.shifted:
        return None
    name = f"{device.name}/meta/phase_shifts.npy"
    shifts = _array(recording, name)
    if shifts.shape != (device.columns,) or shifts.dtype.kind not in NUMBERS or not np.isfinite(shifts).all():
        raise bad_experiment(
            recording,
            f"'{name}' has shape {shifts.shape}, expected a finite number for each of {device.columns} signals",
        )
    return np.array(shifts, dtype=np.float64)


def _dtype(recording: Path, place: str, said: Mapping[str, Any], default: str = "") -> np.dtype[Any]:
    told = said.get("dtype", default)
    try:
        dtype = np.dtype(told) if isinstance(told, str) and told else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in NUMBERS:
        raise bad_experiment(recording, f"'{place}' states dtype {told!r}, which is no type of numbers")
    return dtype


def _size(recording: Path, name: str) -> int:
    try:
        return (recording / name).stat().st_size
    except OSError as error:
        raise bad_experiment(recording, f"'{name}' cannot be read ({error.strerror or error})") from error


def _array(recording: Path, name: str) -> NDArray[Any]:
    try:
        return FolderFiles(recording).mapped(name)
    except OSError as error:
        raise bad_experiment(recording, f"'{name}' cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise bad_experiment(recording, str(error)) from error


def raw_values(recording: Path, device: Device) -> NDArray[Any]:
    """Return the values of a device, backed by their file: (samples, columns), or (spikes,); raises OSError or ValueError."""
    if device.file.endswith(".npy"):
        return FolderFiles(recording).mapped(device.file)
    shape = (device.rows, device.columns) if device.rate else (device.rows,)
    # A file without a byte cannot be mapped.
    return np.memmap(recording / device.file, device.dtype, "r", shape=shape) if device.rows else np.zeros(shape)
