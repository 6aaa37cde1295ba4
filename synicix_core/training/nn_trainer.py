"""The default trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from synicix_core.errors import SynicixError
from synicix_core.training.averaging import Average
from synicix_core.training.compiling import Compilation, require_compiler
from synicix_core.training.contract import TrainingContext
from synicix_core.training.cuda_graphs import StepGraph, why_no_graph
from synicix_core.training.data_parallel import left_out, synchronised
from synicix_core.training.dropout import own_dropout
from synicix_core.training.early_stopping import EarlyStopping
from synicix_core.training.fused_kernels import build_optimizer, kernel_of
from synicix_core.training.optimization import Optimization
from synicix_core.training.parallel_optimization import ParallelOptimization
from synicix_core.training.parallel_run import ParallelRun, dropout_seed
from synicix_core.training.precision import Precision, resolve_precision
from synicix_core.training.random_state import derive_seed, generators_of
from synicix_core.training.saved_files import SavedState, load_plain, save_state_dict
from synicix_core.training.schedules import SCHEDULES, LearningRate, ScheduleName
from synicix_core.training.tier_pass import run_tier
from synicix_core.training.torch_state import set_deterministic
from synicix_core.training.trainer_options import check_options, choose_metric
from synicix_core.training.training_batches import TrainingBatches
from synicix_core.training.training_run import TrainingRun

__all__ = ["NNTrainer"]


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
    accumulate_batches : int
        Batches to a step of the optimizer. The gradient is the mean over all their samples, also where the last ones of an
        epoch are fewer or smaller.
    ema_decay : float or None
        Follow the exponential moving average of the weights with this decay, 0 < decay < 1. It is the average that is
        measured on the validation tier and kept; buffers, such as those of batch normalization, stay as they are.
    channels_last : bool
        Keep images and the weights of convolutions with their channels last in memory, which tensor cores want.
    compile : {"off", "auto", "on"}
        Compile the forward pass and the loss: ``"auto"`` at the start of an epoch when those that are left are expected to
        pay the time it takes, and not for longer than compiled steps are faster; ``"on"`` at once.
    cuda_graphs : {"off", "auto"}
        Record a whole step on a GPU and launch it at once, where nothing in it needs the host; `notes` say why not.
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
    saved : SavedState or None
        What `save` wrote last.

    Raises
    ------
    ParamsError
        If options make no sense; all are named at once.
    ConfigurationError
        If the device cannot do the precision, or ``compile`` is ``"on"`` and there is no compiler for the device.
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
        accumulate_batches: int = 1,
        ema_decay: float | None = None,
        channels_last: bool = False,
        compile: Literal["off", "auto", "on"] = "off",
        cuda_graphs: Literal["off", "auto"] = "off",
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
                "accumulate_batches": accumulate_batches,
                "ema_decay": ema_decay,
                "compile": compile,
                "cuda_graphs": cuda_graphs,
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
        parallel = getattr(context, "data_parallel", None)  # a context of somebody else's need not have one
        self.saved: SavedState | None = None
        self._context = context
        self._left_out: tuple[str, ...] = ()
        if parallel is not None:
            self._left_out = left_out(compile, cuda_graphs)
            compile = cuda_graphs = "off"
        if compile == "on":
            require_compiler(self.device)
        self.precision: Precision = resolve_precision(precision, self.device)
        self.precision.apply()
        self.model = model_class(**model_class_params).to(self.device)
        if parallel is not None:
            self.model = synchronised(self.model, self.device)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        dropout = _dropout_generator(context, self.device)
        if not own_dropout(self.model, dropout):
            dropout = None
        recordable = cuda_graphs == "auto" and self.device.type == "cuda"
        self.optimizer = build_optimizer(
            optimizer_class, self.model.parameters(), optimizer_class_params, self.device, capturable=recordable
        )
        self.criterion = criterion_class(**criterion_class_params)
        if isinstance(self.criterion, nn.Module):
            self.criterion.to(self.device)
        parts = context.micro_batches if context is not None else 1
        metric = choose_metric(early_stopping_metric, context, self.criterion)
        batches = _length(train_dataloader)
        learning_rate = LearningRate(
            self.optimizer,
            scheduler,
            scheduler_params or {},
            max_epoch=max_epoch,
            steps_per_epoch=None if batches is None else -(-batches // accumulate_batches),
            warmup_epochs=warmup_epochs,
            warmup_steps=warmup_steps,
            higher_is_better=metric.higher_is_better,
        )
        make_optimization: Callable[..., Optimization] = Optimization
        make_run: Callable[..., TrainingRun] = TrainingRun
        if parallel is not None and context is not None:
            make_optimization = partial(ParallelOptimization, parallel, train_dataloader)
            make_run = partial(ParallelRun, parallel, context.seed)
        optimization = make_optimization(
            self.model,
            self.criterion,
            self.optimizer,
            learning_rate,
            self.precision,
            self.device,
            clip_norm=gradient_clip_norm,
            clip_value=gradient_clip_value,
            skip_nonfinite=nan_policy == "skip",
            parts=parts,
            average=Average(self.model, ema_decay) if ema_decay is not None else None,
            channels_last=channels_last,
            dropout=dropout,
        )
        if compile != "off":
            # A context of somebody else's need not have it.
            Compilation(optimization, compile, getattr(context, "tell", lambda _: None))
        self._no_graph = ""
        if cuda_graphs == "auto":
            moves = bool(warmup_epochs or warmup_steps or (scheduler and SCHEDULES[scheduler].unit == "step"))
            self._no_graph = why_no_graph(optimization, accumulate=accumulate_batches, rate_moves_each_step=moves)
            if not self._no_graph:
                optimization.graph = StepGraph(optimization)
        drawn_from = [g for loader in (train_dataloader, validation_dataloader) for g in generators_of(loader)]
        generators = {str(index): generator for index, generator in enumerate(drawn_from)}
        self.run = make_run(
            optimization,
            metric,
            EarlyStopping(early_stopping_patience or None, early_stopping_min_delta, metric.higher_is_better),
            TrainingBatches(train_dataloader, generators, keep_place=context is not None),
            validation_dataloader,
            generators,
            context,
            max_epoch=max_epoch,
            nan_policy=nan_policy,
            accumulate=accumulate_batches,
        )

    @property
    def training_epoch_loss_history(self) -> list[float]:
        """Mean loss on the train tier of each epoch, without penalty, while the model learnt."""
        return self.run.training_epoch_loss_history

    @property
    def validation_epoch_loss_history(self) -> list[float]:
        """Mean loss on the validation tier after each epoch, without penalty."""
        return self.run.validation_epoch_loss_history

    @property
    def regularization_loss_history(self) -> list[float]:
        """Mean penalty of each epoch."""
        return self.run.regularization_loss_history

    @property
    def model_class_params_history(self) -> list[dict[str, Any]]:
        """The parameters after each epoch, see `parameter_summary.summarise_parameters`."""
        return self.run.model_class_params_history

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return self.run.epochs

    @property
    def status(self) -> str:
        """``completed``, ``early_stopped`` or ``diverged`` after `train`; empty before."""
        return self.run.status

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights are kept, from 1; None as long as no validation metric was finite."""
        return self.run.early_stopping.best_epoch

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        notes = list(self._left_out)
        optimization = self.run.optimization
        if optimization.skipped_steps:
            notes.append(f"{optimization.skipped_steps} steps were skipped because a loss or gradient was not finite")
        if self.epochs and self.best_epoch is None:
            notes.append(f"the validation {self.run.metric.name} was never finite; the last weights were kept")
        if optimization.parts > 1:
            notes.append(optimization.describe_parts())
        if optimization.compilation is not None and optimization.compilation.note:
            notes.append(optimization.compilation.note)
        if self._no_graph:
            notes.append(f"no CUDA graph: {self._no_graph}")
        if optimization.graph is not None and optimization.graph.note:
            notes.append(optimization.graph.note)
        return tuple(notes)

    @property
    def how(self) -> dict[str, Any]:
        """What provenance records of the way in which this was computed: JSON."""
        optimization = self.run.optimization
        return {
            "compiled": optimization.compilation.describe() if optimization.compilation is not None else False,
            "cuda_graphs": optimization.graph is not None and optimization.graph.replays > 0,
            "resident": getattr(self.train_dataloader, "resident", None) is not None,
            "optimizer_kernel": kernel_of(self.optimizer),
        }

    def train(self) -> None:
        """Train until the epoch limit, early stopping or divergence, and write the best weights.

        Raises
        ------
        TrainingInterrupted
            If the context asked to stop; a checkpoint was saved.
        TrainingDiverged
            If a loss or weight is not finite and ``nan_policy`` is ``"raise"``.
        """
        self.run.begin()
        while not self.run.status:
            self.run.train_epoch()
            self.run.finish_epoch()
        if self.run.writes:
            self.save()

    def save(self) -> None:
        """Write the weights to keep to ``model_save_path``."""
        # A task's file gets its name from whoever scores it, and waits for the disk then.
        self.saved = save_state_dict(self.run.state_to_save(), self.model_save_path, on_disk=self._context is None)

    def validate(self) -> float:
        """Return the loss on the validation tier, without penalty, in the precision of training."""
        return self.run.measure(self.validation_dataloader).loss

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
        result = run_tier(
            self.model,
            self.test_dataloader,
            self.device,
            criterion=self.criterion,
            collect=return_outputs_targets_and_loss,
            parts=self.run.optimization.parts,
        )
        if not return_outputs_targets_and_loss:
            return result.loss
        return {"outputs": result.outputs, "targets": result.targets, "loss": result.loss}

    def load_best_performing_model(self) -> None:
        """Load the best weights, from memory after `train`, else from ``model_save_path``."""
        self.model.load_state_dict(self.run.best if self.run.best is not None else load_plain(self.model_save_path))


def _dropout_generator(context: TrainingContext | None, device: torch.device) -> torch.Generator | None:
    if context is None or device.type not in ("cpu", "cuda"):
        return None
    parallel = getattr(context, "data_parallel", None)
    purpose = dropout_seed(parallel.rank if parallel is not None else 0)
    return torch.Generator(device).manual_seed(derive_seed(context.seed, purpose))


def _length(loader: DataLoader[Any]) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
