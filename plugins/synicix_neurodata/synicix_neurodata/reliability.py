"""How reliably neurons answer to repeated stimuli, from responses that are read a few stimuli at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synicix_neurodata.access import Access
from synicix_neurodata.recording import Recording
from synicix_neurodata.repeats import Repeats, find_repeats

__all__ = ["Reliability", "measure_reliability"]

_Floats = NDArray[np.float64]

_BLOCK_BYTES = 32 * 2**20

_CONSTANT = 1e-24
"""Variance relative to the squared mean below which a neuron counts as constant: rounding, not data."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """What repeats tell of each neuron. Formulas are those of the metrics of the same names.

    Attributes
    ----------
    stimuli, trials : int
        Stimuli that are shown more than once, and their trials.
    repeats : (int, int)
        Fewest and most trials of one of them.
    explainable_variance : ndarray of float64, (neurons,)
        Fraction of the variance over trials that is not noise; 1 at most, may be below 0 for a neuron that is all noise.
    oracle : ndarray of float64, (neurons,)
        Correlation of a trial with the mean of the other trials of its stimulus (jackknife).
    fano : ndarray of float64, (neurons,)
        Variance within a stimulus over mean response: 1 for Poisson counts. NaN for a mean of zero or less.
    """

    stimuli: int
    trials: int
    repeats: tuple[int, int]
    explainable_variance: _Floats
    oracle: _Floats
    fano: _Floats

    @property
    def ceiling(self) -> float:
        """Estimate of the highest mean single-trial correlation of a model that sees the stimulus.

        The square root of the explainable variance: whoever knows the mean response to each stimulus correlates with a
        trial by ``sqrt(S / (S + noise))``.
        """
        return float(np.sqrt(np.clip(self.explainable_variance, 0, 1)).mean())


def measure_reliability(
    recording: Recording, rows: NDArray[np.intp], stimulus_ids: NDArray[np.str_]
) -> Reliability | None:
    """Measure the trials `rows`; None where fewer than two conditions (a stimulus, or a frame of one) are repeated.

    Parameters
    ----------
    recording : Recording
        With responses.
    rows : ndarray of intp
        Trials without missing responses.
    stimulus_ids : ndarray of str, (trials of the recording,)
        Equal where the same stimulus was shown.

    Raises
    ------
    DatasetError
        If the responses cannot be read.
    """
    repeats = find_repeats(stimulus_ids[rows])
    if not len(repeats.counts):
        return None
    moments = _Moments(recording.shapes["responses"][0])
    for responses in _by_stimulus(recording, rows, repeats):
        moments.add(responses)
    if moments.conditions < 2:
        return None
    counts = repeats.counts
    return Reliability(len(counts), int(counts.sum()), (int(counts.min()), int(counts.max())), *moments.measures())


def _by_stimulus(recording: Recording, rows: NDArray[np.intp], repeats: Repeats) -> Iterator[_Floats]:
    """Yield the responses to one stimulus after another: (repeats, frames, neurons)."""
    ordered, ends = rows[repeats.rows], np.cumsum(repeats.counts)
    with Access(recording) as access:
        if recording.frames is not None:
            for start, end in zip(repeats.starts, ends, strict=True):
                trials = ordered[start:end]
                frames = int(recording.frames[trials].min())
                clips = [access.clip("responses", int(trial), 0, frames).T for trial in trials]
                yield np.stack(clips).astype(np.float64)
            return
        step = max(1, _BLOCK_BYTES // (8 * recording.shapes["responses"][0]))
        first = 0
        while first < len(ends):
            start = repeats.starts[first]
            last = max(first + 1, int(np.searchsorted(ends, start + step, side="right")))
            block = access.trials("responses", ordered[start : ends[last - 1]]).astype(np.float64)
            for one in np.split(block, ends[first : last - 1] - start):
                yield one[:, None]
            first = last


class _Moments:
    """Sums from which the measures follow, so that the responses need not be kept.

    With K repeats y of a condition, A = sum y and B = sum y^2, the mean of the other repeats m = (A - y) / (K - 1) has
    sum m = A, sum y m = (A^2 - B) / (K - 1) and sum m^2 = ((K - 2) A^2 + B) / (K - 1)^2.
    """

    def __init__(self, neurons: int) -> None:
        self.conditions = 0
        self._count = 0
        self._shift: _Floats | None = None
        self._sum, self._squares, self._within, self._product, self._others = np.zeros((5, neurons))

    def add(self, responses: _Floats) -> None:
        """Add the repeats of one stimulus: (repeats, frames, neurons)."""
        if self._shift is None:
            # Sums of squares around a value near the mean keep the digits that they would lose around zero.
            self._shift = responses.mean((0, 1))
        shifted, count = responses - self._shift, len(responses)
        total, squares = shifted.sum(0), (shifted**2).sum(0)
        self.conditions += responses.shape[1]
        self._count += responses.shape[0] * responses.shape[1]
        self._sum += total.sum(0)
        self._squares += squares.sum(0)
        self._within += (((shifted - shifted.mean(0)) ** 2).sum(0) * count / (count - 1)).sum(0)
        self._product += ((total**2 - squares) / (count - 1)).sum(0)
        self._others += (((count - 2) * total**2 + squares) / (count - 1) ** 2).sum(0)

    def measures(self) -> tuple[_Floats, _Floats, _Floats]:
        """Return explainable variance, oracle and Fano factor."""
        assert self._shift is not None, "measures follow trials"
        spread = self._squares - self._sum**2 / self._count
        mean, noise = self._shift + self._sum / self._count, self._within / self._count
        total = spread / (self._count - 1)
        varies = total > _CONSTANT * mean**2
        zeros = np.zeros(len(mean))
        explainable = np.divide(total - noise, total, out=zeros.copy(), where=varies)
        shared = self._product - self._sum**2 / self._count
        others = np.maximum(self._others - self._sum**2 / self._count, 0)
        scale = np.sqrt(spread.clip(0) * others)
        oracle = np.divide(shared, scale, out=zeros, where=varies & (others > _CONSTANT * mean**2 * self._count))
        fano = np.divide(noise, mean, out=np.full(len(mean), np.nan), where=mean > 0)
        return explainable, oracle, fano
