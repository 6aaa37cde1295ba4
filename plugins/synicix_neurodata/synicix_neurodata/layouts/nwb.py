"""NWB 2 files: images or movies that were shown, and what cells and animal did in a window after each onset.

The format (https://nwb-schema.readthedocs.io) has no place for tiers, nor for responses to a stimulus; docs/recordings.md
tells what is made of a file. pynwb tells what the file holds, when it is described.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.nwb_behavior import find_behavior, find_pupil_center
from synicix_neurodata.layouts.nwb_clock import Times
from synicix_neurodata.layouts.nwb_file import NwbFile, bad_nwb, looks_like_nwb, opened_nwb
from synicix_neurodata.layouts.nwb_options import NWB_OPTIONS, read_options
from synicix_neurodata.layouts.nwb_reader import NwbReader, NwbSource, windows
from synicix_neurodata.layouts.nwb_responses import find_responses
from synicix_neurodata.layouts.nwb_series import Series
from synicix_neurodata.layouts.nwb_spikes import Spikes
from synicix_neurodata.layouts.nwb_stimulus import Stimulus, find_stimulus, shown_pictures
from synicix_neurodata.layouts.nwb_trials import TrialsTable, find_trials, invalid_times
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["CEILING_TABLE", "DELAY", "NWB", "WINDOW"]

_NAME = "NWB"

DELAY, WINDOW = 0.05, 0.5
"""Seconds after the onset of an image at which its window starts, and how long it is, as in the lab's preprocessing."""

CEILING_TABLE = "noise_ceiling"
"""Name of the table in ``scratch`` with the columns ``mode`` and ``correlation``."""

_FRAME_TOLERANCE = 0.01
"""Of a frame: by so much may it come before its trial, or before the end of the trial before."""

_ID_COLUMNS = ("stimulus_id", "stimulus_name", "image_name", "movie_name", "movie_id", "clip_id")


def _describe(path: Path, said: Mapping[str, Any]) -> Recording:
    options = read_options(str(path), said)
    with opened_nwb(path) as nwb:
        stimulus = find_stimulus(nwb, options)
        responses = find_responses(nwb, options)
        behavior, behavior_notes = find_behavior(nwb, options)
        pupil, pupil_notes = find_pupil_center(nwb, options)
        table = find_trials(nwb, options)
        times, pictures = Times(stimulus.clock, nwb.file), shown_pictures(stimulus, nwb.file)
        first, frames, rows, notes = (
            _movie_trials(nwb, stimulus, times, pictures, table)
            if stimulus.movie
            else _image_trials(nwb, times, pictures, table, needed=bool(options.trials or options.tier_column))
        )
        parts: dict[str, Spikes | tuple[Series, ...]] = {"responses": responses.source}
        if behavior:
            parts["behavior"] = behavior
        if pupil is not None:
            parts["pupil_center"] = (pupil,)
        source = NwbSource(
            stimulus,
            first,
            frames,
            options.delay if options.delay is not None else 0.0 if stimulus.movie else DELAY,
            options.window if options.window is not None or stimulus.movie else WINDOW,
            parts,
        )
        source, rows, invalid_notes = _without_invalid(nwb, source, times, rows)
        if not len(source.first):
            raise bad_nwb(nwb.path, f"no trial is left; {'; '.join((*notes, *invalid_notes))}")
        columns, tiers = _columns(table, rows, times[source.first])
        return Recording(
            path=str(path),
            layout=_NAME,
            shapes={"stimulus": stimulus.pictures.shape, **{part: (_width(held),) for part, held in parts.items()}},
            trials=len(source.first),
            frames=source.frames if stimulus.movie else None,
            frame_rate=1 / stimulus.clock.interval if stimulus.movie else None,
            tiers=tiers,
            stimulus_ids=_stimulus_ids(stimulus, source, pictures, columns),
            columns=columns,
            neurons=responses.neurons,
            noise_ceiling=_noise_ceiling(nwb),
            notes=(*responses.notes, *behavior_notes, *pupil_notes, *notes, *invalid_notes),
            taken_from=_taken_from(stimulus, source, table, tiers),
            source=source,
        )


def _taken_from(
    stimulus: Stimulus, source: NwbSource, table: TrialsTable | None, tiers: NDArray[np.str_] | None
) -> dict[str, str]:
    """Tell which of all that a file holds was used."""
    told = {"stimulus": stimulus.name}
    for part, held in source.parts.items():
        paths = [held.data] if isinstance(held, Spikes) else [series.data for series in held]
        told[part] = ", ".join(path.removesuffix("/data") for path in paths)
    if table is not None:
        told["trials"] = table.name + ("" if tiers is None else ", with their tiers")
    if source.window is not None and not stimulus.movie:
        told["window"] = f"from {source.delay:g} s to {source.delay + source.window:g} s after the onset of an image"
    return told


_Cut = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64] | None, list[str]]
"""First presentation of each trial, how many it has, its row in the trials table if that is used, and notes."""


def _image_trials(
    nwb: NwbFile, times: Times, pictures: NDArray[np.int64], table: TrialsTable | None, *, needed: bool
) -> _Cut:
    """Make each presentation a trial; a table that does not fit is an error if it is needed, or if it has tiers."""
    every, blank = np.arange(len(pictures)), pictures < 0
    notes = [f"{blank.sum()} of {len(pictures)} presentations show no picture and are left out"] if blank.any() else []
    shown = every[~blank]
    if table is None:
        return shown, np.ones_like(shown), None, notes
    rows = table.rows_at(times[shown])
    lost = int((rows < 0).sum())
    if lost and len(table.start) in (len(shown), len(pictures)):
        rows = np.arange(len(shown)) if len(table.start) == len(shown) else shown
        notes.append(
            f"the rows of {table.name} are matched to presentations by their order, since their times disagree"
        )
    elif lost and (lost == len(shown) or table.tiers is None):
        told = f"{lost} of {len(shown)} presentations are in none of the {len(table.start)} trials of {table.name}"
        if needed or table.tiers is not None:
            raise bad_nwb(
                nwb.path, told, "Check the times of the table, or name another one as trials in layout_params."
            )
        return shown, np.ones_like(shown), None, [*notes, f"{told}, so its columns are not used"]
    elif lost:
        notes.append(f"{lost} of {len(shown)} presentations are in no trial of {table.name} and left out")
    kept = rows >= 0
    return shown[kept], np.ones_like(shown[kept]), rows[kept], notes


def _movie_trials(
    nwb: NwbFile,
    stimulus: Stimulus,
    times: Times,
    pictures: NDArray[np.int64],
    table: TrialsTable | None,
) -> _Cut:
    """Give each row of the trials table the frames shown in it."""
    if table is None:
        held = nwb.find("TimeIntervals")
        raise bad_nwb(
            nwb.path,
            f"{stimulus.name} is a movie, and there is no table of trials that tells where its clips start and stop; "
            f"{nwb.listing(held, 'table of intervals')}",
            "Set trials in layout_params to the path of one, or kind to 'images' if each picture is a trial.",
        )
    # The rate of a movie is often stored with few digits, so that its frames and the trials drift apart a little.
    first, last = (times.first_from(when, _FRAME_TOLERANCE) for when in (table.start, table.stop))
    # Blank frames have no picture to give; how many come before each frame tells how many are within a trial.
    blanks = np.concatenate([[0], np.cumsum(pictures < 0)])
    empty, blank = last <= first, (blanks[np.maximum(last, first)] > blanks[first])
    notes = [
        f"{count} of {len(first)} trials {why} and are left out"
        for count, why in (
            (int(empty.sum()), f"have no frame of {stimulus.name}"),
            (int(blank.sum()), "have frames without a picture"),
        )
        if count
    ]
    kept = np.flatnonzero(~empty & ~blank)
    return first[kept], (last - first)[kept], kept, notes


def _without_invalid(
    nwb: NwbFile, source: NwbSource, times: Times, rows: NDArray[np.int64] | None
) -> tuple[NwbSource, NDArray[np.int64] | None, list[str]]:
    """Leave out trials that overlap with an interval that the file marks as invalid."""
    invalid = invalid_times(nwb)
    if not len(invalid) or not len(source.first):
        return source, rows, []
    _, stops = windows(source, times, source.first + source.frames - 1)
    starts = times[source.first]
    bad: NDArray[np.bool_] = np.any((starts[:, None] < invalid[:, 1]) & (stops[:, None] > invalid[:, 0]), axis=1)
    if not bad.any():
        return source, rows, []
    kept = NwbSource(
        source.stimulus, source.first[~bad], source.frames[~bad], source.delay, source.window, source.parts
    )
    note = f"{bad.sum()} of {len(bad)} trials are within the file's invalid_times and left out"
    return kept, None if rows is None else rows[~bad], [note]


def _columns(
    table: TrialsTable | None, rows: NDArray[np.int64] | None, onsets: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.str_] | None]:
    if table is None or rows is None:
        return {"start_time": onsets}, None
    columns = {name: values[rows] for name, values in table.columns.items()}
    return columns, None if table.tiers is None else table.tiers[rows]


def _stimulus_ids(
    stimulus: Stimulus, source: NwbSource, pictures: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]
) -> NDArray[np.str_] | None:
    """Return which stimulus each trial showed: told by the index, else by a column of the trials table."""
    if stimulus.index and not stimulus.movie:
        shown = pictures[source.first]
        return np.asarray(stimulus.pictures.names)[shown] if stimulus.pictures.names else shown.astype(str)
    known = stimulus_identity(columns)
    if known is not None:
        return known
    named = next((columns[name] for name in _ID_COLUMNS if name in columns), None)
    if named is not None:
        return np.asarray(named.astype(str))
    if not stimulus.index:
        return None
    # The same pictures in the same order are the same movie.
    orders = [
        pictures[first : first + frames].tobytes() for first, frames in zip(source.first, source.frames, strict=True)
    ]
    numbers = {order: number for number, order in enumerate(dict.fromkeys(orders))}
    return np.array([str(numbers[order]) for order in orders])


def _noise_ceiling(nwb: NwbFile) -> dict[str, float]:
    table = (nwb.content.scratch or {}).get(CEILING_TABLE)
    if table is None or not {"mode", "correlation"} <= set(getattr(table, "colnames", ())):
        return {}
    stated = {
        str(mode): float(value)
        for mode, value in zip(table["mode"].data[:], table["correlation"].data[:], strict=True)
        if np.isfinite(value)
    }
    for mode, ceiling in stated.items():
        if not 0 < ceiling <= 1:
            raise bad_nwb(nwb.path, f"the noise ceiling for {mode} is {ceiling}, expected 0 < ceiling <= 1")
    return stated


def _width(held: Spikes | tuple[Series, ...]) -> int:
    return held.columns if isinstance(held, Spikes) else sum(series.columns for series in held)


def _open(recording: Recording) -> Reader:
    return NwbReader(recording.path, recording.source)


NWB = Layout(_NAME, looks_like_nwb, _describe, _open, NWB_OPTIONS)
