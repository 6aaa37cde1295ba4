"""The executor's side of a group: looks how many tasks go together, and trains them. It imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from synicix_core.registry import get_registry
from synicix_core.runner.executor_ends import failed, interrupted
from synicix_core.runner.group_messages import unpack
from synicix_core.runner.stops import PROGRESS_SECONDS, Stops
from synicix_core.training import group
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.spec import TaskOutcome, TaskSpec, TaskState

__all__ = ["plan", "train"]

Tell = Callable[[dict[str, Any]], None]


def plan(message: Mapping[str, Any], tell: Tell) -> None:
    """Answer how many tasks like one are to be trained together; what goes wrong meanwhile means that none are."""
    try:
        registry = get_registry()
        found = group.plan_group(TaskSpec.from_wire(message["spec"]), registry, message["limit"])
        tell({"type": "plan", "size": found.size, "reason": found.reason, "least": found.least, "restart": False})
    except (
        Exception,
        SystemExit,
        KeyboardInterrupt,
    ) as error:  # a plugin's; the task fails by itself when it is trained
        failure = failed(error, TaskState())
        tell({"type": "plan", "size": 1, "reason": failure["error"], "least": 2, "restart": failure["restart"]})


def train(message: Mapping[str, Any], tell: Tell, stops: Stops) -> None:
    """Train a group, and tell of each member how it goes and how it ended, then that the group is over."""
    pace = _Pace()
    members = [
        group.Member(spec, _Observer(spec.task, tell, stops, pace), TaskState()) for spec in unpack(message["specs"])
    ]
    left = set(range(len(members)))

    def ended(index: int, how: TaskOutcome | BaseException) -> None:
        left.discard(index)
        tell({**_end_of(how, members[index].state), "task": members[index].spec.task})

    error: dict[str, Any] | None = None
    try:
        registry = get_registry()
        group.run_group(members, registry, size=message["size"], ended=ended)
    except TrainingInterrupted:
        for index in sorted(left):
            ended(index, TrainingInterrupted(members[index].state.epochs))
    except (Exception, SystemExit, KeyboardInterrupt) as raised:  # not that of one member, so it ends all that are left
        error = failed(raised, TaskState())
    tell({"type": "group_ended", "error": error})


class _Pace:
    """When the group last said that it is alive."""

    told = 0.0


class _Observer:
    """Tells the supervisor how a member goes, and asks it whether to stop."""

    def __init__(self, task: str, tell: Tell, stops: Stops, pace: _Pace) -> None:
        self._task = task
        self._tell = tell
        self._stops = stops
        self._pace = pace

    def stop_requested(self) -> bool:
        self.progress()
        return self._stops.includes(self._task)

    def progress(self) -> None:
        now = time.monotonic()
        if now - self._pace.told >= PROGRESS_SECONDS:
            self._pace.told = now
            self._tell({"type": "progress", "task": self._task})

    def epoch_finished(self, **fields: Any) -> None:
        self._pace.told = time.monotonic()
        self._tell({"type": "epoch", "task": self._task, **fields})

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        self._tell({"type": "checkpoint", "task": self._task, "path": path, "epoch": epoch})

    def checkpoint_failed(self, message: str) -> None:
        self._tell({"type": "checkpoint_failed", "task": self._task, "error": message})

    def note(self, message: str) -> None:
        self._tell({"type": "note", "task": self._task, "text": message})


def _end_of(how: TaskOutcome | BaseException, state: TaskState) -> dict[str, Any]:
    if isinstance(how, TaskOutcome):
        return {"type": "done", "outcome": how.to_wire()}
    if isinstance(how, TrainingInterrupted):
        return interrupted(state)
    if isinstance(how, group.NotTogether):
        return {"type": "not_together", "reason": how.why or how.what}
    return failed(how, state)
