"""What an NWB file says was shown, and when."""

from __future__ import annotations

import dataclasses
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_clock import Clock, Times, clock_of
from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb, kinds
from synicix_neurodata.layouts.nwb_options import NwbOptions
from synicix_neurodata.layouts.nwb_pictures import Pictures, images_of, stack_of

__all__ = ["Stimulus", "find_stimulus", "shown_pictures"]

_SHOWN = {"IndexSeries", "ImageSeries"}

_WHAT = "stimulus (IndexSeries, ImageSeries or OpticalSeries in stimulus/presentation)"

_FAST = 0.1
"""Seconds: pictures of a stack that follow one another faster are frames of a movie."""


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """Pictures that were shown one after another; can be sent to other processes.

    Attributes
    ----------
    name : str
        Path of the series.
    pictures : Pictures
    clock : Clock
        When each was shown.
    index : str
        Path of the array that tells which picture each presentation showed; empty where it is picture after picture.
    movie : bool
        Whether a presentation is a frame of a movie rather than a trial.
    """

    name: str
    pictures: Pictures
    clock: Clock
    index: str
    movie: bool


def find_stimulus(nwb: NwbFile, options: NwbOptions) -> Stimulus:
    """Return the stimulus that the options name, or the only one that there is.

    Raises
    ------
    DatasetError
        If there is none, or several, or it is broken.
    """
    presented = [shown for shown in nwb.content.stimulus.values() if kinds(shown) & _SHOWN]
    held = {nwb.path_of(shown): shown for shown in presented}
    if options.stimulus is not None:
        # A template may serve as well: a movie that was shown once is often kept there only.
        held = {**held, **nwb.find(*_SHOWN, under="stimulus/")}
        shown = nwb.at(options.stimulus, "stimulus", held, "such stimulus")
    elif len(held) == 1:
        shown = next(iter(held.values()))
    else:
        missing = "it is not clear which stimulus is meant" if held else "a stimulus is missing"
        others = {nwb.path_of(other): other for other in nwb.content.stimulus.values()}
        raise bad_nwb(
            nwb.path,
            f"{missing}; {nwb.listing(held or others, _WHAT if held or not others else 'stimulus')}",
            "Set stimulus in layout_params to the path of one of them." if held else "",
        )
    transposed = options.axes == "columns-rows"
    if "IndexSeries" not in kinds(shown):
        pictures = stack_of(nwb, shown, transposed)
        stimulus = Stimulus(nwb.path_of(shown), pictures, clock_of(nwb, shown, pictures.count), "", True)
    else:
        stimulus = _indexed(nwb, shown, transposed)
    if options.kind is not None:
        stimulus = dataclasses.replace(stimulus, movie=options.kind == "movie")
    _check_order(nwb, stimulus)
    return stimulus


def shown_pictures(stimulus: Stimulus, file: h5py.File) -> NDArray[np.int64]:
    """Return the picture of each presentation, -1 for a blank screen: (presentations,)."""
    if not stimulus.index:
        return np.arange(stimulus.clock.samples)
    index = np.asarray(file[stimulus.index][()]).astype(np.int64)
    # The schema has unsigned numbers here, in which the usual -1 becomes the largest one of 32 bits.
    return np.where((index < 0) | (index == 2**32 - 1), -1, index)


def _indexed(nwb: NwbFile, shown: Any, transposed: bool) -> Stimulus:
    name = nwb.path_of(shown)
    if shown.indexed_images is not None:
        pictures, frames = images_of(nwb, shown.indexed_images, transposed), False
    elif shown.indexed_timeseries is not None:
        pictures, frames = stack_of(nwb, shown.indexed_timeseries, transposed), True
    else:
        raise bad_nwb(nwb.path, f"{name} has neither indexed_images nor indexed_timeseries")
    index = nwb.numbers(shown.data, name)
    if index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        raise bad_nwb(nwb.path, f"{name} is no list of picture numbers: shape {index.shape}, {index.dtype}")
    clock = clock_of(nwb, shown, len(index))
    movie = frames and clock.interval < _FAST
    stimulus = Stimulus(name, pictures, clock, str(index.name).strip("/"), movie)
    highest = int(shown_pictures(stimulus, nwb.file).max())
    if highest >= pictures.count:
        raise bad_nwb(nwb.path, f"{name} shows picture {highest}, and there are {pictures.count}, counted from 0")
    return stimulus


def _check_order(nwb: NwbFile, stimulus: Stimulus) -> None:
    times = Times(stimulus.clock, nwb.file)[np.arange(stimulus.clock.samples)]
    together = np.flatnonzero(np.diff(times) <= 0)
    if len(together):
        raise bad_nwb(
            nwb.path,
            f"{stimulus.name} shows two pictures at the same time, {times[together[0]]} s ({len(together)} times)",
        )
