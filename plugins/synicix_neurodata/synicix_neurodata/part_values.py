"""What the values of a part are like over a whole recording, put together from the tiers' own summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.recording import Recording
from synicix_neurodata.statistics import Summary, summarise

__all__ = ["PartValues", "read_values"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PartValues:
    """The values of one part over all trials, those left out that hold what is not finite.

    Attributes
    ----------
    mean, std, minimum, maximum : ndarray of float64, () for the stimulus, else (columns,)
        Over trials and frames, for the stimulus over pixels too; NaN where no trial is whole.
    missing : ndarray of intp
        Trials with a value that is not finite.
    """

    mean: _Floats
    std: _Floats
    minimum: _Floats
    maximum: _Floats
    missing: NDArray[np.intp]

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Which columns are zero in every trial."""
        return np.asarray((self.minimum == 0) & (self.maximum == 0))


def read_values(recording: Recording, part: str, groups: Sequence[NDArray[np.intp]]) -> PartValues:
    """Read a part in blocks, one group of trials after another.

    Parameters
    ----------
    recording : Recording
    part : str
    groups : sequence of ndarray of intp
        Trials, each in one group only.

    Raises
    ------
    DatasetError
        If the file cannot be read to its end.
    """
    summaries = [summarise(recording, part, rows) for rows in groups]
    missing = np.array(sorted(row for summary in summaries for row in summary.broken_trials), dtype=np.intp)
    found = [
        (summary, weight)
        for summary, rows in zip(summaries, groups, strict=True)
        if (weight := _observations(recording, part, np.setdiff1d(rows, summary.broken_trials)))
    ]
    if not found:
        nothing = np.full(() if part == "stimulus" else recording.shapes[part][:1], np.nan)
        return PartValues(nothing, nothing, nothing, nothing, missing)
    mean, std = _merged(found)
    minimum = np.min([summary.minimum for summary, _ in found], axis=0)
    maximum = np.max([summary.maximum for summary, _ in found], axis=0)
    return PartValues(mean, std, np.asarray(minimum), np.asarray(maximum), missing)


def _observations(recording: Recording, part: str, rows: NDArray[np.intp]) -> int:
    trials = len(rows) if recording.frames is None else int(recording.frames[rows].sum())
    return trials * (int(np.prod(recording.shapes[part])) if part == "stimulus" else 1)


def _merged(found: Sequence[tuple[Summary, int]]) -> tuple[_Floats, _Floats]:
    """Return mean and standard deviation of the whole, n - 1 in the denominator, from those of its groups."""
    total = sum(weight for _, weight in found)
    mean = np.asarray(sum(summary.mean * (weight / total) for summary, weight in found))
    squares = sum(summary.std**2 * (weight - 1) + (summary.mean - mean) ** 2 * weight for summary, weight in found)
    return mean, np.sqrt(np.asarray(squares) / max(1, total - 1))
