"""Which time series of an NWB file tell what the animal did, and where it looked."""

from __future__ import annotations

from typing import Any

from synicix_core.errors import DatasetError
from synicix_neurodata.layouts.nwb_file import NwbFile, kinds
from synicix_neurodata.layouts.nwb_options import NwbOptions
from synicix_neurodata.layouts.nwb_series import Series, series_of

__all__ = ["find_behavior", "find_pupil_center"]

_MODULES = ("processing/behavior/", "processing/running/", "processing/eye_tracking/")
"""Processing modules that are about behaviour, in files that have series outside of an interface."""

_NO_SAMPLES = {"IndexSeries", "IntervalSeries", "RoiResponseSeries"}

_EVENTS = {"BehavioralEvents", "BehavioralEpochs"}
"""Interfaces whose series have values at some moments, or starts and ends of intervals: between them is nothing."""


def find_behavior(nwb: NwbFile, options: NwbOptions) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """Return the series that are put side by side as behaviour, and what there is to say.

    Those that the options name, in that order; else every series of numbers with one column that is in a PupilTracking,
    then every one in a BehavioralTimeSeries or in a processing module about behaviour, each sorted by path; events and
    intervals are not behaviour at every moment. One that is broken is an error where it is named, else it is left out with a note.

    Raises
    ------
    DatasetError
        If one that is named is not there, or is broken.
    """
    every = nwb.find("TimeSeries", under="processing/")
    if options.behavior is not None:
        chosen = [nwb.at(path, "behavior", every, "time series") for path in options.behavior]
        return tuple(series_of(nwb, found) for found in chosen), ()
    pupil = [path for path, found in every.items() if "PupilTracking" in _owner(found)]
    others = [
        path
        for path, found in every.items()
        if path not in pupil and ("BehavioralTimeSeries" in _owner(found) or path.startswith(_MODULES))
        if not _owner(found) & _EVENTS
    ]
    series: list[Series] = []
    notes: list[str] = []
    for path in (*pupil, *others):
        if not _one_column(every[path]):
            continue
        try:
            series.append(series_of(nwb, every[path]))
        except DatasetError as error:
            notes.append(f"{path} is left out of the behaviour: {error.why}")
    return tuple(series), tuple(notes)


def find_pupil_center(nwb: NwbFile, options: NwbOptions) -> tuple[Series | None, tuple[str, ...]]:
    """Return the series of where the pupil is, (samples, 2), and what there is to say.

    The one that the options name; else the only SpatialSeries with two columns in an EyeTracking, or the only one whose
    name has ``pupil`` in it.

    Raises
    ------
    DatasetError
        If the one that is named is not there, is broken, or has other than two columns.
    """
    every = nwb.find("TimeSeries", under="processing/")
    if options.pupil_center == "":
        return None, ()
    if options.pupil_center is not None:
        found = nwb.at(options.pupil_center, "pupil_center", every, "time series")
        series = series_of(nwb, found)
        if series.columns != 2:
            raise DatasetError(
                f"layout_params sets pupil_center = {options.pupil_center!r}",
                file=nwb.path,
                why=f"it has {series.columns} columns, and a position on the screen has two",
            )
        return series, ()
    eyes = {path: one for path, one in every.items() if "EyeTracking" in _owner(one) and _shape(one)[1:] == (2,)}
    likely = {path: one for path, one in eyes.items() if "pupil" in one.name.lower()}
    found_here = eyes if len(eyes) == 1 else likely
    if len(found_here) != 1:
        listed = ", ".join(eyes)
        return None, (f"the pupil's centre is not used, because it may be any of {listed}",) if eyes else ()
    path, only = next(iter(found_here.items()))
    try:
        return series_of(nwb, only), ()
    except DatasetError as error:
        return None, (f"{path} is not used as the pupil's centre: {error.why}",)


def _owner(found: Any) -> set[str]:
    return kinds(found.parent) if found.parent is not None else set()


def _one_column(found: Any) -> bool:
    shape = _shape(found)
    numeric = getattr(getattr(found.data, "dtype", None), "kind", "") in "fiub"
    return numeric and (len(shape) == 1 or shape[1:] == (1,)) and not kinds(found) & _NO_SAMPLES


def _shape(found: Any) -> tuple[int, ...]:
    return tuple(getattr(found.data, "shape", None) or ())
