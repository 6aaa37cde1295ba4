"""Write NWB 2 files, with images or a movie, and with traces of imaged cells or spike times of sorted units.

Images are shown every 0.6 s, for 0.5 s. Traces and behaviour of images have ten samples a second; those in the window of a
response (`synicix_neurodata.layouts.nwb`) all have its value, so that their mean is that value. Spikes are spread evenly
over the window. A movie has a sample of everything for each frame.
"""

from __future__ import annotations

import datetime
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.nwb import CEILING_TABLE, DELAY, WINDOW
from synicix_neurodata.usable import MODES
from synicix_neurodata.writers import Plan
from synicix_neurodata.writers.nwb_content import (
    add_behavior,
    add_ceiling,
    add_images,
    add_movie,
    add_traces,
    add_trials,
    add_units,
    fill,
    image_name,
)
from synicix_neurodata.writers.placing import abandoned

__all__ = ["NwbMovieWriter", "NwbTracesWriter", "NwbUnitsWriter"]

_SAMPLES = 6
"""Samples of a trial of images."""

_RATE = 10.0
"""Of them in Hz."""

_SHOWN = 0.5
"""Seconds that an image is shown."""

_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""A session that was never held began then."""


class _NwbWriter(ABC):
    """What the writers share: everything is laid out once by pynwb, then its arrays are filled trial by trial."""

    def __init__(self, path: Path, plan: Plan) -> None:
        channels = plan.shapes["stimulus"][0]
        if channels not in (1, 3):
            raise _cannot(path, f"its stimulus has {channels} channels, and NWB has grey (1) and RGB (3) images only")
        self._path, self._plan = path, plan
        from pynwb import NWBHDF5IO, NWBFile

        content = NWBFile(
            session_description="Recording of visual cortex, written by synicix-neurodata",
            identifier=str(uuid.uuid4()),
            session_start_time=_EPOCH,
        )
        # pynwb warns of tables that get their place in the file a little later.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._lay_out(content)
            add_ceiling(content, CEILING_TABLE, tuple(MODES))
            with NWBHDF5IO(path, "w") as io:
                io.write(content)
        self._file = h5py.File(path, "r+")

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write the ceiling and close."""
        self._file[f"scratch/{CEILING_TABLE}/correlation"][:] = [noise_ceiling.get(mode, np.nan) for mode in MODES]
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        abandoned(self._file)

    @abstractmethod
    def _lay_out(self, content: Any) -> None:
        """Add everything to the file's content, its arrays still empty."""


class _ImagesWriter(_NwbWriter):
    def __init__(self, path: Path, plan: Plan) -> None:
        ids, self._numbers = np.unique(plan.stimulus_ids, return_inverse=True)
        self._images = len(ids)
        self._written = np.zeros(self._images, bool)
        super().__init__(path, plan)

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write successive trials; an image is stored when it is first shown."""
        for part, values in parts.items():
            if part == "stimulus":
                self._write_images(first, values)
            elif part == "responses":
                self._write_responses(first, values)
            else:
                # The first sample of a trial is taken before its window.
                fill(self._file, part, first * _SAMPLES, np.repeat(values, _SAMPLES, axis=0))

    def _lay_out(self, content: Any) -> None:
        plan = self._plan
        onsets = np.arange(plan.trials) * _SAMPLES / _RATE
        add_images(content, plan, self._images, self._numbers, onsets)
        add_behavior(content, plan, plan.trials * _SAMPLES, _RATE)
        add_trials(content, plan, onsets, onsets + _SHOWN)

    def _write_images(self, first: int, values: NDArray[Any]) -> None:
        numbers = self._numbers[first : first + len(values)]
        for number, image in zip(numbers, values, strict=True):
            if not self._written[number]:
                self._written[number] = True
                self._file[f"stimulus/templates/images/{image_name(number)}"][...] = _channels_last(image)

    @abstractmethod
    def _write_responses(self, first: int, values: NDArray[Any]) -> None:
        """Write or keep the responses (trials, neurons) of successive trials."""


class NwbTracesWriter(_ImagesWriter):
    """Writes images and traces; see `synicix_neurodata.writers.Writer`.

    Raises
    ------
    DatasetError
        If the stimulus has other than one channel or three.
    """

    def _lay_out(self, content: Any) -> None:
        super()._lay_out(content)
        add_traces(content, self._plan, self._plan.trials * _SAMPLES, _RATE)

    def _write_responses(self, first: int, values: NDArray[Any]) -> None:
        fill(self._file, "responses", first * _SAMPLES, np.repeat(values, _SAMPLES, axis=0))


class NwbUnitsWriter(_ImagesWriter):
    """Writes images and spike times; see `synicix_neurodata.writers.Writer`.

    All counts are kept in memory until the end, because the file has the spikes of one unit after those of another.

    Raises
    ------
    DatasetError
        If the stimulus has other than one channel or three, or a response is no count of spikes.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._counts = np.zeros((plan.trials, *plan.shapes["responses"]), np.uint32)
        super().__init__(path, plan)

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write the spikes and the ceiling, and close."""
        units = self._file["units"]
        ends = np.cumsum(self._counts.sum(axis=0, dtype=np.uint64))
        units["spike_times_index"][:] = ends
        times = units["spike_times"]
        times.resize((int(ends[-1]),))
        for unit, end in enumerate(ends):
            counts = self._counts[:, unit].astype(np.int64)
            trials = np.repeat(np.arange(len(counts)), counts)
            place = np.arange(len(trials)) - np.repeat(np.cumsum(counts) - counts, counts)
            share = (place + 0.5) / np.repeat(counts, counts)
            times[int(end) - len(trials) : int(end)] = trials * _SAMPLES / _RATE + DELAY + WINDOW * share
        super().finish(noise_ceiling)

    def _lay_out(self, content: Any) -> None:
        super()._lay_out(content)
        add_units(content, self._plan)

    def _write_responses(self, first: int, values: NDArray[Any]) -> None:
        # NaN is neither at least 0 nor whole, and a count beyond 32 bits would not fit into any file.
        counts = np.isfinite(values) & (values >= 0) & (values < 2**32) & (values == np.round(values))
        if not counts.all():
            raise _cannot(self._path, f"a response is {values[~counts][0]}, and units have whole numbers of spikes")
        self._counts[first : first + len(values)] = values


class NwbMovieWriter(_NwbWriter):
    """Writes a movie, traces and behaviour with a sample per frame; see `synicix_neurodata.writers.Writer`.

    Trials follow one another without a pause.

    Raises
    ------
    DatasetError
        If the stimulus has other than one channel or three.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        assert plan.frames is not None, "a movie has frames"
        self._ends = np.cumsum(plan.frames)
        super().__init__(path, plan)

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write one trial."""
        stop = int(self._ends[first])
        for part, (values,) in parts.items():
            start = stop - values.shape[1]
            if part == "stimulus":
                self._file["stimulus/presentation/movie/data"][start:stop] = _channels_last(values)
            else:
                fill(self._file, part, start, values.T)

    def _lay_out(self, content: Any) -> None:
        plan = self._plan
        frames = int(self._ends[-1]) if len(self._ends) else 0
        add_movie(content, plan, frames)
        add_traces(content, plan, frames, plan.frame_rate)
        add_behavior(content, plan, frames, plan.frame_rate)
        starts = np.concatenate([[0], self._ends[:-1]])
        add_trials(content, plan, starts / plan.frame_rate, self._ends / plan.frame_rate)


def _channels_last(picture: NDArray[Any]) -> NDArray[Any]:
    """Return (C, ..., H, W) as (..., H, W) where there is one channel, else as (..., H, W, C)."""
    return picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)


def _cannot(path: Path, why: str) -> DatasetError:
    return DatasetError("The recording cannot be written as NWB", file=str(path), why=why)
