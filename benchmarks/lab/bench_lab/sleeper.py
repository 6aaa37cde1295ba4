"""A trainer that takes time and no processor, so that many workers fit on a small machine."""

from __future__ import annotations

import time
from typing import Any

import torch

from synicix_core import TrainingInterrupted


class Sleeper:
    """Sleeps a second an epoch, and saves the untrained model."""

    def __init__(
        self,
        model_class: Any,
        model_class_params: dict[str, Any],
        model_save_path: str,
        max_epoch: int,
        context: Any,
        **_: Any,
    ) -> None:
        self.model = model_class(**model_class_params)
        self.path, self.max_epoch, self.context = model_save_path, max_epoch, context

    def train(self) -> None:
        """Sleep."""
        for epoch in range(1, self.max_epoch + 1):
            if self.context.stop_requested():
                self.context.save_checkpoint({"epoch": epoch})
                raise TrainingInterrupted(epoch - 1)
            time.sleep(1)
            self.context.epoch_finished(epoch, train_loss=0.0, validation_loss=0.0)
        torch.save(self.model.state_dict(), self.path)

    def validate(self) -> float:
        """Return nothing much."""
        return 0.0

    def evaluate(self, return_outputs_targets_and_loss: bool = False) -> float:  # noqa: ARG002 - the contract's argument
        """Return nothing much."""
        return 0.0

    def load_best_performing_model(self) -> None:
        """Have it already."""
