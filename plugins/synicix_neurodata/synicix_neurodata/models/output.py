"""The last steps of every model: the output nonlinearity, and the gain that behaviour sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["BehaviorGain", "OutputNonlinearity", "nonlinear"]

OutputNonlinearity = Literal["auto", "identity", "elu+1", "softplus", "exp"]

_LARGEST_LOG_GAIN = 3.0
"""A gain lies between 1/20 and 20: far more than behaviour does to neurons, and no exponential runs away."""

_ROUNDING = 1e-12
"""Variance of a column of behaviour, as a fraction of its squared mean, that is rounding at most: it is not blown up."""


def nonlinear(drive: Tensor, name: str) -> Tensor:
    """Turn drives into rates by the output nonlinearity called `name`, in float32 at least."""
    drive = drive.to(torch.promote_types(drive.dtype, torch.float32))
    if name == "elu+1":
        return nn.functional.elu(drive) + 1
    if name == "softplus":
        return nn.functional.softplus(drive)
    return drive.exp() if name == "exp" else drive


class BehaviorGain(nn.Module):
    """Gain of each neuron given behaviour: ``exp(3 tanh(w . z / 3))``, z the standardised columns of all inputs.

    Weights begin at zero, so every gain begins at 1; around that, the logarithm of the gain is linear in behaviour.
    Columns are standardised by their mean and variance over all that the model has seen in training, whatever their
    scale; both are buffers of the ``state_dict``.

    Parameters
    ----------
    columns : mapping of str to int
        Columns of each input, concatenated in this order.
    neurons : int
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, columns: Mapping[str, int], neurons: int) -> None:
        super().__init__()
        self.names = tuple(columns)
        total = sum(columns.values())
        self.weight = nn.Parameter(torch.zeros(neurons, total))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("variance", torch.ones(total))

    def forward(self, inputs: Mapping[str, Tensor], frames: int | None) -> Tensor:
        """Return the gains of one batch.

        Parameters
        ----------
        inputs : mapping of str to Tensor, (batch, columns) or (batch, columns, frames)
            What has no frames holds for all of them.
        frames : int or None
            Of the stimulus; None for images.

        Returns
        -------
        Tensor, (batch, neurons) or (batch, neurons, frames)
        """
        parts = [inputs[name].to(self.weight.dtype) for name in self.names]
        if frames is not None:
            parts = [part if part.ndim == 3 else part.unsqueeze(2).expand(-1, -1, frames) for part in parts]
        # From (batch, columns, frames) to columns last, where weights apply.
        values = torch.cat(parts, dim=1).movedim(1, -1)
        if self.training:
            self._take_in(values.detach().flatten(0, -2))
        spread = self.variance + _ROUNDING * self.mean.square() + torch.finfo(self.variance.dtype).tiny
        standard = (values - self.mean) * spread.rsqrt()
        # Few columns, and an exponential to come: not worth half precision.
        with torch.autocast(values.device.type, enabled=False):
            slope = nn.functional.linear(standard, self.weight).movedim(-1, 1)
        return (_LARGEST_LOG_GAIN * torch.tanh(slope / _LARGEST_LOG_GAIN)).exp()

    def _take_in(self, values: Tensor) -> None:
        """Merge the mean and variance of values (n, columns) into those of all before (Chan et al. 1983)."""
        total = self.count + len(values)
        share = len(values) / total.clamp(min=1)
        variance, mean = torch.var_mean(values, dim=0, correction=0)
        shift = mean - self.mean
        self.variance.copy_((1 - share) * self.variance + share * variance + share * (1 - share) * shift.square())
        self.mean.copy_(self.mean + share * shift)
        self.count.copy_(total)
