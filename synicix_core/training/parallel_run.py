"""One training by several processes: rank 0 measures, decides and writes, and the others do what it decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.data_parallel import DataParallel
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.random_state import capture, derive_seed, restore
from synicix_core.training.tier_pass import TierPass
from synicix_core.training.timing import OTHER
from synicix_core.training.training_run import TrainingRun

__all__ = ["ParallelRun", "dropout_seed"]


class ParallelRun(TrainingRun):
    """The training of one rank.

    All ranks have the same weights at all times. Validation, histories, the best weights, checkpoints and the context are rank
    0's; after each step, and at the end of each epoch, the others hear what it decided.

    Parameters
    ----------
    parallel : DataParallel
        Which rank this is.
    seed : int
        Of the task.
    *arguments, **options
        As for `TrainingRun`.
    """

    def __init__(self, parallel: DataParallel, seed: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parallel = parallel
        self._seed = seed
        self._others_wait = False
        self._of_ranks: list[Any] = []
        self._totals: dict[str, Any] = {}
        self._rate: tuple[float, float] | None = None

    @property
    def writes(self) -> bool:
        """Whether this is rank 0."""
        return self._parallel.is_first

    def begin(self) -> None:
        """Go on from the checkpoint, if there is one: every rank reads it."""
        device = self.optimization.device
        if device.type == "cuda" and not self._parallel.is_first:
            with torch.cuda.device(device):  # functional dropout draws from it
                torch.cuda.manual_seed(derive_seed(self._seed, f"rank:{self._parallel.rank}"))
        super().begin()
        # Also so that rank 0 replaces no file that another rank still has to read.
        self._parallel.any(same=self.epochs << 32 | self.step)

    def train_epoch(self) -> None:
        """Make the steps of an epoch, or those that are left of it."""
        if not self.step:
            self._start_alike()
        super().train_epoch()

    def after_step(self, batches: int) -> bool:
        """Count the batches of a step, save a checkpoint if one is due, and tell whether to go on: the same on all ranks."""
        lost = not self.count(batches)
        stop, due = self._asked_for()
        read = 0
        assert isinstance(self.batches.loader, TaskDataLoader)
        for whole in self.batches.loader.wholes(batches):
            read = (31 * read + whole.digest) % 2**40
        self.stopwatch.switch(OTHER)  # the others may take longer
        lost, stop, due = self._parallel.any(lost, stop, due, same=read)
        if lost:
            return False
        if stop or due:
            self.save_checkpoint()
        if stop:
            raise TrainingInterrupted(self.epochs)
        return True

    def raise_if_stopped(self) -> None:
        """Stop without a checkpoint, all ranks or none."""
        (stop,) = self._parallel.any(self._asked_for()[0])
        if stop:
            raise TrainingInterrupted(self.epochs)

    def finish_epoch(
        self, validate: Callable[[], TierPass] | None = None, summary: dict[str, Any] | None = None
    ) -> None:
        """Have rank 0 measure the model and decide, and let the others follow it."""
        totals = self._summed()
        self.sums = LossSums(self.optimization.criterion)
        if not self._parallel.is_first:
            self._follow()
            return
        self.sums.load_state_dict(totals)
        self._rate = None
        self._others_wait = True
        try:
            super().finish_epoch(validate, summary)
        except TrainingInterrupted:
            self._parallel.from_first({"then": "stop"})
            raise
        finally:
            self._others_wait = False
        self._parallel.from_first({"then": "go on", "status": self.status, "rate": self._rate})

    def adapt(self, loss: float, metric: float) -> None:
        """Let the learning rate follow an epoch, and keep by what, for the other ranks."""
        self._rate = (loss, metric)
        super().adapt(loss, metric)

    def save_checkpoint(self) -> None:
        """Collect what differs between the ranks; rank 0 saves it with everything else."""
        if self._others_wait:
            self._parallel.from_first({"then": "save"})
        totals = self._summed()
        self._of_ranks = self._parallel.to_first(self._random_state())
        if self._parallel.is_first:
            self._totals = totals
            super().save_checkpoint()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, of all ranks."""
        return {**super().state_dict(), "sums": self._totals, "ranks": self._of_ranks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned, on this rank; it may come from another number of devices."""
        super().load_state_dict(state)
        if not self._parallel.is_first:
            self.sums = LossSums(self.optimization.criterion)  # rank 0 has those of all
        own = state.get("ranks", [])
        if len(own) == self._parallel.ranks:
            self._restore(own[self._parallel.rank])
        elif self.optimization.dropout is not None and not self._parallel.is_first:
            # The masks of a rank that was not there before.
            place = f"{dropout_seed(self._parallel.rank)}:{self.epochs}:{self.step}"
            self.optimization.dropout.manual_seed(derive_seed(self._seed, place))

    def _follow(self) -> None:
        """Do what rank 0 decides at the end of an epoch."""
        while (told := self._parallel.from_first())["then"] == "save":
            self.save_checkpoint()
        if told["then"] == "stop":
            raise TrainingInterrupted(self.epochs)
        self.epochs += 1
        self.step = 0
        self.status = told["status"]
        if told["rate"] is not None:
            self.adapt(*told["rate"])

    def _asked_for(self) -> tuple[bool, bool]:
        """Tell whether somebody asked to stop, and whether a checkpoint is due: rank 0 knows."""
        if self._context is None or not self._parallel.is_first:
            return False, False
        return self._context.stop_requested(), self._context.checkpoint_due()

    def _summed(self) -> dict[str, Any]:
        """Return the sums of the losses of all ranks."""
        own = self.sums.state_dict()
        loss, penalty, samples = self._parallel.total([own["loss"], own["penalty"], own["samples"]])
        return {"loss": loss, "penalty": penalty, "samples": round(samples)}

    def _start_alike(self) -> None:
        """Let what samplers may draw from begin the epoch as on rank 0, which alone measured a tier since."""
        state = self._parallel.from_first(capture(self._generators) if self._parallel.is_first else None)
        if not self._parallel.is_first:
            # A GPU's generator is not drawn from by samplers, and each rank has its own.
            restore({**state, "cuda": [], "mps": None}, self._generators)

    def _random_state(self) -> dict[str, Any]:
        """Return the state of what this rank alone draws from."""
        dropout, device = self.optimization.dropout, self.optimization.device
        return {
            "dropout": dropout.get_state() if dropout is not None else None,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        dropout, device = self.optimization.dropout, self.optimization.device
        if dropout is not None and state["dropout"] is not None:
            dropout.set_state(state["dropout"])
        torch.set_rng_state(state["torch"])
        if device.type == "cuda" and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], device)


def dropout_seed(rank: int) -> str:
    """Return for what purpose the seed of a rank's dropout is derived; on rank 0 it is the one of a task on one device."""
    return "dropout" if rank == 0 else f"dropout:{rank}"
