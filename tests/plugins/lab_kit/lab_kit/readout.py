"""A linear readout."""

from __future__ import annotations

import torch

__all__ = ["Readout"]


class Readout(torch.nn.Module):
    """One linear layer from all inputs to `n_neurons` outputs.

    Parameters
    ----------
    input_shape, output_shape : tuple of int
        Shapes of one example.
    n_neurons : int
        Supplied by the dataset.
    l2 : float
        Weight of the penalty on the squared weights.
    """

    def __init__(
        self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], n_neurons: int, l2: float = 0.0
    ) -> None:
        super().__init__()
        if output_shape != (n_neurons,):
            raise ValueError(f"{n_neurons} neurons do not fit the output shape {output_shape}")
        self.linear = torch.nn.Linear(input_shape[0], n_neurons)
        self.l2 = l2

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (batch, neurons) and the penalty."""
        return self.linear(x), self.l2 * self.linear.weight.square().sum()
