"""A trainer in the shape that Synicix expects. It subclasses nothing and knows nothing of Synicix."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["PlainTrainer"]


class PlainTrainer:
    """A loop that keeps the weights of the best epoch.

    It keeps neither `regularization_loss_history` nor `model_class_params_history`.

    Parameters
    ----------
    decay : float
        The learning rate is multiplied by it after each epoch.
    """

    def __init__(
        self,
        *,
        train_dataloader: Any,
        validation_dataloader: Any,
        test_dataloader: Any,
        device: torch.device,
        model_class: Any,
        model_class_params: dict[str, Any],
        optimizer_class: Any,
        optimizer_class_params: dict[str, Any],
        criterion_class: Any,
        criterion_class_params: dict[str, Any],
        model_save_path: str,
        max_epoch: int,
        decay: float = 1.0,
    ) -> None:
        self.loaders = {"train": train_dataloader, "validation": validation_dataloader, "test": test_dataloader}
        self.device = device
        self.model = model_class(**model_class_params).to(device)
        self.optimizer = optimizer_class(self.model.parameters(), **optimizer_class_params)
        self.criterion = criterion_class(**criterion_class_params)
        self.model_save_path = model_save_path
        self.max_epoch = max_epoch
        self.decay = decay
        self.training_epoch_loss_history: list[float] = []
        self.validation_epoch_loss_history: list[float] = []
        self.best_epoch = 0

    def train(self) -> None:
        """Train for `max_epoch` epochs."""
        for epoch in range(1, self.max_epoch + 1):
            self.model.train()
            total = count = 0.0
            for x, y in self.loaders["train"]:
                output, penalty = self.model(x.to(self.device))
                loss = self.criterion(output, y.to(self.device))
                self.optimizer.zero_grad()
                (loss + penalty).backward()
                self.optimizer.step()
                total += loss.item() * len(x)
                count += len(x)
            for group in self.optimizer.param_groups:
                group["lr"] *= self.decay
            self.training_epoch_loss_history.append(total / count)
            self.validation_epoch_loss_history.append(self.validate())
            if self.validation_epoch_loss_history[-1] == min(self.validation_epoch_loss_history):
                self.best_epoch = epoch
                torch.save(self.model.state_dict(), self.model_save_path)

    def validate(self) -> float:
        """Return the loss on the validation tier."""
        return float(self._run("validation")["loss"])

    def evaluate(self, return_outputs_targets_and_loss: bool = False) -> Any:
        """Return the loss on the test tier, or a dict with outputs, targets and loss."""
        found = self._run("test")
        return found if return_outputs_targets_and_loss else found["loss"]

    def load_best_performing_model(self) -> None:
        """Read the weights of the best epoch back."""
        self.model.load_state_dict(torch.load(self.model_save_path, weights_only=True))

    @torch.no_grad()
    def _run(self, tier: str) -> dict[str, Any]:
        self.model.eval()
        pairs = [(self.model(x.to(self.device))[0].cpu(), y) for x, y in self.loaders[tier]]
        outputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        return {"outputs": outputs, "targets": targets, "loss": self.criterion(outputs, targets).item()}
