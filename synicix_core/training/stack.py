"""Several trainings as one: every step for all of them, everything else for each by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from synicix_core.training.batches import map_tensors
from synicix_core.training.compiling import Compilation, compiling_message, missing_compiler
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.metrics import per_sample_weight
from synicix_core.training.parameter_summary import summarise_stacked
from synicix_core.training.resident import ResidentTier
from synicix_core.training.stacked_epoch import StackedEpoch
from synicix_core.training.stacked_model import Mode, StackedModel, too_much_output
from synicix_core.training.stacked_optimizer import stack_optimizers
from synicix_core.training.stacked_pass import run_stack
from synicix_core.training.tier_pass import TierPass
from synicix_core.training.timing import DATA, EVALUATION, OPTIMIZER, OTHER
from synicix_core.training.training_run import TrainingRun

__all__ = ["Stack"]

_LISTEN_SECONDS = 0.05
"""Between two looks at who is to stop, or to save a checkpoint."""

_RECORDING_TAKES, _RECORDING_SAVES = 0.5, 0.2
"""Seconds that it takes to record a step, and the part of a step's time that the recording saves; both about."""
_COMPILING_TAKES, _COMPILING_SAVES = 12.0, 0.4

Left = Callable[[TrainingRun, BaseException], None]
"""Takes a training that ended before its epoch did, and why."""


class Stack:
    """Trainings whose models are alike and which learn from the same dataset, trained as one.

    Each keeps its own order of the data, optimizer, learning rate, early stopping, best weights and checkpoints, and can be
    gone on with alone. What one of them computes does not depend on the others.

    Parameters
    ----------
    runs : sequence of TrainingRun
        At the same batch of their epochs, whichever epochs these are.
    mode : {"forward", "gradient"}
        See `stacked_model.Mode`.
    evaluates : bool
        Whether the validation tier is read for all of them at once, too.

    Attributes
    ----------
    runs : list of TrainingRun
        Those that are still in it.
    is_compiled : bool
        Whether their steps are compiled now.
    """

    def __init__(self, runs: Sequence[TrainingRun], mode: Mode, *, evaluates: bool) -> None:
        self.runs = list(runs)
        self._mode = mode
        self._stopwatch = self.runs[0].stopwatch
        self._evaluates = evaluates
        self._was_shrunk = False
        self._stack()

    def release(self) -> None:
        """Give each training what is its own again."""
        self.model.release()
        self._optimizer.release()
        for run in self.runs:
            if run.optimization.average is not None:
                run.optimization.average.values = [value.clone() for value in run.optimization.average.values]

    def keep(self, runs: Sequence[TrainingRun]) -> None:
        """Go on with some of the trainings only."""
        if len(runs) == len(self.runs):
            return
        self.release()
        self.runs = list(runs)
        self._was_shrunk = True
        if runs:
            self._stack()

    def train_epoch(self, left: Left) -> None:
        """Make the steps of an epoch; a training whose loss is not finite makes no further ones, as it would alone."""
        epoch = self._begin(left)
        began = listened = time.monotonic()
        while epoch is not None and not epoch.is_over:
            self._step(epoch)
            if time.monotonic() - listened >= _LISTEN_SECONDS:
                epoch = self._listen(epoch, left)
                listened = time.monotonic()
        if epoch is None or epoch.was_read:
            return
        self._stopwatch.next_step()
        if not epoch.ends_in_a_smaller_batch:
            self._end_orders()
        self._write_back(epoch)
        self._epochs += 1
        self._seconds_per_step = (time.monotonic() - began) / max(len(self.runs[0].batches.loader), 1)
        for k, run in enumerate(self.runs):
            if k in epoch.halted:
                self.model.put_back(k, epoch.halted[k])
            else:
                run.after_batches()

    def finish_epoch(self, left: Left) -> None:
        """Measure each training on the validation tier, and let it do what follows from that."""
        with self._stopwatch.during(OTHER):
            summaries = summarise_stacked(self.model.models, self.model.parameters)
        with self._stopwatch.during(EVALUATION):
            measured = self._validate() if self._validates_together() else None
        for k, run in enumerate(list(self.runs)):
            try:
                run.finish_epoch(None if measured is None else _known(measured[k]), summaries[k])
            except (Exception, TrainingInterrupted) as error:  # its own end: it was stopped, diverged, a metric raised
                left(run, error)

    def step(self, batches: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, int]]:
        """Make one step of each optimizer.

        Parameters
        ----------
        batches : sequence of Tensor of int64, (trainings, examples)
            The examples of one batch, or of several that make a step.

        Returns
        -------
        list of (losses, penalties, samples)
            Of each batch; (trainings,) the first two.
        """
        whole = sum(batch.shape[1] for batch in batches)
        learnt = []
        total: dict[str, Tensor | None] = {}
        for batch in batches:
            count = batch.shape[1]
            self._stopwatch.switch(DATA)
            inputs, targets = self._gather(batch)
            losses, penalties, gradients = self.model.gradients(inputs, targets, self._shares(count, whole))
            learnt.append((losses, penalties, count))
            total = gradients if not total else {name: _sum(total[name], found) for name, found in gradients.items()}
        self._stopwatch.switch(OPTIMIZER)
        self._optimizer.step(self._clip(total))
        if self._average is not None:
            # Rounded once for each number, so that none depends on where in the stack it stands.
            self._average.mul_(self._decay).add_(self.model.weights.block * (1.0 - self._decay))
        return learnt

    def rates_change(self) -> None:
        """Look at the learning rates of the trainings again."""
        self._optimizer.rates_change()

    def _stack(self) -> None:
        first = self.runs[0]
        optimization = first.optimization
        models = [run.model for run in self.runs]
        switch = self._stopwatch.switch
        self.model = StackedModel(models, optimization.criterion, optimization.precision.autocast, self._mode, switch)
        names = self.model.trained
        owned = [{name: own[name] for name in names} for own in (dict(model.named_parameters()) for model in models)]
        optimizers = [run.optimization.optimizer for run in self.runs]
        self._optimizer = stack_optimizers(optimizers, self.model.weights, owned)
        self._average: Tensor | None = None
        averages = [run.optimization.average for run in self.runs if run.optimization.average is not None]
        if averages:
            self._decay = averages[0].decay
            self._average = torch.zeros_like(self.model.weights.block)
            parts = list(self.model.weights.views(self._average).values())
            for k, average in enumerate(averages):
                for part, value in zip(parts, average.values, strict=True):
                    part[k].copy_(value)
                average.values = [part[k] for part in parts]
        loader = first.batches.loader
        self._resident = _resident(loader)
        assert loader.batch_size is not None
        self._batch_size = loader.batch_size
        self._epochs = 0
        self._tried_to_record = self._tried_to_compile = self.is_compiled = False
        self._seconds_per_step = 0.0

    def _record_if_it_pays(self, epoch: StackedEpoch) -> None:
        """Record the step once as many epochs as this stack has had already would be shorter for it by more than it takes.

        Where the trainer's ``compile`` allows, it is compiled, on the same conditions; if it says ``"on"``, at once.
        """
        compilation = self.runs[0].optimization.compilation
        device = self._resident.device
        left = max(run.max_epoch - run.epochs for run in self.runs)
        seconds = min(self._epochs, left) * len(self.runs[0].batches.loader) * self._seconds_per_step
        if compilation is not None and not self._tried_to_compile and not missing_compiler(device):
            at_once = compilation.mode == "on" and not self._was_shrunk
            if at_once or seconds * _COMPILING_SAVES > _COMPILING_TAKES:
                self._tried_to_compile = True
                self.is_compiled = self._record(epoch, compilation)
        if not self.is_compiled and not self._tried_to_record and seconds * _RECORDING_SAVES >= _RECORDING_TAKES:
            self._tried_to_record = True
            self._record(epoch)

    def _record(self, epoch: StackedEpoch, compilation: Compilation | None = None) -> bool:
        """Record the step, compiled if somebody is given who is to say so, and tell whether that could be done."""
        batch = epoch.first_batch()
        if batch.shape[1] != self._batch_size:
            return False
        if compilation is not None and not self.model.draws:
            name = type(self.runs[0].model).__name__
            compilation.tell(compiling_message(f"{name} for a group of {len(self.runs)}"))
        return self.model.record(*self._gather(batch), compiled=compilation is not None)

    def _begin(self, left: Left) -> StackedEpoch | None:
        """Begin an epoch, or go on with one; None if everybody was stopped."""
        self._stopwatch.switch(DATA)
        orders = {}
        for run in list(self.runs):
            run.model.train()
            try:
                # Between two epochs there is something to save; before it goes on within one there is not.
                run.listen() if not run.step else run.raise_if_stopped()
                orders[run] = run.batches.order(run.step)
            except TrainingInterrupted as error:
                left(run, error)
        self.keep([run for run in self.runs if run in orders])
        if not self.runs:
            return None
        self._optimizer.rates_change()
        self._constant = all(run.optimization.learning_rate.is_constant for run in self.runs)
        epoch = StackedEpoch(self.runs, torch.stack(list(orders.values())), self._batch_size, self._resident.device)
        self._record_if_it_pays(epoch)
        return epoch

    def _step(self, epoch: StackedEpoch) -> None:
        self._stopwatch.next_step()
        batches = epoch.take(self.runs[0].accumulate)
        if epoch.is_over and epoch.ends_in_a_smaller_batch:
            self._end_orders()
        for losses, penalties, count in self.step(batches):
            epoch.add(losses, penalties, count)
        if not self._constant:
            self._tell_schedules(epoch)
            self._optimizer.rates_change()
        if self._resident.device.type == "cpu":  # nobody has to wait for it
            for k in epoch.newly_infinite():
                epoch.write_back(only=k)
                epoch.halted[k] = self.model.copy_of(k)

    def _tell_schedules(self, epoch: StackedEpoch) -> None:
        for k, run in enumerate(self.runs):
            if k not in epoch.halted:
                run.optimization.learning_rate.after_steps(epoch.steps)
        epoch.steps = 0

    def _write_back(self, epoch: StackedEpoch) -> None:
        """Let each training know how far it has come, as it would alone."""
        epoch.write_back()
        self._tell_schedules(epoch)

    def _listen(self, epoch: StackedEpoch, left: Left) -> StackedEpoch | None:
        """Let each training look whether it is to stop or to save a checkpoint; go on with those that are not to stop."""
        self._write_back(epoch)
        stopped = []
        for k, run in enumerate(self.runs):
            try:
                if k not in epoch.halted:
                    run.listen()
            except TrainingInterrupted as error:
                left(run, error)
                stopped.append(run)
        if not stopped:
            return epoch
        going_on = [k for k, run in enumerate(self.runs) if run not in stopped]
        self.keep([self.runs[k] for k in going_on])
        return epoch.of(going_on) if going_on else None

    def _end_orders(self) -> None:
        for run in self.runs:
            assert isinstance(run.batches.loader, TaskDataLoader)
            run.batches.loader.end_order()

    def _shares(self, count: int, whole: int) -> tuple[float, float] | None:
        """Return what a batch's loss and penalty count for in a step of `whole` samples; None if it is all of them."""
        if count == whole:
            return None
        criterion = self.runs[0].optimization.criterion
        return per_sample_weight(criterion, count) / per_sample_weight(criterion, whole), count / whole

    def _gather(self, rows: Tensor) -> tuple[Any, Any]:
        """Return the batch of each training, (trainings, examples, ...)."""
        inputs, targets = self._resident.take(rows.reshape(-1))

        def folded(tensor: Tensor) -> Tensor:
            return tensor.view(*rows.shape, *tensor.shape[1:])

        return map_tensors(folded, inputs), map_tensors(folded, targets)

    def _clip(self, gradients: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        optimization = self.runs[0].optimization
        if optimization.clip_value is None and optimization.clip_norm is None:
            return gradients
        found = [gradient for gradient in gradients.values() if gradient is not None]
        # Never in place: autograd may give two parameters the same tensor.
        if optimization.clip_value is not None:
            found = [gradient.clamp(-optimization.clip_value, optimization.clip_value) for gradient in found]
        if optimization.clip_norm is not None and found:
            norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in found], 1)
            scale = (optimization.clip_norm / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
            found = [gradient * scale.view(-1, *([1] * (gradient.dim() - 1))) for gradient in found]
        clipped = iter(found)
        return {name: None if gradient is None else next(clipped) for name, gradient in gradients.items()}

    def _validates_together(self) -> bool:
        run = self.runs[0]
        loader = run.validation_loader
        return (
            self._evaluates
            and isinstance(loader, TaskDataLoader)
            and loader.resident is not None
            and type(loader.sampler) is SequentialSampler
            and loader.batch_size is not None
            and not (run.collects and run.metric.takes_column)
            and not (run.collects and too_much_output(len(self.runs), loader.resident))
        )

    def _validate(self) -> list[TierPass]:
        """Measure all trainings on the validation tier."""
        run = self.runs[0]
        loader = run.validation_loader
        with self._averages_in_place():
            return run_stack(self.model, loader, _resident(loader), run.optimization.criterion, collect=run.collects)

    @contextmanager
    def _averages_in_place(self) -> Iterator[None]:
        block = self.model.weights.block
        kept = block.clone() if self._average is not None else None
        if self._average is not None:
            block.copy_(self._average)
        try:
            yield
        finally:
            if kept is not None:
                block.copy_(kept)


def _resident(loader: Any) -> ResidentTier:
    resident: ResidentTier | None = getattr(loader, "resident", None)
    assert resident is not None, "only trainings whose dataset is on the device are stacked"
    return resident


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _known(measured: TierPass) -> Callable[[], TierPass]:
    return lambda: measured
