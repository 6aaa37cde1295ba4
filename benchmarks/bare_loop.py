"""The rival of the trainer: the loop that people write by hand, with nothing around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["train_epoch", "validate"]


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, criterion: nn.Module, loader: Iterable[Any]) -> Any:
    """Train one epoch; return the mean loss and the mean penalty per sample."""
    model.train()
    total, penalties, samples = 0.0, 0.0, 0
    for x, y in loader:
        output, penalty = model(x)
        loss = criterion(output, y)
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        total += loss.item() * len(x)
        penalties += penalty.item() * len(x)
        samples += len(x)
    return total / samples, penalties / samples


def validate(model: nn.Module, criterion: nn.Module, loader: Iterable[Any]) -> float:
    """Return the mean loss per sample."""
    model.eval()
    total, samples = 0.0, 0
    with torch.no_grad():
        for x, y in loader:
            output, _ = model(x)
            total += criterion(output, y).item() * len(x)
            samples += len(x)
    return total / samples
