"""Static file tree: a folder or a zip file, one image per trial.

The layout is that of the Sensorium 2022 competition and of neuralpredictors' ``FileTreeDataset``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.file_tree import (
    STATIC_NAMES,
    Arrays,
    checked_header,
    kind_of_tree,
    opened_tree,
    read_trials,
)
from synicix_neurodata.layouts.file_tree_meta import bad_tree, read_noise_ceiling, read_table
from synicix_neurodata.layouts.npy import NUMBERS, array_of
from synicix_neurodata.layouts.tree_files import TreeFiles, open_tree
from synicix_neurodata.layouts.trial_columns import stimulus_identity
from synicix_neurodata.recording import Layout, Reader, Recording

__all__ = ["STATIC_TREE"]

_NAME = "static file tree"


def _recognises(path: Path) -> bool:
    return kind_of_tree(path) == "static"


def _describe(path: Path, _options: Mapping[str, Any]) -> Recording:
    with opened_tree(path) as files:
        trials = read_trials(files, STATIC_NAMES)
        shapes = {part: _shape(files, part, arrays) for part, arrays in trials.parts.items()}
        neurons, notes = (
            read_table(files, "meta/neurons", shapes["responses"][0]) if "responses" in shapes else ({}, ())
        )
        return Recording(
            path=str(path),
            layout=_NAME,
            shapes=shapes,
            trials=trials.count,
            tiers=trials.tiers,
            stimulus_ids=stimulus_identity(trials.columns),
            columns=trials.columns,
            neurons=neurons,
            noise_ceiling=read_noise_ceiling(files),
            notes=(*trials.notes, *notes),
            source={part: arrays.folder for part, arrays in trials.parts.items()},
        )


def _shape(files: TreeFiles, part: str, arrays: Arrays) -> tuple[int, ...]:
    """Return the shape of the first trial, and look at every other one whose file has another size."""
    first = _shape_of(files, part, arrays, 0)
    for trial, size in enumerate(arrays.sizes):
        if size != arrays.sizes[0] and (shape := _shape_of(files, part, arrays, trial)) != first:
            raise bad_tree(files, f"'{arrays.file(trial)}' has shape {shape}, and that of trial 0 is {first}")
    return first


def _shape_of(files: TreeFiles, part: str, arrays: Arrays, trial: int) -> tuple[int, ...]:
    shape = checked_header(files, arrays, trial)[0].shape
    if part == "stimulus" and len(shape) == 2:
        return 1, *shape
    if len(shape) != (3 if part == "stimulus" else 1):
        axes = "(channels, height, width)" if part == "stimulus" else "(columns,)"
        raise bad_tree(files, f"'{arrays.file(trial)}' has shape {shape}, expected {axes}")
    return shape


class _StaticReader:
    def __init__(self, recording: Recording) -> None:
        self._files = open_tree(recording.path)
        self._shapes = recording.shapes
        self._folders: dict[str, str] = recording.source

    def trials(self, part: str, trials: NDArray[np.intp]) -> NDArray[Any]:
        if not len(trials):
            return np.empty((0, *self._shapes[part]), np.float32)
        return np.stack([self._array(part, int(trial)) for trial in trials])

    def close(self) -> None:
        self._files.close()

    def _array(self, part: str, trial: int) -> NDArray[Any]:
        name = f"{self._folders[part]}/{trial}.npy"
        values, shape = array_of(name, self._files.read(name)), self._shapes[part]
        # A grey image may have no axis of channels.
        if values.shape == shape[1:] and part == "stimulus":
            values = values[None]
        # At a description files of one size share the header of the first, and complex numbers may have its size.
        if values.dtype.kind not in NUMBERS:
            raise ValueError(f"'{name}' holds {values.dtype} values, not numbers")
        if values.shape != shape:
            raise ValueError(f"'{name}' has shape {values.shape}, and by trial 0 it should be {shape}")
        return values


def _open(recording: Recording) -> Reader:
    return _StaticReader(recording)


STATIC_TREE = Layout(_NAME, _recognises, _describe, _open)
