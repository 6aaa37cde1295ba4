"""The values of experanto's devices at the times that are asked for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.experanto_devices import Device, phase_shifts, raw_values, spike_indices
from synicix_neurodata.layouts.experanto_meta import read_mapping

__all__ = ["Signals", "open_signals"]

_SLACK = 1e-6
"""Of a sample: a time that was computed as a multiple of the sampling interval belongs to that sample."""


class Signals(Protocol):
    """The values of a device."""

    def mean_or_count(self, starts: NDArray[np.float64], stops: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Return the mean of the samples, or the number of spikes, in [start, stop): (windows, columns).

        NaN where a window is not within the recording.
        """

    def at_frames(self, starts: NDArray[np.float64], stops: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Return the sample at the start of each frame, or the spikes within it: (columns, frames); NaN as above."""


def open_signals(recording: Path, device: Device) -> Signals:
    """Open the values of a device for reading.

    Raises
    ------
    OSError, ValueError, DatasetError
        If a file is not any more as it was when the device was described.
    """
    values = raw_values(recording, device)
    if device.rate:
        return _Sequence(values, phase_shifts(recording, device), device)
    said = read_mapping(recording, f"{device.name}/meta.yml")
    return _Spikes(values, spike_indices(recording, device.name, said), device)


class _Sequence:
    def __init__(self, values: NDArray[Any], shifts: NDArray[np.float64] | None, device: Device) -> None:
        self._values, self._device = values, device
        self._shifts = np.zeros(1) if shifts is None else shifts

    def mean_or_count(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.float64]:
        firsts, lasts = (np.ceil(self._sample(times) - _SLACK).astype(np.int64) for times in (starts, stops))
        means = np.empty((len(starts), self._device.columns))
        for mean, first, last in zip(means, firsts, lasts, strict=True):
            low, high = max(0, int(first.min())), max(0, int(last.max()))
            block = self._values[low:high]
            if len(first) == 1:
                mean[:] = block.mean(axis=0, dtype=np.float64) if len(block) else np.nan
            else:
                row = np.arange(low, low + len(block))[:, None]
                within = (row >= first) & (row < last)
                mean[:] = np.add.reduce(block, axis=0, dtype=np.float64, where=within) / np.maximum(1, last - first)
            mean[np.broadcast_to((first < 0) | (last > self._device.rows) | (last <= first), mean.shape)] = np.nan
        return means

    def at_frames(self, starts: NDArray[np.float64], _stops: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.floor(self._sample(starts) + _SLACK).astype(np.int64)
        inside = (index >= 0) & (index < self._device.rows)
        reachable = np.clip(index, 0, self._device.rows - 1)
        low, high = (int(reachable.min()), int(reachable.max())) if reachable.size else (0, -1)
        block = np.asarray(self._values[low : high + 1], dtype=np.float64)
        values = (
            block[reachable[:, 0] - low] if index.shape[1] == 1 else np.take_along_axis(block, reachable - low, axis=0)
        )
        return np.asarray(np.where(inside, values, np.nan).T)

    def _sample(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the number of the sample at each time, with a fraction: (times, columns or 1)."""
        return np.asarray((times[:, None] - self._shifts - self._device.start) * self._device.rate)


class _Spikes:
    def __init__(self, values: NDArray[Any], indices: NDArray[np.int64], device: Device) -> None:
        self._neurons = [values[first:last] for first, last in itertools.pairwise(indices)]
        self._device = device

    def mean_or_count(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.float64]:
        edges = np.stack([starts, stops])
        counts = np.empty((len(starts), len(self._neurons)))
        for neuron, spikes in enumerate(self._neurons):
            before = np.searchsorted(spikes, edges)
            counts[:, neuron] = before[1] - before[0]
        counts[(starts < self._device.start) | (stops > self._device.end + _SLACK)] = np.nan
        return counts

    def at_frames(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.mean_or_count(starts, stops).T
