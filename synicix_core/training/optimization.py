"""One step of learning: forward, backward, clip, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from synicix_core.training.averaging import Average
from synicix_core.training.batches import (
    batch_size,
    cut,
    full_precision,
    split_batch,
    split_output,
    with_channels_last,
)
from synicix_core.training.dropout import TaskDropout
from synicix_core.training.fused_kernels import FastStep, with_kernel_of
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.metrics import per_sample_weight
from synicix_core.training.precision import Precision
from synicix_core.training.prefetch import Copies
from synicix_core.training.schedules import LearningRate
from synicix_core.training.tier_pass import criterion_loss
from synicix_core.training.timing import BACKWARD, DATA, FORWARD, OPTIMIZER, OTHER, TRAINING, Stopwatch

if TYPE_CHECKING:
    from synicix_core.training.compiling import Compilation
    from synicix_core.training.cuda_graphs import StepGraph

__all__ = ["Losses", "Optimization", "losses_of"]

Losses = tuple[torch.Tensor, torch.Tensor | None]
"""Loss and penalty of a batch; no penalty is None."""

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
_DROPOUTS = (nn.modules.dropout._DropoutNd, TaskDropout)


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
    parts : int
        Into how many parts each batch is split. Their gradients add up to those of the whole batch, up to rounding, for a
        criterion that sums or averages over samples; batch normalization and dropout see one part at a time.
    average : Average, optional
        Told after each step that was made.
    channels_last : bool
        Whether images go to the model with their channels last in memory.
    dropout : torch.Generator, optional
        What the model's layers of dropout draw from.

    Attributes
    ----------
    skipped_steps : int
        Steps left out, by `skip_nonfinite` or by the gradient scaler.
    losses : callable
        `losses_of`, or what computes the same in another way.
    compilation : Compilation or None
        What decides whether that is compiled code.
    graph : StepGraph or None
        Makes whole steps in another way.
    fast_step : FastStep
        Makes the optimizer's.
    stopwatch : Stopwatch
        Told what it is doing; whoever wants to know puts in another.
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
        parts: int = 1,
        average: Average | None = None,
        channels_last: bool = False,
        dropout: torch.Generator | None = None,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.precision = precision
        self.device = device
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.skip_nonfinite = skip_nonfinite
        self.parts = parts
        self.average = average
        self.channels_last = channels_last
        self.dropout = dropout
        self.skipped_steps = 0
        self.losses: Callable[..., Losses] = losses_of
        self.compilation: Compilation | None = None
        self.graph: StepGraph | None = None
        self.fast_step = FastStep(optimizer)
        self.stopwatch = Stopwatch()
        self._copies = Copies(device)
        self._learnt_from = 0
        self._uncut = False
        self._needs_true_gradients = clip_norm is not None or clip_value is not None or skip_nonfinite

    def step(self, batches: Sequence[Any], sums: LossSums) -> None:
        """Learn from one batch, or from several as from one, and add losses and penalties to `sums`, unless it is left out.

        The gradient of several batches is the mean over all their samples, whatever the size of each.
        """
        pieces = batches if self.parts == 1 else [piece for batch in batches for piece in cut(batch, self.parts)]
        self._learnt_from += len(pieces)
        if self.compilation is not None and self.compilation.undecided:
            with self.stopwatch.during(OTHER):
                self._decide(pieces[0])
        if self.graph is not None and len(pieces) == 1 and not self.graph.note:
            pieces = [self._copies(pieces[0])]
            self.stopwatch.switch(TRAINING)  # its parts cannot be told from each other
            made = self.graph.step(pieces[0])
            if made is not None:
                self._stepped([made], sums)
                return
        self.stopwatch.switch(OPTIMIZER)
        self.fast_step.zero_grad()
        whole = sum(map(_count, batches)) if len(pieces) > 1 else None
        self._uncut = self._uncut or (self.parts > 1 and len(pieces) == len(batches) and _count(batches[0]) > 1)
        learnt = []
        for piece in pieces:
            losses = self._learn(piece, whole)
            if losses is None:
                self.skipped_steps += 1
                return
            learnt.append(losses)
        self._make(learnt, sums)

    def _make(self, learnt: Sequence[tuple[torch.Tensor, torch.Tensor | None, int]], sums: LossSums) -> None:
        """Step by the gradients that were found, unless something forbids it, and add what was learnt from to `sums`."""
        self.stopwatch.switch(OPTIMIZER)
        if self._needs_true_gradients:
            self.precision.unscale_(self.optimizer)
            if not self._clip():
                self.skipped_steps += 1
                return
        if self.precision.scaler is None:
            self.fast_step.step()
        elif not self.precision.step(self.optimizer):
            self.skipped_steps += 1
            return
        self._stepped(learnt, sums)

    def plain_step(self, batch: Any) -> Losses:
        """Learn from one batch with nothing in between that a recording could not hold, and return loss and penalty."""
        self.optimizer.zero_grad()
        learnt = self._learn(batch, None)
        assert learnt is not None  # only `skip_nonfinite` refuses one
        self.optimizer.step()
        return learnt[0], learnt[1]

    def begin_epoch(self, epoch: int, left: int) -> None:
        """Note that an epoch begins, or goes on: its number, from 1, and how many are expected, this one included."""
        self._learnt_from = 0
        if self.compilation is not None:
            self.compilation.begin_epoch(epoch, left)

    def end_epoch(self) -> None:
        """Note that an epoch is over, and that the device has been waited for."""
        if self.compilation is not None:
            self.compilation.end_epoch(self._learnt_from)
        self._learnt_from = 0

    def describe_parts(self) -> str:
        """Say into how many parts batches were split, and what that changes for this model."""
        kinds = [
            word
            for word, layers in (("batch normalization", _BATCH_NORMS), ("dropout", _DROPOUTS))
            if any(isinstance(module, layers) for module in self.model.modules())
        ]
        sees = f"; {' and '.join(kinds)} saw one part at a time" if kinds else ""
        whole = "; some batches could not be split, because their tensors differ in length" if self._uncut else ""
        return (
            f"trained in {self.parts} micro-batches per batch, because a whole one did not fit into memory{sees}{whole}"
        )

    def _learn(
        self, batch: Any, whole: int | None, times: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor | None, int] | None:
        """Add the gradients, `times` over, of a batch, or of a part of one with `whole` samples; None if its loss forbids it.

        Returns
        -------
        tuple of loss, penalty and number of samples
        """
        switch = self.stopwatch.switch
        if self.device.type != "cpu":
            switch(DATA)
        inputs, targets = self._arranged(batch)
        switch(FORWARD)
        count = batch_size(targets) or batch_size(inputs)
        loss, penalty = self.losses(self.model, self.criterion, self.precision, inputs, targets)
        objective = loss if penalty is None else loss + penalty
        if whole is not None:
            # A mean over some of the samples counts for as many as they are; so does the penalty, which is to count once.
            objective = loss * (per_sample_weight(self.criterion, count) / per_sample_weight(self.criterion, whole))
            objective = objective if penalty is None else objective + penalty * (count / whole)
        objective = objective * times if times != 1 else objective
        if self.skip_nonfinite and not self._is_finite(objective):
            return None
        switch(BACKWARD)
        self.precision.backward(objective)
        return loss, penalty, count

    def _is_finite(self, objective: torch.Tensor) -> bool:
        return math.isfinite(objective.item())

    def _arranged(self, batch: Any) -> tuple[Any, Any]:
        """Return inputs and targets on the device."""
        inputs, targets = split_batch(self._copies(batch))
        return with_channels_last(inputs) if self.channels_last else inputs, targets

    def _decide(self, batch: Any) -> None:
        assert self.compilation is not None
        before = self.compilation.in_use
        self.compilation.decide(*self._arranged(batch))
        if self.graph is not None and self.compilation.in_use != before:
            self.graph.forget()

    def _stepped(self, learnt: Sequence[tuple[torch.Tensor, torch.Tensor | None, int]], sums: LossSums) -> None:
        self.learning_rate.after_step()
        if self.average is not None:
            self.average.update()
        for losses in learnt:
            sums.add(*losses)

    def _clip(self) -> bool:
        """Clip, and tell whether the step may be made."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        # The scaler leaves out steps with infinite gradients itself, and must see them to lower its scale.
        if self.skip_nonfinite and self.precision.scaler is None:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if not math.isfinite(norm.item()):
                return False
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes as it learns."""
        return {
            "model": self.model.state_dict(),
            "buffers": self._unsaved_buffers(),
            "criterion": self.criterion.state_dict() if isinstance(self.criterion, nn.Module) else {},
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "precision": self.precision.state_dict(),
            "dropout": self.dropout.get_state() if self.dropout is not None else None,
            "average": self.average.state_dict() if self.average is not None else {},
            "compiled": self.compilation.state_dict() if self.compilation is not None else {},
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        buffers = self._unsaved_buffers()
        for name, value in state["buffers"].items():
            if name in buffers and buffers[name].shape == value.shape:
                buffers[name].copy_(value)
            else:  # the model puts a new one in its place as it learns
                owner, _, attribute = name.rpartition(".")
                setattr(self.model.get_submodule(owner), attribute, value.to(self.device))
        if isinstance(self.criterion, nn.Module):
            self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(with_kernel_of(self.optimizer, state["optimizer"]))
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.precision.load_state_dict(state["precision"])
        if self.dropout is not None:
            self.dropout.set_state(state["dropout"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.compilation is not None and state["compiled"]:
            self.compilation.load_state_dict(state["compiled"])
        self.skipped_steps = state["skipped_steps"]

    def _unsaved_buffers(self) -> dict[str, torch.Tensor]:
        """Return the buffers that a model's ``state_dict`` leaves out, as they may change in training all the same."""
        saved = self.model.state_dict(keep_vars=True)
        return {name: buffer for name, buffer in self.model.named_buffers() if name not in saved}


def losses_of(model: nn.Module, criterion: Any, precision: Precision, inputs: Any, targets: Any) -> Losses:
    """Return loss and penalty of a batch, the loss in float32 or better."""
    with precision.autocast():
        output, penalty = split_output(model(inputs))
    return criterion_loss(criterion, full_precision(output), targets), penalty


def _count(batch: Any) -> int:
    inputs, targets = split_batch(batch)
    return batch_size(targets) or batch_size(inputs)
