"""How far predicted rates are from recorded responses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from synicix_core.errors import ParamsError

__all__ = ["CorrelationLoss", "PoissonLoss"]


class PoissonLoss(nn.Module):
    """Poisson negative log-likelihood ``rate - response * log(rate + bias)``, without the constant of the response.

    It is averaged over the examples of a batch, so a loss does not depend on the batch size, and over neurons (and
    frames), so its balance against a penalty does not depend on how many were recorded. The formula is that of
    ``neuralpredictors.measures.PoissonLoss`` and of ``torch.nn.PoissonNLLLoss(log_input=False, full=False)``.

    Parameters
    ----------
    bias : float
        Added to the rate inside the logarithm, > 0: a rate of zero costs much instead of infinitely much.
    per_neuron : bool
        True averages over neurons and frames; False sums over them, which is the log-likelihood of the population.
    skip_frames : int
        Frames at the beginning of each clip that do not count, because a model has seen too little before them. For
        outputs (batch, neurons, frames) only.
    """

    def __init__(self, bias: float = 1e-8, per_neuron: bool = True, skip_frames: int = 0) -> None:
        super().__init__()
        self.bias = _above_zero("PoissonLoss", "bias", bias)
        self.per_neuron = per_neuron
        self.skip_frames = _frames("PoissonLoss", skip_frames)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one batch.

        Parameters
        ----------
        output, target : Tensor, (batch, ...)
            Rates, not negative, and responses of the same shape; any axis after the first counts as neurons. Half
            precision is raised to float32 first: 1e-8 is zero in float16, and a sum soon infinite.

        Returns
        -------
        Tensor, ()

        Raises
        ------
        ValueError
            If the shapes differ: broadcasting would compare every neuron with every other. If frames are to be skipped
            and there are none, or no more.
        """
        rate, response = _compared("PoissonLoss", output, target, self.skip_frames)
        loss = rate - response * torch.log(rate + self.bias)
        return loss.mean() if self.per_neuron else loss.sum() / output.shape[0]


class CorrelationLoss(nn.Module):
    """Minus the mean over neurons of Pearson's correlation between output and target within a batch.

    ``r = mean((x - mean x)(y - mean y)) / ((sd x + eps)(sd y + eps))``, means and standard deviations (population form,
    n in the denominator) over the examples of the batch and, for movies, their frames. A correlation tells nothing of
    scale and offset, so a model trained with it alone predicts neither; and it is a statistic of the batch, so batches
    should be large: the mean of the correlations of small ones is not the correlation of all.

    Parameters
    ----------
    eps : float
        Added to each standard deviation, > 0, in the units of the responses; 1e-8 as is usual in the field. It bounds
        the gradient of neurons that hardly vary.
    skip_frames : int
        Frames at the beginning of each clip that do not count. For outputs (batch, neurons, frames) only.
    """

    def __init__(self, eps: float = 1e-8, skip_frames: int = 0) -> None:
        super().__init__()
        self.eps = _above_zero("CorrelationLoss", "eps", eps)
        self.skip_frames = _frames("CorrelationLoss", skip_frames)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of one batch.

        Parameters
        ----------
        output, target : Tensor, (batch, neurons) or (batch, neurons, frames)
            Half precision is raised to float32 first. A neuron whose output or target does not vary in the batch, as
            none does in a batch of one image, counts as a correlation of 0 and has a gradient of 0.

        Returns
        -------
        Tensor, ()
            From -1 to 1.

        Raises
        ------
        ValueError
            If the shapes differ or are none of the two, or frames are to be skipped and there are none, or no more.
        """
        x, y = _compared("CorrelationLoss", output, target, self.skip_frames)
        if x.dim() not in (2, 3):
            raise ValueError(
                f"CorrelationLoss: expected (batch, neurons) or (batch, neurons, frames), got {tuple(x.shape)}"
            )
        x, y = (values.movedim(1, -1).flatten(0, -2) for values in (x, y))
        constant = (x == x[:1]).all(0) | (y == y[:1]).all(0)
        x, y = x - x.mean(0), y - y.mean(0)
        variances = x.square().mean(0), y.square().mean(0)
        # Asked this way round, so that what is not a number stays one: a diverged model must not score 0. The root's
        # slope at zero is infinite, and times a gradient of zero not a number, so it never gets to see a zero.
        undefined = constant | (variances[0] == 0) | (variances[1] == 0)
        sd_x, sd_y = (variance.masked_fill(undefined, 1.0).sqrt() for variance in variances)
        r = (x * y).mean(0) / ((sd_x + self.eps) * (sd_y + self.eps))
        return -r.masked_fill(undefined, 0.0).mean()


def _compared(loss: str, output: Tensor, target: Tensor, skip_frames: int) -> tuple[Tensor, Tensor]:
    """Return output and target in float32 or better, without the frames that do not count."""
    if output.shape != target.shape:
        raise ValueError(f"{loss}: output has shape {tuple(output.shape)}, target {tuple(target.shape)}")
    if skip_frames and output.dim() != 3:
        raise ValueError(
            f"{loss}: skip_frames = {skip_frames} needs (batch, neurons, frames), the output has shape "
            f"{tuple(output.shape)}"
        )
    if skip_frames and skip_frames >= output.shape[-1]:
        raise ValueError(f"{loss}: skip_frames = {skip_frames} leaves none of the {output.shape[-1]} frames")
    x = output.to(torch.promote_types(output.dtype, torch.float32))
    y = target.to(x.dtype)
    return (x[..., skip_frames:], y[..., skip_frames:]) if skip_frames else (x, y)


def _above_zero(loss: str, name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ParamsError(f"{loss} cannot be built", [(name, f"expected a number above 0, got {value}")])
    return value


def _frames(loss: str, value: int) -> int:
    if value < 0:
        raise ParamsError(f"{loss} cannot be built", [("skip_frames", f"expected 0 or more, got {value}")])
    return value
