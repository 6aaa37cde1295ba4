"""Metrics of neural prediction, each computed for every neuron and then averaged over neurons.

Outputs and targets are (trials, neurons), or (clips, neurons, frames) for movies: frames are further observations, and a
stimulus is compared frame by frame. Everything is computed in float64. A neuron that does not vary counts as 0, wherever it
counts. Outputs that are not finite give NaN.

Most metrics need stimuli that are shown several times. Stimuli shown once are left out, the numbers of repeats may differ.
Where fewer than two conditions (a stimulus, or a frame of one) are repeated, as in a training tier, such a metric is NaN,
which Synicix stores as null. Which trials show the same stimulus is what the dataset's column `group_by` says; clips of a
movie show the same only if they begin at the same frame of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from synicix_core.errors import ParamsError
from synicix_neurodata.neuron_blocks import neuron_blocks
from synicix_neurodata.repeats import (
    Repeats,
    average,
    explainable_variance,
    find_repeats,
    fraction_of_explainable_variance_explained,
    mean_of_the_others,
    mean_of_the_repeats,
    pearson,
)

__all__ = [
    "FEVE",
    "CorrelationToAverage",
    "ExplainableVariance",
    "FEVENeurons",
    "FractionOracle",
    "Oracle",
    "SingleTrialCorrelation",
]

Column = Callable[[str], NDArray[Any]]
_Floats = NDArray[np.float64]


class SingleTrialCorrelation:
    """``single_trial_correlation``: Pearson's correlation between rate and response over all trials (and frames).

    The highest value that any model can reach is below 1, because responses are noisy: ``sqrt(S / (S + E))`` for Poisson
    cells whose rate has variance S and mean E. The score of the Sensorium competitions. For images it is the core's
    ``correlation``; that one treats each frame of a movie as a unit of its own.

    Parameters
    ----------
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    """

    def __init__(self, skip_frames: int = 0) -> None:
        self.skip_frames = _checked_frames("single_trial_correlation", skip_frames)

    def __call__(self, outputs: Tensor, targets: Tensor) -> _Floats:
        """Return the correlation of each neuron, (neurons,); NaN with fewer than two observations."""
        blocks = neuron_blocks("single_trial_correlation", (outputs, targets), self.skip_frames)
        return np.concatenate(
            [pearson(x, y) if x[..., 0].size > 1 else np.full(x.shape[-1], math.nan) for x, y in blocks]
        )


class _OverRepeats(ABC):
    """A metric that needs to know which trials show the same stimulus."""

    name: str

    def __init__(self, group_by: str = "stimulus_id", skip_frames: int = 0) -> None:
        self.group_by = group_by
        self.skip_frames = _checked_frames(self.name, skip_frames)

    def __call__(self, outputs: Tensor, targets: Tensor, column: Column) -> Any:
        """Return one value per neuron, or one for all; NaN where fewer than two conditions are repeated."""
        repeats = find_repeats(np.asarray(column(self.group_by)))
        values: list[_Floats] = []
        for x, y in neuron_blocks(self.name, (outputs, targets), self.skip_frames, repeats.rows):
            if len(repeats.counts) * x.shape[1] < 2:
                return math.nan
            values.append(self._of_block(x, y, repeats))
        return self._of_all(np.concatenate(values, axis=-1))

    @abstractmethod
    def _of_block(self, rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        """Return (..., neurons) for rates and responses (repeated trials, frames, neurons)."""

    def _of_all(self, values: _Floats) -> Any:
        return values


class CorrelationToAverage(_OverRepeats):
    """``correlation_to_average``: Pearson's correlation over conditions, of rates and responses averaged over repeats.

    Averaging takes most of the noise away, so the highest value is nearer to 1: ``sqrt(S / (S + E / K))`` for Poisson
    cells whose rate has variance S and mean E, and K repeats. Each condition counts once, whatever its repeats.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    """

    name = "correlation_to_average"

    def _of_block(self, rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        return pearson(average(rates, repeats), average(responses, repeats))


class ExplainableVariance(_OverRepeats):
    """``explainable_variance``: the fraction of the responses' variance that is not noise (FEV), 1 at most.

    ``(total - noise) / total``, with ``total`` the variance of all trials and ``noise`` the mean variance within a
    condition, both unbiased. It depends on the recording alone, not on the model. For Poisson cells ``S / (S + E)``. A
    neuron that is all noise may come out below 0; all neurons count.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    """

    name = "explainable_variance"

    def _of_block(self, _rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        return explainable_variance(responses, repeats)


class FEVE(_OverRepeats):
    """``feve``: the fraction of explainable variance that the model explains, over the neurons where there is enough.

    ``1 - (mse - noise) / (total - noise)``, with ``mse`` the mean squared error against single trials, ``total`` and
    ``noise`` as in `ExplainableVariance` (Cadena et al. 2019, PLoS Comput Biol). The true rates given the stimulus score
    1, each neuron's mean scores 0, worse rates less than 0; nothing is clipped. Noise is all that differs between
    repeats: a model that sees behaviour too, and so explains some of that, may score above 1. Neurons whose explainable
    fraction is below `threshold` are left out: for them it is the quotient of two differences near zero. How many remain
    is ``feve_neurons``, to be read beside it. Where none remains there is no value: it is NaN, stored as null, and
    ``feve_neurons`` is 0.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    threshold : float
        Smallest explainable fraction of a neuron that counts, above 0 and below 1.
    """

    name = "feve"

    def __init__(self, group_by: str = "stimulus_id", skip_frames: int = 0, threshold: float = 0.15) -> None:
        super().__init__(group_by, skip_frames)
        self.threshold = _checked_threshold(self.name, threshold)

    def _of_block(self, rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        keep = explainable_variance(responses, repeats) >= self.threshold
        return fraction_of_explainable_variance_explained(rates[..., keep], responses[..., keep], repeats)


class FEVENeurons(FEVE):
    """``feve_neurons``: over how many neurons ``feve`` is the mean, with the same parameters. It may be 0.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    threshold : float
        Smallest explainable fraction of a neuron that counts, above 0 and below 1.
    """

    name = "feve_neurons"

    def _of_block(self, _rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        return explainable_variance(responses, repeats)

    def _of_all(self, values: _Floats) -> float:
        return float((values >= self.threshold).sum())


class Oracle(_OverRepeats):
    """``oracle``: how well other presentations of a stimulus predict a single trial; a bound on models, more or less.

    Pearson's correlation over all trials between a response and the mean over the repeats of its stimulus. It depends on
    the recording alone. For Poisson cells whose rate has variance S and mean E, and K repeats:

    ``jackknife``
        The trial itself is left out of the mean. ``S / sqrt((S + E)(S + E / (K - 1)))``: lower than the best model's
        correlation, which a good model therefore exceeds.
    ``conservative``
        The trial itself is part of the mean, which makes this ``sqrt(V / (V + W))`` with V the variance of the means and
        W that within conditions (population form). ``sqrt((S + E / K) / (S + E))``: higher than any model's correlation.

    The two meet where repeats are many.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    kind : {"jackknife", "conservative"}
    """

    name = "oracle"

    def __init__(
        self,
        group_by: str = "stimulus_id",
        skip_frames: int = 0,
        kind: Literal["jackknife", "conservative"] = "jackknife",
    ) -> None:
        super().__init__(group_by, skip_frames)
        if kind not in ("jackknife", "conservative"):
            raise ParamsError(
                "The metric oracle cannot be built", [("kind", f"expected jackknife or conservative, got {kind!r}")]
            )
        self.kind = kind

    def _of_block(self, _rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        predict = mean_of_the_others if self.kind == "jackknife" else mean_of_the_repeats
        return pearson(responses, predict(responses, repeats))


class FractionOracle(_OverRepeats):
    """``fraction_oracle``: how the model's correlation compares with the oracle's, over the population.

    The slope of the line through the origin that fits the neurons' single-trial correlations to their jackknife oracles
    by least squares, ``sum(r o) / sum(o^2)``, as Lurz et al. 2021 (ICLR) use it, both over the trials of repeated stimuli.
    A good model exceeds 1, because the jackknife oracle is low: the true rates of alike Poisson cells
    score ``sqrt((S + E / (K - 1)) / S)``. NaN, stored as null, if no neuron has an oracle.

    Parameters
    ----------
    group_by : str
        Column that is equal where the same stimulus was shown.
    skip_frames : int
        Frames at the beginning of each clip that do not count.
    """

    name = "fraction_oracle"

    def _of_block(self, rates: _Floats, responses: _Floats, repeats: Repeats) -> _Floats:
        return np.stack([pearson(rates, responses), pearson(responses, mean_of_the_others(responses, repeats))])

    def _of_all(self, values: _Floats) -> float:
        model, oracle = values
        return float(model @ oracle / (oracle @ oracle)) if oracle.any() else math.nan


def _checked_frames(metric: str, value: int) -> int:
    if value < 0:
        raise ParamsError(f"The metric {metric} cannot be built", [("skip_frames", f"expected 0 or more, got {value}")])
    return value


def _checked_threshold(metric: str, value: float) -> float:
    if not 0 < value < 1:
        raise ParamsError(
            f"The metric {metric} cannot be built", [("threshold", f"expected above 0 and below 1, got {value}")]
        )
    return value
