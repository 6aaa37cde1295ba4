"""How far predicted rates are from recorded responses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synicix_core.errors import ParamsError

__all__ = ["PoissonLoss"]


class PoissonLoss(nn.Module):
    """Poisson negative log-likelihood ``rate - response * log(rate + bias)``, without the constant of the response.

    It is averaged over the examples of a batch, so a loss does not depend on the batch size, and over neurons, so its
    balance against a penalty does not depend on how many neurons were recorded. The formula is that of
    ``neuralpredictors.measures.PoissonLoss`` and of ``torch.nn.PoissonNLLLoss(log_input=False, full=False)``.

    Parameters
    ----------
    bias : float
        Added to the rate inside the logarithm, > 0: a rate of zero costs much instead of infinitely much.
    per_neuron : bool
        True averages over neurons; False sums over them, which is the log-likelihood of the population.
    """

    def __init__(self, bias: float = 1e-8, per_neuron: bool = True) -> None:
        super().__init__()
        if not 0 < bias < float("inf"):
            raise ParamsError("PoissonLoss cannot be built", [("bias", f"expected a number above 0, got {bias}")])
        self.bias = bias
        self.per_neuron = per_neuron

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
            If the shapes differ: broadcasting would compare every neuron with every other.
        """
        if output.shape != target.shape:
            raise ValueError(f"PoissonLoss: output has shape {tuple(output.shape)}, target {tuple(target.shape)}")
        rate = output.to(torch.promote_types(output.dtype, torch.float32))
        response = target.to(rate.dtype)
        loss = rate - response * torch.log(rate + self.bias)
        return loss.mean() if self.per_neuron else loss.sum() / output.shape[0]
