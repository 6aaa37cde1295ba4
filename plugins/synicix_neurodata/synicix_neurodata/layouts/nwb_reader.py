"""The arrays of an NWB recording, read with h5py alone: processes that load data need no pynwb, which starts slowly."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.hdf5_file import open_for_reading
from synicix_neurodata.layouts.nwb_clock import Times
from synicix_neurodata.layouts.nwb_pictures import read_pictures
from synicix_neurodata.layouts.nwb_series import Series, SeriesReader
from synicix_neurodata.layouts.nwb_spikes import Spikes, count_spikes
from synicix_neurodata.layouts.nwb_stimulus import Stimulus, shown_pictures

__all__ = ["NwbReader", "NwbSource", "windows"]


@dataclass(frozen=True, eq=False)
class NwbSource:
    """What is read, and for which times; can be sent to other processes.

    Attributes
    ----------
    stimulus : Stimulus
    first, frames : ndarray of int64, (trials,)
        First presentation of each trial, and how many it has: one for images.
    delay : float
        Seconds from the onset of a presentation to the start of its window.
    window : float or None
        Length of the window; None for as long as the presentation lasts.
    parts : dict of str to (Spikes, or tuple of Series)
        What is reduced to windows; series are put side by side.
    """

    stimulus: Stimulus
    first: NDArray[np.int64]
    frames: NDArray[np.int64]
    delay: float
    window: float | None
    parts: dict[str, Spikes | tuple[Series, ...]]


def windows(
    source: NwbSource, times: Times, presentations: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return start and stop of the window of each presentation, in seconds."""
    starts = times[presentations] + source.delay
    length = times.durations(presentations) if source.window is None else source.window
    return starts, starts + length


class NwbReader:
    """See `synicix_neurodata.recording.Reader`."""

    def __init__(self, path: str, source: NwbSource) -> None:
        self._file = open_for_reading(path)
        self._source = source
        self._times = Times(source.stimulus.clock, self._file)
        self._opened: dict[str, list[SeriesReader]] = {}

    def trials(self, part: str, trials: NDArray[np.intp]) -> NDArray[Any]:
        """Return a part of an image recording."""
        return self._read(part, self._source.first[trials])

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        """Return frames of a movie."""
        return np.moveaxis(self._read(part, self._source.first[trial] + np.arange(start, stop)), 0, 1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, part: str, presentations: NDArray[np.int64]) -> NDArray[Any]:
        if part == "stimulus":
            return read_pictures(self._source.stimulus.pictures, self._file, self._pictures[presentations])
        source = self._source.parts[part]
        if isinstance(source, Spikes):
            shown, counts = self._counts
            return counts[np.searchsorted(shown, presentations)].astype(np.float32)
        starts, stops = windows(self._source, self._times, presentations)
        return np.concatenate([reader.values(starts, stops) for reader in self._series(part)], axis=1)

    @functools.cached_property
    def _pictures(self) -> NDArray[np.int64]:
        return shown_pictures(self._source.stimulus, self._file)

    @functools.cached_property
    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger[Any]]]:
        """Return every presentation of a trial, and its counts.

        They are counted for all trials at once: the spikes of one trial are in as many places as there are units.
        """
        source = self._source
        ranges = zip(source.first, source.frames, strict=True)
        shown = np.unique(np.concatenate([np.arange(first, first + frames) for first, frames in ranges]))
        spikes = source.parts["responses"]
        assert isinstance(spikes, Spikes), "only responses are spikes"
        return shown, count_spikes(spikes, self._file, *windows(source, self._times, shown))

    def _series(self, part: str) -> list[SeriesReader]:
        if part not in self._opened:
            found = self._source.parts[part]
            self._opened[part] = (
                [] if isinstance(found, Spikes) else [SeriesReader(series, self._file) for series in found]
            )
        return self._opened[part]
