"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Average"]


class Average:
    """Follows the trained parameters of a model: ``average = decay * average + (1 - decay) * weights`` after each step.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights as they are now begin the average.
    decay : float
        0 < decay < 1.

    Attributes
    ----------
    values : list of Tensor
        The averages, in the order of the parameters that learn.
    decay : float
        As given.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.values = [weight.detach().clone() for weight in self.weights]
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step."""
        torch._foreach_lerp_(self.values, [weight.detach() for weight in self.weights], 1.0 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averages as its weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # Values, not storage: others may refer to the memory of the weights.
        kept = [weight.detach().clone() for weight in self.weights]
        torch._foreach_copy_([weight.detach() for weight in self.weights], self.values)
        torch._foreach_copy_(self.values, kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages."""
        return {"values": self.values}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        torch._foreach_copy_(
            self.values, [value.to(own.device) for value, own in zip(state["values"], self.values, strict=True)]
        )
