"""What a worker tells people and observers while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from synicix_core.events import CheckpointSaved, EpochFinished, TaskStarted
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.observers import Observers
from synicix_core.tables.queue import Claim
from synicix_core.tables.schema import Tables

__all__ = ["News"]

_COUNT_SECONDS = 10.0


class News:
    """Tells a display and the observers of plugins.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    observers : Observers
        Of plugins.
    display : WorkerDisplay
        For people.
    count_pending : callable
        Counts what is pending.
    """

    def __init__(
        self, tables: Tables, observers: Observers, display: WorkerDisplay, count_pending: Callable[[], int]
    ) -> None:
        self._observers = observers
        self._display = display
        self._count = count_pending
        self._columns = {
            "dataset": tuple(tables.DatasetConfig.heading.names),
            "model": tuple(tables.ModelConfig.heading.names),
            "training": tuple(tables.TrainingConfig.heading.names),
        }
        self._counted = float("-inf")
        self._pending = 0

    def started(self, claim: Claim, row: Mapping[str, Any], device: str) -> None:
        """Tell that a task begins."""
        self._observers.start_task()
        self._display.task_started(claim.task, row, claim.attempt, self._count_pending() + 1)
        configs = {part: {name: row[name] for name in names} for part, names in self._columns.items()}
        event = TaskStarted(
            **_whose(claim),
            device=device,
            dataset=configs["dataset"],
            model=configs["model"],
            training=configs["training"],
        )
        self._observers.notify("synicix_task_started", event)

    def tell(self, claim: Claim, message: Mapping[str, Any], epoch_limit: int) -> None:
        """Tell what the executor said about a task."""
        if message["type"] == "epoch":
            theirs = {key: value for key, value in message.items() if key not in ("type", "task")}
            fields = {"epoch_limit": epoch_limit, **theirs}
            self._display.epoch_finished(claim.task, fields)
            self._observers.notify("synicix_epoch_finished", EpochFinished(**_whose(claim), **fields))
        elif message["type"] == "checkpoint":
            saved = CheckpointSaved(**_whose(claim), path=message["path"], epoch=message["epoch"])
            self._observers.notify("synicix_checkpoint_saved", saved)
        elif message["type"] == "stopping":
            self._display.message(
                "Stopping: the step is finished and a checkpoint saved. A second signal ends at once."
            )
        elif message["type"] == "checkpoint_failed":
            self._display.message(f"{claim.task[:8]}: {message['error']}")
        elif message["type"] == "note":
            self._display.message(message["text"])

    def _count_pending(self) -> int:
        """Return how many tasks are pending: counted now and then and up to a limit, else counted down."""
        self._pending = max(self._pending - 1, 0)
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._pending = self._count()
            self._counted = time.monotonic()
        return self._pending


def _whose(claim: Claim) -> dict[str, Any]:
    return {"task": claim.task, "attempt": claim.attempt, "worker": claim.worker}
