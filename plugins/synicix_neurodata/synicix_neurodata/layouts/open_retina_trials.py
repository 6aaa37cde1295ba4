"""Which trials the stimuli of an open-retina session make, and in which tier each is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError

__all__ = ["Choice", "Cut", "Trials", "cut_into_trials", "read_options"]

_WORDS = {"test": "test", "validation": "validation", "val": "validation", "oracle": "validation"}
_REPEAT = re.compile(r"(.+)_repeat\d+")

_PIECES = 10
"""Into how many trials each stimulus is cut where there are too few of them to be split."""


@dataclass(frozen=True)
class Choice:
    """What a user said about a recording.

    Attributes
    ----------
    session : str
        Name of the session's file, with or without its suffix; empty for the only one.
    stimuli : tuple of str, or None
        Which stimuli are used; None for all that have responses.
    test, validation : tuple of str, or None
        Which stimuli are of that tier; None where their names tell.
    validation_every : int
        Where tests are known and validation is not, so many of the other stimuli go by for each that is validation.
    trial_frames : int, or None
        Frames of the trials into which stimuli are cut.
    frame_rate : float, or None
        Frames per second.
    """

    session: str = ""
    stimuli: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    validation: tuple[str, ...] | None = None
    validation_every: int = _PIECES
    trial_frames: int | None = None
    frame_rate: float | None = None

    def of(self, names: Sequence[str], path: Path) -> list[str]:
        """Return the stimuli that are used of those with responses.

        Raises
        ------
        DatasetError
            If a name that the user gave is not among them.
        """
        given = {"stimuli": self.stimuli, "test_stimuli": self.test, "validation_stimuli": self.validation}
        for option, said in given.items():
            unknown = [name for name in said or () if name not in names]
            if unknown:
                raise DatasetError(
                    f"{option} names {', '.join(map(repr, unknown))}",
                    file=str(path),
                    why=f"the stimuli with responses are {', '.join(names)}",
                )
        both = sorted({*(self.test or ())} & {*(self.validation or ())})
        if both:
            raise DatasetError(
                f"test_stimuli and validation_stimuli both name {', '.join(map(repr, both))}",
                file=str(path),
                why="a stimulus is in one tier only",
            )
        return list(names) if self.stimuli is None else [name for name in names if name in self.stimuli]


def read_options(path: Path, options: Mapping[str, Any]) -> Choice:
    """Return the options of the layout, checked.

    Raises
    ------
    DatasetError
        If one has another type or value than it may have.
    """
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "session": (lambda value: isinstance(value, str), "the name of a session's file"),
        "stimuli": (lambda value: _is_names(value) and len(value) > 0, "a list of names, one or more"),
        "test_stimuli": (_is_names, "a list of names"),
        "validation_stimuli": (_is_names, "a list of names"),
        "validation_every": (lambda value: type(value) is int and value >= 2, "a number of stimuli, 2 or more"),
        "trial_frames": (lambda value: type(value) is int and value >= 1, "a number of frames, 1 or more"),
        "frame_rate": (
            lambda value: type(value) in (int, float) and 0 < value < float("inf"),
            "a number of frames per second",
        ),
    }
    for name, value in options.items():
        allowed, expected = checks[name]
        if not allowed(value):
            raise DatasetError(f"{name} is {value!r}", file=str(path), why=f"it is {expected}")
    fields = {"test_stimuli": "test", "validation_stimuli": "validation"}
    said: dict[str, Any] = {
        fields.get(name, name): tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return Choice(**said)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


@dataclass(frozen=True, eq=False)
class Cut:
    """Where the frames of each trial are.

    Attributes
    ----------
    names : tuple of str
        The stimuli.
    stimulus, start : ndarray of int64, (trials,)
        Index into `names`, and the first frame within that stimulus.
    """

    names: tuple[str, ...]
    stimulus: NDArray[np.int64]
    start: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of a session, one entry each; see `synicix_neurodata.recording.Recording`."""

    cut: Cut
    frames: NDArray[np.int64]
    tiers: NDArray[np.str_] | None
    stimulus_ids: NDArray[np.str_]
    notes: tuple[str, ...]


def cut_into_trials(lengths: Mapping[str, int], choice: Choice) -> Trials:
    """Make trials of the stimuli, given the frames of each.

    A stimulus is one trial, or with `trial_frames` successive ones of that length; what is left at its end is left out,
    and a stimulus that is shorter stays whole. Without `trial_frames`, stimuli that are too few to be split into tiers
    are cut into ten trials each.

    Tiers are those that the user names; else those whose word (test; validation, val, oracle) is in the name of the
    stimulus; else there are none. Where tests are known and validation is not, every tenth of the other stimuli, after
    cutting, is validation. Stimuli that differ only in ``_repeat<number>`` at the end, and not in length, are the same.
    """
    names = tuple(lengths)
    tier_of = _tiers(names, choice)
    ids = _identities(lengths)
    cut_lengths, notes = _cut_lengths(lengths, tier_of, ids, choice)
    stimulus: list[int] = []
    start: list[int] = []
    frames: list[int] = []
    rest: list[int] = []
    for index, name in enumerate(names):
        step = cut_lengths[name]
        starts = range(0, lengths[name] - step + 1, step)
        stimulus += [index] * len(starts)
        start += starts
        frames += [step] * len(starts)
        if lengths[name] % step:
            rest.append(lengths[name] % step)
    if rest:
        notes.append(f"{sum(rest)} frames at the end of {len(rest)} stimuli are left out, because they fill no trial")
    cut = Cut(names, np.array(stimulus, dtype=np.int64), np.array(start, dtype=np.int64))
    whole = {name: cut_lengths[name] == lengths[name] for name in names}
    trial_ids = [
        ids[names[index]] if whole[names[index]] else f"{ids[names[index]]}@{first // cut_lengths[names[index]]}"
        for index, first in zip(stimulus, start, strict=True)
    ]
    tiers = None
    if tier_of is not None:
        tiers = np.array(
            _with_validation([tier_of[names[index]] for index in stimulus], trial_ids, choice.validation_every)
        )
    return Trials(cut, np.array(frames, dtype=np.int64), tiers, np.array(trial_ids), tuple(notes))


def _tiers(names: Sequence[str], choice: Choice) -> dict[str, str] | None:
    """Return the tier of each stimulus, or None where nothing tells."""
    said: dict[str, str] = {}
    for name in names:
        words = [_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _WORDS]
        told = words[0] if len(set(words)) == 1 else ""
        for tier, listed in (("test", choice.test), ("validation", choice.validation)):
            if listed is not None and told == tier:
                told = ""
        for tier, listed in (("test", choice.test), ("validation", choice.validation)):
            if listed is not None and name in listed:
                told = tier
        said[name] = told or "train"
    return said if set(said.values()) != {"train"} else None


def _identities(lengths: Mapping[str, int]) -> dict[str, str]:
    """Return the identity of each stimulus: repeats of one have it in common."""
    repeated = {name: match[1] for name in lengths if (match := _REPEAT.fullmatch(name))}
    of_length: dict[str, set[int]] = {}
    for name, original in repeated.items():
        of_length.setdefault(original, set()).add(lengths[name])
    return {
        name: repeated[name] if name in repeated and len(of_length[repeated[name]]) == 1 else name for name in lengths
    }


def _cut_lengths(
    lengths: Mapping[str, int], tier_of: Mapping[str, str] | None, ids: Mapping[str, str], choice: Choice
) -> tuple[dict[str, int], list[str]]:
    """Return the frames of the trials of each stimulus."""
    if choice.trial_frames is not None:
        return {name: min(length, choice.trial_frames) for name, length in lengths.items()}, []
    whole = dict(lengths)
    tiers = tier_of or dict.fromkeys(lengths, "train")
    training = [name for name in lengths if tiers[name] == "train"]
    needed = 1 if "validation" in tiers.values() else 2 if tier_of else 3
    if len({ids[name] for name in training}) >= needed or not training:
        return whole, []
    step = min(lengths[name] for name in training) // _PIECES
    if step < 1:
        return whole, []
    note = (
        f"there are too few stimuli to be split into tiers ({', '.join(training)}), so they are cut into trials of "
        f"{step} frames; layout_params can set trial_frames"
    )
    return {**whole, **dict.fromkeys(training, step)}, [note]


def _with_validation(tiers: list[str], ids: Sequence[str], every: int) -> list[str]:
    """Make every so many of the training stimuli validation, where there is none yet, and the last of fewer."""
    if "validation" in tiers:
        return tiers
    stimuli = list(dict.fromkeys(name for name, tier in zip(ids, tiers, strict=True) if tier == "train"))
    if len(stimuli) < 2:
        return tiers
    chosen = set(stimuli[every - 1 :: every] or stimuli[-1:])
    return ["validation" if tier == "train" and name in chosen else tier for name, tier in zip(ids, tiers, strict=True)]
