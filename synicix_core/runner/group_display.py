"""Tell people of a group as of one thing, although its tasks end one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.group_words import ended_alike

__all__ = ["GroupDisplay"]

_GATHER_SECONDS = 1.0
"""While training goes on, the end of a task without a result waits so long for others that end alike."""


class GroupDisplay:
    """Passes everything on to another display, but what happens to several tasks of a group alike is told once.

    Results and failures are each task's own, and are told at once.

    Parameters
    ----------
    display : WorkerDisplay
        Who shows it.
    """

    def __init__(self, display: WorkerDisplay) -> None:
        self._display = display
        self._group: set[str] = set()
        self._saved: dict[str, int] = {}
        self._ends: dict[tuple[str, str], list[str]] = {}
        self._since = 0.0

    def message(self, text: str) -> None:
        """Show a sentence."""
        self.flush()
        self._display.message(text)

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins."""
        self.flush()
        self._display.task_started(task, configs, attempt, pending)

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Show that tasks begin which are trained as one."""
        self.watch(group)
        self._display.group_started(group, pending)

    def watch(self, tasks: Iterable[str]) -> None:
        """Take these for a group from now on."""
        self.flush()
        self._group, self._saved = set(tasks), {}

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch."""
        if self._ends and time.monotonic() - self._since >= _GATHER_SECONDS:
            self.flush()
        self._display.epoch_finished(task, fields)

    def checkpoint_saved(self, task: str, epoch: int) -> None:
        """Take note of how far a task is saved."""
        if task in self._group:
            self._saved[task] = epoch

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the row of a result."""
        self.flush()
        self._display.task_finished(task, result, seconds)

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show that an attempt ended without a result; at once, unless others of its group may end alike."""
        if how == "failed" or task not in self._group:
            self.flush()
            self._display.task_ended(task, how, why)
            return
        self._since = self._since if self._ends else time.monotonic()
        self._ends.setdefault((how, why), []).append(task)

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Show that tasks of a group ended alike without a result."""
        self.flush()
        self._display.group_ended(tasks, how, text)

    def flush(self) -> None:
        """Show what was gathered."""
        ends, self._ends = self._ends, {}
        for (how, why), tasks in ends.items():
            if len(tasks) == 1:
                self._display.task_ended(tasks[0], how, why)
                continue
            epochs = [self._saved[task] for task in tasks if task in self._saved]
            self._display.group_ended(tasks, how, ended_alike(tasks, how, why, epochs))

    def close(self) -> None:
        """Show what was gathered, and leave the terminal tidy."""
        self.flush()
        self._display.close()
