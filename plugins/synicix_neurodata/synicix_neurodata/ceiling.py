"""The noise ceiling of simulated Poisson cells in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["single_trial_ceiling"]


def single_trial_ceiling(
    rates: NDArray[np.float64], prediction: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the correlation that a prediction reaches on average with single trials of Poisson cells.

    With rate r, prediction p and y ~ Poisson(r), the covariance of p and y is that of p and r, and the variance of y is
    Var(r) + E(r), so the correlation is ``Cov(r, p) / (sd(p) * sqrt(Var(r) + E(r)))``. For the rate itself, which no
    prediction beats, this is ``sqrt(S / (S + E))`` with S = Var(r) and E = E(r). Expectations run over the trials
    given, so the ceiling is that of this very test tier, up to a bias of the order of 1 / trials.

    Parameters
    ----------
    rates : ndarray, (trials, neurons)
        Expected count of each trial.
    prediction : ndarray, (trials, neurons), optional
        What a model predicts that does not see everything that drives the cells: their rate given what it sees. The
        rate itself where it is left out.

    Returns
    -------
    ndarray, (neurons,)
        Zero for a cell whose rate or prediction never changes.
    """
    prediction = rates if prediction is None else prediction
    rate_deviation = rates - rates.mean(axis=0)
    deviation = prediction - prediction.mean(axis=0)
    covariance = (rate_deviation * deviation).mean(axis=0)
    spread = np.sqrt((deviation**2).mean(axis=0) * ((rate_deviation**2).mean(axis=0) + rates.mean(axis=0)))
    ceiling: NDArray[np.float64] = np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
    return ceiling
