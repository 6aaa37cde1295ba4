"""Means of losses over samples, for which the host waits for the device as rarely as possible."""

from __future__ import annotations

import math
from typing import Any

import torch

from synicix_core.training.metrics import per_sample_weight

__all__ = ["LossSums"]


class LossSums:
    """Collects the loss and the penalty of each batch on the device and adds them up in double precision.

    The sum goes from batch to batch, so that it does not depend on when `fold` is called.

    Parameters
    ----------
    criterion : callable
        Whether it sums or averages decides what a batch weighs.
    """

    def __init__(self, criterion: Any) -> None:
        self._criterion = criterion
        self._losses: list[torch.Tensor | float] = []
        self._penalties: list[torch.Tensor | float] = []
        self._counts: list[int] = []
        self._loss = 0.0
        self._penalty = 0.0
        self._samples = 0

    def add(self, loss: torch.Tensor, penalty: torch.Tensor | None, count: int) -> None:
        """Take a batch of `count` samples; nobody waits for a GPU."""
        self._losses.append(_detached(loss))
        self._penalties.append(0.0 if penalty is None else _detached(penalty))
        self._counts.append(count)

    @property
    def pending(self) -> int:
        """Batches that were not added up yet."""
        return len(self._counts)

    def fold(self) -> bool:
        """Add up, waiting for the device, and tell whether everything so far is finite."""
        if self._counts:
            batches = zip(_numbers(self._losses), _numbers(self._penalties), self._counts, strict=True)
            for loss, penalty, count in batches:
                self._loss += loss * per_sample_weight(self._criterion, count)
                self._penalty += penalty * count
                self._samples += count
            self._losses, self._penalties, self._counts = [], [], []
        return math.isfinite(self._loss) and math.isfinite(self._penalty)

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the mean penalty per sample; NaN without any."""
        self.fold()
        if not self._samples:
            return math.nan, math.nan
        return self._loss / self._samples, self._penalty / self._samples

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        self.fold()
        return {"loss": self._loss, "penalty": self._penalty, "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._loss, self._penalty, self._samples = state["loss"], state["penalty"], state["samples"]


def _detached(value: torch.Tensor) -> torch.Tensor | float:
    # On the CPU there is nothing to wait for, and small tensors that stay behind cut its memory into pieces.
    return value.item() if value.device.type == "cpu" else value.detach()


def _numbers(values: list[torch.Tensor | float]) -> list[float]:
    waiting = [value for value in values if isinstance(value, torch.Tensor)]
    alike = len({(value.device, value.dtype) for value in waiting}) == 1
    found = iter(torch.stack(waiting).tolist() if alike else [float(value) for value in waiting])
    return [next(found) if isinstance(value, torch.Tensor) else value for value in values]
