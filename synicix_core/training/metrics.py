"""The core's metrics: functions of the outputs and targets of a whole tier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from synicix_core.errors import SynicixError
from synicix_core.training.batches import batch_size, full_precision

__all__ = ["R2", "Accuracy", "Correlation", "Loss", "LossParams", "per_sample_weight"]


@dataclass(frozen=True)
class LossParams:
    """`Loss` has no parameters: its criterion is the training config's."""


class Loss:
    """The criterion, without the model's penalty, as a mean over the samples of the tier.

    The criterion is called once, with the whole tier, in float32 or better, so that the value does not depend on the
    batch size. One that sums (``reduction = "sum"``) is divided by the number of samples.

    Parameters
    ----------
    criterion : callable
        ``(outputs, targets)`` to a scalar tensor.
    """

    def __init__(self, criterion: Callable[[Any, Any], torch.Tensor]) -> None:
        self.criterion = criterion

    def __call__(self, outputs: Any, targets: Any) -> float:
        """Return the loss of the tier."""
        count = batch_size(targets) or batch_size(outputs)
        return (
            float(self.criterion(full_precision(outputs), targets)) * per_sample_weight(self.criterion, count) / count
        )


class Correlation:
    """Mean over outputs of Pearson's correlation between output and target over the samples.

    Every unit of an output (neuron, pixel, time bin: all axes but the first) is correlated on its own, in double
    precision: ``r = sum((x - mean x)(y - mean y)) / sqrt(sum((x - mean x)^2) sum((y - mean y)^2))``. A unit whose output
    or target does not vary has none; it counts as 0.
    """

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Return the correlation of each unit, shape (units,)."""
        x, y = _units("correlation", outputs, targets)
        varies = ~(_constant(x) | _constant(y))
        x, y = x - x.mean(0), y - y.mean(0)
        # Scaled first, so that the squares of tiny or huge units neither vanish nor overflow.
        x, y = x / x.abs().amax(0), y / y.abs().amax(0)
        r = (x * y).sum(0) / (x.square().sum(0) * y.square().sum(0)).sqrt()
        return torch.where(varies, r, torch.zeros_like(r))


class R2:
    """Mean over outputs of the coefficient of determination, ``1 - sum((y - x)^2) / sum((y - mean y)^2)``.

    Every unit counts on its own, in double precision; one whose target does not vary counts as 0.
    """

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Return the coefficient of each unit, shape (units,)."""
        x, y = _units("r2", outputs, targets)
        total = (y - y.mean(0)).square().sum(0)
        r2 = 1 - (y - x).square().sum(0) / total
        return torch.where(_constant(y), torch.zeros_like(r2), r2)


class Accuracy:
    """Fraction of decisions that are right.

    With class numbers as targets, shape (n, …), and scores as outputs, shape (n, classes, …), the highest score decides.
    With outputs of the shape of the targets, each output is a yes where it exceeds `threshold`.

    Parameters
    ----------
    threshold : float
        Between no and yes: 0.5 for probabilities, 0 for logits.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def __call__(self, outputs: Any, targets: Any) -> float:
        """Return the fraction, 0 to 1."""
        x, y = _tensor("accuracy", outputs), _tensor("accuracy", targets)
        if x.dim() == y.dim() + 1 and x.shape[0] == y.shape[0] and x.shape[2:] == y.shape[1:]:
            right = (x.argmax(1) == y) & torch.isfinite(x).all(1)
        elif x.shape == y.shape:
            right = ((x > self.threshold) == (y > 0.5)) & torch.isfinite(x)
        else:
            raise _mismatch("accuracy", x, y)
        return float(right.double().mean())


def per_sample_weight(criterion: Any, count: int) -> float:
    """Return the factor that makes a sum over samples of what `criterion` gave for `count` of them.

    A mean stands for `count` samples; a sum (``criterion.reduction == "sum"``) already is one.
    """
    return 1.0 if getattr(criterion, "reduction", "mean") == "sum" else float(count)


def _units(metric: str, outputs: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = _tensor(metric, outputs), _tensor(metric, targets)
    if x.shape != y.shape:
        raise _mismatch(metric, x, y)
    return x.reshape(len(x), -1).double(), y.reshape(len(y), -1).double()


def _constant(units: torch.Tensor) -> torch.Tensor:
    # Of the values themselves: after the mean is taken away, rounding leaves a little that is not zero.
    return (units == units[:1]).all(0)


def _tensor(metric: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    raise SynicixError(
        f"the metric {metric!r} cannot be computed",
        why=f"it takes one tensor, not a {type(value).__name__}",
        hint="Name another metric for a model or dataset with several outputs.",
    )


def _mismatch(metric: str, x: torch.Tensor, y: torch.Tensor) -> SynicixError:
    return SynicixError(
        f"the metric {metric!r} cannot be computed",
        why=f"outputs have shape {tuple(x.shape)} and targets {tuple(y.shape)}",
    )
