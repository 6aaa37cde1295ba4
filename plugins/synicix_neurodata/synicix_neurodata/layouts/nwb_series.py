"""NWB time series reduced to one value per window of time: responses of cells to an image, running during a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_clock import Clock, Times, clock_of
from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb

__all__ = ["Series", "SeriesReader", "series_of"]

_SLAB_BYTES = 8 * 2**20

_PAUSE = 5
"""Times the usual time between two samples; with a longer one, that is longer than two windows too, nothing is known."""

_SPARSE = 4
"""Times as many samples as the windows need are read rather than to go to the file once more."""


@dataclass(frozen=True)
class Series:
    """Samples of some columns; can be sent to other processes.

    Attributes
    ----------
    data : str
        Path of the array in the file, (samples,) or (samples, columns).
    columns : int
    clock : Clock
    conversion, offset : float
        A value is ``stored * conversion + offset``.
    """

    data: str
    columns: int
    clock: Clock
    conversion: float = 1.0
    offset: float = 0.0


def series_of(nwb: NwbFile, found: Any) -> Series:
    """Return a time series of pynwb as it is read here.

    Raises
    ------
    DatasetError
        If it holds no numbers, has more than two axes, or its times make no sense.
    """
    name = nwb.path_of(found)
    array = nwb.numbers(found.data, name)
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise bad_nwb(nwb.path, f"{name} has the shape {array.shape}, expected (samples,) or (samples, columns)")
    return Series(
        str(array.name).strip("/"),
        1 if array.ndim == 1 else int(array.shape[1]),
        clock_of(nwb, found, len(array)),
        float(found.conversion),
        float(found.offset),
    )


class SeriesReader:
    """Reads a series from a file that is open."""

    def __init__(self, series: Series, file: h5py.File) -> None:
        self._series = series
        self._data = file[series.data]
        self._times = Times(series.clock, file)

    def values(self, starts: NDArray[np.float64], stops: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return one value of each column for each window: (windows, columns).

        It is the mean of the samples taken in ``[start, stop)``. Where samples come more slowly than windows are long,
        or a window happens to hold none, it is the linear interpolation at the middle of the window. It is NaN for a
        window that is not all within the series, or in a pause of it.
        """
        series, interval = self._series, self._series.clock.interval
        first, last = self._times.first_from(starts), self._times.first_from(stops)
        middles = (starts + stops) / 2
        # Up to one per cent shorter is the same length, written with other digits.
        between = (stops - starts < 0.99 * interval) | (last <= first)
        before = np.clip(self._times.first_from(middles + 2e-6 * interval) - 1, 0, max(0, series.clock.samples - 2))
        after = np.minimum(before + 1, series.clock.samples - 1)
        low, high = np.where(between, before, first), np.where(between, after + 1, last)
        sums, left, right = self._read(low, high)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (middles - self._times[before]) / (self._times[after] - self._times[before])
            share = np.clip(np.nan_to_num(share), 0, 1)[:, None]
            # A share of zero must not take a NaN from the other sample.
            line = np.where(share > 0, right * share, 0) + np.where(share < 1, left * (1 - share), 0)
            values = np.where(between[:, None], line, sums / (high - low)[:, None])
        ends = self._times[np.array([0, series.clock.samples - 1])]
        outside = (starts < ends[0] - interval) | (stops > ends[1] + 1.01 * interval)
        pause = between & (
            self._times[after] - self._times[before] > np.maximum(_PAUSE * interval, 2 * (stops - starts))
        )
        values[outside | pause] = np.nan
        return np.asarray(values * series.conversion + series.offset)

    def _read(
        self, low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return sum, first and last of the samples low to high of each window; samples of close windows at once."""
        shape = (len(low), self._series.columns)
        sums, left, right = np.empty(shape), np.empty(shape), np.empty(shape)
        for windows, start, stop in _slabs(low, high, max(1, _SLAB_BYTES // (8 * self._series.columns))):
            slab = np.asarray(self._data[start:stop], np.float64).reshape(stop - start, -1)
            # Behind the last sample stands one more, because reduceat takes no index at the end.
            slab = np.concatenate([slab, np.zeros((1, shape[1]))])
            bounds = np.stack([low[windows], high[windows]], axis=1).ravel() - start
            sums[windows] = np.add.reduceat(slab, bounds, axis=0)[::2]
            left[windows], right[windows] = slab[low[windows] - start], slab[high[windows] - 1 - start]
        return sums, left, right


def _slabs(low: NDArray[np.int64], high: NDArray[np.int64], largest: int) -> Iterator[tuple[slice, int, int]]:
    """Yield windows that are read together, and the samples that they need."""
    position = 0
    while position < len(low):
        begin, start, stop = position, int(low[position]), int(high[position])
        needed = stop - start
        position += 1
        while position < len(low):
            new_start, new_stop = min(start, int(low[position])), max(stop, int(high[position]))
            needed += int(high[position] - low[position])
            if new_stop - new_start > min(largest, _SPARSE * needed):
                break
            start, stop, position = new_start, new_stop, position + 1
        yield slice(begin, position), start, stop
