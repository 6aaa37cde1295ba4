"""Several trainings as one: every step for all of them, everything else for each by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from synicix_core.errors import SynicixError
from synicix_core.training.batches import concatenate, map_tensors
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.metrics import per_sample_weight
from synicix_core.training.parameter_summary import summarise_stacked
from synicix_core.training.resident import ResidentTier
from synicix_core.training.stacked_model import Mode, StackedModel
from synicix_core.training.stacked_optimizer import stack_optimizers
from synicix_core.training.tier_pass import TierPass, evaluation_positions
from synicix_core.training.training_run import TrainingRun

__all__ = ["Stack"]

_LISTEN_SECONDS = 0.05
"""Between two looks at who is to stop, or to save a checkpoint."""

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
    """

    def __init__(self, runs: Sequence[TrainingRun], mode: Mode, *, evaluates: bool) -> None:
        self.runs = list(runs)
        self._mode = mode
        self._evaluates = evaluates
        self._stack()

    def __len__(self) -> int:
        return len(self.runs)

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
        if runs:
            self._stack()

    def train_epoch(self, left: Left) -> None:
        """Make the steps of an epoch; a training whose loss is not finite makes no further ones, as it would alone."""
        readers = {}
        for run in list(self.runs):
            run.model.train()
            run.batches.read = TaskDataLoader.positions
            try:
                readers[run] = run.batches.epoch(run.epochs, run.step, run.raise_if_stopped)
            except TrainingInterrupted as error:
                left(run, error)
        self.keep([run for run in self.runs if run in readers])
        halted: dict[TrainingRun, dict[str, Tensor]] = {}
        waiting: list[tuple[Tensor, Tensor, int]] = []
        listened = time.monotonic()
        while self.runs:
            windows = [list(islice(readers[run], run.accumulate)) for run in self.runs]
            if not any(windows):
                break
            waiting += self.step(windows)
            if waiting[-1][0].device.type == "cpu":
                self._add(waiting, halted)
            for k, run in enumerate(self.runs):
                if run not in halted and not run.count(len(windows[k])):
                    halted[run] = self.model.copy_of(k)
            if time.monotonic() - listened >= _LISTEN_SECONDS:
                self._add(waiting, halted)
                self._listen(left)
                listened = time.monotonic()
        self._add(waiting, halted)
        for k, run in enumerate(self.runs):
            if run in halted:
                self.model.put_back(k, halted[run])
            else:
                run.after_batches()

    def finish_epoch(self, left: Left) -> None:
        """Measure each training on the validation tier, and let it do what follows from that."""
        summaries = summarise_stacked(self.model.models, self.model.parameters)
        measured = self._validate() if self._validates_together() else None
        for k, run in enumerate(list(self.runs)):
            try:
                run.finish_epoch(None if measured is None else _known(measured[k]), summaries[k])
            except Exception as error:  # a metric's, or that it diverged: this training's own end
                left(run, error)
            except TrainingInterrupted as error:
                left(run, error)

    def _stack(self) -> None:
        first = self.runs[0].optimization
        models = [run.model for run in self.runs]
        self.model = StackedModel(models, first.criterion, first.precision.autocast, self._mode)
        trained = {name: self.model.parameters[name] for name in self.model.trained}
        owned = [{name: own[name] for name in trained} for own in (dict(model.named_parameters()) for model in models)]
        self._optimizer = stack_optimizers([run.optimization.optimizer for run in self.runs], trained, owned)
        self._weights = [tensor.detach() for tensor in trained.values()]
        self._averages: list[Tensor] = []
        averages = [run.optimization.average for run in self.runs if run.optimization.average is not None]
        if averages:
            self._averages = [
                torch.stack(values) for values in zip(*(average.values for average in averages), strict=True)
            ]
            for k, average in enumerate(averages):
                average.values = [stacked[k] for stacked in self._averages]
            self._decay = averages[0].decay
        self._resident = _resident(self.runs[0].batches.loader)

    def step(self, windows: list[list[Tensor]]) -> list[tuple[Tensor, Tensor, int]]:
        """Make one step of each optimizer.

        Parameters
        ----------
        windows : list of list of Tensor
            For each training, the positions of the examples of its batches.

        Returns
        -------
        list of (losses, penalties, samples)
            For each batch; (models,) each.

        Raises
        ------
        SynicixError
            If the batches of the trainings differ in length.
        """
        optimization = self.runs[0].optimization
        criterion = optimization.criterion
        if len({tuple(map(len, window)) for window in windows}) > 1:
            raise SynicixError("the samplers of a group do not give batches of the same lengths")
        counts = [len(positions) for positions in windows[0]]
        whole = sum(counts)
        learnt = []
        total: dict[str, Tensor | None] = {}
        for index, count in enumerate(counts):
            inputs, targets = self._gather([window[index] for window in windows])
            shares = None
            if len(counts) > 1:
                shares = per_sample_weight(criterion, count) / per_sample_weight(criterion, whole), count / whole
            losses, penalties, gradients = self.model.gradients(inputs, targets, shares)
            learnt.append((losses, penalties, count))
            total = (
                gradients if not total else {name: _sum(total[name], gradient) for name, gradient in gradients.items()}
            )
        self._clip(total)
        self._optimizer.step(total)
        for run in self.runs:
            run.optimization.learning_rate.after_step()
        if self._averages:
            # Rounded once for each number, so that none depends on where in the stack it stands.
            torch._foreach_mul_(self._averages, self._decay)
            torch._foreach_add_(self._averages, torch._foreach_mul(self._weights, 1.0 - self._decay))
        return learnt

    def _gather(self, positions: list[Tensor]) -> tuple[Any, Any]:
        """Return the next batch of each training, (models, batch, ...)."""
        rows = torch.stack(positions)
        inputs, targets = self._resident.take(rows.view(-1))

        def folded(tensor: Tensor) -> Tensor:
            return tensor.view(*rows.shape, *tensor.shape[1:])

        return map_tensors(folded, inputs), map_tensors(folded, targets)

    def _clip(self, gradients: dict[str, Tensor | None]) -> None:
        optimization = self.runs[0].optimization
        found = [gradient for gradient in gradients.values() if gradient is not None]
        if optimization.clip_value is not None:
            torch._foreach_clamp_min_(found, -optimization.clip_value)
            torch._foreach_clamp_max_(found, optimization.clip_value)
        if optimization.clip_norm is not None and found:
            norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in found], 1)
            scale = (optimization.clip_norm / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
            for gradient in found:
                gradient.mul_(scale.view(-1, *([1] * (gradient.dim() - 1))))

    def _add(self, waiting: list[tuple[Tensor, Tensor, int]], halted: dict[TrainingRun, dict[str, Tensor]]) -> None:
        """Add up what waits on the device; not for those that do not learn any more."""
        if not waiting:
            return
        losses = torch.stack([losses for losses, _, _ in waiting]).tolist()
        penalties = torch.stack([penalties for _, penalties, _ in waiting]).tolist()
        for of_models, penalties_of_models, (_, _, count) in zip(losses, penalties, waiting, strict=True):
            for run, loss, penalty in zip(self.runs, of_models, penalties_of_models, strict=True):
                if run not in halted:
                    run.sums.add_numbers(loss, penalty, count)
        waiting.clear()

    def _listen(self, left: Left) -> None:
        stopped = []
        for run in self.runs:
            try:
                run.listen()
            except TrainingInterrupted as error:
                left(run, error)
                stopped.append(run)
        self.keep([run for run in self.runs if run not in stopped])

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
        )

    def _validate(self) -> list[TierPass]:
        """Measure all trainings on the validation tier, each batch for all of them."""
        run = self.runs[0]
        loader = run.validation_loader
        resident = _resident(loader)
        count = len(self.runs)
        sums = [LossSums(run.optimization.criterion) for run in self.runs]
        outputs: list[list[Any]] = [[] for _ in self.runs]
        targets: list[Any] = []

        def for_all(tensor: Tensor) -> Tensor:
            return tensor.expand(count, *tensor.shape)

        with self._averages_in_place():
            for positions in evaluation_positions(loader, resident):
                x, y = resident.take(positions)
                output, losses = self.model.outputs(map_tensors(for_all, x), map_tensors(for_all, y))
                for own, loss in zip(sums, losses.tolist(), strict=True):
                    own.add_numbers(loss, 0.0, len(positions))
                if run.collects:
                    targets.append(map_tensors(Tensor.cpu, y))
                    for k, own_outputs in enumerate(outputs):
                        own_outputs.append(_slice(output, k))
        if not run.collects:
            return [TierPass(own.means()[0]) for own in sums]
        whole = concatenate(targets)
        return [TierPass(own.means()[0], concatenate(found), whole) for own, found in zip(sums, outputs, strict=True)]

    @contextmanager
    def _averages_in_place(self) -> Iterator[None]:
        kept = [weight.clone() for weight in self._weights] if self._averages else []
        if kept:
            torch._foreach_copy_(self._weights, self._averages)
        try:
            yield
        finally:
            if kept:
                torch._foreach_copy_(self._weights, kept)


def _resident(loader: Any) -> ResidentTier:
    resident: ResidentTier | None = getattr(loader, "resident", None)
    assert resident is not None, "only trainings whose dataset is on the device are stacked"
    return resident


def _slice(value: Any, k: int) -> Any:
    return map_tensors(lambda tensor: tensor[k].cpu(), value)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one.add_(other)


def _known(measured: TierPass) -> Callable[[], TierPass]:
    return lambda: measured
