"""What is in a recording: shapes, tiers, neurons, repeats, gaps, how reliable the responses are, what it can be used for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.access import Access, watched
from synicix_neurodata.dataset import Mode
from synicix_neurodata.identity import stimulus_ids
from synicix_neurodata.layouts import describe_recording
from synicix_neurodata.modes import ModeUse, mode_use
from synicix_neurodata.part_values import PartValues, read_values
from synicix_neurodata.recording import Recording
from synicix_neurodata.reliability import Reliability, measure_reliability
from synicix_neurodata.tiers import Split, Tiers, assign_tiers
from synicix_neurodata.usable import MODES

__all__ = ["Inspection", "Part", "bytes_to_read", "inspect_recording"]

_TIERS = ("train", "validation", "test")

_SUGGESTED_FRAMES = 80
"""Frames of a clip that are suggested for movies of unequal length, as the dataset's own message does."""


@dataclass(frozen=True)
class Part:
    """One array of a recording.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of one trial, without time.
    dtype : str or None
        Of the first trial; None where it cannot be read.
    bytes : int or None
        Of all trials in memory.
    values : PartValues or None
        What the values are like; None where they were not read.
    problem : str
        Why they cannot be read; empty where they can.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None
    bytes: int | None
    values: PartValues | None = None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Inspection:
    """What is in a recording.

    Attributes
    ----------
    recording : Recording
    parts : tuple of Part
    tiers : Tiers or None
        Which trials the tiers have; None where that cannot be told.
    tiers_problem : str
        Why it cannot.
    stimulus_ids : ndarray of str, (trials,), or None
        Equal where the same stimulus was shown; None where that would have to be read.
    reliability_of : str
        Which trials `reliability` is about: a tier, or ``all``; empty where no stimulus is repeated.
    reliability : Reliability or None
    modes : tuple of ModeUse
    quick : bool
        Whether no values were read.
    """

    recording: Recording
    parts: tuple[Part, ...]
    tiers: Tiers | None
    tiers_problem: str
    stimulus_ids: NDArray[np.str_] | None
    reliability_of: str = ""
    reliability: Reliability | None = None
    modes: tuple[ModeUse, ...] = field(default=())
    quick: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged; a recording that cannot be used for training is not damaged for that."""
        return tuple(f"{part.name}: {part.problem}" for part in self.parts if part.problem)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        tiers = (*self.tiers.notes, *self.tiers.test_notes) if self.tiers is not None else (self.tiers_problem,)
        return (*self.recording.notes, *tiers)

    def part(self, name: str) -> Part | None:
        """Return a part, or None where there is none."""
        return next((part for part in self.parts if part.name == name), None)

    def becomes(self) -> dict[str, str]:
        """Return for each tier of the file which tier its trials are used for, ``""`` for none."""
        used = {} if self.tiers is None else self.tiers.rows
        words = self.recording.tiers
        return {
            word: next((tier for tier, rows in used.items() if words is not None and word in words[rows]), "")
            for word in self.recording.file_tiers()
        }

    def repeats(self, rows: NDArray[np.intp] | None = None) -> dict[int, int]:
        """Return ``{times shown: stimuli}`` over some trials, or all; empty where it is not known."""
        if self.stimulus_ids is None:
            return {}
        ids = self.stimulus_ids if rows is None else self.stimulus_ids[rows]
        shown, stimuli = np.unique(np.unique(ids, return_counts=True)[1], return_counts=True)
        return {int(times): int(count) for times, count in zip(shown, stimuli, strict=True)}


def inspect_recording(
    path: str | Path,
    layout_params: Mapping[str, Any] | None = None,
    *,
    modes: Iterable[Mode] = (),
    quick: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Inspection:
    """Find out what is in a recording. Arrays are read in blocks; no more than one block, or one movie, is in memory.

    Parameters
    ----------
    path : str or Path
    layout_params : mapping, optional
        As for the dataset.
    modes : iterable of str
        Which modes to try; empty for all.
    quick : bool
        Read one trial of each part only, for its dtype; nothing about values is known then.
    progress : callable, optional
        Called with the number of bytes just read; about `bytes_to_read` in all.

    Raises
    ------
    DatasetError
        If the recording cannot be described. Parts that turn out to be damaged are told by `Inspection.problems`.
    """
    recording = describe_recording(path, layout_params)
    with watched(progress or (lambda _: None)):
        ids = _known_ids(recording, quick)
        tiers, tiers_problem = _tiers(recording, ids, quick)
        groups = _groups(recording, tiers)
        withheld = np.empty(0, dtype=np.intp) if tiers is None else tiers.withheld
        answered = [group for rows in groups if len(group := np.setdiff1d(rows, withheld))]
        parts = tuple(
            _part(recording, name, () if quick else answered if name == "responses" else groups)
            for name in recording.shapes
        )
        reliability_of, reliability = ("", None) if quick or ids is None else _reliability(recording, parts, tiers, ids)
        uses = tuple(
            mode_use(recording, mode, layout_params or {}, _clip_frames(recording, tiers), quick=quick)
            for mode in tuple(modes) or tuple(MODES)  # type: ignore[arg-type]  # the keys of MODES are the modes
        )
    return Inspection(recording, parts, tiers, tiers_problem, ids, reliability_of, reliability, uses, quick)


def bytes_to_read(recording: Recording) -> int:
    """Return about how many bytes an inspection reads, for progress."""
    observations = int(recording.frames.sum()) if recording.frames is not None else recording.trials
    sizes = {part: 4 * observations * int(np.prod(shape)) for part, shape in recording.shapes.items()}
    # A stimulus is read once more where its identity is in its pixels only.
    again = sizes.get("stimulus", 0) if recording.stimulus_ids is None else 0
    return sum(sizes.values()) + again


def _known_ids(recording: Recording, quick: bool) -> NDArray[np.str_] | None:
    if quick and recording.stimulus_ids is None and "stimulus" in recording.shapes:
        return None
    try:
        return stimulus_ids(recording)
    except DatasetError:
        # The stimulus is damaged, and the pass over its values says how.
        return None


def _tiers(recording: Recording, ids: NDArray[np.str_] | None, quick: bool) -> tuple[Tiers | None, str]:
    if quick:
        if ids is None and recording.tiers is None:
            return (
                None,
                "the file has no tiers; how its stimuli are split is known once they are read (without --quick)",
            )
        # Without parts there is nothing that would have to be read: withheld responses and leaks stay unknown.
        known = ids if ids is not None else np.arange(recording.trials).astype(str)
        recording = dataclasses.replace(recording, shapes={}, stimulus_ids=known)
    try:
        return assign_tiers(recording, Split()), ""
    except DatasetError as error:
        return None, str(error)


def _groups(recording: Recording, tiers: Tiers | None) -> Sequence[NDArray[np.intp]]:
    """Return the trials of each tier and the others: the datasets ask for the same, and what was read is remembered."""
    rows = [] if tiers is None else [tiers.rows[tier] for tier in _TIERS]
    used = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
    return [group for group in (*rows, np.setdiff1d(np.arange(recording.trials), used)) if len(group)]


def _part(recording: Recording, name: str, groups: Sequence[NDArray[np.intp]]) -> Part:
    shape = recording.shapes[name]
    if not recording.trials:
        return Part(name, shape, None, 0)
    observations = recording.trials if recording.frames is None else int(recording.frames.sum())
    try:
        with Access(recording) as access:
            if recording.frames is None:
                first = access.trials(name, np.array([0]))
            else:
                first = access.clip(name, 0, 0, min(1, int(recording.frames[0])))
        size = observations * int(np.prod(shape)) * first.itemsize
        return Part(name, shape, str(first.dtype), size, read_values(recording, name, groups) if groups else None)
    except DatasetError as error:
        return Part(name, shape, None, None, problem=error.why or error.what)


def _reliability(
    recording: Recording, parts: Sequence[Part], tiers: Tiers | None, ids: NDArray[np.str_]
) -> tuple[str, Reliability | None]:
    """Measure the test tier, or else the first set of trials that has repeats."""
    responses = next((part for part in parts if part.name == "responses"), None)
    if responses is None or responses.values is None:
        return "", None
    candidates = {} if tiers is None else {tier: tiers.rows[tier] for tier in ("test", "validation", "train")}
    withheld = () if tiers is None else tiers.withheld
    unknown = np.union1d(np.asarray(withheld, dtype=np.intp), responses.values.missing)
    for name, rows in {**candidates, "all": np.arange(recording.trials)}.items():
        found = measure_reliability(recording, np.setdiff1d(rows, unknown), ids)
        if found is not None:
            return name, found
    return "", None


def _clip_frames(recording: Recording, tiers: Tiers | None) -> int | None:
    """Return a length of clips for movies whose trials differ in length."""
    if recording.frames is None or tiers is None:
        return None
    used = recording.frames[np.concatenate(list(tiers.rows.values()))]
    if len(np.unique(used)) < 2:
        return None
    return max(1, min(int(used.min()), _SUGGESTED_FRAMES))
