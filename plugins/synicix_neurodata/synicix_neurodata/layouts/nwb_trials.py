"""The trials table of an NWB file: tiers and other columns, and which presentations each trial has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb, scalar_columns
from synicix_neurodata.layouts.nwb_options import NwbOptions

__all__ = ["TrialsTable", "find_trials", "invalid_times"]

_TIERS = ("tier", "tiers", "split")

_SLACK = 1e-3
"""Seconds by which a stimulus may start before its trial: clocks of two machines agree no better."""


@dataclass(frozen=True, eq=False)
class TrialsTable:
    """One row per trial.

    Attributes
    ----------
    name : str
        Path of the table.
    start, stop : ndarray of float64, (rows,)
        Seconds.
    tiers : ndarray of str, (rows,), or None
    columns : dict of str to ndarray, (rows,)
        All of its columns that have one value per trial.
    """

    name: str
    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    tiers: NDArray[np.str_] | None
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)

    def rows_at(self, onsets: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the row of the trial in which each time is, the last that began if several are, -1 for none."""
        order = np.argsort(self.start, kind="stable")
        place = np.searchsorted(self.start[order], onsets + _SLACK, side="right") - 1
        rows = order[np.maximum(place, 0)] if len(order) else np.zeros(len(onsets), np.int64)
        within = (place >= 0) & (onsets < self.stop[rows]) if len(order) else np.zeros(len(onsets), bool)
        return np.where(within, rows, -1)


def find_trials(nwb: NwbFile, options: NwbOptions) -> TrialsTable | None:
    """Return the table that the options name, else ``intervals/trials``, else the only one that has tiers, or None.

    Raises
    ------
    DatasetError
        If the table that is named is not there, has no such column of tiers, or times that are not finite.
    """
    held = nwb.find("TimeIntervals")
    if options.trials is not None:
        table = nwb.at(options.trials, "trials", held, "table of intervals") if options.trials else None
    elif nwb.content.trials is not None:
        table = nwb.content.trials
    else:
        with_tiers = [one for one in held.values() if set(one.colnames) & set(_TIERS)]
        table = with_tiers[0] if len(with_tiers) == 1 else None
    if table is None:
        if options.tier_column:
            raise bad_nwb(
                nwb.path,
                f"tier_column = {options.tier_column!r}, and there is no table of trials; "
                f"{nwb.listing(held, 'table of intervals')}",
                "Set trials in layout_params to the path of one." if held else "",
            )
        return None
    return _read(nwb, table, options)


def invalid_times(nwb: NwbFile) -> NDArray[np.float64]:
    """Return the intervals that the file marks as invalid: (intervals, 2), seconds."""
    marked = nwb.content.invalid_times
    if marked is None or not len(marked.id):
        return np.empty((0, 2))
    return np.stack([np.asarray(marked[name].data[:], np.float64) for name in ("start_time", "stop_time")], axis=1)


def _read(nwb: NwbFile, table: Any, options: NwbOptions) -> TrialsTable:
    name = nwb.path_of(table)
    columns = {key: values for key, values in scalar_columns(nwb, table).items() if values.ndim == 1}
    for key in ("start_time", "stop_time"):
        if key not in columns or columns[key].dtype.kind not in "fiu" or not np.isfinite(columns[key]).all():
            raise bad_nwb(nwb.path, f"the column {key} of the table {name} is missing, or has values that are no times")
    tier_column = options.tier_column
    if tier_column is None:
        tier_column = next((key for key in _TIERS if key in columns and columns[key].dtype.kind == "U"), "")
    elif tier_column and tier_column not in columns:
        raise bad_nwb(nwb.path, f"tier_column = {tier_column!r}, and the table {name} has {', '.join(columns)}")
    return TrialsTable(
        name,
        columns["start_time"].astype(np.float64),
        columns["stop_time"].astype(np.float64),
        columns[tier_column].astype(str) if tier_column else None,
        columns,
    )
