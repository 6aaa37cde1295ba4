"""Whether a recording has what a mode needs, and which of its trials can be used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.recording import Recording
from synicix_neurodata.statistics import summarise
from synicix_neurodata.tiers import Tiers

__all__ = ["MODES", "check_responses_vary", "negative_responses", "parts_of_mode", "usable_rows"]

MODES: dict[str, tuple[dict[str, str], str]] = {
    "stimulus-encoding": ({"stimulus": "stimulus"}, "responses"),
    "full-encoding": (
        {"stimulus": "stimulus", "behavior": "behavior", "pupil_center": "pupil_center"},
        "responses",
    ),
    "behavior-encoding": ({"behavior": "behavior", "pupil_center": "pupil_center"}, "responses"),
    "decoding": ({"responses": "responses"}, "stimulus"),
}
"""Name of each input with the part that it is, and the target. A single input is passed without its name."""

_LEAST = {"train": 2, "validation": 1, "test": 0}


def parts_of_mode(recording: Recording, mode: str) -> tuple[dict[str, str], str]:
    """Return the inputs and the target of a mode.

    Behaviour and pupil are used as far as the recording has them, but one of the two must be there where the mode needs
    behaviour.

    Raises
    ------
    DatasetError
        If there is no such mode, or the recording lacks what it needs.
    """
    if mode not in MODES:
        raise DatasetError(
            f"There is no mode {mode!r}",
            file=recording.path,
            why=f"the modes are {', '.join(MODES)}; {recording.contents()}",
        )
    inputs, target = MODES[mode]
    missing = _missing(recording, mode)
    if missing:
        held = [name for name in MODES if not _missing(recording, name)]
        raise DatasetError(
            f"The recording cannot be used for {mode}",
            file=recording.path,
            why=f"it has no {' and no '.join(missing)}; {recording.contents()}",
            hint=f"It can be used with mode {' or '.join(held)}."
            if held
            else "docs/recordings.md describes the layouts.",
        )
    return {name: part for name, part in inputs.items() if part in recording.shapes}, target


def _missing(recording: Recording, mode: str) -> list[str]:
    inputs, target = MODES[mode]
    needed = [part for part in (*inputs.values(), target) if part not in ("behavior", "pupil_center")]
    missing = [part for part in needed if part not in recording.shapes]
    if "behavior" in inputs and not {"behavior", "pupil_center"} & recording.shapes.keys():
        missing.append("behavior or pupil_center")
    return missing


def usable_rows(
    recording: Recording, tiers: Tiers, tier: str, used: Sequence[str], *, drop_missing: bool
) -> tuple[dict[str, NDArray[np.intp]], tuple[str, ...]]:
    """Return the trials of each tier after every check on `tier` and on the training tier, and what there is to say.

    Raises
    ------
    DatasetError
        If there is no such tier, training or validation have too few trials, a value is not finite in a trial that is
        used, or all responses of the validation tier are zero.
    """
    if tier not in _LEAST:
        raise DatasetError(
            f"There is no tier {tier!r}",
            file=recording.path,
            why=f"the tiers of a dataset are {', '.join(_LEAST)}; {recording.contents()}",
        )
    rows = dict(tiers.rows)
    notes: list[str] = []
    for name in dict.fromkeys(("train", tier)):
        _check_count(recording, name, rows[name])
        broken = _broken(recording, rows[name], used)
        if broken and not drop_missing:
            raise _not_finite(recording, name, len(rows[name]), broken)
        if broken:
            lost = np.unique(np.concatenate([np.asarray(found, dtype=np.intp) for found in broken.values()]))
            if name == tier:
                notes.append(
                    f"{len(lost)} of {len(rows[name])} trials of the {name} tier are left out, because values of "
                    f"{' and '.join(broken)} are not finite"
                )
            rows[name] = np.setdiff1d(rows[name], lost)
            _check_count(recording, name, rows[name])
    scored = tier == "validation" and "responses" in recording.shapes
    if scored and summarise(recording, "responses", rows[tier]).all_zero:
        raise DatasetError(
            "The validation tier cannot be used",
            file=recording.path,
            why=f"the responses of all its {len(rows[tier])} trials are zero",
        )
    return rows, tuple(notes)


def check_responses_vary(recording: Recording, train: NDArray[np.intp], neurons: NDArray[np.intp] | None) -> None:
    """Refuse neurons of which nothing can be learnt.

    Parameters
    ----------
    recording : Recording
    train : ndarray of intp
        Trials of the training tier.
    neurons : ndarray of intp, optional
        Those that are used; None for all.

    Raises
    ------
    DatasetError
        If each of them responds the same in all these trials.
    """
    spread = summarise(recording, "responses", train).std
    used = spread if neurons is None else spread[neurons]
    if not used.any():
        which = "every neuron" if neurons is None else f"each of the {len(used)} neurons that are used"
        raise DatasetError(
            "The responses never change",
            file=recording.path,
            why=f"{which} responds the same in all {len(train)} trials of the training tier",
            hint="Check how the file was made." if neurons is None else "Choose other neurons.",
        )


def negative_responses(
    recording: Recording, train: NDArray[np.intp], neurons: NDArray[np.intp] | None
) -> tuple[str, ...]:
    """Return what there is to say where responses of the training tier are negative, as raw fluorescence is.

    Models do not keep their output above zero then, and the logarithm in `PoissonLoss` ends the training at once.
    """
    least = summarise(recording, "responses", train).minimum
    least = least if neurons is None else least[neurons]
    if least.min() >= 0:
        return ()
    return (
        f"responses of {int((least < 0).sum())} of {len(least)} neurons are negative in places (down to "
        f"{least.min():.3g}), so models may predict negative ones: for PoissonLoss set output_nonlinearity of the model, "
        f"or use MSELoss",
    )


def _check_count(recording: Recording, tier: str, rows: NDArray[np.intp]) -> None:
    if len(rows) < _LEAST[tier]:
        raise DatasetError(
            f"The {tier} tier has too few trials",
            file=recording.path,
            why=f"it has {len(rows)} and needs at least {_LEAST[tier]}; {recording.contents()}",
        )


def _broken(recording: Recording, rows: NDArray[np.intp], used: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found = {part: summarise(recording, part, rows).broken_trials for part in dict.fromkeys(used)}
    return {part: trials for part, trials in found.items() if trials}


def _not_finite(recording: Recording, tier: str, trials: int, broken: dict[str, tuple[int, ...]]) -> DatasetError:
    told = []
    for part, rows in broken.items():
        listed = ", ".join(str(row) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
        told.append(f"the {part} in {len(rows)} of {trials} trials of the {tier} tier (rows {listed})")
    return DatasetError(
        f"The {' and the '.join(broken)} hold values that are not finite",
        file=recording.path,
        why="; ".join(told),
        hint="Set drop_missing = true to leave these trials out, or fill the gaps in the file.",
    )
