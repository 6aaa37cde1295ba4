"""What one recording holds, whatever its layout: a description that fits into memory, and how its arrays are reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["PARTS", "ClipReader", "Layout", "Reader", "Recording", "TrialReader"]

PARTS = ("stimulus", "responses", "behavior", "pupil_center")
"""The arrays that a dataset is made of, under these names in every layout."""


@dataclass(frozen=True)
class Recording:
    """A recording as it was when it was described. Two are equal where path, state and options are.

    A *static* recording has one image and one response of each neuron in a trial; a *movie* recording has frames.

    Attributes
    ----------
    path : str
        The file or folder.
    layout : str
        Name of its `Layout`.
    shapes : dict of str to tuple of int
        Shape of one trial of each part that there is, without the axis of time: stimulus (C, H, W), responses
        (neurons,), behavior (columns,), pupil_center (2,).
    trials : int
        How many there are.
    identity : tuple of int
        Changes when the file or folder does.
    options : str
        What the user said about the layout, as canonical JSON.
    frames : ndarray of int64, (trials,), or None
        Frames of each trial that hold data, padding at the end not counted; None for a static recording.
    frame_rate : float or None
        Frames per second, where it is known.
    tiers : ndarray of str, (trials,), or None
        Tier of each trial in the words of the file; None where it has none.
    stimulus_ids : ndarray of str, (trials,), or None
        Equal where the same stimulus was shown; None where the file does not tell.
    columns : dict of str to ndarray, (trials,)
        Everything else that has one value per trial.
    neurons : dict of str to ndarray, (neurons, ...)
        What is known of each neuron: ``unit_ids``, ``area``, ``layer``…
    noise_ceiling : dict of str to float
        Highest mean single-trial correlation that a model can reach on the test tier, by mode; empty where the file
        does not state it.
    notes : tuple of str
        What a user should know about how the file was understood.
    taken_from : dict of str to str
        Where in the file parts, tiers and the like were found, for layouts that leave it open.
    source : Any
        What the layout's reader needs to know; can be pickled.
    """

    path: str
    layout: str
    shapes: dict[str, tuple[int, ...]] = field(compare=False)
    trials: int = field(compare=False)
    identity: tuple[int, ...] = ()
    options: str = "{}"
    frames: NDArray[np.int64] | None = field(compare=False, default=None)
    frame_rate: float | None = field(compare=False, default=None)
    tiers: NDArray[np.str_] | None = field(compare=False, default=None)
    stimulus_ids: NDArray[np.str_] | None = field(compare=False, default=None)
    columns: dict[str, NDArray[Any]] = field(compare=False, default_factory=dict)
    neurons: dict[str, NDArray[Any]] = field(compare=False, default_factory=dict)
    noise_ceiling: dict[str, float] = field(compare=False, default_factory=dict)
    notes: tuple[str, ...] = field(compare=False, default=())
    taken_from: dict[str, str] = field(compare=False, default_factory=dict)
    source: Any = field(compare=False, default=None)

    @property
    def is_movie(self) -> bool:
        """Whether trials have frames."""
        return self.frames is not None

    def file_tiers(self) -> dict[str, int]:
        """Return how many trials each tier of the file has, in the file's words; empty where it has none."""
        if self.tiers is None:
            return {}
        names, counts = np.unique(self.tiers, return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    def contents(self) -> str:
        """Say in one line what the recording holds, for messages."""
        parts = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items()) or "nothing"
        told = f"the recording ({self.layout}) holds {self.trials} trials with, in each, {parts}"
        if self.frames is not None and len(self.frames):
            least, most = int(self.frames.min()), int(self.frames.max())
            told += f", {least} frames" if least == most else f", {least} to {most} frames"
        if self.tiers is None:
            return f"{told}; it has no tiers"
        return f"{told}; its tiers are " + ", ".join(f"{name} {count}" for name, count in self.file_tiers().items())


class TrialReader(Protocol):
    """Reads the arrays of a static recording; kept open, used by one thread only. It may raise any exception."""

    def trials(self, part: str, trials: NDArray[np.intp]) -> NDArray[Any]:
        """Return a part of trials that are sorted and unique: (len(trials), *shape)."""

    def close(self) -> None:
        """Close the file."""


class ClipReader(Protocol):
    """The same for a movie recording."""

    def clip(self, part: str, trial: int, start: int, stop: int) -> NDArray[Any]:
        """Return frames start to stop of a trial: stimulus (C, frames, H, W), every other part (columns, frames)."""

    def close(self) -> None:
        """Close the file."""


Reader = TrialReader | ClipReader


@dataclass(frozen=True)
class Layout:
    """One way to lay a recording out in files.

    Attributes
    ----------
    name : str
        As users read it.
    recognises : callable
        Whether a file or folder has this layout, by a look at its content; never raises for what exists.
    describe : callable
        ``(path, options) -> Recording``, its `identity` and `options` left out; raises DatasetError for what is wrong with it.
    open : callable
        ``(recording) -> Reader``: a `TrialReader` of a static recording, a `ClipReader` of movies.
    options : tuple of str
        What a user may set for it (`layout_params` of the dataset).
    """

    name: str
    recognises: Callable[[Path], bool]
    describe: Callable[[Path, Mapping[str, Any]], Recording]
    open: Callable[[Recording], Reader]
    options: tuple[str, ...] = ()
