"""Which trials of a recording belong to the tiers train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.identity import stimulus_ids
from synicix_neurodata.recording import Recording
from synicix_neurodata.statistics import summarise

__all__ = ["Split", "Tiers", "assign_tiers"]

_TRAIN = ("train", "training")
_VALIDATION = ("validation", "val", "valid", "oracle")
_TEST = ("test", "testing", "final_test", "live_test", "live_test_main", "final_test_main")
_TEST_IF_NAMED = ("live_test_bonus", "final_test_bonus", "test_mei")
"""Tests of another kind of stimulus: mixed with the others they would blur the score."""


@dataclass(frozen=True)
class Split:
    """How the tiers of a recording are told.

    Attributes
    ----------
    test_tiers : tuple of str
        Which tiers of the file make up the test tier; empty for those that are tests of the ordinary kind.
    stimulus_id : str
        Column that tells which stimulus was shown; empty where the file tells by itself.
    validation_fraction, test_fraction : float
        Of the stimuli, where the file has no tiers.
    seed : int
        Of that draw.
    """

    test_tiers: tuple[str, ...] = ()
    stimulus_id: str = ""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Tiers:
    """The trials of each tier.

    Attributes
    ----------
    rows : dict of str to ndarray of intp
        Trials of ``train``, ``validation`` and ``test``, each in the order of the file.
    from_file : bool
        Whether the file has tiers of its own.
    notes : tuple of str
        What a user should know of them all.
    test_notes : tuple of str
        Why trials of the test tier are left out, or all of it is.
    withheld : ndarray of intp
        Trials of tests whose responses are all zero.
    """

    rows: dict[str, NDArray[np.intp]]
    from_file: bool
    notes: tuple[str, ...] = field(default=())
    test_notes: tuple[str, ...] = field(default=())
    withheld: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))


def assign_tiers(recording: Recording, split: Split) -> Tiers:
    """Return which trials each tier has.

    Tiers of the file are taken in whatever dialect they are: ``oracle`` and ``val`` are validation; ``none`` and tiers
    that are unknown are left out. Test trials whose responses are withheld (all zero in a tier of the file) are left
    out, because a score on them would look like a model that failed. Where the file has no tiers, stimuli are split,
    never trials: those shown more than once become the test tier if they are at most half of all, and
    `validation_fraction` of the rest becomes validation; else both are drawn.

    Raises
    ------
    DatasetError
        If `test_tiers` names a tier that the file does not have, a fraction or the seed makes no sense, or stimuli are
        too few to be split.
    """
    _check(recording, split)
    if recording.tiers is None:
        return _drawn(recording, split)
    names = list(recording.file_tiers())
    unknown = [name for name in split.test_tiers if name not in names]
    if unknown:
        raise DatasetError(
            f"test_tiers names {', '.join(map(repr, unknown))}",
            file=recording.path,
            why=f"the tiers of the file are {', '.join(names)}",
        )
    test = split.test_tiers or tuple(name for name in names if name in _TEST)
    members = {
        "train": [name for name in names if name in _TRAIN and name not in test],
        "validation": [name for name in names if name in _VALIDATION and name not in test],
    }
    kept_tests, test_notes = _with_responses(recording, test)
    members["test"] = list(kept_tests)
    withheld = np.flatnonzero(np.isin(recording.tiers, [name for name in test if name not in kept_tests]))
    rows = {tier: np.flatnonzero(np.isin(recording.tiers, kept)) for tier, kept in members.items()}
    known = {*_TRAIN, *_VALIDATION, *_TEST, *_TEST_IF_NAMED, *split.test_tiers, "none", ""}
    strange = [name for name in names if name not in known]
    notes = [f"trials of the tier {', '.join(strange)} are not used: it is not known what it is"] if strange else []
    if not len(rows["test"]) and not test_notes:
        named = [name for name in names if name in _TEST_IF_NAMED]
        more = f"; test_tiers can name {', '.join(named)}" if named else ""
        test_notes = (f"there are no trials in the test tier, so there is no test score{more}",)
    return Tiers(rows, True, (*notes, *_leaks(recording, rows, split)), test_notes, withheld)


def _check(recording: Recording, split: Split) -> None:
    # Asked this way round, so that what is not a number is refused, too.
    sensible = min(split.validation_fraction, split.test_fraction) >= 0
    if not (sensible and split.validation_fraction + split.test_fraction < 1):
        raise DatasetError(
            f"validation_fraction is {split.validation_fraction} and test_fraction {split.test_fraction}",
            file=recording.path,
            why="each is at least 0, and together they leave something for training",
        )
    if split.seed < 0:
        raise DatasetError(f"split_seed is {split.seed}", file=recording.path, why="it is 0 or more")
    if recording.tiers is None and split.test_tiers:
        raise DatasetError(
            f"test_tiers names {', '.join(map(repr, split.test_tiers))}",
            file=recording.path,
            why="the file has no tiers",
            hint="Leave test_tiers out: the recording is split by stimulus.",
        )


def _with_responses(recording: Recording, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the test tiers whose responses are there, and a note about the others."""
    if "responses" not in recording.shapes or recording.tiers is None:
        return tuple(names), ()
    withheld = [
        name for name in names if summarise(recording, "responses", np.flatnonzero(recording.tiers == name)).all_zero
    ]
    if not withheld:
        return tuple(names), ()
    trials = int(np.isin(recording.tiers, withheld).sum())
    which = "the test tier" if len(withheld) == len(names) else f"the tier {', '.join(withheld)}"
    end = "so it is left out and there is no test score" if len(withheld) == len(names) else "so they are left out"
    note = f"the responses of all {trials} trials of {which} are zero (withheld), {end}"
    return tuple(name for name in names if name not in withheld), (note,)


def _drawn(recording: Recording, split: Split) -> Tiers:
    ids, group, shown = np.unique(stimulus_ids(recording, split.stimulus_id), return_inverse=True, return_counts=True)
    rng = np.random.default_rng(split.seed)
    repeated = shown > 1
    # With a share of zero asked for, repeats are as good for training as any.
    repeats_are_the_test = split.test_fraction > 0 and 0 < repeated.sum() <= len(ids) / 2
    if repeats_are_the_test:
        test = np.flatnonzero(repeated)
        rest = rng.permutation(np.flatnonzero(~repeated))
    else:
        order = rng.permutation(len(ids))
        test_size = int(np.ceil(split.test_fraction * len(ids)))
        test, rest = order[:test_size], order[test_size:]
    validation_size = int(np.ceil(split.validation_fraction * len(rest)))
    members = {"train": rest[validation_size:], "validation": rest[:validation_size], "test": test}
    if min(len(members["train"]), len(members["validation"])) < 1:
        raise DatasetError(
            "The recording cannot be split into tiers",
            file=recording.path,
            why=f"it has no tiers of its own and shows {len(ids)} different stimuli; {recording.contents()}",
            hint="Set validation_fraction and test_fraction so that each tier gets a stimulus.",
        )
    rows = {tier: np.flatnonzero(np.isin(group, stimuli)) for tier, stimuli in members.items()}
    how = "those shown more than once are the test tier" if repeats_are_the_test else "drawn at random"
    sizes = ", ".join(f"{tier} {len(stimuli)}" for tier, stimuli in members.items())
    note = f"the file has no tiers: its {len(ids)} stimuli were split ({sizes}; {how})"
    empty = () if len(test) else ("there are no trials in the test tier, so there is no test score",)
    return Tiers(rows, False, (note,), empty)


def _leaks(recording: Recording, rows: dict[str, NDArray[np.intp]], split: Split) -> tuple[str, ...]:
    """Tell which stimuli are in the training tier and in another, so that its score would be too good."""
    ids = stimulus_ids(recording, split.stimulus_id)
    seen = {tier: np.unique(ids[members]) for tier, members in rows.items()}
    found = []
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = np.intersect1d(seen[one], seen[other])
        if len(shared):
            listed = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
            found.append(
                f"{len(shared)} stimuli are in both the {one} and the {other} tier ({listed}), "
                f"so the {other} score is better than for stimuli never seen"
            )
    return tuple(found)
