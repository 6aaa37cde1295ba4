"""Tiers that experanto states as intervals of time, and not on each trial of the screen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.layouts.experanto_meta import bad_experiment, has_modality, read_mapping
from synicix_neurodata.layouts.npy import NUMBERS
from synicix_neurodata.layouts.tree_files import FolderFiles

__all__ = ["interval_tiers"]

_TIER = re.compile(r"(train|val|oracle|test|(final|live)_test)", re.IGNORECASE)
"""Labels that are tiers begin so; others name gaze, saccades, targets…"""


def interval_tiers(
    recording: Path, folder: str, onsets: NDArray[np.float64], last_frames: NDArray[np.float64]
) -> NDArray[np.str_] | None:
    """Return the label of the interval that each trial lies in, ``none`` where it lies in none: (trials,).

    Parameters
    ----------
    recording : Path
        The experiment's folder.
    folder : str
        Which of its folders states the intervals; empty for the only one with a label that is a tier.
    onsets, last_frames : ndarray, (trials,)
        Seconds; intervals hold their start and not their end.

    Returns
    -------
    ndarray, or None
        None where nothing states intervals.

    Raises
    ------
    DatasetError
        If several folders might, one is not as it should be, or a trial lies in two tiers.
    """
    labels = _labels(recording, folder) if folder else _only_labels(recording)
    if labels is None:
        return None
    place, files = labels
    tiers = np.full(len(onsets), "none", dtype=f"U{max(4, *map(len, files))}")
    for label, name in files.items():
        within = np.zeros(len(onsets), dtype=bool)
        for start, stop in _intervals(recording, place, name):
            within |= (onsets >= start) & (last_frames < stop)
        both = np.flatnonzero(within & (tiers != "none"))
        if len(both):
            raise bad_experiment(
                recording,
                f"the trial at {onsets[both[0]]:g} s is in both {str(tiers[both[0]])!r} and {label!r} of '{place}'",
            )
        tiers[within] = label
    return tiers


def _only_labels(recording: Path) -> tuple[str, dict[str, Any]] | None:
    found = []
    for child in sorted(recording.iterdir()):
        if child.is_dir() and has_modality(child):
            said = read_mapping(recording, f"{child.name}/meta.yml")
            if said.get("modality") == "time_interval":
                labels = _labels(recording, child.name)
                found += [labels] if labels[1] else []
    if len(found) > 1:
        raise bad_experiment(
            recording,
            f"several folders state intervals of tiers: {', '.join(place for place, _ in found)}",
            hint=f'Choose one with layout_params = {{ tiers = "{found[0][0]}" }}.',
        )
    return found[0] if found else None


def _labels(recording: Path, folder: str) -> tuple[str, dict[str, Any]]:
    said = read_mapping(recording, f"{folder}/meta.yml")
    labels = said.get("labels")
    if said.get("modality") != "time_interval" or not isinstance(labels, dict):
        raise bad_experiment(
            recording,
            f"'{folder}/meta.yml' states modality {said.get('modality')!r}, expected 'time_interval' with labels",
        )
    return folder, {str(label): name for label, name in labels.items() if _TIER.match(str(label))}


def _intervals(recording: Path, folder: str, name: Any) -> NDArray[np.float64]:
    place = f"{folder}/{name}"
    try:
        files = FolderFiles(recording)
        # Only what is in the folder itself is opened, whatever the label says.
        if name not in files.sizes(folder):
            raise ValueError(f"'{place}' is missing")
        intervals = np.array(files.mapped(place))
    except (OSError, ValueError) as error:
        raise bad_experiment(recording, str(error)) from error
    if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype.kind not in NUMBERS:
        raise bad_experiment(
            recording, f"'{place}' has shape {intervals.shape} of {intervals.dtype}, expected (intervals, 2)"
        )
    return intervals.astype(np.float64)
