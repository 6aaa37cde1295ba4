"""One step of learning: forward, backward, clip, step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from synicix_core.training.batches import batch_size, full_precision, move, split_batch, split_output
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.precision import Precision
from synicix_core.training.schedules import LearningRate
from synicix_core.training.tier_pass import criterion_loss

__all__ = ["Optimization"]


class Optimization:
    """Makes steps with one model, criterion and optimizer.

    Parameters
    ----------
    model, criterion, optimizer
        As built, on `device`.
    learning_rate : LearningRate
        Told after each step that was made.
    precision : Precision
        Of the forward pass; the loss is computed in float32 or better.
    device : torch.device
        Where batches go.
    clip_norm, clip_value : float or None
        Limits of the gradients, applied after unscaling: first the value, then the norm.
    skip_nonfinite : bool
        Whether to leave out steps whose loss or gradient is not finite. To know, the host waits for the device at each.

    Attributes
    ----------
    skipped_steps : int
        Steps left out, by `skip_nonfinite` or by the gradient scaler.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Any,
        optimizer: torch.optim.Optimizer,
        learning_rate: LearningRate,
        precision: Precision,
        device: torch.device,
        *,
        clip_norm: float | None,
        clip_value: float | None,
        skip_nonfinite: bool,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.precision = precision
        self.device = device
        self.skipped_steps = 0
        self._clip_norm, self._clip_value = clip_norm, clip_value
        self._skip_nonfinite = skip_nonfinite
        self._needs_true_gradients = clip_norm is not None or clip_value is not None or skip_nonfinite

    def step(self, batch: Any, sums: LossSums) -> None:
        """Learn from a batch and add its loss and penalty to `sums`, unless the step is left out."""
        self.optimizer.zero_grad()
        inputs, targets = split_batch(batch)
        count = batch_size(targets) or batch_size(inputs)
        inputs, targets = move(inputs, self.device), move(targets, self.device)
        with self.precision.autocast():
            output, penalty = split_output(self.model(inputs))
        loss = criterion_loss(self.criterion, full_precision(output), targets)
        objective = loss if penalty is None else loss + penalty
        if self._skip_nonfinite and not math.isfinite(objective.item()):
            self.skipped_steps += 1
            return
        self.precision.backward(objective)
        if self._needs_true_gradients:
            self.precision.unscale_(self.optimizer)
            if not self._clip():
                self.skipped_steps += 1
                return
        if self.precision.step(self.optimizer):
            self.learning_rate.after_step()
            sums.add(loss, penalty, count)
        else:
            self.skipped_steps += 1

    def _clip(self) -> bool:
        """Clip, and tell whether the step may be made."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        # The scaler leaves out steps with infinite gradients itself, and must see them to lower its scale.
        if self._skip_nonfinite and self.precision.scaler is None:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if not math.isfinite(norm.item()):
                return False
        if self._clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self._clip_value)
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes as it learns."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "precision": self.precision.state_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.precision.load_state_dict(state["precision"])
        self.skipped_steps = state["skipped_steps"]
