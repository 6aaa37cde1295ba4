"""What the values of one part of a recording are like, and how they are normalised."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.access import Access
from synicix_neurodata.recording import Recording

__all__ = ["Normalization", "Summary", "normalization", "summarise"]

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, eq=False)
class Summary:
    """The values of one part over some trials.

    Attributes
    ----------
    trials : int
        How many trials there are.
    mean, std, minimum, maximum : ndarray of float64, () for the stimulus, else (columns,)
        Over trials and frames, for the stimulus over pixels too, without the broken trials. `std` has n - 1 in its
        denominator, as the files' own has.
    broken_trials : tuple of int
        Rows of the recording with a value that is not finite.
    """

    trials: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    broken_trials: tuple[int, ...]

    @property
    def all_zero(self) -> bool:
        """Whether every value is zero."""
        return not (self.minimum.any() or self.maximum.any())


@dataclass(frozen=True, eq=False)
class Normalization:
    """What is taken from values, and what they are divided by, both float32 and shaped as a mean of `Summary`."""

    subtract: NDArray[np.float32]
    divide: NDArray[np.float32]

    def __call__(self, values: NDArray[Any], *, frames: bool = False) -> NDArray[np.float32]:
        """Return normalised values as float32; columns are the last axis, or the last but one before frames."""
        subtract, divide = self.subtract, self.divide
        if frames and subtract.ndim:
            subtract, divide = subtract[:, None], divide[:, None]
        result: NDArray[np.float32] = np.subtract(values, subtract, dtype=np.float32)
        result /= divide
        return result

    def of(self, chosen: NDArray[np.intp] | None) -> Normalization:
        """Return the same for some of the columns."""
        return self if chosen is None else Normalization(self.subtract[chosen], self.divide[chosen])


def summarise(recording: Recording, part: str, rows: NDArray[np.intp], stimulus_scale: float = 1.0) -> Summary:
    """Read one part of some trials in blocks and summarise it; the answer is kept until the file changes.

    Raises
    ------
    DatasetError
        If the file cannot be read to its end.
    """
    scale = stimulus_scale if part == "stimulus" else 1.0
    return _summarise(recording, part, np.asarray(rows, dtype=np.int64).tobytes(), scale)


@functools.lru_cache(maxsize=1024)
def _summarise(recording: Recording, part: str, row_bytes: bytes, scale: float) -> Summary:
    rows = np.frombuffer(row_bytes, dtype=np.int64)
    columns = 1 if part == "stimulus" else recording.shapes[part][0]
    count, mean, squares = 0, np.zeros(columns), np.zeros(columns)
    minimum, maximum = np.full(columns, np.inf), np.full(columns, -np.inf)
    broken: list[int] = []
    with Access(recording, scale) as access:
        for block_rows, block in _blocks(access, part, rows):
            bad = ~np.isfinite(block).all(axis=tuple(range(1, block.ndim)))
            broken.extend(int(row) for row in block_rows[bad] if int(row) not in broken[-1:])
            whole = block[~bad] if bad.any() else block
            # Columns last: (trials, neurons) already is; of a movie (trials, neurons, frames) is turned round.
            if part == "stimulus" or whole.ndim == 2:
                values = whole.reshape(-1, columns)
            else:
                values = np.moveaxis(whole, 1, -1).reshape(-1, columns)
            if not len(values):
                continue
            minimum, maximum = np.minimum(minimum, values.min(axis=0)), np.maximum(maximum, values.max(axis=0))
            # Merging blocks by their own means (Chan et al. 1983) keeps the digits that a sum of squares would lose.
            block_mean = values.mean(axis=0, dtype=np.float64)
            deviation = np.subtract(values, block_mean, dtype=np.float64)
            shift, total = block_mean - mean, count + len(values)
            squares += np.einsum("ij,ij->j", deviation, deviation) + shift**2 * count * len(values) / total
            mean += shift * len(values) / total
            count = total
    std = np.sqrt(squares / (count - 1)) if count > 1 else np.zeros(columns)

    def shaped(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[0] if part == "stimulus" else values)

    return Summary(len(rows), shaped(mean), shaped(std), shaped(minimum), shaped(maximum), tuple(broken))


def _blocks(
    access: Access, part: str, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
    """Yield trials, or a stretch of one movie, with their values: about 8 MiB a block."""
    recording = access.recording
    step = max(1, _BLOCK_BYTES // (8 * int(np.prod(recording.shapes[part]))))
    if recording.frames is not None:
        for row in rows:
            frames = int(recording.frames[row])
            for start in range(0, frames, step):
                clip = access.clip(part, int(row), start, min(start + step, frames))
                yield np.array([row]), _floating(clip[None])
        return
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        yield block, _floating(access.trials(part, block))


def _floating(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def normalization(
    recording: Recording, part: str, rows: NDArray[np.intp], stimulus_scale: float = 1.0
) -> Normalization:
    """Return how a part is normalised, from the trials of the training tier.

    Stimulus: ``(x - mean) / std`` with one mean and std for all pixels. Responses: divided by the std of each neuron and
    never centred, so that they stay counts up to a factor; a std below 1 % of the mean std counts as that 1 %, so that
    a nearly silent neuron is not blown up. Behaviour: each column divided by its std. Pupil centre: each column
    ``(x - mean) / std``. A column of behaviour or pupil that never changes is divided by 1. The rule is that of
    neuralpredictors' NeuroNormalizer.

    Raises
    ------
    DatasetError
        If the stimulus of the training tier never changes.
    """
    summary = summarise(recording, part, rows, stimulus_scale)
    if part == "stimulus" and not summary.std.any():
        raise DatasetError(
            "The stimulus cannot be normalised",
            file=recording.path,
            why=f"all its values in the {summary.trials} trials of the training tier are the same",
            hint="Check how the file was made.",
        )
    centred = part in ("stimulus", "pupil_center")
    floor = 0.01 * summary.std.mean() if part == "responses" else 0.0
    divide = np.where(summary.std > 0, np.maximum(summary.std, floor), floor or 1.0)
    subtract = summary.mean if centred else np.zeros_like(summary.mean)
    return Normalization(subtract.astype(np.float32), divide.astype(np.float32))
