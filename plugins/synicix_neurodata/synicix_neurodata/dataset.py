"""NeuroDataDataset: one tier of one recording as pairs of input and target."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from synicix_core.errors import DatasetError
from synicix_neurodata.access import Access
from synicix_neurodata.clips import Clips, cut_clips
from synicix_neurodata.examples import Examples
from synicix_neurodata.identity import stimulus_ids
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.neurons import select_neurons
from synicix_neurodata.recording import PARTS, Recording
from synicix_neurodata.statistics import Normalization, normalization, summarise
from synicix_neurodata.tiers import Split, assign_tiers
from synicix_neurodata.usable import check_responses_vary, negative_responses, parts_of_mode, usable_rows

__all__ = ["NeuroDataDataset"]

Mode = Literal["stimulus-encoding", "full-encoding", "behavior-encoding", "decoding"]
Inputs = Tensor | dict[str, Tensor]


class NeuroDataDataset(Dataset[tuple[Inputs, Tensor]]):
    """One tier of a recording of any layout, as ``(input, target)`` in float32.

    ===================== ================================================== ====================
    mode                  input                                              target
    ===================== ================================================== ====================
    ``stimulus-encoding`` stimulus (C, H, W)                                 responses (neurons,)
    ``full-encoding``     {stimulus, behavior (k,), pupil_center (2,)}       responses (neurons,)
    ``behavior-encoding`` {behavior (k,), pupil_center (2,)}                 responses (neurons,)
    ``decoding``          responses (neurons,)                               stimulus (C, H, W)
    ===================== ================================================== ====================

    In a recording of movies every one of them has an axis of time, T = `clip_frames`: stimulus (C, T, H, W), responses
    (neurons, T), behavior (k, T), pupil_center (2, T).

    The file is opened once in each process, when the first example is asked for, and never written to. Items are in the
    order of the file, clips of a movie by trial and then by time.

    Parameters
    ----------
    path : str
        The recording, a file or a folder.
    tier : {"train", "validation", "test"}
        Which trials; see `synicix_neurodata.tiers.assign_tiers`.
    mode : str
        What is predicted from what.
    normalize : bool or tuple of str
        Which parts are normalised with statistics of the training tier (`synicix_neurodata.statistics.normalization`):
        all, none, or those named of ``stimulus``, ``responses``, ``behavior`` and ``pupil_center``.
    stimulus_scale : float
        Factor on height and width of the stimulus, 0 < factor <= 1; pixels are averaged over the area they cover.
    areas, layers : tuple of str
        Only neurons of these areas, of these layers; empty for all.
    unit_ids : tuple of int
        Only these neurons; empty for all.
    max_neurons : int, optional
        So many neurons are drawn of those.
    neuron_seed : int
        Of that draw.
    test_tiers : tuple of str
        Which tiers of the file are the test tier; empty for all ordinary ones.
    stimulus_id : str
        Column that tells which stimulus a trial showed; empty where the file tells by itself.
    validation_fraction, test_fraction : float
        Of the stimuli, for a file without tiers; at least 0, together less than 1.
    split_seed : int
        Of that draw.
    clip_frames : int, optional
        Frames of an example of a movie; None for whole trials.
    clip_stride : int, optional
        Frames from the start of one clip to that of the next in the training tier; None for clips one after another, as
        in the other tiers.
    drop_missing : bool
        Whether trials with values that are not finite are left out; otherwise they are an error.
    layout_params : dict, optional
        What the layout lets a user say: paths in an NWB file, windows of time…; docs/recordings.md lists them.
    memory_limit_mb : int
        A tier whose tensors take at most so many MiB is read once and kept in memory; a larger one is read batch by
        batch. Changes speed only.

    Attributes
    ----------
    input_shape : tuple of int, or dict of str to tuple of int
    output_shape : tuple of int
    notes : tuple of str
        What a user should know: how tiers were told (with the training tier), why the test tier is empty, what was left
        out. Each is also given as a warning.

    Raises
    ------
    DatasetError
        If the recording has no layout that is known, lacks what the mode needs, has no trials for training or
        validation, or holds values that are not finite in the trials that are used, or a parameter makes no sense. A
        test tier whose responses are absent or all zero (withheld, as competitions do) is empty instead, with a note:
        such a recording trains, and has no test score.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tier: str,
        *,
        mode: Mode = "stimulus-encoding",
        normalize: bool | tuple[str, ...] = True,
        stimulus_scale: float = 1.0,
        areas: tuple[str, ...] = (),
        layers: tuple[str, ...] = (),
        unit_ids: tuple[int, ...] = (),
        max_neurons: int | None = None,
        neuron_seed: int = 0,
        test_tiers: tuple[str, ...] = (),
        stimulus_id: str = "",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        clip_frames: int | None = None,
        clip_stride: int | None = None,
        drop_missing: bool = False,
        layout_params: dict[str, Any] | None = None,
        memory_limit_mb: int = 512,
    ) -> None:
        self.path = os.fspath(path)
        self.tier = tier
        self.mode = mode
        recording = self._recording = describe_recording(self.path, layout_params)
        if not 0 < stimulus_scale <= 1:
            raise DatasetError(
                f"stimulus_scale is {stimulus_scale}", file=self.path, why="it is a factor above 0 and at most 1"
            )
        self._inputs, self._target = parts_of_mode(recording, mode)
        self._used = (*self._inputs.values(), self._target)
        neurons = select_neurons(
            recording, areas=areas, layers=layers, unit_ids=unit_ids, max_neurons=max_neurons, seed=neuron_seed
        )
        self._split = Split(tuple(test_tiers), stimulus_id, validation_fraction, test_fraction, split_seed)
        tiers = assign_tiers(recording, self._split)
        rows, broken_notes = usable_rows(recording, tiers, tier, self._used, drop_missing=drop_missing)
        # What is true of every tier is said once, by the one that everybody builds.
        negative = negative_responses(recording, rows["train"], neurons) if self._target == "responses" else ()
        told = {"train": (*recording.notes, *tiers.notes, *negative), "test": tiers.test_notes}
        self.notes: tuple[str, ...] = (*told.get(tier, ()), *broken_notes)
        self._train_rows = rows["train"]
        check_responses_vary(recording, self._train_rows, neurons)
        clips: Clips | None = None
        if recording.is_movie:
            every = np.concatenate(list(rows.values()))
            stride = clip_stride if tier == "train" else None
            clips = cut_clips(recording, rows[tier], clip_frames, stride, of_all_tiers=every)
            self.notes = (*self.notes, *clips.notes)
        elif clip_frames is not None or clip_stride is not None:
            raise DatasetError(
                "clip_frames and clip_stride are for movies", file=self.path, why=f"{recording.contents()}"
            )
        self._normalize: dict[str, Normalization] = {
            part: normalization(recording, part, self._train_rows, stimulus_scale).of(
                neurons if part == "responses" else None
            )
            for part in self._used
            if part in _normalized_parts(recording, normalize)
        }
        self._examples = Examples(
            Access(recording, stimulus_scale),
            rows[tier] if clips is None else clips.trial,
            clips,
            neurons,
            self._normalize,
        )
        shapes = {part: self._examples.shape(part) for part in self._used}
        per_example = sum(int(np.prod(shape)) for shape in shapes.values())
        self._fits = len(self) * per_example * 4 <= memory_limit_mb * 2**20
        self._kept: tuple[Inputs, Tensor] | None = None
        self.input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] = (
            shapes[next(iter(self._inputs.values()))]
            if len(self._inputs) == 1
            else {name: shapes[part] for name, part in self._inputs.items()}
        )
        self.output_shape = shapes[self._target]
        for note in self.notes:
            warnings.warn(f"{self.path}: {note}", stacklevel=2)

    def __len__(self) -> int:
        """Return the number of trials of the tier, or of clips."""
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Inputs, Tensor]:
        """Return one trial or clip."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Inputs, Tensor]]:
        """Return several trials or clips with one access to the file for each part."""
        inputs, targets = self._batch(np.asarray(indices, dtype=np.intp))
        if isinstance(inputs, dict):
            return [({name: part[i] for name, part in inputs.items()}, targets[i]) for i in range(len(targets))]
        return [(inputs[i], targets[i]) for i in range(len(targets))]

    def tensors(self) -> tuple[Inputs, Tensor]:
        """Return the inputs and the targets of the whole tier, first axis trials or clips, equal to the items."""
        return self._batch(np.arange(len(self)))

    def column(self, name: str) -> NDArray[Any]:
        """Return one value per item.

        Parameters
        ----------
        name : str
            ``stimulus_id``: equal where the same stimulus was shown, and for clips the same part of it. ``trial``: the
            row in the recording. ``start_frame``: the first frame of a clip. Or a column of the recording.

        Raises
        ------
        DatasetError
            If there is no such column; it lists those there are.
        """
        rows, clips = self._examples.rows, self._examples.clips
        if name == "stimulus_id":
            ids = stimulus_ids(self._recording, self._split.stimulus_id)[rows]
            return ids if clips is None else np.char.add(np.char.add(ids, "@"), clips.start.astype(str))
        if name == "trial":
            return rows.copy()
        if name == "start_frame" and clips is not None:
            return clips.start.copy()
        if name not in self._recording.columns:
            own = ["stimulus_id", "trial", *(["start_frame"] if clips is not None else [])]
            raise DatasetError(
                f"There is no column {name!r}",
                file=self.path,
                why=f"the columns are {', '.join([*own, *sorted(self._recording.columns)])}",
            )
        return self._recording.columns[name][rows]

    def get_additional_model_params(self) -> dict[str, Any]:
        """Return what a model, or a reader of the config, may want to know beside the shapes.

        Returns
        -------
        dict
            ``nonnegative_output``: whether no target of the training tier is negative after normalisation.
            ``normalization``: ``{part: {"subtract": …, "divide": …}}``, numbers for the stimulus, else float32 arrays
            (columns,); parts that are not normalised are missing. ``stimulus_scale``: as set. ``neurons``: which rows of
            the recording's responses are used, int64 (neurons,), missing where all are; ``unit_ids``, int64 (neurons,),
            where the file tells them. ``noise_ceiling``, where the file states it, all neurons are used and no
            `test_tiers` are named: by metric (``single_trial_correlation``, and of images ``correlation``), the highest
            mean on the test tier.
        """
        neurons, scale = self._examples.neurons, self._examples.access.stimulus_scale
        # The stimulus is centred and responses never are, but raw fluorescence can be negative as it is.
        minimum = summarise(self._recording, self._target, self._train_rows, scale).minimum
        if self._target == "responses" and neurons is not None:
            minimum = minimum[neurons]
        centred = self._target in self._normalize and bool(self._normalize[self._target].subtract.any())
        params: dict[str, Any] = {
            "nonnegative_output": float(minimum.min()) >= 0 and not centred,
            "normalization": {
                part: {"subtract": _own_copy(applied.subtract), "divide": _own_copy(applied.divide)}
                for part, applied in self._normalize.items()
            },
            "stimulus_scale": float(scale),
        }
        if neurons is not None:
            params["neurons"] = neurons.astype(np.int64)
        units = self._recording.neurons.get("unit_ids")
        if "responses" in self._used and units is not None and units.dtype.kind in "iu" and units.ndim == 1:
            params["unit_ids"] = (units if neurons is None else units[neurons]).astype(np.int64)
        # Of other test tiers the file says nothing.
        if self.mode in self._recording.noise_ceiling and neurons is None and not self._split.test_tiers:
            # The core's correlation treats each frame of a movie as a unit of its own.
            names = ["single_trial_correlation", *([] if self._recording.is_movie else ["correlation"])]
            params["noise_ceiling"] = dict.fromkeys(names, self._recording.noise_ceiling[self.mode])
        return params

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was read out, so that the dataset can be sent to worker processes."""
        return {**self.__dict__, "_kept": None}

    def _batch(self, indices: NDArray[np.intp]) -> tuple[Inputs, Tensor]:
        if not self._fits:
            return self._read(indices)
        kept = self._kept
        if kept is None:
            kept = self._kept = self._read(np.arange(len(self)))
            self._examples.access.close()
        inputs, targets = kept
        chosen = torch.from_numpy(indices)
        if isinstance(inputs, dict):
            return {name: part[chosen] for name, part in inputs.items()}, targets[chosen]
        return inputs[chosen], targets[chosen]

    def _read(self, indices: NDArray[np.intp]) -> tuple[Inputs, Tensor]:
        indices = np.arange(len(self))[indices]  # negative ones count from the end; others are an IndexError
        parts = {part: self._examples.read(part, indices) for part in dict.fromkeys(self._used)}
        named = {name: parts[part] for name, part in self._inputs.items()}
        return named if len(named) > 1 else next(iter(named.values())), parts[self._target]


def _own_copy(values: NDArray[np.float32]) -> NDArray[np.float32] | float:
    return values.copy() if values.ndim else float(values)


def _normalized_parts(recording: Recording, normalize: bool | Sequence[str]) -> Sequence[str]:
    if isinstance(normalize, bool):
        return PARTS if normalize else ()
    unknown = [part for part in normalize if part not in PARTS]
    if unknown or isinstance(normalize, str):
        raise DatasetError(
            f"normalize = {normalize!r} is not understood",
            file=recording.path,
            why=f"it is true, false, or a list of the parts {', '.join(PARTS)}",
        )
    return normalize
