"""The optimizers of several models of one architecture, stepped together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

__all__ = ["StackedOptimizer", "stack_optimizers"]

_ALIKE = {
    Adam: ("eps", "amsgrad", "maximize", "decoupled_weight_decay", "capturable", "differentiable"),
    SGD: ("momentum", "dampening", "nesterov", "maximize", "differentiable"),
}
"""What must be the same in all of them; learning rate, weight decay and betas may differ."""


class StackedOptimizer(Protocol):
    """Steps all of them. Each stays a real optimizer, whose groups say the learning rate and whose state is its own."""

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step; gradients are (models, *shape) by the name of the parameter, None where it takes no part."""

    def release(self) -> None:
        """Give each optimizer state of its own again."""


def stack_optimizers(
    optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor], owned: Sequence[Mapping[str, Tensor]]
) -> StackedOptimizer:
    """Return the fastest way to step optimizers together.

    Adam, AdamW and SGD of torch step in a few operations for all. Any other, and one with several groups of parameters or
    with hooks, makes its own step on its slices.

    Parameters
    ----------
    optimizers : sequence of Optimizer
        One for each model, of one class.
    parameters : mapping of str to Tensor, (models, *shape)
        The stacked parameters that learn.
    owned : sequence of mapping
        The parameters of each model by name: slices of those.
    """
    first = optimizers[0]
    for optimizer in optimizers:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's schedulers look at before they warn
    if type(first) in (Adam, AdamW) and _alike(optimizers, _ALIKE[Adam]) and _plain_adam(first):
        return _StackedAdam(optimizers, parameters, owned)
    if type(first) is SGD and _alike(optimizers, _ALIKE[SGD]) and _plain_sgd(first):
        return _StackedSGD(optimizers, parameters, owned)
    return _OneByOne(optimizers, owned)


def _alike(optimizers: Sequence[Optimizer], names: Sequence[str]) -> bool:
    first = optimizers[0].param_groups[0]
    return all(
        type(optimizer) is type(optimizers[0])
        and len(optimizer.param_groups) == 1
        and not _has_hooks(optimizer)
        and all(optimizer.param_groups[0].get(name) == first.get(name) for name in names)
        and all(isinstance(optimizer.param_groups[0][name], int | float) for name in ("lr", "weight_decay"))
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


class _Rates:
    """A number of each optimizer's group as a tensor, made anew when one of them changes."""

    def __init__(self, optimizers: Sequence[Optimizer], like: Tensor) -> None:
        self._groups = [optimizer.param_groups[0] for optimizer in optimizers]
        self._like = like
        self._known: dict[str, tuple[list[float], Tensor]] = {}

    def __call__(self, name: str) -> tuple[list[float], Tensor]:
        """Return the numbers and, as float64 rounded to the parameters' dtype, the tensor, (models,)."""
        values = [float(group[name]) for group in self._groups]
        known = self._known.get(name)
        if known is None or known[0] != values:
            known = values, torch.tensor(values, dtype=torch.float64).to(self._like.device, self._like.dtype)
            self._known[name] = known
        return known


def _along(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *([1] * (like.dim() - 1)))


class _StackedAdam:
    """Adam and AdamW by torch's fused kernel.

    The kernel knows one learning rate. So it steps a change that begins at zero, by a rate of one, and each model takes as
    much of it as its own rate says.

    Every operation besides the kernel is rounded once for each number, so that none depends on where in the stack it stands.
    Within the kernel of the CPU the last numbers of a tensor are computed in another way than the others, so it gets the
    tensors of each model by themselves.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor], owned: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self._optimizers = list(optimizers)
        self._owned = list(owned)
        self._parameters = {name: tensor.detach() for name, tensor in parameters.items()}
        self._rates = _Rates(optimizers, next(iter(parameters.values())))
        group = optimizers[0].param_groups[0]
        self._eps = float(group["eps"])
        self._decoupled = bool(group["decoupled_weight_decay"])
        self._change = {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()}
        self._states = {
            key: {
                name: _stacked_state(optimizers, owned, name, key, tensor) for name, tensor in self._parameters.items()
            }
            for key in ("exp_avg", "exp_avg_sq")
        }
        # As torch keeps it: a number of its own for each parameter.
        self._steps = {
            name: torch.stack(
                [_step_of(optimizer, own[name]) for optimizer, own in zip(optimizers, owned, strict=True)]
            )
            for name in self._parameters
        }
        for k, (optimizer, own) in enumerate(zip(optimizers, owned, strict=True)):
            for name in self._parameters:
                optimizer.state[own[name]] = {
                    "step": self._steps[name][k],
                    **{key: stacked[name][k] for key, stacked in self._states.items()},
                }
        self._ranges: dict[tuple[str, ...], list[tuple[int, int, float, float]]] = {}

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step."""
        names = [name for name, gradient in gradients.items() if gradient is not None]
        found = [gradient for gradient in gradients.values() if gradient is not None]
        if not names:
            return
        with torch.no_grad():
            weights = [self._parameters[name] for name in names]
            rates, rate = self._rates("lr")
            decays, decay = self._rates("weight_decay")
            if any(decays):
                if self._decoupled:
                    shrink = torch.tensor(
                        [1.0 - lr * wd for lr, wd in zip(rates, decays, strict=True)], dtype=torch.float64
                    )
                    shrink = shrink.to(rate.device, rate.dtype)
                    for weight in weights:
                        weight.mul_(_along(shrink, weight))
                else:
                    found = [g + w * _along(decay, w) for g, w in zip(found, weights, strict=True)]
            changes = [self._change[name] for name in names]
            torch._foreach_zero_(changes)
            torch._foreach_add_([self._steps[name] for name in names], 1.0)
            self._kernel(names, changes, [gradient.contiguous() for gradient in found])
            for weight, change in zip(weights, changes, strict=True):
                weight.add_(change.mul_(_along(rate, weight)))

    def release(self) -> None:
        """Give each optimizer state of its own again."""
        for optimizer, own in zip(self._optimizers, self._owned, strict=True):
            for name in self._parameters:
                optimizer.state[own[name]] = {key: value.clone() for key, value in optimizer.state[own[name]].items()}

    def _kernel(self, names: Sequence[str], changes: list[Tensor], gradients: list[Tensor]) -> None:
        means, squares = ([self._states[key][name] for name in names] for key in ("exp_avg", "exp_avg_sq"))
        steps = [self._steps[name] for name in names]
        one_by_one = changes[0].device.type == "cpu"
        for first, last, beta1, beta2 in self._alike(tuple(names)):
            parts = [
                [tensor for stacked in stack for tensor in stacked.unbind(0)[first:last]]
                if one_by_one
                else [stacked[first:last] for stacked in stack]
                for stack in (changes, gradients, means, squares)
            ]
            counts = [n for step in steps for n in (step.unbind(0)[first:last] if one_by_one else (step[first],))]
            torch._fused_adam_(
                parts[0],
                parts[1],
                parts[2],
                parts[3],
                [],
                counts,
                lr=1.0,
                beta1=beta1,
                beta2=beta2,
                weight_decay=0.0,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )

    def _alike(self, names: tuple[str, ...]) -> list[tuple[int, int, float, float]]:
        """Return runs of neighbours with the same betas and number of steps: one call of the kernel serves a run."""
        if names not in self._ranges:
            # From then on their steps go hand in hand.
            steps = torch.stack([self._steps[name] for name in names], 1).tolist()
            keys = [(*o.param_groups[0]["betas"], *counts) for o, counts in zip(self._optimizers, steps, strict=True)]
            ranges = []
            first = 0
            for k in range(1, len(keys) + 1):
                if k == len(keys) or keys[k] != keys[first]:
                    ranges.append((first, k, float(keys[first][0]), float(keys[first][1])))
                    first = k
            self._ranges[names] = ranges
        return self._ranges[names]


class _StackedSGD:
    """SGD, with or without momentum."""

    def __init__(
        self, optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor], owned: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self._optimizers = list(optimizers)
        self._owned = list(owned)
        self._parameters = {name: tensor.detach() for name, tensor in parameters.items()}
        self._rates = _Rates(optimizers, next(iter(parameters.values())))
        group = optimizers[0].param_groups[0]
        self._momentum, self._nesterov = float(group["momentum"]), bool(group["nesterov"])
        self._buffers: dict[str, Tensor] = {}
        if self._momentum:
            # A buffer of zeros becomes the gradient in the first step, as torch's does.
            for name, tensor in self._parameters.items():
                self._buffers[name] = _stacked_state(optimizers, owned, name, "momentum_buffer", tensor)
                for k, (optimizer, own) in enumerate(zip(optimizers, owned, strict=True)):
                    optimizer.state[own[name]]["momentum_buffer"] = self._buffers[name][k]

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step."""
        _, rate = self._rates("lr")
        decays, decay = self._rates("weight_decay")
        with torch.no_grad():
            for name, gradient in gradients.items():
                if gradient is None:
                    continue
                weight = self._parameters[name]
                # Rounded once for each number, as in Adam's step.
                change = gradient + weight * _along(decay, weight) if any(decays) else gradient
                if self._momentum:
                    buffer = self._buffers[name].mul_(self._momentum).add_(change)
                    change = change + buffer * self._momentum if self._nesterov else buffer
                weight.sub_(change * _along(rate, weight))

    def release(self) -> None:
        """Give each optimizer state of its own again."""
        for optimizer, own in zip(self._optimizers, self._owned, strict=True):
            for name in self._buffers:
                optimizer.state[own[name]]["momentum_buffer"] = optimizer.state[own[name]]["momentum_buffer"].clone()


class _OneByOne:
    """Any optimizer: each makes its own step."""

    def __init__(self, optimizers: Sequence[Optimizer], owned: Sequence[Mapping[str, Tensor]]) -> None:
        self._optimizers = list(optimizers)
        self._owned = list(owned)

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Make a step."""
        for k, (optimizer, own) in enumerate(zip(self._optimizers, self._owned, strict=True)):
            for name, gradient in gradients.items():
                own[name].grad = None if gradient is None else gradient[k]
            optimizer.step()
            optimizer.zero_grad()

    def release(self) -> None:
        """Do nothing: each has its own state."""


def _stacked_state(
    optimizers: Sequence[Optimizer], owned: Sequence[Mapping[str, Tensor]], name: str, key: str, like: Tensor
) -> Tensor:
    slices = []
    for k, (optimizer, own) in enumerate(zip(optimizers, owned, strict=True)):
        value = optimizer.state.get(own[name], {}).get(key)
        slices.append(torch.zeros_like(like[k]) if value is None else value)
    return torch.stack(slices)


def _step_of(optimizer: Optimizer, parameter: Tensor) -> Tensor:
    step = optimizer.state.get(parameter, {}).get("step")
    device = parameter.device
    return torch.zeros((), dtype=torch.float32, device=device) if step is None else step.to(device, torch.float32)
