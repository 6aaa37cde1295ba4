"""NeuroDataDataset: one tier of one recording as pairs of input and target."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from synicix_core.errors import DatasetError
from synicix_neurodata.recording import (
    PARTS,
    Recording,
    describe_recording,
    h5_file,
    read_column,
    read_rows,
    unreadable,
)
from synicix_neurodata.statistics import Normalization, normalization, summarise

__all__ = ["NeuroDataDataset"]

Mode = Literal["stimulus-encoding", "full-encoding", "behavior-encoding", "decoding"]
Inputs = Tensor | dict[str, Tensor]

_TIERS = ("train", "validation", "test")

_INPUTS: dict[str, dict[str, str]] = {
    "stimulus-encoding": {"stimulus": "images"},
    "full-encoding": {"stimulus": "images", "behavior": "behavior", "pupil_center": "pupil_center"},
    "behavior-encoding": {"behavior": "behavior", "pupil_center": "pupil_center"},
    "decoding": {"responses": "responses"},
}
"""Name of each input and the part of the file it comes from; a single input is passed without its name."""

_TARGET = {"decoding": "images"}


class NeuroDataDataset(Dataset[tuple[Inputs, Tensor]]):
    """One tier of a recording in the static HDF5 layout, as ``(input, target)`` in float32.

    ===================== ================================================== ====================
    mode                  input                                              target
    ===================== ================================================== ====================
    ``stimulus-encoding`` images (C, H, W)                                   responses (neurons,)
    ``full-encoding``     {stimulus, behavior (k,), pupil_center (2,)}       responses (neurons,)
    ``behavior-encoding`` {behavior (k,), pupil_center (2,)}                 responses (neurons,)
    ``decoding``          responses (neurons,)                               images (C, H, W)
    ===================== ================================================== ====================

    The file is opened once in each process, when the first example is asked for, and never written to. Items are in the
    order of the file.

    Parameters
    ----------
    path : str
        The recording.
    tier : {"train", "validation", "test"}
        Which trials; further tiers of a file are never used.
    mode : str
        What is predicted from what.
    normalize : bool or tuple of str
        Which parts are normalised with statistics of the training tier (`synicix_neurodata.statistics.normalization`):
        all, none, or those named of ``images``, ``responses``, ``behavior`` and ``pupil_center``.
    memory_limit_mb : int
        A tier whose tensors take at most so many MiB is read once and kept in memory; a larger one is read batch by
        batch. Changes speed only.

    Attributes
    ----------
    input_shape : tuple of int, or dict of str to tuple of int
    output_shape : tuple of int
    notes : tuple of str
        What a user should know: why the test tier is empty. Each is also given as a warning.

    Raises
    ------
    DatasetError
        If the file is not a static recording, lacks what the mode needs, has no trials for training or validation, or
        holds values that are not finite in the trials that are used. A test tier whose responses are absent or all zero
        (withheld, as competitions do) is empty instead, with a note: such a recording trains, and has no test score.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tier: str,
        *,
        mode: Mode = "stimulus-encoding",
        normalize: bool | tuple[str, ...] = True,
        memory_limit_mb: int = 512,
    ) -> None:
        self.path = os.fspath(path)
        self.tier = tier
        self.mode = mode
        self._recording = describe_recording(self.path)
        self._inputs, self._target = _parts(self._recording, mode)
        self._used = (*self._inputs.values(), self._target)
        self._rows, self.notes = _usable_rows(self._recording, tier, self._used)
        named = _normalized_parts(self._recording, normalize)
        self._normalize: dict[str, Normalization] = {
            part: normalization(self._recording, part) for part in self._used if part in named
        }
        per_trial = sum(int(np.prod(self._recording.shapes[part])) for part in set(self._used))
        self._fits = len(self._rows) * per_trial * 4 <= memory_limit_mb * 2**20
        self._kept: tuple[Inputs, Tensor] | None = None
        self._file: h5py.File | None = None
        self._file_process = 0

        shapes = self._recording.shapes
        self.input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] = (
            shapes[next(iter(self._inputs.values()))]
            if len(self._inputs) == 1
            else {name: shapes[part] for name, part in self._inputs.items()}
        )
        self.output_shape = shapes[self._target]
        for note in self.notes:
            warnings.warn(f"{self.path}: {note}", stacklevel=2)

    def __len__(self) -> int:
        """Return the number of trials of the tier."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Inputs, Tensor]:
        """Return one trial."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Inputs, Tensor]]:
        """Return several trials with one access to the file for each part."""
        inputs, targets = self._batch(np.asarray(indices, dtype=np.intp))
        if isinstance(inputs, dict):
            return [({name: part[i] for name, part in inputs.items()}, targets[i]) for i in range(len(targets))]
        return [(inputs[i], targets[i]) for i in range(len(targets))]

    def tensors(self) -> tuple[Inputs, Tensor]:
        """Return the inputs and the targets of the whole tier, first axis trials, equal to the items."""
        return self._batch(np.arange(len(self._rows)))

    def column(self, name: str) -> NDArray[Any]:
        """Return one value per trial of the tier: ``trial_idx``, ``types``, a name in ``/item_info``…

        Raises
        ------
        DatasetError
            If the file has no such column; it lists those there are.
        """
        return read_column(self._recording, name)[self._rows]

    def get_additional_model_params(self) -> dict[str, Any]:
        """Return what a model, or a reader of the config, may want to know beside the shapes.

        Returns
        -------
        dict
            ``nonnegative_output``: whether no target of the training tier is negative after normalisation.
            ``normalization``: ``{part: {"subtract": …, "divide": …}}``, numbers for images, else float32 arrays
            (columns,); parts that are not normalised are missing. ``noise_ceiling``, where the file states it:
            ``{"correlation": the highest mean single-trial correlation on the test tier}``.
        """
        # Images are centred and responses never are, but raw fluorescence can be negative as it is.
        lowest = float(summarise(self._recording, self._target, "train").minimum.min())
        centred = self._target in self._normalize and bool(self._normalize[self._target].subtract.any())
        params: dict[str, Any] = {
            "nonnegative_output": lowest >= 0 and not centred,
            "normalization": {
                part: {"subtract": _own_copy(applied.subtract), "divide": _own_copy(applied.divide)}
                for part, applied in self._normalize.items()
            },
        }
        if self.mode in self._recording.noise_ceiling:
            params["noise_ceiling"] = {"correlation": self._recording.noise_ceiling[self.mode]}
        return params

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file and what was read of it out, so that the dataset can be sent to worker processes."""
        return {**self.__dict__, "_kept": None, "_file": None, "_file_process": 0}

    def _batch(self, indices: NDArray[np.intp]) -> tuple[Inputs, Tensor]:
        if not self._fits:
            return self._read(self._rows[indices])
        if self._kept is None:
            self._kept = self._read(self._rows)
        inputs, targets = self._kept
        chosen = torch.from_numpy(indices)
        if isinstance(inputs, dict):
            return {name: part[chosen] for name, part in inputs.items()}, targets[chosen]
        return inputs[chosen], targets[chosen]

    def _read(self, rows: NDArray[np.intp]) -> tuple[Inputs, Tensor]:
        try:
            file = self._open()
            parts = {part: self._tensor(part, read_rows(file[part], rows)) for part in dict.fromkeys(self._used)}
        except OSError as error:
            raise unreadable(self.path, error) from error
        named = {name: parts[part] for name, part in self._inputs.items()}
        return named if len(named) > 1 else next(iter(named.values())), parts[self._target]

    def _tensor(self, part: str, values: NDArray[Any]) -> Tensor:
        normalized = self._normalize[part](values) if part in self._normalize else values.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(normalized))

    def _open(self) -> h5py.File:
        # A handle that came along through a fork shares its file offset with the parent: every process has its own.
        if self._file is None or self._file_process != os.getpid():
            self._file = h5_file(self.path)
            self._file_process = os.getpid()
        return self._file


def _own_copy(values: NDArray[np.float32]) -> NDArray[np.float32] | float:
    return values.copy() if values.ndim else float(values)


def _parts(recording: Recording, mode: str) -> tuple[dict[str, str], str]:
    if mode not in _INPUTS:
        raise DatasetError(
            f"There is no mode {mode!r}",
            file=recording.path,
            why=f"the modes are {', '.join(_INPUTS)}; {recording.contents()}",
        )
    inputs, target = _INPUTS[mode], _TARGET.get(mode, "responses")
    missing = [part for part in (*inputs.values(), target) if part not in recording.shapes]
    if missing:
        held = [name for name in _INPUTS if _needs(name) <= set(recording.shapes)]
        raise DatasetError(
            f"The recording cannot be used for {mode}",
            file=recording.path,
            why=f"it has no {' and no '.join(missing)}; {recording.contents()}",
            hint=f"It can be used with mode {' or '.join(held)}."
            if held
            else "docs/neurodata.md describes the layout.",
        )
    return inputs, target


def _needs(mode: str) -> set[str]:
    return {*_INPUTS[mode].values(), _TARGET.get(mode, "responses")}


def _normalized_parts(recording: Recording, normalize: bool | Sequence[str]) -> Sequence[str]:
    if isinstance(normalize, bool):
        return tuple(PARTS) if normalize else ()
    unknown = [part for part in normalize if part not in PARTS]
    if unknown or isinstance(normalize, str):
        raise DatasetError(
            f"normalize = {normalize!r} is not understood",
            file=recording.path,
            why=f"it is true, false, or a list of the parts {', '.join(PARTS)}",
        )
    return normalize


def _usable_rows(recording: Recording, tier: str, used: Sequence[str]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the trials of a tier after every check on them and on the training tier, and what there is to say."""
    if tier not in _TIERS:
        raise DatasetError(
            f"There is no tier {tier!r}",
            file=recording.path,
            why=f"the tiers of a dataset are {', '.join(_TIERS)}; {recording.contents()}",
        )
    for needed in dict.fromkeys(("train", tier)):
        _check_tier(recording, needed, used)
    rows = recording.rows(tier)
    if not len(rows):
        return rows, ("there are no trials in the test tier, so there is no test score",)
    if tier == "test" and _withheld(recording, tier):
        return rows[:0], (
            f"the responses of all {len(rows)} trials of the test tier are zero (withheld), so it is left out and there "
            "is no test score",
        )
    return rows, ()


def _check_tier(recording: Recording, tier: str, used: Sequence[str]) -> None:
    sizes = recording.tier_sizes()
    least = {"train": 2, "validation": 1, "test": 0}[tier]
    if sizes.get(tier, 0) < least:
        raise DatasetError(
            f"The {tier} tier has too few trials",
            file=recording.path,
            why=f"it has {sizes.get(tier, 0)} and needs at least {least}; {recording.contents()}",
        )
    for part in used:
        broken = summarise(recording, part, tier).broken_trials
        if broken:
            listed = ", ".join(str(row) for row in broken[:5]) + (", …" if len(broken) > 5 else "")
            raise DatasetError(
                f"The {part} hold values that are not finite",
                file=recording.path,
                why=f"in {len(broken)} of {sizes[tier]} trials of the {tier} tier (rows {listed} of '{part}')",
                hint="Take these trials out of the file, or fill the gaps, before it is used.",
            )
    if tier == "validation" and _withheld(recording, tier):
        raise DatasetError(
            "The validation tier cannot be used",
            file=recording.path,
            why=f"the responses of all its {sizes[tier]} trials are zero",
        )


def _withheld(recording: Recording, tier: str) -> bool:
    summary = summarise(recording, "responses", tier)
    return not (summary.minimum.any() or summary.maximum.any())
