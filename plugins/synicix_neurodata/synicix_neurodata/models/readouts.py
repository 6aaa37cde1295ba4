"""Readouts: how each of many neurons weighs a map of features that all of them share.

Neither builds weights or activities of (neurons, h, w, channels): a readout first takes one value of each channel for each
neuron, then weighs the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FactorizedReadout", "GaussianReadout"]


class FactorizedReadout(nn.Module):
    """Drive of each neuron: ``sum over h, w, c of mask[h, w] * weight[c] * feature[c, h, w]``, and a bias.

    The rank-one readout of Klindt et al. 2017.

    Parameters
    ----------
    channels, height, width : int
        Of the features.
    neurons : int

    Attributes
    ----------
    masks : Parameter, (neurons, height, width)
    weights : Parameter, (neurons, channels)
    bias : Parameter, (neurons,)
    """

    def __init__(self, channels: int, height: int, width: int, neurons: int) -> None:
        super().__init__()
        self.masks = nn.Parameter(0.01 * torch.randn(neurons, height, width))
        self.weights = nn.Parameter(torch.randn(neurons, channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(neurons))

    def forward(self, features: Tensor) -> Tensor:
        """Return drives (batch, neurons, T) of features (batch, T, channels, h, w)."""
        pooled = nn.functional.linear(features.flatten(3), self.masks.flatten(1))
        return _weighed(pooled, self.weights, self.bias)

    def l1(self) -> Tensor:
        """Return the mean over neurons of ``sum |mask| * sum |weight|``, the L1 norm of a neuron's whole readout."""
        return (self.masks.abs().sum(dim=(1, 2)) * self.weights.abs().sum(dim=1)).mean()


class GaussianReadout(nn.Module):
    """Drive of each neuron: the features at one place of the map, weighted, and a bias.

    The readout of Lurz et al. 2021. In training, a place is drawn from a normal distribution for each neuron and example
    (one for all frames of a clip), so that neurons find their place by gradients from around it; then its mean is used.
    Between pixels, features are interpolated bilinearly; beyond the edge of the map they are those of the edge.

    Parameters
    ----------
    channels : int
        Of the features.
    neurons : int
    full : bool
        Whether the spread has any shape; else it is round.

    Attributes
    ----------
    places : Parameter, (neurons, 2)
        ``atanh`` of the mean place, so that it never leaves the map.
    spread : Parameter, (neurons,) or (neurons, 2, 2)
        What multiplies standard normal noise, in units in which the map is 2 wide and high.
    weights : Parameter, (neurons, channels)
    bias : Parameter, (neurons,)
    """

    def __init__(self, channels: int, neurons: int, full: bool) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.empty(neurons, 2).uniform_(-0.3, 0.3))
        spread = torch.full((neurons,), 0.3)
        self.spread = nn.Parameter(torch.diag_embed(spread[:, None].expand(-1, 2)) if full else spread)
        self.weights = nn.Parameter(torch.randn(neurons, channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(neurons))

    @property
    def mu(self) -> Tensor:
        """Mean place of each neuron, (neurons, 2): x and y, -1 and 1 being the centres of the outermost pixels."""
        return torch.tanh(self.places)

    def forward(self, features: Tensor) -> Tensor:
        """Return drives (batch, neurons, T) of features (batch, T, channels, h, w)."""
        batch, frames, channels = features.shape[:3]
        grid = self.mu.expand(batch, -1, -1)
        if self.training:
            # torch's global generator: what a resumed training restores.
            noise = torch.randn(grid.shape, dtype=grid.dtype, device=grid.device)
            grid = grid + (noise * self.spread[:, None] if self.spread.ndim == 1 else self._turned(noise))
        # Frames travel as channels, so that all of a clip are taken at the same place. In half precision a place would be
        # off by up to a pixel in 256.
        maps = features.flatten(1, 2).to(grid.dtype)
        sampled = nn.functional.grid_sample(maps, grid[:, :, None], padding_mode="border", align_corners=True)
        pooled = sampled.view(batch, frames, channels, -1)
        return _weighed(pooled, self.weights, self.bias)

    def l1(self) -> Tensor:
        """Return the mean over neurons of ``sum |weight|``."""
        return self.weights.abs().sum(dim=1).mean()

    def _turned(self, noise: Tensor) -> Tensor:
        return torch.einsum("nij,bnj->bni", self.spread, noise)


def _weighed(pooled: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Weigh the channels of pooled features (batch, T, channels, neurons) by weights (neurons, channels)."""
    return torch.einsum("btcn,nc->bnt", pooled, weights) + bias[:, None]
