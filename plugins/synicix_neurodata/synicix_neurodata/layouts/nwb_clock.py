"""When the samples of an NWB time series were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb

__all__ = ["Clock", "Times", "clock_of"]

_ROUNDING = 1e-6
"""Of the time between two samples: times that differ by less were meant to be the same."""


@dataclass(frozen=True)
class Clock:
    """How the times of samples are told; can be sent to other processes.

    Attributes
    ----------
    samples : int
    interval : float
        Seconds from one sample to the next, the median where they differ.
    start : float
        Time of the first sample.
    timestamps : str
        Path of the array of times in the file; empty for samples at regular times.
    """

    samples: int
    interval: float
    start: float
    timestamps: str = ""


class Times:
    """The times of a clock, from a file that is open."""

    def __init__(self, clock: Clock, file: h5py.File) -> None:
        self.clock = clock
        self._stored = np.asarray(file[clock.timestamps][()], np.float64) if clock.timestamps else None

    def __getitem__(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return the times of samples in seconds."""
        if self._stored is not None:
            return np.asarray(self._stored[samples])
        return self.clock.start + np.asarray(samples, np.float64) * self.clock.interval

    def first_from(self, times: NDArray[np.float64], tolerance: float = _ROUNDING) -> NDArray[np.int64]:
        """Return the first sample taken at each time or after it, `samples` where there is none.

        A sample that is early by a share `tolerance` of the time between two samples is taken as well.
        """
        if self._stored is not None:
            return np.searchsorted(self._stored, times - tolerance * self.clock.interval).astype(np.int64)
        position = np.ceil((times - self.clock.start) / self.clock.interval - tolerance)
        return np.clip(position, 0, self.clock.samples).astype(np.int64)

    def durations(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return how long each sample lasts: until the next, or the usual time where a pause follows."""
        following = np.minimum(samples + 1, self.clock.samples - 1)
        lasted = self[following] - self[samples]
        usual = (lasted > 0) & (lasted <= 1.5 * self.clock.interval)
        return np.where(usual, lasted, self.clock.interval)


def clock_of(nwb: NwbFile, series: Any, samples: int) -> Clock:
    """Return the clock of a time series that has so many samples.

    Raises
    ------
    DatasetError
        If it has no times, they are not as many as the samples, not finite, or run backwards.
    """
    name = nwb.path_of(series)
    if series.rate is not None:
        rate, start = float(series.rate), float(series.starting_time or 0.0)
        if not (np.isfinite(rate) and rate > 0 and np.isfinite(start)):
            raise bad_nwb(nwb.path, f"{name} has the rate {rate} and the starting time {start}")
        return Clock(samples, 1 / rate, start)
    if series.timestamps is None:
        raise bad_nwb(nwb.path, f"{name} has neither timestamps nor a rate")
    stored = nwb.numbers(series.timestamps, f"{name}/timestamps")
    if stored.shape != (samples,):
        raise bad_nwb(nwb.path, f"{name} has {samples} samples, and its timestamps have the shape {stored.shape}")
    times = np.asarray(stored[()], np.float64)
    if not np.isfinite(times).all():
        raise bad_nwb(nwb.path, f"the timestamps of {name} are not finite from sample {np.isfinite(times).argmin()} on")
    steps = np.diff(times)
    if (steps < 0).any():
        raise bad_nwb(nwb.path, f"the timestamps of {name} run backwards at sample {int((steps < 0).argmax()) + 1}")
    interval = float(np.median(steps)) if len(steps) else 1.0
    return Clock(samples, interval or 1.0, float(times[0]) if samples else 0.0, str(stored.name).strip("/"))
