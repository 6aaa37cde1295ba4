"""What repeated presentations of the same stimuli tell of neurons: averages, noise, reliability.

Arrays here are float64, (trials, frames, neurons); a static recording has one frame. A *condition* is one frame of one
stimulus. Trials are those of repeated stimuli, sorted by stimulus, as `Repeats.rows` gives them. Every function works on
each neuron by itself and returns (neurons,).

With equal numbers of repeats the formulas are the ones in common use. Where the numbers differ every trial counts the same,
so that a stimulus counts by its repeats; only in `average` does each stimulus count once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Repeats",
    "average",
    "explainable_variance",
    "find_repeats",
    "fraction_of_explainable_variance_explained",
    "mean_of_the_others",
    "mean_of_the_repeats",
    "pearson",
]

_Floats = NDArray[np.float64]

_CONSTANT = 1e-12
"""Relative to the largest value, variation below this is the rounding of averages: float32 data differ by 6e-8 or more."""

_QUIET = np.errstate(invalid="ignore", over="ignore")
"""What a diverged model gives is infinite or not a number, and so is its metric; that is said where it is stored."""


@dataclass(frozen=True)
class Repeats:
    """Which trials show a stimulus that is shown more than once.

    Attributes
    ----------
    rows : ndarray of intp, (repeated trials,)
        Sorted by stimulus.
    counts : ndarray of intp, (stimuli,)
        Trials of each stimulus, 2 or more, in that order.
    """

    rows: NDArray[np.intp]
    counts: NDArray[np.intp]

    @property
    def starts(self) -> NDArray[np.intp]:
        """Place of the first trial of each stimulus among `rows`."""
        return np.cumsum(self.counts) - self.counts


def find_repeats(stimulus_ids: NDArray[Any]) -> Repeats:
    """Find the trials of repeated stimuli.

    Parameters
    ----------
    stimulus_ids : ndarray, (trials,)
        Numbers or strings. A trial whose id is NaN belongs to no stimulus.
    """
    known = np.flatnonzero(stimulus_ids == stimulus_ids)  # noqa: PLR0124  # NaN is the one value that differs from itself
    _, group, counts = np.unique(stimulus_ids[known], return_inverse=True, return_counts=True)
    repeated = counts[group] > 1
    order = np.argsort(group[repeated], kind="stable")
    return Repeats(known[repeated][order], counts[counts > 1])


def average(values: _Floats, repeats: Repeats) -> _Floats:
    """Return the mean over the repeats of each condition, (stimuli, frames, neurons)."""
    means: _Floats = np.add.reduceat(values, repeats.starts, axis=0) / repeats.counts[:, None, None]
    return means


def mean_of_the_repeats(values: _Floats, repeats: Repeats) -> _Floats:
    """Return, for each trial, the mean of its condition, itself included; (trials, frames, neurons)."""
    return np.repeat(average(values, repeats), repeats.counts, axis=0)


def mean_of_the_others(values: _Floats, repeats: Repeats) -> _Floats:
    """Return, for each trial, the mean of the other trials of its condition; (trials, frames, neurons)."""
    counts = np.repeat(repeats.counts, repeats.counts)[:, None, None]
    others: _Floats = (counts * mean_of_the_repeats(values, repeats) - values) / (counts - 1)
    return others


@_QUIET
def pearson(x: _Floats, y: _Floats) -> _Floats:
    """Return Pearson's correlation over trials, or conditions, and frames.

    ``r = sum((x - mean x)(y - mean y)) / sqrt(sum((x - mean x)^2) sum((y - mean y)^2))``. It is 0 for a neuron whose x or
    y does not vary. What is not a number stays so.
    """
    defined = ~(_constant(x) | _constant(y))
    x, y = x - x.mean((0, 1)), y - y.mean((0, 1))
    spread = np.sqrt((x * x).sum((0, 1)) * (y * y).sum((0, 1)))
    correlation: _Floats = np.divide((x * y).sum((0, 1)), spread, out=np.zeros(len(defined)), where=defined)
    return correlation


def explainable_variance(responses: _Floats, repeats: Repeats) -> _Floats:
    """Return the fraction of the variance over trials that is not noise, ``(total - noise) / total``.

    ``total`` is the variance of all trials, ``noise`` the mean over trials of the variance within their condition, both
    unbiased (n - 1). 0 for a neuron that does not vary; may be below 0 for one that is all noise.
    """
    total, noise = _variances(responses, repeats)
    fraction: _Floats = np.divide(total - noise, total, out=np.zeros(len(total)), where=~_constant(responses))
    return fraction


@_QUIET
def fraction_of_explainable_variance_explained(rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
    """Return ``1 - (mse - noise) / (total - noise)``, the variances as in `explainable_variance`.

    ``mse`` is the mean squared difference of rates and single trials. To be used only where a good part of the variance
    is explainable: elsewhere it is a quotient of two differences near zero.
    """
    total, noise = _variances(responses, repeats)
    mse = ((rates - responses) ** 2).mean((0, 1))
    fraction: _Floats = 1 - (mse - noise) / (total - noise)
    return fraction


def _variances(responses: _Floats, repeats: Repeats) -> tuple[_Floats, _Floats]:
    """Return the total variance, and that within conditions, of each neuron."""
    total = responses.var((0, 1), ddof=1)
    counts = np.repeat(repeats.counts, repeats.counts)[:, None, None]
    # Summed over the trials of a condition this is its unbiased variance, once for each trial.
    within = (responses - mean_of_the_repeats(responses, repeats)) ** 2 * (counts / (counts - 1))
    return total, within.mean((0, 1))


def _constant(values: _Floats) -> NDArray[np.bool_]:
    spread = np.ptp(values, axis=(0, 1))
    constant: NDArray[np.bool_] = np.isfinite(spread) & (spread <= _CONSTANT * np.abs(values).max((0, 1)))
    return constant
