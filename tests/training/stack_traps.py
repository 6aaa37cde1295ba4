"""Models, optimizers, criteria and metrics that look as if they could be stacked, and what they do besides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.training.stack_toys import Perceptron


class Transposed(nn.Module):
    """Its gradient arrives transposed."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(24, 3, dtype=torch.float64) / 5)
        self.shift = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        return x @ self.w + self.shift


class Shared(nn.Module):
    """Two parameters get one tensor as their gradient."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.randn(3, 24, dtype=torch.float64) / 5)
        self.other = nn.Parameter(torch.zeros(3, 24, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        return nn.functional.linear(x, self.one + self.other)


class Sometimes(Perceptron):
    """One layer takes part in the smaller last batch only."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__(input_shape, output_shape)
        self.extra = nn.Linear(24, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Any:
        y = self.layers(x)
        return y + 0.1 * self.extra(x) if len(x) < 8 else y


class NoisyAtTheEnd(Perceptron):
    """Draws numbers for the smaller last batch only."""

    def forward(self, x: Tensor) -> Any:
        y = self.layers(x)
        return y + float(np.random.standard_normal()) if len(x) < 8 and self.training else y


class NoisyWhenAsked(Perceptron):
    """Draws numbers in evaluation mode only."""

    def forward(self, x: Tensor) -> Any:
        return self.layers(x) + (0.0 if self.training else float(np.random.standard_normal()))


class _Clock:
    def __init__(self) -> None:
        self.ticks = 0


class Ticking(Perceptron):
    """Counts its steps in an object."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__(input_shape, output_shape)
        self.clock = _Clock()

    def forward(self, x: Tensor) -> Any:
        self.clock.ticks += self.training
        return self.layers(x) * (1.0 if self.clock.ticks < 10 else 0.5)


class Conditional(Perceptron):
    """Replaces a buffer where a number says so."""

    def __init__(self, input_shape: Any, output_shape: Any, rate: float = 0.0) -> None:
        super().__init__(input_shape, output_shape)
        self.replaces = rate > 0
        self.register_buffer("seen", torch.zeros(24, dtype=torch.float64))

    def forward(self, x: Tensor) -> Any:
        if self.replaces and self.training:
            self.seen = 0.9 * self.seen + x.detach().mean(0)
        return self.layers(x - 0.1 * self.seen)


class Twice(nn.Module):
    """One layer of dropout in two places."""

    def __init__(self, input_shape: Any, output_shape: Any) -> None:
        super().__init__()
        drop = nn.Dropout(0.3)
        self.layers = nn.Sequential(nn.Linear(24, 16), drop, nn.Linear(16, 16), drop, nn.Linear(16, 3)).double()

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class Changing(Perceptron):
    """Changes its input in place."""

    def forward(self, x: Tensor) -> Any:
        return self.layers(x.mul_(0.5))


class Replacing(torch.optim.Optimizer):
    """Puts new tensors in the place of the old ones."""

    def __init__(self, parameters: Any, lr: float = 0.05) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data = parameter.data - group["lr"] * parameter.grad


class CountingLoss:
    """Weighs the loss by how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.mse_loss(output, target) * min(self.calls / 10, 1.0)


class Bootstrap:
    """A metric that draws."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        rows = np.random.randint(len(outputs), size=len(outputs))
        return float((outputs[rows] - targets[rows]).square().mean())


class Spoiling:
    """A metric that changes what it is given."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs - targets.mul_(0.5)).square().mean())


MODELS = (Transposed, Shared, Sometimes, NoisyAtTheEnd, NoisyWhenAsked, Ticking, Conditional, Twice, Changing)
