"""Torch's optimizers with their fused kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

__all__ = ["build_optimizer"]

_ON = ("cpu", "cuda")
_CHOICES = ("fused", "foreach", "capturable", "differentiable")
"""Parameters of torch's optimizers by which a row chooses how a step is computed."""


def build_optimizer(
    optimizer_class: Callable[..., torch.optim.Optimizer],
    parameters: Iterable[torch.nn.Parameter],
    params: Mapping[str, Any],
    device: torch.device,
) -> torch.optim.Optimizer:
    """Build an optimizer, with one kernel for all of a step where it is torch's own and has one for the device.

    The kernel computes the same step up to rounding, in less than half the time. A row that sets ``fused`` or ``foreach``
    is left as it is.
    """
    parameters = list(parameters)
    if _has_kernel(optimizer_class, params, device) and all(weight.is_floating_point() for weight in parameters):
        try:
            return optimizer_class(parameters, **{**params, "fused": True})
        except RuntimeError:  # this version of torch has none for such a device after all
            pass
    return optimizer_class(parameters, **params)


def _has_kernel(optimizer_class: Any, params: Mapping[str, Any], device: torch.device) -> bool:
    return (
        inspect.isclass(optimizer_class)
        and optimizer_class.__module__.startswith("torch.optim.")
        and "fused" in inspect.signature(optimizer_class).parameters
        and not any(choice in params for choice in _CHOICES)
        and device.type in _ON
    )
