"""The optimizers of several models of one architecture, stepped together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from synicix_core.training.flat import Flat

__all__ = ["StackedOptimizer", "stack_optimizers"]

_ALIKE = {
    Adam: ("eps", "amsgrad", "maximize", "decoupled_weight_decay", "capturable", "differentiable"),
    SGD: ("dampening", "nesterov", "maximize", "differentiable"),
}
"""What must be the same in all of them; learning rate, weight decay, betas and momentum may differ."""


class StackedOptimizer(Protocol):
    """Steps all of them. Each stays a real optimizer, whose groups say the learning rate and whose state is its own."""

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step; gradients are (models, *shape) by the name of the parameter, None where it takes no part."""

    def rates_change(self) -> None:
        """Look at learning rates and weight decays again."""

    def release(self) -> None:
        """Give each optimizer state of its own again."""


def stack_optimizers(
    optimizers: Sequence[Optimizer], weights: Flat, owned: Sequence[Mapping[str, Tensor]]
) -> StackedOptimizer:
    """Return the fastest way to step optimizers together.

    Adam, AdamW and SGD of torch step in a few operations for all. Any other, and one with several groups of parameters or
    with hooks, makes its own step on its slices.

    Parameters
    ----------
    optimizers : sequence of Optimizer
        One for each model, of one class.
    weights : Flat
        The parameters that learn.
    owned : sequence of mapping
        The parameters of each model by name: slices of those.
    """
    for optimizer in optimizers:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's schedulers look at before they warn
    first = optimizers[0]
    if type(first) in (Adam, AdamW) and _alike(optimizers, _ALIKE[Adam]) and _plain_adam(first):
        return _StackedAdam(optimizers, weights, owned)
    if type(first) is SGD and _alike(optimizers, _ALIKE[SGD]) and _plain_sgd(first):
        return _StackedSGD(optimizers, weights, owned)
    return _OneByOne(optimizers, owned)


def _alike(optimizers: Sequence[Optimizer], names: Sequence[str]) -> bool:
    first = optimizers[0].param_groups[0]
    return all(
        type(optimizer) is type(optimizers[0])
        and len(optimizer.param_groups) == 1
        and not _has_hooks(optimizer)
        and all(optimizer.param_groups[0].get(name) == first.get(name) for name in names)
        and all(isinstance(optimizer.param_groups[0][name], int | float) for name in ("lr", "weight_decay"))
        and bool(optimizer.param_groups[0].get("momentum")) == bool(first.get("momentum"))
        for optimizer in optimizers
    )


def _has_hooks(optimizer: Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def _plain_adam(optimizer: Optimizer) -> bool:
    group = optimizer.param_groups[0]
    betas = group["betas"]
    flags = ("amsgrad", "maximize", "capturable", "differentiable")
    floating = all(parameter.is_floating_point() for parameter in group["params"])
    return floating and not any(group[flag] for flag in flags) and all(isinstance(beta, float) for beta in betas)


def _plain_sgd(optimizer: Optimizer) -> bool:
    group = optimizer.param_groups[0]
    return not (group["maximize"] or group["differentiable"] or group["dampening"])


class _OneByOne:
    """Any optimizer: each makes its own step."""

    def __init__(self, optimizers: Sequence[Optimizer], owned: Sequence[Mapping[str, Tensor]]) -> None:
        self.optimizers = list(optimizers)
        self.owned = list(owned)

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step."""
        for k, (optimizer, own) in enumerate(zip(self.optimizers, self.owned, strict=True)):
            for name, gradient in gradients.items():
                # Laid out as the parameter is: torch's kernels rely on that, and autograd under vmap need not care.
                own[name].grad = None if gradient is None else gradient[k].contiguous()
            optimizer.step()
            optimizer.zero_grad()

    def rates_change(self) -> None:
        """Do nothing: each looks by itself."""

    def release(self) -> None:
        """Do nothing: each has its own state."""


class _InOneBlock(_OneByOne, ABC):
    """Optimizers of torch whose state is stacked.

    Every operation but torch's own kernel is rounded once for each number, so that none depends on where in the stack it
    stands.

    Parameters
    ----------
    names : sequence of str
        What the optimizer keeps for each parameter.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        weights: Flat,
        owned: Sequence[Mapping[str, Tensor]],
        names: Sequence[str],
    ) -> None:
        super().__init__(optimizers, owned)
        self._apart = False
        self._weights = weights
        self._gradients = torch.zeros_like(weights.block)
        self.state: dict[str, Tensor] = {}
        for key in names:
            block = torch.zeros_like(weights.block)
            self.state[key] = block
            for name, part in weights.views(block).items():
                for k, (optimizer, own) in enumerate(zip(optimizers, owned, strict=True)):
                    kept = optimizer.state[own[name]].get(key)
                    if kept is not None:
                        part[k].copy_(kept)
                    optimizer.state[own[name]][key] = part[k]
        self.rates_change()

    def rates_change(self) -> None:
        """Look at learning rates and weight decays again."""
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        rates = torch.tensor([[float(group["lr"])] for group in groups], dtype=torch.float64)
        decays = torch.tensor([[float(group["weight_decay"])] for group in groups], dtype=torch.float64)
        like = self._weights.block
        self.rate = rates.to(like.device, like.dtype)
        self.decays = bool(decays.any())
        self.decay = decays.to(like.device, like.dtype)
        self.shrink = (1.0 - rates * decays).to(like.device, like.dtype)

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step."""
        found = [gradient for gradient in gradients.values() if gradient is not None]
        if self._apart or len(found) < len(gradients):
            # What takes no part has no step to make, and then the parameters of a model no longer count the same steps.
            self._apart = True
            super().step(gradients)
            return
        with torch.no_grad():
            self._step(self._weights.block, self._weights.gathered(found, self._gradients))

    def release(self) -> None:
        """Give each optimizer state of its own again."""
        for optimizer, own in zip(self.optimizers, self.owned, strict=True):
            for parameter in own.values():
                state = optimizer.state.get(parameter, {})
                optimizer.state[parameter] = {
                    key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()
                }

    @abstractmethod
    def _step(self, weights: Tensor, gradients: Tensor) -> None:
        """Change the weights in place; the gradients may be changed, too. All are (models, numbers)."""


class _StackedAdam(_InOneBlock):
    """Adam and AdamW by torch's fused kernel.

    The kernel knows one learning rate. So it steps a change that begins at zero, by a rate of one, and each model takes as
    much of it as its own rate says.
    """

    def __init__(self, optimizers: Sequence[Optimizer], weights: Flat, owned: Sequence[Mapping[str, Tensor]]) -> None:
        super().__init__(optimizers, weights, owned, ("exp_avg", "exp_avg_sq"))
        group = optimizers[0].param_groups[0]
        self._eps = float(group["eps"])
        self._decoupled = bool(group["decoupled_weight_decay"])
        self._change = torch.zeros_like(weights.block)
        # As torch keeps it: a number of its own for each parameter.
        steps = [
            [optimizer.state[p].get("step", 0.0) for p in own.values()]
            for optimizer, own in zip(optimizers, owned, strict=True)
        ]
        self._steps = torch.tensor([[float(step) for step in row] for row in steps], dtype=torch.float32)
        self._steps = self._steps.to(weights.block.device)
        for k, (optimizer, own) in enumerate(zip(optimizers, owned, strict=True)):
            for index, parameter in enumerate(own.values()):
                optimizer.state[parameter]["step"] = self._steps[k, index]
        self._apart = any(len(set(row)) > 1 for row in self._steps.tolist())
        self._find_runs()

    def rates_change(self) -> None:
        """Look at learning rates, weight decays and betas again."""
        super().rates_change()
        if hasattr(self, "_steps"):
            self._find_runs()

    def _find_runs(self) -> None:
        counts = self._steps[:, 0].tolist()
        keys = [(*o.param_groups[0]["betas"], count) for o, count in zip(self.optimizers, counts, strict=True)]
        self._runs = _runs_of_equals(keys)

    def _step(self, weights: Tensor, gradients: Tensor) -> None:
        if self.decays and self._decoupled:
            weights.mul_(self.shrink)
        elif self.decays:
            gradients += weights * self.decay
        self._steps += 1.0
        self._change.zero_()
        for first, last, (beta1, beta2, *_) in self._runs:
            torch._fused_adam_(
                [self._change[first:last]],
                [gradients[first:last]],
                [self.state["exp_avg"][first:last]],
                [self.state["exp_avg_sq"][first:last]],
                [],
                [self._steps[first, 0]],
                lr=1.0,
                beta1=float(beta1),
                beta2=float(beta2),
                weight_decay=0.0,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )
        weights += self._change.mul_(self.rate)


class _StackedSGD(_InOneBlock):
    """SGD, with or without momentum."""

    def __init__(self, optimizers: Sequence[Optimizer], weights: Flat, owned: Sequence[Mapping[str, Tensor]]) -> None:
        group = optimizers[0].param_groups[0]
        self._has_momentum, self._nesterov = bool(group["momentum"]), bool(group["nesterov"])
        # A buffer of zeros becomes the gradient in the first step, as torch's does.
        super().__init__(optimizers, weights, owned, ("momentum_buffer",) if self._has_momentum else ())

    def rates_change(self) -> None:
        """Look at learning rates, weight decays and momenta again."""
        super().rates_change()
        momenta = [[float(optimizer.param_groups[0]["momentum"])] for optimizer in self.optimizers]
        self._momentum = torch.tensor(momenta, dtype=torch.float64).to(self.rate.device, self.rate.dtype)

    def _step(self, weights: Tensor, gradients: Tensor) -> None:
        if self.decays:
            gradients += weights * self.decay
        if self._has_momentum:
            buffer = self.state["momentum_buffer"].mul_(self._momentum).add_(gradients)
            gradients = gradients + buffer * self._momentum if self._nesterov else buffer
        weights -= gradients * self.rate


def _runs_of_equals(keys: Sequence[tuple[Any, ...]]) -> list[tuple[int, int, tuple[Any, ...]]]:
    """Return runs of neighbours with equal keys: first, one behind the last, key."""
    runs = []
    first = 0
    for k in range(1, len(keys) + 1):
        if k == len(keys) or keys[k] != keys[first]:
            runs.append((first, k, keys[first]))
            first = k
    return runs
