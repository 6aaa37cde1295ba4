"""What the values of one part of a recording are like, and how they are normalised."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synicix_core.errors import DatasetError
from synicix_neurodata.recording import Recording, open_recording, read_rows

__all__ = ["Normalization", "Summary", "normalization", "summarise"]

_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True, eq=False)
class Summary:
    """The values of one part over one tier.

    Attributes
    ----------
    trials : int
        How many trials the tier has.
    mean, std, minimum, maximum : ndarray of float64, () for images, else (columns,)
        Over trials, for images over trials and pixels. `std` has n - 1 in its denominator, as the files' own has.
    broken_trials : tuple of int
        Rows of the file with a value that is not finite.
    """

    trials: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    broken_trials: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Normalization:
    """What is taken from values, and what they are divided by, both float32 and shaped as a mean of `Summary`."""

    subtract: NDArray[np.float32]
    divide: NDArray[np.float32]

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return normalised values as float32; the last axes of `values` broadcast."""
        return (np.asarray(values, dtype=np.float32) - self.subtract) / self.divide


@functools.lru_cache(maxsize=1024)
def summarise(recording: Recording, part: str, tier: str) -> Summary:
    """Read one part of one tier in blocks and summarise it; the answer is kept until the file changes.

    Raises
    ------
    DatasetError
        If the file cannot be read to its end.
    """
    rows = recording.rows(tier)
    shape = recording.shapes[part]
    columns = 1 if part == "images" else shape[0]
    count, mean, squares = 0, np.zeros(columns), np.zeros(columns)
    minimum, maximum = np.full(columns, np.inf), np.full(columns, -np.inf)
    broken: list[int] = []
    step = max(1, _BLOCK_BYTES // (8 * int(np.prod(shape))))
    with open_recording(recording.path) as file:
        for start in range(0, len(rows), step):
            block_rows = rows[start : start + step]
            block = read_rows(file[part], block_rows).astype(np.float64)
            bad = ~np.isfinite(block).all(axis=tuple(range(1, block.ndim)))
            broken.extend(int(row) for row in block_rows[bad])
            values = block[~bad].reshape(-1, columns)
            if not len(values):
                continue
            minimum, maximum = np.minimum(minimum, values.min(axis=0)), np.maximum(maximum, values.max(axis=0))
            # Merging blocks by their own means (Chan et al. 1983) keeps the digits that a sum of squares would lose.
            block_mean = values.mean(axis=0)
            shift, total = block_mean - mean, count + len(values)
            squares += ((values - block_mean) ** 2).sum(axis=0) + shift**2 * count * len(values) / total
            mean += shift * len(values) / total
            count = total
    std = np.sqrt(squares / (count - 1)) if count > 1 else np.zeros(columns)

    def shaped(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[0] if part == "images" else values)

    return Summary(len(rows), shaped(mean), shaped(std), shaped(minimum), shaped(maximum), tuple(broken))


def normalization(recording: Recording, part: str) -> Normalization:
    """Return how a part is normalised, from its training tier.

    Images: ``(x - mean) / std`` with one mean and std for all pixels. Responses: divided by the std of each neuron and
    never centred, so that they stay counts up to a factor; a std below 1 % of the mean std counts as that 1 %, so that
    a nearly silent neuron is not blown up. Behaviour: each column divided by its std. Pupil centre: each column
    ``(x - mean) / std``. A column of behaviour or pupil that never changes is divided by 1. The rule is that of
    neuralpredictors' NeuroNormalizer.

    Raises
    ------
    DatasetError
        If images or responses of the training tier never change.
    """
    summary = summarise(recording, part, "train")
    if part in ("images", "responses") and not summary.std.any():
        raise DatasetError(
            f"The {part} cannot be normalised",
            file=recording.path,
            why=f"all {part} of the {summary.trials} trials of the training tier are the same",
            hint="Check how the file was made.",
        )
    centred = part in ("images", "pupil_center")
    floor = 0.01 * summary.std.mean() if part == "responses" else 0.0
    divide = np.where(summary.std > 0, np.maximum(summary.std, floor), floor or 1.0)
    subtract = summary.mean if centred else np.zeros_like(summary.mean)
    return Normalization(subtract.astype(np.float32), divide.astype(np.float32))
