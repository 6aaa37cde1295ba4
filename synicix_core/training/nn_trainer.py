"""The default trainer."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from synicix_core.errors import SynicixError
from synicix_core.training.contract import TrainingContext, TrainingDiverged, TrainingInterrupted
from synicix_core.training.early_stopping import EarlyStopping
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.metrics import Loss
from synicix_core.training.optimization import Optimization
from synicix_core.training.parameter_summary import all_finite, summarise_parameters
from synicix_core.training.precision import Precision, resolve_precision
from synicix_core.training.random_state import capture, generators_of, restore
from synicix_core.training.saved_files import load_plain, save_state_dict
from synicix_core.training.schedules import LearningRate, ScheduleName
from synicix_core.training.tier_pass import TierPass, run_tier
from synicix_core.training.torch_state import set_deterministic
from synicix_core.training.trainer_options import check_options, choose_metric
from synicix_core.training.training_batches import TrainingBatches

__all__ = ["NNTrainer"]

_CHECK_STEPS = 64
"""Steps after which the losses are added up and looked at; the only time inside an epoch that the host waits."""

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


class NNTrainer:
    """Trains a model by mini-batches and keeps the weights of the best epoch on the validation tier.

    Parameters
    ----------
    train_dataloader, validation_dataloader, test_dataloader : DataLoader
        The tiers; the last one may be None.
    device : torch.device or str
        Where to train.
    model_class, model_class_params, optimizer_class, optimizer_class_params, criterion_class, criterion_class_params
        What is built.
    model_save_path : str
        Where the best ``state_dict`` goes.
    max_epoch : int
        The most epochs.
    context : TrainingContext, optional
        Without one there are no checkpoints, nobody is told and nobody can ask it to stop.
    precision : {"auto", "fp32", "tf32", "bf16", "fp16"}
        Of the forward pass in training and validation. The loss is computed in float32 or better; so is all of `evaluate`.
    early_stopping_patience : int or None
        Stop after so many epochs without an improvement; None trains all epochs. The best weights are kept either way.
    early_stopping_min_delta : float
        An improvement is more than so much.
    early_stopping_metric : str or None
        The metric of the validation tier that decides: one of the training config's, or ``"loss"``. None: the first one,
        which is the score.
    scheduler : str or None
        Learning-rate schedule, a key of ``schedules.SCHEDULES``.
    scheduler_params : dict or None
        Its parameters, as torch names them.
    warmup_epochs, warmup_steps : float, int
        Length of a linear warm-up of the learning rate, in one of the units.
    gradient_clip_norm : float or None
        Largest L2 norm of all gradients together, after unscaling.
    gradient_clip_value : float or None
        Largest absolute value of a gradient, after unscaling.
    nan_policy : {"stop", "skip", "raise"}
        When a loss or a weight is not finite: stop and keep the best weights so far (status ``diverged``); leave out that
        step, at the price of waiting for the device at each step; or raise `TrainingDiverged`.
    deterministic : bool
        Use only deterministic algorithms, which may be slower; an operation without one raises.

    Attributes
    ----------
    training_epoch_loss_history, validation_epoch_loss_history, regularization_loss_history : list of float
        Means over the samples of each epoch; the losses are without penalty.
    model_class_params_history : list of dict
        Per epoch, see `parameter_summary.summarise_parameters`.
    epochs : int
        Epochs trained.
    status : str
        ``completed``, ``early_stopped`` or ``diverged`` after `train`; empty before.
    model : torch.nn.Module
        The model.
    precision : Precision
        As it was resolved on this device.

    Raises
    ------
    ParamsError
        If options make no sense; all are named at once.
    ConfigurationError
        If the device cannot do the precision.
    """

    def __init__(
        self,
        train_dataloader: DataLoader[Any],
        validation_dataloader: DataLoader[Any],
        test_dataloader: DataLoader[Any] | None,
        device: torch.device | str,
        model_class: Callable[..., nn.Module],
        model_class_params: Mapping[str, Any],
        optimizer_class: Callable[..., torch.optim.Optimizer],
        optimizer_class_params: Mapping[str, Any],
        criterion_class: Callable[..., Any],
        criterion_class_params: Mapping[str, Any],
        model_save_path: str,
        max_epoch: int,
        *,
        context: TrainingContext | None = None,
        precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
        early_stopping_patience: int | None = 10,
        early_stopping_min_delta: float = 0.0,
        early_stopping_metric: str | None = None,
        scheduler: ScheduleName | None = None,
        scheduler_params: dict[str, Any] | None = None,
        warmup_epochs: float = 0.0,
        warmup_steps: int = 0,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        nan_policy: Literal["stop", "skip", "raise"] = "stop",
        deterministic: bool = False,
    ) -> None:
        check_options(
            {
                "max_epoch": max_epoch,
                "early_stopping_patience": early_stopping_patience,
                "early_stopping_min_delta": early_stopping_min_delta,
                "scheduler": scheduler,
                "scheduler_params": scheduler_params,
                "warmup_epochs": warmup_epochs,
                "warmup_steps": warmup_steps,
                "gradient_clip_norm": gradient_clip_norm,
                "gradient_clip_value": gradient_clip_value,
                "nan_policy": nan_policy,
            }
        )
        if deterministic:
            set_deterministic()
        self.train_dataloader = train_dataloader
        self.validation_dataloader = validation_dataloader
        self.test_dataloader = test_dataloader
        self.device = torch.device(device)
        self.model_save_path = model_save_path
        self.max_epoch = max_epoch
        self.precision: Precision = resolve_precision(precision, self.device)
        self.precision.apply()
        self.model = model_class(**model_class_params).to(self.device)
        self.optimizer = optimizer_class(self.model.parameters(), **optimizer_class_params)
        self.criterion = criterion_class(**criterion_class_params)
        if isinstance(self.criterion, nn.Module):
            self.criterion.to(self.device)
        self._context = context
        self._parts = context.micro_batches if context is not None else 1
        self._nan_policy = nan_policy
        self._metric = choose_metric(early_stopping_metric, context, self.criterion)
        higher_is_better = self._metric.higher_is_better
        self._early_stopping = EarlyStopping(
            early_stopping_patience or None, early_stopping_min_delta, higher_is_better
        )
        learning_rate = LearningRate(
            self.optimizer,
            scheduler,
            scheduler_params or {},
            max_epoch=max_epoch,
            steps_per_epoch=_length(train_dataloader),
            warmup_epochs=warmup_epochs,
            warmup_steps=warmup_steps,
            higher_is_better=higher_is_better,
        )
        self._optimization = Optimization(
            self.model,
            self.criterion,
            self.optimizer,
            learning_rate,
            self.precision,
            self.device,
            clip_norm=gradient_clip_norm,
            clip_value=gradient_clip_value,
            skip_nonfinite=nan_policy == "skip",
            parts=self._parts,
        )
        self._best: dict[str, Any] | None = None
        drawn_from = [g for loader in (train_dataloader, validation_dataloader) for g in generators_of(loader)]
        self._generators = {str(index): generator for index, generator in enumerate(drawn_from)}
        self._batches = TrainingBatches(train_dataloader, self._generators, keep_place=context is not None)
        self._validation_seconds = math.inf
        self.training_epoch_loss_history: list[float] = []
        self.validation_epoch_loss_history: list[float] = []
        self.regularization_loss_history: list[float] = []
        self.model_class_params_history: list[dict[str, Any]] = []
        self.status = ""
        self.epochs = 0
        self._steps = 0

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights are kept, from 1; None as long as no validation metric was finite."""
        return self._early_stopping.best_epoch

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        notes = []
        skipped = self._optimization.skipped_steps
        if skipped:
            notes.append(f"{skipped} steps were skipped because a loss or gradient was not finite")
        if self.epochs and self.best_epoch is None:
            notes.append(f"the validation {self._metric.name} was never finite; the last weights were kept")
        if self._parts > 1:
            notes.append(self._optimization.describe_parts())
        return tuple(notes)

    def train(self) -> None:
        """Train until the epoch limit, early stopping or divergence, and write the best weights.

        Raises
        ------
        TrainingInterrupted
            If the context asked to stop; a checkpoint was saved.
        TrainingDiverged
            If a loss or weight is not finite and ``nan_policy`` is ``"raise"``.
        """
        step, sums = self._resume()
        while not self.status:
            self._run_epoch(step, sums)
            step, sums = 0, LossSums(self.criterion)
        save_state_dict(self._best if self._best is not None else self.model.state_dict(), self.model_save_path)

    def validate(self) -> float:
        """Return the loss on the validation tier, without penalty, in the precision of training."""
        return self._measure(self.validation_dataloader, collect=False).loss

    def evaluate(self, return_outputs_targets_and_loss: bool = False) -> float | dict[str, Any]:
        """Return the loss on the test tier, without penalty, all in float32 or better.

        Parameters
        ----------
        return_outputs_targets_and_loss : bool
            Return a dict with ``outputs``, ``targets`` (of the whole tier, on the CPU) and ``loss`` instead.

        Raises
        ------
        SynicixError
            If there is no test tier.
        """
        if self.test_dataloader is None:
            raise SynicixError("there is nothing to evaluate", why="the test tier is empty")
        collect = return_outputs_targets_and_loss
        result = run_tier(
            self.model,
            self.test_dataloader,
            self.device,
            criterion=self.criterion,
            collect=collect,
            parts=self._parts,
        )
        if not collect:
            return result.loss
        return {"outputs": result.outputs, "targets": result.targets, "loss": result.loss}

    def load_best_performing_model(self) -> None:
        """Load the best weights, from memory after `train`, else from ``model_save_path``."""
        self.model.load_state_dict(self._best if self._best is not None else load_plain(self.model_save_path))

    def _run_epoch(self, step: int, sums: LossSums) -> None:
        self._train_epoch(step, sums)
        loss, penalty = sums.means()
        summary = summarise_parameters(self.model)
        validation, metric = math.nan, math.nan
        if math.isfinite(loss + penalty) and all_finite(self.model, summary):
            collect = not isinstance(self._metric.function, Loss)
            measured = self._measure(self._validation_batches(sums), collect=collect)
            validation = measured.loss
            # A plain DataLoader has none; a metric that needs it says so.
            column = getattr(self.validation_dataloader, "column", None)
            metric = self._metric(measured.outputs, measured.targets, column) if collect else validation
        else:
            self._diverged()
        self.epochs += 1
        self.training_epoch_loss_history.append(loss)
        self.validation_epoch_loss_history.append(validation)
        self.regularization_loss_history.append(penalty)
        self.model_class_params_history.append(summary)
        if not self.status:
            if self._early_stopping.update(metric, self.epochs):
                self._keep_best()
            self._optimization.learning_rate.after_epoch(loss, metric)
            if self._early_stopping.exhausted:
                self.status = "early_stopped"
            elif self.epochs >= self.max_epoch:
                self.status = "completed"
        self._report(loss, validation, penalty, metric)

    def _train_epoch(self, step: int, sums: LossSums) -> None:
        self.model.train()
        for batch in self._batches.epoch(self.epochs, step, self._raise_if_stopped):
            self._optimization.step(batch, sums)
            step += 1
            # Counted by steps and not by losses, so that a checkpoint in between changes nothing.
            if step % _CHECK_STEPS == 0 and not sums.fold():
                return
            if self._context is not None:
                stop = self._context.stop_requested()
                if stop or self._context.checkpoint_due():
                    self._save_checkpoint(step, sums)
                if stop:
                    raise TrainingInterrupted(self.epochs)
        if not step:
            raise SynicixError("the training loader gave no batch", hint="Check the sampler of the train tier.")
        self._batches.finish()
        self._steps = step

    def _validation_batches(self, sums: LossSums) -> Iterator[Any]:
        """Yield the validation batches; a stop is taken as one after the last training step, if they take their time."""
        context = self._context
        listens = context is not None and self._validation_seconds > _LONG_VALIDATION
        before = capture(self._generators) if listens else None
        began = time.monotonic()
        for batch in self.validation_dataloader:
            if before is not None and context is not None and context.stop_requested():
                restore(before, self._generators)
                self._save_checkpoint(self._steps, sums)
                raise TrainingInterrupted(self.epochs)
            yield batch
        self._validation_seconds = time.monotonic() - began

    def _raise_if_stopped(self) -> None:
        """Stop without a checkpoint, while the one that was loaded is still the last word."""
        if self._context is not None and self._context.stop_requested():
            raise TrainingInterrupted(self.epochs)

    def _diverged(self) -> None:
        if self._nan_policy == "raise":
            raise TrainingDiverged(
                "training diverged",
                where=f"epoch {self.epochs + 1}",
                why="the loss or a weight is not finite",
                hint="Lower the learning rate, clip gradients, or train in fp32.",
            )
        self.status = "diverged"

    def _measure(self, batches: Iterable[Any], *, collect: bool) -> TierPass:
        return run_tier(
            self.model,
            batches,
            self.device,
            criterion=self.criterion,
            autocast=self.precision.autocast,
            collect=collect,
            parts=self._parts,
        )

    def _keep_best(self) -> None:
        self._best = {
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
            metrics={self._metric.name: metric},
        )
        stop = self._context.stop_requested()
        if stop or self._context.checkpoint_due():
            self._save_checkpoint(0, LossSums(self.criterion))
        if stop:
            raise TrainingInterrupted(self.epochs)

    def _save_checkpoint(self, step: int, sums: LossSums) -> None:
        if self._context is None:
            return
        self._context.save_checkpoint(
            {
                "optimization": self._optimization.state_dict(),
                "early_stopping": self._early_stopping.state_dict(),
                "best": self._best,
                "step": step,
                "sums": sums.state_dict(),
                "batches": self._batches.state_dict(),
                **{name: getattr(self, name) for name in _PROGRESS},
            }
        )

    def _resume(self) -> tuple[int, LossSums]:
        """Go on from the checkpoint, if there is one; return the steps made in this epoch and their sums."""
        sums = LossSums(self.criterion)
        state = self._context.load_checkpoint() if self._context is not None else None
        if state is None:
            return 0, sums
        self._optimization.load_state_dict(state["optimization"])
        self._early_stopping.load_state_dict(state["early_stopping"])
        self._best = state["best"]
        self._batches.load_state_dict(state["batches"])
        for name in _PROGRESS:
            setattr(self, name, state[name])
        sums.load_state_dict(state["sums"])
        return state["step"], sums


def _length(loader: DataLoader[Any]) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
