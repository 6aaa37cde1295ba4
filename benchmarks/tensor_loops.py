"""Two rivals of the trainer that gather batches out of tensors in memory: as people write it, and as fast as one gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from small_tasks import BATCH, L1, L2, LEARNING_RATE, Size, clock
from torch import Tensor, nn

__all__ = ["Trained", "train_ordinary", "train_tuned"]

_Tiers = dict[str, tuple[Tensor, Tensor]]


class Trained:
    """What a loop leaves: the model, seconds and mean losses of each epoch, and the last mean loss on the validation tier."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.seconds: list[float] = []
        self.history: list[tuple[float, float]] = []
        self.validation_loss = float("nan")
        self._device = device
        self._latest = clock(device)

    def epoch(self, validation_loss: float) -> None:
        """Note the end of an epoch."""
        now = clock(self._device)
        self.seconds.append(now - self._latest)
        self._latest = now
        self.validation_loss = validation_loss

    def time_and_loss(self) -> tuple[float, float]:
        """Return the mean milliseconds of an epoch, the first one left out, and the last validation loss."""
        return 1000 * sum(self.seconds[1:]) / (len(self.seconds) - 1), self.validation_loss


def train_ordinary(
    size: Size,
    tiers: _Tiers,
    device: torch.device,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = LEARNING_RATE,
) -> Trained:
    """Train by torch's Adam as it comes, with the penalty derived by autograd; validate in batches after each epoch."""
    model, optimizer = _build(size, device, seed, lr=learning_rate)
    inputs, targets = tiers["train"]
    trained = Trained(model, device)
    for _ in range(epochs):
        model.train()
        losses, penalties = _Means(device), _Means(device)
        order = torch.randperm(len(inputs), device=device)
        for start in range(0, len(inputs), BATCH):
            chosen = order[start : start + BATCH]
            x, y = inputs[chosen], targets[chosen]
            output, penalty = model(x)
            loss = nn.functional.mse_loss(output, y)
            optimizer.zero_grad()
            (loss + penalty).backward()
            optimizer.step()
            losses.add(loss, len(x))
            penalties.add(penalty, len(x))
        trained.history.append((losses.mean(), penalties.mean()))
        trained.epoch(_validate(model, tiers["validation"], device, BATCH))
    return trained


def train_tuned(size: Size, tiers: _Tiers, device: torch.device, *, epochs: int, seed: int) -> Trained:
    """Train by the fused Adam, with the penalty's gradient written into ``grad``; validate all at once after each epoch."""
    model, optimizer = _build(size, device, seed, lr=LEARNING_RATE, fused=True)
    layers = model.layers
    weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
    inputs, targets = tiers["train"]
    trained = Trained(model, device)
    for _ in range(epochs):
        losses, penalties = _Means(device), _Means(device)
        for chosen in torch.randperm(len(inputs), device=device).split(BATCH):
            x, y = inputs.index_select(0, chosen), targets.index_select(0, chosen)
            loss = nn.functional.mse_loss(layers(x), y)
            optimizer.zero_grad()
            loss.backward()
            penalty = _add_penalty_gradient(weights)
            optimizer.step()
            losses.add(loss, len(x))
            penalties.add(penalty, len(x))
        trained.history.append((losses.mean(), penalties.mean()))
        trained.epoch(_validate(layers, tiers["validation"], device, None))
    return trained


@torch.no_grad()
def _add_penalty_gradient(weights: list[Tensor]) -> Tensor:
    """Add the gradient of L1 and L2 to ``grad``, and return the penalty."""
    penalty: Any = 0.0
    signs = torch._foreach_sign(weights)
    for weight, sign in zip(weights, signs, strict=True):
        flat = weight.view(-1)
        penalty = penalty + L1 * torch.dot(flat, sign.view(-1)) + L2 * torch.dot(flat, flat)
        assert weight.grad is not None
        weight.grad.add_(sign, alpha=L1).add_(weight, alpha=2 * L2)
    return penalty


def _build(size: Size, device: torch.device, seed: int, **options: Any) -> tuple[Any, torch.optim.Optimizer]:
    from bench_lab.parts import TwoLayers

    torch.manual_seed(seed)
    model = TwoLayers((size.inputs,), (size.outputs,), hidden_size=size.hidden).to(device)
    return model, torch.optim.Adam(model.parameters(), **options)


@torch.no_grad()
def _validate(
    model: Callable[[Tensor], Any], tier: tuple[Tensor, Tensor], device: torch.device, batch: int | None
) -> float:
    losses = _Means(device)
    inputs, targets = tier
    for x, y in zip(inputs.split(batch or len(inputs)), targets.split(batch or len(inputs)), strict=True):
        result = model(x)
        losses.add(nn.functional.mse_loss(result[0] if isinstance(result, tuple) else result, y), len(x))
    return losses.mean()


class _Means:
    """The mean over the samples of an epoch; a GPU is not waited for before it is asked."""

    def __init__(self, device: torch.device) -> None:
        self._total: Any = torch.zeros((), device=device) if device.type == "cuda" else 0.0
        self._count = 0

    def add(self, value: Tensor, count: int) -> None:
        detached = value.detach()
        self._total += (detached if detached.device.type == "cuda" else detached.item()) * count
        self._count += count

    def mean(self) -> float:
        return float(self._total) / self._count
