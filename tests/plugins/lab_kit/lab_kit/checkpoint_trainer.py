"""A trainer that accepts `context`: mixed precision, observers, preemption and resume for a few lines."""

from __future__ import annotations

from typing import Any

import torch

from lab_kit.plain_trainer import PlainTrainer
from synicix_core import TrainingContext
from synicix_core.training.contract import TrainingInterrupted

__all__ = ["CheckpointTrainer"]


class CheckpointTrainer(PlainTrainer):
    """Saves a checkpoint after each epoch and goes on from it.

    Parameters
    ----------
    context : TrainingContext
        From the pipeline.
    precision : {"auto", "fp32", "tf32", "bf16", "fp16"}
        Read by the pipeline, which makes `context.precision` of it.
    """

    def __init__(self, *, context: TrainingContext, precision: str = "auto", **arguments: Any) -> None:
        super().__init__(**arguments)
        del precision
        self.context = context
        self.regularization_loss_history: list[float] = []
        self.model_class_params_history: list[dict[str, float]] = []

    def train(self) -> None:
        """Train from the last checkpoint on."""
        best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        first = 1
        state = self.context.load_checkpoint()
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            best, first = state["best"], state["epoch"] + 1
            for name, history in state["histories"].items():
                setattr(self, name, history)
            self.best_epoch = state["best_epoch"]
        for epoch in range(first, self.max_epoch + 1):
            self._train_epoch()
            if self.validation_epoch_loss_history[-1] == min(self.validation_epoch_loss_history):
                self.best_epoch = epoch
                best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self.context.epoch_finished(
                epoch,
                train_loss=self.training_epoch_loss_history[-1],
                validation_loss=self.validation_epoch_loss_history[-1],
                regularization_loss=self.regularization_loss_history[-1],
                metrics={"learning_rate": self.optimizer.param_groups[0]["lr"]},
            )
            self.context.save_checkpoint(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "best": best,
                    "best_epoch": self.best_epoch,
                    "epoch": epoch,
                    "histories": {name: value for name, value in vars(self).items() if name.endswith("_history")},
                }
            )
            if self.context.stop_requested():
                raise TrainingInterrupted(epoch)
        torch.save(best, self.model_save_path)

    def _train_epoch(self) -> None:
        precision = self.context.precision
        self.model.train()
        total = penalties = count = 0.0
        for x, y in self.loaders["train"]:
            with precision.autocast():
                output, penalty = self.model(x.to(self.device))
            loss = self.criterion(output.float(), y.to(self.device))
            self.optimizer.zero_grad()
            precision.backward(loss + penalty)
            precision.step(self.optimizer)
            total += loss.item() * len(x)
            penalties += penalty.item() * len(x)
            count += len(x)
        self.training_epoch_loss_history.append(total / count)
        self.regularization_loss_history.append(penalties / count)
        self.validation_epoch_loss_history.append(self.validate())
        weights = self.model.state_dict()
        self.model_class_params_history.append({name: float(tensor.norm()) for name, tensor in weights.items()})
