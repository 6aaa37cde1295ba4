"""What a worker tells people and observers while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from synicix_core.events import CheckpointSaved, EpochFinished, TaskStarted
from synicix_core.runner.group_display import GroupDisplay
from synicix_core.runner.group_run import GroupMember
from synicix_core.runner.group_words import several
from synicix_core.runner.observers import Observers
from synicix_core.tables.queue import Claim
from synicix_core.tables.schema import Tables

__all__ = ["News"]

_COUNT_SECONDS = 10.0
_FEW = 100
"""Below this number pending tasks are counted every time: it costs little, and people look."""


class News:
    """Tells a display and the observers of plugins.

    Parameters
    ----------
    tables : Tables
        The bound tables.
    observers : Observers
        Of plugins.
    display : GroupDisplay
        For people.
    count_pending : callable
        Counts what is pending.
    """

    def __init__(
        self, tables: Tables, observers: Observers, display: GroupDisplay, count_pending: Callable[[], int]
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
        self._display.task_started(claim.task, row, claim.attempt, self._count_pending(1) + 1)
        self._observe_start(claim, row, device)

    def group_started(
        self,
        members: Sequence[GroupMember],
        device: str,
        tick: Callable[[], object],
        told: Collection[Claim] = (),
    ) -> None:
        """Tell people once that a group begins, and observers of each of its tasks, which may take their time.

        Parameters
        ----------
        members : sequence of GroupMember
            The group.
        device : str
            Where it is trained.
        tick : callable
            Called before each of them.
        told : collection of Claim
            Of those whose start observers know of.
        """
        group = {member.claim.task: member.row for member in members}
        self._display.group_started(group, self._count_pending(len(members)))
        for member in members:
            tick()
            if member.claim not in told:
                self._observe_start(member.claim, member.row, device)

    def where_they_start(self, claims: Sequence[Claim], resumes: Sequence[bool]) -> None:
        """Say of tasks that were tried before whether they go on from a checkpoint; of a group in a sentence or two."""
        for resume, how, all_of_them in (
            (True, "has a checkpoint to go on from", "have checkpoints to go on from"),
            (False, "starts from the beginning", "start from the beginning"),
        ):
            those = [claim for claim, own in zip(claims, resumes, strict=True) if claim.attempt > 1 and own == resume]
            if len(those) == 1:
                self._display.message(f"{those[0].task[:8]} (attempt {those[0].attempt}) {how}.")
            elif those:
                self._display.message(f"{several([claim.task for claim in those])} {all_of_them}.")

    def _observe_start(self, claim: Claim, row: Mapping[str, Any], device: str) -> None:
        self._observers.start_task()
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
            self._display.checkpoint_saved(claim.task, message["epoch"])
            self._observers.notify("synicix_checkpoint_saved", saved)
        elif message["type"] == "stopping":
            self._display.message(
                "Stopping: the step is being finished, then a checkpoint is saved. A second signal ends at once."
            )
        elif message["type"] == "checkpoint_failed":
            self._display.message(f"{claim.task[:8]}: {message['error']}")
        elif message["type"] == "note":
            self._display.message(message["text"])

    def _count_pending(self, claimed: int) -> int:
        """Return how many tasks are pending besides those claimed: counted now and then, up to a limit, else counted down."""
        self._pending = max(self._pending - claimed, 0)
        if self._pending < _FEW or time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._pending = self._count()
            self._counted = time.monotonic()
        return self._pending


def _whose(claim: Claim) -> dict[str, Any]:
    return {"task": claim.task, "attempt": claim.attempt, "worker": claim.worker}
