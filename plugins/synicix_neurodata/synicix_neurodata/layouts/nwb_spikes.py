"""Spikes of NWB units counted in windows of time."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["Spikes", "count_spikes", "spike_times"]


@dataclass(frozen=True, eq=False)
class Spikes:
    """Where the spikes of units are; can be sent to other processes.

    Attributes
    ----------
    data : str
        Path of the array of all spike times in the file, in seconds.
    bounds : ndarray of int64, (units, 2)
        First spike of each unit, and the one behind its last.
    """

    data: str
    bounds: NDArray[np.int64]

    @property
    def columns(self) -> int:
        """How many units there are."""
        return len(self.bounds)


def spike_times(spikes: Spikes, unit: int, file: h5py.File) -> NDArray[np.float64]:
    """Return the spike times of one unit, as they are stored."""
    first, last = spikes.bounds[unit]
    return np.asarray(file[spikes.data][first:last], np.float64)


def count_spikes(
    spikes: Spikes, file: h5py.File, starts: NDArray[np.float64], stops: NDArray[np.float64]
) -> NDArray[np.unsignedinteger]:
    """Return how many spikes of each unit fall in each window ``[start, stop)``: (windows, units).

    The type is the smallest one that the busiest unit needs, since the counts of all frames of a movie are many.
    """
    most = int(np.diff(spikes.bounds).max(initial=0))
    counts = np.empty((len(starts), spikes.columns), np.min_scalar_type(most))
    for unit in range(spikes.columns):
        times = np.sort(spike_times(spikes, unit, file))
        counts[:, unit] = np.searchsorted(times, stops) - np.searchsorted(times, starts)
    return counts
