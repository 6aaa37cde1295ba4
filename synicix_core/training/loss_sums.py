"""Means of losses over samples, for which the host waits for the device as rarely as possible."""

from __future__ import annotations

import math
from typing import Any

import torch

__all__ = ["LossSums"]

_MANY = 4096
"""Batches after which a GPU is waited for in the middle of a long epoch, lest what waits grows without end."""


class LossSums:
    """Adds up the loss and the penalty of each batch in double precision, in the order of the batches.

    On the CPU at once. On a GPU they stay there, and nobody waits for them, until somebody asks for a sum.

    Parameters
    ----------
    criterion : callable
        Whether it sums or averages decides what a batch weighs.
    """

    def __init__(self, criterion: Any) -> None:
        self._sums = getattr(criterion, "reduction", "mean") == "sum"
        self._waiting: list[tuple[torch.Tensor | float, torch.Tensor | float, int]] = []
        self._loss = 0.0
        self._penalty = 0.0
        self._samples = 0

    def add(self, loss: torch.Tensor, penalty: torch.Tensor | None, count: int) -> None:
        """Take a batch of `count` samples."""
        if loss.device.type == "cpu":
            # Small tensors that stay behind would cut the memory of the CPU into pieces.
            self.add_numbers(loss.item(), 0.0 if penalty is None else penalty.item(), count)
            return
        self._waiting.append((loss.detach(), 0.0 if penalty is None else penalty.detach(), count))
        if len(self._waiting) >= _MANY:
            self._fold()

    def add_numbers(self, loss: float, penalty: float, count: int) -> None:
        """Take a batch of `count` samples whose loss and penalty are known."""
        self._loss += loss if self._sums else loss * count
        self._penalty += penalty * count
        self._samples += count

    @property
    def known_finite(self) -> bool:
        """Whether everything is finite as far as it was added up already."""
        return math.isfinite(self._loss) and math.isfinite(self._penalty)

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the mean penalty per sample, waiting for the device; NaN without any."""
        self._fold()
        if not self._samples:
            return math.nan, math.nan
        return self._loss / self._samples, self._penalty / self._samples

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        self._fold()
        return {"loss": self._loss, "penalty": self._penalty, "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._loss, self._penalty, self._samples = state["loss"], state["penalty"], state["samples"]

    def _fold(self) -> None:
        waiting, self._waiting = self._waiting, []
        losses = _numbers([loss for loss, _, _ in waiting])
        penalties = _numbers([penalty for _, penalty, _ in waiting])
        for loss, penalty, (_, _, count) in zip(losses, penalties, waiting, strict=True):
            self.add_numbers(loss, penalty, count)


def _numbers(values: list[torch.Tensor | float]) -> list[float]:
    """Return numbers, by one copy from the device where they are alike."""
    waiting = [value for value in values if isinstance(value, torch.Tensor)]
    alike = len({(value.device, value.dtype) for value in waiting}) == 1
    found = iter(torch.stack(waiting).tolist() if alike else [float(value) for value in waiting])
    return [next(found) if isinstance(value, torch.Tensor) else value for value in values]
