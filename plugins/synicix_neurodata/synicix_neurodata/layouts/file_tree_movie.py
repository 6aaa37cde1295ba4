"""Movie file tree: a folder or a zip file, one clip per trial.

Two forms: that of the Sensorium 2023 competition, ``videos`` with time last and filled up with NaN, and that of
``cajal/neuro_data``'s movies converted to folders, ``inputs`` with time before height, and first elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.file_tree import (
    VIDEO_NAMES,
    Arrays,
    checked_header,
    kind_of_tree,
    opened_tree,
    read_trials,
)
from synicix_neurodata.layouts.file_tree_meta import bad_tree, read_noise_ceiling, read_table
from synicix_neurodata.layouts.movie_hdf5 import frame_rate_of
from synicix_neurodata.layouts.npy import NUMBERS, NpyHeader
from synicix_neurodata.layouts.tree_files import TreeFiles, open_tree
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["MOVIE_TREE"]

_NAME = "movie file tree"

_AXES = {
    False: {"stimulus": "(height, width, frames)", "other": "(columns, frames)"},
    True: {"stimulus": "(channels, frames, height, width)", "other": "(frames, columns)"},
}
"""By whether time comes first."""


@dataclass(frozen=True)
class _Source:
    folders: dict[str, str]
    time_first: bool


def _recognises(path: Path) -> bool:
    return kind_of_tree(path) == "movie"


def _describe(path: Path, _options: Mapping[str, Any]) -> Recording:
    with opened_tree(path) as files:
        trials = read_trials(files, VIDEO_NAMES)
        time_first = _is_time_first(trials.parts)
        shapes, frames = _lengths(files, trials.parts, trials.count, time_first)
        neurons, notes = (
            read_table(files, "meta/neurons", shapes["responses"][0]) if "responses" in shapes else ({}, ())
        )
        return Recording(
            path=str(path),
            layout=_NAME,
            shapes=shapes,
            trials=trials.count,
            frames=frames,
            frame_rate=frame_rate_of(frames, trials.columns.get("durations")),
            tiers=trials.tiers,
            stimulus_ids=stimulus_identity(trials.columns),
            columns=trials.columns,
            neurons=neurons,
            noise_ceiling=read_noise_ceiling(files),
            notes=(*trials.notes, *notes),
            source=_Source({part: arrays.folder for part, arrays in trials.parts.items()}, time_first),
        )


def _is_time_first(parts: Mapping[str, Arrays]) -> bool:
    if "stimulus" in parts:
        return parts["stimulus"].name == "inputs"
    return "pupil_center" in parts and parts["pupil_center"].name == "eye_position"


def _lengths(
    files: TreeFiles, parts: Mapping[str, Arrays], count: int, time_first: bool
) -> tuple[dict[str, tuple[int, ...]], NDArray[np.int64]]:
    """Return the shape of each part without time, and the useful frames of each trial."""
    shapes: dict[str, tuple[int, ...]] = {}
    frames = np.empty(count, np.int64)
    for trial in range(count):
        length, useful = 0, []
        for part, arrays in parts.items():
            name = arrays.file(trial)
            header, start = checked_header(files, arrays, trial)
            shape, own_length = _split_shape(files, part, name, header, time_first)
            if shapes.setdefault(part, shape) != shape:
                raise bad_tree(files, f"'{name}' has shape {shape} without time, and that of trial 0 is {shapes[part]}")
            length = length or own_length
            if own_length != length:
                other = next(iter(parts.values())).file(trial)
                raise bad_tree(files, f"'{name}' has {own_length} frames, and '{other}' {length}")
            # Only what is missing from some frame on is padding; a part without any value tells no length.
            if not time_first and (end := _useful(files, name, header, start)) > 0:
                useful.append(end)
        frames[trial] = length if time_first else min(useful, default=0)
    return shapes, frames


def _split_shape(
    files: TreeFiles, part: str, name: str, header: NpyHeader, time_first: bool
) -> tuple[tuple[int, ...], int]:
    """Return the shape without time, as `Recording.shapes` has it, and the frames."""
    shape, stimulus = header.shape, part == "stimulus"
    if len(shape) != (2 if not stimulus else 4 if time_first else 3):
        axes = _AXES[time_first]["stimulus" if stimulus else "other"]
        raise bad_tree(files, f"'{name}' has shape {shape}, expected {axes}")
    if time_first:
        return ((shape[0], *shape[2:]), shape[1]) if stimulus else ((shape[1],), shape[0])
    return ((1, *shape[:-1]) if stimulus else shape[:-1]), shape[-1]


def _useful(files: TreeFiles, name: str, header: NpyHeader, start: bytes) -> int:
    """Return the frames before the padding of NaN, told from the first row of an array whose last axis is time."""
    frames = header.shape[-1]
    if header.dtype.kind != "f":
        return frames
    if header.fortran:
        row = files.mapped(name)[(0,) * (len(header.shape) - 1)]
    else:
        end = header.offset + frames * header.dtype.itemsize
        start = start if end <= len(start) else files.head(name, end)
        row = np.frombuffer(start, header.dtype, frames, header.offset)
    if not np.isnan(row[-1]):
        return frames
    there = np.flatnonzero(~np.isnan(row))
    return int(there[-1]) + 1 if len(there) else 0


class _MovieReader:
    def __init__(self, recording: Recording) -> None:
        self._files = open_tree(recording.path)
        self._source: _Source = recording.source

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        name = f"{self._source.folders[part]}/{trial}.npy"
        values = self._files.mapped(name)
        if values.dtype.kind not in NUMBERS:
            raise ValueError(f"'{name}' holds {values.dtype} values, not numbers")
        if self._source.time_first:
            return np.array(values[:, start:stop] if part == "stimulus" else values[start:stop].T)
        wanted = values[..., start:stop]
        return np.array(np.moveaxis(wanted, -1, 0)[None] if part == "stimulus" else wanted)

    def close(self) -> None:
        self._files.close()


def _open(recording: Recording) -> Reader:
    return _MovieReader(recording)


MOVIE_TREE = Layout(_NAME, _recognises, _describe, _open)
