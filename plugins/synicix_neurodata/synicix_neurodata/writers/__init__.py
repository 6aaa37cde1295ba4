"""Recordings are written trial by trial, in any layout, by writers of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plan", "Writer"]


@dataclass(frozen=True)
class Plan:
    """What is known of a recording before its first trial is written.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Of one trial of each part, without time: stimulus (C, H, W), responses (neurons,), behavior (columns,),
        pupil_center (2,).
    tiers : ndarray of str, (trials,)
        ``train``, ``validation``, ``test``, or other words of the source; all empty where it has none.
    stimulus_ids : ndarray of str or int, (trials,)
        Equal where the same stimulus is shown; with `exact`, empty strings where `columns` tell it or nothing does.
    frames : ndarray of int64, (trials,), or None
        Frames of each trial; None for a static recording.
    frame_rate : float
        Frames per second of a movie; with `exact`, NaN where nothing tells it.
    columns : dict of str to ndarray, (trials,)
        More that has one value per trial.
    neurons : dict of str to ndarray, (neurons, ...)
        ``unit_ids``, ``area``, ``layer``…
    animal, session, scan : int
    dtypes : dict of str to dtype
        Of the parts that are not float32.
    exact : bool
        Whether nothing is written but what is told here, as in a conversion. Otherwise a writer makes up what its layout
        has and nobody told: ids of units, hashes of conditions…
    """

    shapes: Mapping[str, tuple[int, ...]]
    tiers: NDArray[np.str_]
    stimulus_ids: NDArray[Any]
    frames: NDArray[np.int64] | None = None
    frame_rate: float = 30.0
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    neurons: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    animal: int = 0
    session: int = 1
    scan: int = 1
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    exact: bool = False

    @property
    def trials(self) -> int:
        """Trials of the recording."""
        return len(self.tiers)

    def dtype(self, part: str) -> np.dtype[Any]:
        """Return the type in which a part is stored."""
        return np.dtype(self.dtypes.get(part, np.float32))


class Writer(Protocol):
    """Writes one recording to a path that nobody else uses yet; see `synicix_neurodata.writers.placing`.

    Made by ``open_writer(path, plan)``.
    """

    def write(self, first: int, parts: Mapping[str, NDArray[Any]]) -> None:
        """Write successive trials, the first of which is `first`.

        Static recordings: every part (trials, *shape), any number of trials. Movies: one trial, stimulus
        (1, C, T, H, W), every other part (1, columns, T).
        """

    def finish(self, noise_ceiling: Mapping[str, float]) -> None:
        """Write what comes last, the noise ceiling by mode among it (empty where none is known), and close."""

    def abandon(self) -> None:
        """Close what is open; what was written is thrown away by whoever placed it."""
