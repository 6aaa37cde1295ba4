"""Torch's optimizers with their fused kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.optim import optimizer as torch_optimizer

__all__ = ["FastStep", "build_optimizer", "kernel_of", "with_kernel_of"]

_ON = ("cpu", "cuda")
_CHOICES = ("fused", "foreach", "capturable", "differentiable")
"""Parameters of torch's optimizers by which a row chooses how a step is computed."""


def build_optimizer(
    optimizer_class: Callable[..., torch.optim.Optimizer],
    parameters: Iterable[torch.nn.Parameter],
    params: Mapping[str, Any],
    device: torch.device,
    *,
    capturable: bool = False,
) -> torch.optim.Optimizer:
    """Build an optimizer, with one kernel for all of a step where it is torch's own and has one for the device.

    The kernel computes the same step up to rounding, in less than half the time. A row that sets ``fused`` or ``foreach``
    is left as it is.

    Parameters
    ----------
    optimizer_class : callable
        ``optimizer_class(parameters, **params)``.
    parameters : iterable of Parameter
        What it learns.
    params : mapping
        From the training config.
    device : torch.device
        Where the parameters are.
    capturable : bool
        Whether the step is to be one that a CUDA graph can record, where the optimizer is torch's and has such a step.
    """
    parameters = list(parameters)
    if capturable and _has(optimizer_class, params, "capturable"):
        params = {**params, "capturable": True}
    if (
        _has(optimizer_class, params, "fused", besides=("capturable",))
        and device.type in _ON
        and all(weight.is_floating_point() for weight in parameters)
        # Its kernel for momentum fails where a parameter takes no part in every step.
        and not (optimizer_class is torch.optim.SGD and params.get("momentum"))
    ):
        try:
            return optimizer_class(parameters, **{**params, "fused": True})
        except RuntimeError:  # this version of torch has none for such a device after all
            pass
    return optimizer_class(parameters, **params)


def kernel_of(optimizer: torch.optim.Optimizer) -> str:
    """Return how an optimizer computes its steps: ``"fused"``, ``"foreach"``, or ``"default"``, as it chooses itself."""
    for kernel in ("fused", "foreach"):
        if all(group.get(kernel) for group in optimizer.param_groups):
            return kernel
    return "default"


def with_kernel_of(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of an optimizer of torch's as one that `optimizer` goes on with by its own kernel.

    The state names the kernel of where it was made, which may have been another device.
    """
    groups = state.get("param_groups", ())
    if not type(optimizer).__module__.startswith("torch.optim.") or len(groups) != len(optimizer.param_groups):
        return state
    ours = [{name: own[name] for name in _CHOICES if name in own} for own in optimizer.param_groups]
    return {**state, "param_groups": [{**group, **own} for group, own in zip(groups, ours, strict=True)]}


class FastStep:
    """Makes the steps of an optimizer: torch's Adam and AdamW with the fused kernel without looking everything up anew.

    ``optimizer.step()`` collects weights, gradients and moments again at each step, and counts each weight's steps by
    itself, which costs more than the kernel as long as the weights are few. Here they are collected once, and the counts lie
    in one tensor, of which the optimizer's state has views. Everything else, hooks, a tensor as learning rate, weights
    without a gradient, other optimizers, is left to ``optimizer.step()``.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Any.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._known = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        self._clears = type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad
        self._groups: list[_Group] | None = None
        self._of: tuple[Any, ...] = ()

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        if not self._clears:
            self._optimizer.zero_grad()
            return
        for group in self._optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Make one step, as ``optimizer.step()`` does."""
        groups = self._groups
        if groups is None or self._is_stale() or self._is_hooked():
            self._optimizer.step()
            if self._known:
                self._collect()
            return
        gradients = [[weight.grad for weight in group.weights] for group in groups]
        if any(gradient is None for found in gradients for gradient in found) or any(
            weight.grad is not None for group in groups for weight in group.frozen
        ):
            self._optimizer.step()
            return
        for group, found in zip(groups, gradients, strict=True):
            group.step(found)

    def _is_stale(self) -> bool:
        """Whether the optimizer has other states or groups by now, as after ``load_state_dict``."""
        optimizer = self._optimizer
        return any(
            one is not other for one, other in zip(self._of, (optimizer.state, *optimizer.param_groups), strict=False)
        ) or len(self._of) != 1 + len(optimizer.param_groups)

    def _is_hooked(self) -> bool:
        optimizer = self._optimizer
        # A scheduler wraps the method, to warn if it is never called; it was, to collect.
        wrapped = vars(optimizer).get("step")
        return bool(
            optimizer._optimizer_step_pre_hooks
            or optimizer._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or (wrapped is not None and not getattr(wrapped, "_wrapped_by_lr_sched", False))
        )

    def _collect(self) -> None:
        optimizer = self._optimizer
        decoupled = isinstance(optimizer, torch.optim.AdamW)
        groups = [_Group(group, optimizer.state, decoupled) for group in optimizer.param_groups]
        self._of = (optimizer.state, *optimizer.param_groups)
        self._groups = groups if all(group.usable for group in groups) else None


class _Group:
    """Weights of one parameter group of Adam, with everything that a step of it needs."""

    def __init__(self, group: dict[str, Any], state: Mapping[torch.Tensor, dict[str, Any]], decoupled: bool) -> None:
        self._group = group
        self.weights = [weight for weight in group["params"] if weight.requires_grad]
        self.frozen = [weight for weight in group["params"] if not weight.requires_grad]
        states = [state[weight] for weight in self.weights if state.get(weight)]
        self.usable = (
            bool(group["fused"])
            and not group["capturable"]
            and bool(states)
            and len(states) == len(self.weights)
            and not any(weight.grad is None or weight.grad.is_sparse for weight in self.weights)
            and len({(weight.device, weight.dtype) for weight in self.weights}) == 1
            and not any(isinstance(group[name], torch.Tensor) for name in ("lr", "weight_decay", "eps"))
            and not any(isinstance(beta, torch.Tensor) for beta in group["betas"])
        )
        if not self.usable:
            return
        self._count = torch.stack([found["step"] for found in states])
        for found, count in zip(states, self._count, strict=True):
            found["step"] = count
        self._counts = [found["step"] for found in states]
        self._first = [found["exp_avg"] for found in states]
        self._second = [found["exp_avg_sq"] for found in states]
        self._largest = [found["max_exp_avg_sq"] for found in states] if group["amsgrad"] else []
        decoupled = decoupled or group.get("decoupled_weight_decay", False)
        self._kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def step(self, gradients: list[torch.Tensor]) -> None:
        group = self._group
        self._count.add_(1)
        first, second = group["betas"]
        self._kernel(
            self.weights,
            gradients,
            self._first,
            self._second,
            self._largest,
            self._counts,
            lr=group["lr"],
            beta1=first,
            beta2=second,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=group["maximize"],
        )


def _has(optimizer_class: Any, params: Mapping[str, Any], name: str, besides: tuple[str, ...] = ()) -> bool:
    """Whether a class is torch's and has a parameter, and the row leaves the choice of the kernel open."""
    return (
        inspect.isclass(optimizer_class)
        and optimizer_class.__module__.startswith("torch.optim.")
        and name in inspect.signature(optimizer_class).parameters
        and not any(choice in params for choice in _CHOICES if choice not in besides)
    )
