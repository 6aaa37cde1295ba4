"""What the loaders know about the time of a trainer that says nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from synicix_core.training.batches import batch_size
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.timing import EVALUATION, OTHER, TRAINING, Stopwatch

__all__ = ["TimedLoader", "timed"]


class TimedLoader(TaskDataLoader):
    """A loader that tells a stopwatch what its reader waits for.

    A pass over the train tier is waiting for data until a batch is there, and training until the next one is asked for. A
    pass over another tier is evaluation from its first batch to its end. A trainer that says itself what it does
    (`Stopwatch.by_trainer`) is not interrupted.

    Attributes
    ----------
    stopwatch : Stopwatch
        Who is told.
    trains : bool
        Whether it is the train tier.
    """

    stopwatch: Stopwatch
    trains: bool

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # as in TaskDataLoader
        """Yield the batches of one epoch."""
        batches = super().__iter__()
        if self.stopwatch.by_trainer:
            return batches
        return _learning(batches, self.stopwatch) if self.trains else _evaluating(batches, self.stopwatch)


def timed(loader: TaskDataLoader, stopwatch: Stopwatch, *, trains: bool) -> TaskDataLoader:
    """Have a loader tell a stopwatch what its reader waits for, and return it."""
    # Changed, not wrapped: a trainer expects a real DataLoader, with everything that this one has already.
    loader.__class__ = TimedLoader
    assert isinstance(loader, TimedLoader)
    loader.stopwatch, loader.trains = stopwatch, trains
    return loader


def _learning(batches: Iterator[Any], stopwatch: Stopwatch) -> Iterator[Any]:
    while True:
        stopwatch.next_step()
        batch = next(batches, None)
        if batch is None:
            stopwatch.switch(OTHER)  # for a moment: there was no step
            stopwatch.switch(TRAINING)
            return
        stopwatch.switch(TRAINING)
        stopwatch.count(1, batch_size(batch))
        yield batch


def _evaluating(batches: Iterator[Any], stopwatch: Stopwatch) -> Iterator[Any]:
    while True:
        stopwatch.switch(EVALUATION)
        batch = next(batches, None)
        if batch is None:
            stopwatch.switch(TRAINING)
            return
        yield batch
