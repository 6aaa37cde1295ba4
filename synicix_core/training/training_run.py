"""One training, from its beginning or its checkpoint to its end, an epoch at a time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from synicix_core.errors import SynicixError
from synicix_core.training.batches import map_tensors
from synicix_core.training.contract import Metric, TrainingContext, TrainingDiverged, TrainingInterrupted
from synicix_core.training.early_stopping import EarlyStopping
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.metrics import Loss
from synicix_core.training.optimization import Optimization
from synicix_core.training.parameter_summary import all_finite, summarise_parameters
from synicix_core.training.random_state import capture, restore
from synicix_core.training.tier_pass import TierPass, run_tier
from synicix_core.training.timing import CHECKPOINT, EVALUATION, OTHER, Stopwatch
from synicix_core.training.training_batches import TrainingBatches

__all__ = ["TrainingRun"]

_LONG_VALIDATION = 0.1
"""Seconds; in a longer pass over the validation tier the trainer listens for a stop, for which it must be prepared."""

_PROGRESS = (
    "training_epoch_loss_history",
    "validation_epoch_loss_history",
    "regularization_loss_history",
    "model_class_params_history",
    "status",
    "epochs",
)
"""Attributes that travel with a checkpoint as they are."""


class TrainingRun:
    """Trains a model epoch by epoch, follows the validation tier and keeps the best weights.

    Whoever drives it calls `begin`, then `train_epoch` and `finish_epoch` until there is a `status`.

    Parameters
    ----------
    optimization : Optimization
        Makes the steps.
    metric : Metric
        Of the validation tier; decides which weights are the best.
    early_stopping : EarlyStopping
        When to stop.
    batches : TrainingBatches
        What is learnt from.
    validation_loader : DataLoader
        The validation tier.
    generators : mapping of str to torch.Generator
        What both loaders draw from.
    context : TrainingContext or None
        Who is told, and who may ask to stop.
    max_epoch : int
        The most epochs.
    nan_policy : {"stop", "skip", "raise"}
        See `NNTrainer`.
    accumulate : int
        Batches to a step.

    Attributes
    ----------
    step : int
        Batches used in the epoch.
    sums : LossSums
        Their losses.
    best : dict or None
        The ``state_dict`` of the best epoch.
    stopwatch : Stopwatch
        Told what it is doing.
    epochs, status, and the histories
        See `NNTrainer`.
    """

    def __init__(
        self,
        optimization: Optimization,
        metric: Metric,
        early_stopping: EarlyStopping,
        batches: TrainingBatches,
        validation_loader: DataLoader[Any],
        generators: Mapping[str, torch.Generator],
        context: TrainingContext | None,
        *,
        max_epoch: int,
        nan_policy: str,
        accumulate: int,
    ) -> None:
        self.optimization = optimization
        self.metric = metric
        self.early_stopping = early_stopping
        self.batches = batches
        self.validation_loader = validation_loader
        self.max_epoch = max_epoch
        self.accumulate = accumulate
        self.nan_policy = nan_policy
        self.step = 0
        self.sums = LossSums(optimization.criterion)
        self.best: dict[str, Any] | None = None
        self.training_epoch_loss_history: list[float] = []
        self.validation_epoch_loss_history: list[float] = []
        self.regularization_loss_history: list[float] = []
        self.model_class_params_history: list[dict[str, Any]] = []
        self.status = ""
        self.epochs = 0
        self._context = context
        self._generators = generators
        self._validation_seconds = math.inf
        known = getattr(context, "stopwatch", None)  # a context of somebody else's need not have one
        self.stopwatch: Stopwatch = known if isinstance(known, Stopwatch) else Stopwatch()
        self.stopwatch.by_trainer = True
        optimization.stopwatch = self.stopwatch

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.optimization.model

    def begin(self) -> None:
        """Go on from the checkpoint, if there is one."""
        self.stopwatch.switch(OTHER)
        state = self._context.load_checkpoint() if self._context is not None else None
        if state is not None:
            self.load_state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.optimization.load_state_dict(state["optimization"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        self.best = state["best"]
        self.batches.load_state_dict(state["batches"])
        for name in _PROGRESS:
            setattr(self, name, state[name])
        self.sums.load_state_dict(state["sums"])
        self.step = state["step"]

    def train_epoch(self) -> None:
        """Make the steps of an epoch, or those that are left of it; it ends early where the loss is not finite."""
        self.model.train()
        self.optimization.begin_epoch(self.epochs + 1, self._epochs_expected())
        self.stopwatch.next_step()
        batches = self.batches.epoch(self.epochs, self.step, self.raise_if_stopped)
        while window := list(islice(batches, self.accumulate)):
            if len(window) < self.accumulate:
                self.batches.finish()  # to find that out, the sampler was read to its end
            self.optimization.step(window, self.sums)
            if not self.after_step(len(window)):
                return
            self.stopwatch.next_step()
        self.after_batches()

    def after_step(self, batches: int) -> bool:
        """Count the batches of a step, save a checkpoint if one is due, and tell whether to go on with the epoch.

        Raises
        ------
        TrainingInterrupted
            If the context asks to stop; a checkpoint was saved.
        """
        if not self.count(batches):
            return False
        self.listen()
        return True

    def count(self, batches: int) -> bool:
        """Count the batches of a step, and tell whether the losses are finite as far as that is known."""
        self.step += batches
        return self.sums.known_finite

    def listen(self) -> None:
        """Between two steps: save a checkpoint if one is due, and stop if that is asked for.

        Raises
        ------
        TrainingInterrupted
            If the context asks to stop; a checkpoint was saved.
        """
        if self._context is not None:
            stop = self._context.stop_requested()
            if stop or self._context.checkpoint_due():
                self.save_checkpoint()
            if stop:
                raise TrainingInterrupted(self.epochs)

    def after_batches(self) -> None:
        """Note that the epoch was read to its end."""
        if not self.step:
            raise SynicixError("the training loader gave no batch", hint="Check the sampler of the train tier.")
        self.batches.finish()

    def finish_epoch(
        self, validate: Callable[[], TierPass] | None = None, summary: dict[str, Any] | None = None
    ) -> None:
        """Measure the model on the validation tier, keep it if it is the best, and tell whoever wants to know.

        Parameters
        ----------
        validate : callable, optional
            Measures it in another way; collects outputs and targets if `collects`.
        summary : dict, optional
            What `summarise_parameters` returns, if that is known already.

        Raises
        ------
        TrainingInterrupted
            If the context asks to stop; a checkpoint was saved.
        TrainingDiverged
            If a loss or weight is not finite and ``nan_policy`` is ``"raise"``.
        """
        loss, penalty = self.sums.means()
        # Until here the device may have been at work on the steps.
        self.stopwatch.settle()
        self.stopwatch.count(-(-self.step // self.accumulate), self.sums.state_dict()["samples"])
        self.stopwatch.switch(OTHER)
        self.optimization.end_epoch()
        summary = summary if summary is not None else summarise_parameters(self.model)
        validation, metric = math.nan, math.nan
        with self.weights_to_keep():
            if math.isfinite(loss + penalty) and all_finite(self.model, summary):
                with self.stopwatch.during(EVALUATION):
                    measured = (validate or self._validate)()
                    validation = measured.loss
                    # A plain DataLoader has none; a metric that needs it says so.
                    column = getattr(self.validation_loader, "column", None)
                    metric = self.metric(measured.outputs, measured.targets, column) if self.collects else validation
            else:
                self._diverged()
            self.epochs += 1
            self.training_epoch_loss_history.append(loss)
            self.validation_epoch_loss_history.append(validation)
            self.regularization_loss_history.append(penalty)
            self.model_class_params_history.append(summary)
            if not self.status and self.early_stopping.update(metric, self.epochs):
                self._keep_best()
        if not self.status:
            self.adapt(loss, metric)
            if self.early_stopping.exhausted:
                self.status = "early_stopped"
            elif self.epochs >= self.max_epoch:
                self.status = "completed"
        self.step, self.sums = 0, LossSums(self.optimization.criterion)
        self._report(loss, validation, penalty, metric)

    def adapt(self, loss: float, metric: float) -> None:
        """Let the learning rate follow an epoch's mean training loss and its metric."""
        self.optimization.learning_rate.after_epoch(loss, metric)

    @property
    def writes(self) -> bool:
        """Whether it is for this process to write the weights."""
        return True

    @property
    def collects(self) -> bool:
        """Whether the metric needs outputs and targets of the whole validation tier, and not the loss alone."""
        return not isinstance(self.metric.function, Loss)

    def weights_to_keep(self) -> AbstractContextManager[None]:
        """Return the context in which the model has the weights that are measured and kept: their average, if there is one."""
        average = self.optimization.average
        return average.in_place() if average is not None else nullcontext()

    def state_to_save(self) -> Mapping[str, Any]:
        """Return the best weights, or the last ones where no epoch was the best."""
        self.stopwatch.switch(CHECKPOINT)  # whoever asks writes them
        if self.best is not None:
            return self.best
        with self.weights_to_keep():
            return self._copied_state()

    def measure(self, loader: DataLoader[Any], **options: Any) -> TierPass:
        """Run the model over a tier, in the precision of training; for options see `run_tier`."""
        optimization = self.optimization
        return run_tier(
            self.model,
            loader,
            optimization.device,
            criterion=optimization.criterion,
            autocast=optimization.precision.autocast,
            parts=optimization.parts,
            channels_last=optimization.channels_last,
            **options,
        )

    def raise_if_stopped(self) -> None:
        """Stop without a checkpoint, while the one that was loaded is still the last word."""
        if self._context is not None and self._context.stop_requested():
            raise TrainingInterrupted(self.epochs)

    def save_checkpoint(self) -> None:
        """Save everything that changes."""
        if self._context is not None:
            self._context.save_checkpoint(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""
        return {
            "optimization": map_tensors(_apart, self.optimization.state_dict()),
            "early_stopping": self.early_stopping.state_dict(),
            "best": self.best,
            "step": self.step,
            "sums": self.sums.state_dict(),
            "batches": self.batches.state_dict(),
            **{name: getattr(self, name) for name in _PROGRESS},
        }

    def _epochs_expected(self) -> int:
        """Return how many epochs are likely to come: with early stopping, as many as there were, or as it is patient."""
        left, patience = self.max_epoch - self.epochs, self.early_stopping.patience
        return left if patience is None else min(left, max(self.epochs, patience))

    def _validate(self) -> TierPass:
        """Measure the validation tier; a stop is taken as one after the last training step, if it takes its time."""
        context = self._context
        listens = context is not None and self._validation_seconds > _LONG_VALIDATION
        before = capture(self._generators) if listens else None

        def stop_if_asked() -> None:
            self.stopwatch.switch(EVALUATION)  # so that a profile sees each batch
            if before is not None and context is not None and context.stop_requested():
                raise _StopInValidation

        began = time.monotonic()
        try:
            measured = self.measure(self.validation_loader, collect=self.collects, before_batch=stop_if_asked)
        except _StopInValidation:
            assert before is not None
            restore(before, self._generators)
            average = self.optimization.average
            with average.in_place() if average is not None else nullcontext():  # the weights that learn again
                self.save_checkpoint()
            raise TrainingInterrupted(self.epochs) from None
        self._validation_seconds = time.monotonic() - began
        return measured

    def _diverged(self) -> None:
        if self.nan_policy == "raise":
            raise TrainingDiverged(
                "training diverged",
                where=f"epoch {self.epochs + 1}",
                why="the loss or a weight is not finite",
                hint="Lower the learning rate, clip gradients, or train in fp32.",
            )
        self.status = "diverged"

    def _keep_best(self) -> None:
        self.best = self._copied_state()

    def _copied_state(self) -> dict[str, Any]:
        return {
            name: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
            for name, value in self.model.state_dict().items()
        }

    def _report(self, loss: float, validation: float, penalty: float, metric: float) -> None:
        if self._context is None:
            return
        self._context.epoch_finished(
            self.epochs,
            train_loss=loss,
            validation_loss=validation,
            regularization_loss=penalty,
            metrics={self.metric.name: metric},
        )
        stop = self._context.stop_requested()
        if stop or self._context.checkpoint_due():
            self.save_checkpoint()
        if stop:
            raise TrainingInterrupted(self.epochs)


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that can be saved without all that it is a part of."""
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


class _StopInValidation(Exception):
    """A stop was asked for in the middle of a pass over the validation tier."""
