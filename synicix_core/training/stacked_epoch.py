"""An epoch of several trainings at once: which examples come next, and what the losses add up to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synicix_core.training.training_run import TrainingRun

__all__ = ["StackedEpoch"]


class StackedEpoch:
    """How far an epoch has come.

    Losses are added up on the device, in double precision and in the order of the batches, as `LossSums` does it.

    Parameters
    ----------
    runs : sequence of TrainingRun
        At the same batch of their epochs.
    orders : Tensor of int64, (trainings, examples)
        The order of each; no examples where the epoch was read to its end.
    batch_size : int
        Examples in a batch; the last one may be smaller.
    device : torch.device
        Where to compute.

    Attributes
    ----------
    halted : dict of int to dict
        The tensors of those trainings, by their place, whose loss was not finite, as they were then.
    steps : int
        Steps of the optimizers since somebody set it to 0.
    """

    def __init__(self, runs: Sequence[TrainingRun], orders: Tensor, batch_size: int, device: torch.device) -> None:
        self.halted: dict[int, dict[str, Tensor]] = {}
        self.steps = 0
        self._runs = list(runs)
        self._examples = orders.shape[1]
        self._orders = orders.to(device, non_blocking=True)
        self._batch_size = batch_size
        self._next = min(runs[0].step * batch_size, self._examples)
        self._by_sum = getattr(runs[0].optimization.criterion, "reduction", "mean") == "sum"
        sums = [run.sums.state_dict() for run in runs]
        self._loss = torch.tensor([item["loss"] for item in sums], dtype=torch.float64, device=device)
        self._penalty = torch.tensor([item["penalty"] for item in sums], dtype=torch.float64, device=device)
        self._samples = int(sums[0]["samples"])

    @property
    def was_read(self) -> bool:
        """Whether the epoch had been read to its end before: these trainings were stopped between that and the next one."""
        return not self._examples

    @property
    def is_over(self) -> bool:
        """Whether all examples were used."""
        return self._next >= self._examples

    @property
    def ends_in_a_smaller_batch(self) -> bool:
        """Whether the last batch is smaller than the others."""
        return self._examples % self._batch_size != 0

    def of(self, places: Sequence[int]) -> StackedEpoch:
        """Return the same for some of the trainings, which `write_back` was called for."""
        runs = [self._runs[k] for k in places]
        epoch = StackedEpoch(runs, self._orders[places], self._batch_size, self._orders.device)
        epoch._next = self._next
        # Those that halted have their own sums, and count no batches any more.
        epoch._loss, epoch._penalty, epoch._samples = self._loss[places], self._penalty[places], self._samples
        epoch.halted = {new: self.halted[k] for new, k in enumerate(places) if k in self.halted}
        return epoch

    def first_batch(self) -> Tensor:
        """Return the examples, (trainings, examples), of the next batch, without taking it."""
        return self._orders[:, self._next : self._next + self._batch_size]

    def take(self, batches: int) -> tuple[Tensor, ...]:
        """Return the examples, (trainings, examples) each, of the next batches, as far as there are so many."""
        first = self._next
        self._next = min(first + batches * self._batch_size, self._examples)
        self.steps += 1
        return torch.split(self._orders[:, first : self._next], self._batch_size, 1)

    def add(self, losses: Tensor, penalties: Tensor, count: int) -> None:
        """Take the losses and penalties, (trainings,), of a batch of `count` examples."""
        losses, penalties = losses.double(), penalties.double()
        self._loss += losses if self._by_sum else losses * count
        self._penalty += penalties * count
        self._samples += count

    def newly_infinite(self) -> list[int]:
        """Return the places of those whose sums are no longer finite, each once; waits for the device."""
        finite = torch.isfinite(self._loss + self._penalty)
        if bool(finite.all()):
            return []
        return [k for k, fine in enumerate(finite.tolist()) if not fine and k not in self.halted]

    def write_back(self, only: int | None = None) -> None:
        """Let each training that goes on, or one, know its sums and how many batches it has used; waits for the device."""
        losses, penalties = self._loss.tolist(), self._penalty.tolist()
        for k, run in enumerate(self._runs):
            if k == only or (only is None and k not in self.halted):
                run.sums.load_state_dict({"loss": losses[k], "penalty": penalties[k], "samples": self._samples})
                run.step = -(-self._next // self._batch_size)
