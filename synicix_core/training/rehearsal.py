"""Compiled code against the model itself, on one batch, without leaving a trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from synicix_core.training import random_state
from synicix_core.training.optimization import Losses, Optimization, losses_of

__all__ = ["rehearse"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_TOLERANCE_HALF = 5e-2
"""By how much the loss and the gradients of compiled code may differ from the model's own, relative to their size."""

_SHAPES_KEPT = 256
"""Shapes whose code torch is to keep; beyond its own limit, which is 8, it would silently stop compiling."""


def rehearse(optimization: Optimization, code: Callable[..., Losses], inputs: Any, targets: Any) -> str:
    """Compute loss and gradients of a batch by `code`, which compiles it, and by the model itself; return how they differ.

    Neither weights, gradients, buffers, plain attributes nor random generators are changed by that.

    Parameters
    ----------
    optimization : Optimization
        Of which model, criterion and precision.
    code : callable
        What torch made of `losses_of`.
    inputs, targets : nested tensors
        On the device.

    Returns
    -------
    str
        Empty where they do not differ by more than rounding.
    """
    model, criterion, precision = optimization.model, optimization.criterion, optimization.precision
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def learn(losses: Callable[..., Losses]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        loss, penalty = losses(model, criterion, precision, inputs, targets)
        objective = loss if penalty is None else loss + penalty
        found = torch.autograd.grad(objective, weights, allow_unused=True)
        return objective.detach(), [gradient for gradient in found if gradient is not None]

    with _untouched(optimization):
        expected, gradients = learn(losses_of)
    # Seconds to import, and only here is it known that they are needed.
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    with (
        _untouched(optimization),
        dynamo.patch(recompile_limit=_SHAPES_KEPT, accumulated_recompile_limit=16 * _SHAPES_KEPT),
        # A pool of processes for the compiler would outlive this one when it is killed.
        inductor.patch(compile_threads=1),
    ):
        found, found_gradients = learn(code)
    tolerance = _TOLERANCE_HALF
    if precision.resolved == "fp32":
        tolerance = max([_TOLERANCE.get(weight.dtype, _TOLERANCE_HALF) for weight in weights], default=tolerance)
    if len(gradients) != len(found_gradients):
        return "compiled code has gradients for other weights"
    if not _close([expected], [found], tolerance):
        return f"compiled code has another loss ({float(found):.6g}, not {float(expected):.6g})"
    return "" if _close(gradients, found_gradients, tolerance) else "compiled code has other gradients"


def _close(expected: list[torch.Tensor], found: list[torch.Tensor], tolerance: float) -> bool:
    if not expected:
        return True
    size = torch.stack([value.double().norm() for value in expected]).norm().item()
    apart = torch.stack([(a.double() - b.double()).norm() for a, b in zip(expected, found, strict=True)]).norm().item()
    # A training that diverged already has nothing to compare.
    return not math.isfinite(size) or apart <= tolerance * size


@contextmanager
def _untouched(optimization: Optimization) -> Iterator[None]:
    """Put buffers, plain attributes and random generators back afterwards."""
    modules = list(optimization.model.modules())
    criterion = optimization.criterion
    modules += list(criterion.modules()) if isinstance(criterion, torch.nn.Module) else []
    owners = [owner for owner in (*modules, criterion) if hasattr(owner, "__dict__")]
    plain = [
        {name: copy.deepcopy(value) for name, value in vars(owner).items() if _is_plain(value)} for owner in owners
    ]
    held = [optimization.dropout, *(value for owner in owners for value in vars(owner).values())]
    generators = {str(index): value for index, value in enumerate(held) if isinstance(value, torch.Generator)}
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    random = random_state.capture(generators)
    try:
        yield
    finally:
        random_state.restore(random, generators)
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                buffer.copy_(value)
        for owner, attributes in zip(owners, plain, strict=True):
            vars(owner).update(attributes)


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)
