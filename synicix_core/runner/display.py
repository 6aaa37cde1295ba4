"""What a worker shows while it works. The command line has displays of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Dependable", "Silent", "WorkerDisplay"]

_logger = logging.getLogger("synicix")


class WorkerDisplay(Protocol):
    """Something that shows a person how a worker is doing."""

    def message(self, text: str) -> None:
        """Show a sentence that people should read."""

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins; `pending` tasks were waiting then, this one included."""

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Show that tasks begin which are trained as one: by task, the columns of its configs; `pending` others wait."""

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch: ``epoch``, ``epoch_limit``, ``train_loss``, ``validation_loss``, ``seconds`` and what else there is."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the row of a result."""

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show that an attempt ended without a result: ``failed``, ``released``, ``stopped`` (by a person) or ``lost``."""

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Show that tasks of a group ended alike without a result: how, see `task_ended`, and a sentence that names them."""

    def close(self) -> None:
        """Leave the terminal tidy."""


class Silent:
    """Shows nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show nothing."""

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Show nothing."""

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show nothing."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show nothing."""

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show nothing."""

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Dependable:
    """Passes everything on to another display; a terminal, a pipe or a file that takes nothing any more harms no task.

    Parameters
    ----------
    display : WorkerDisplay
        Who shows it.
    """

    def __init__(self, display: WorkerDisplay) -> None:
        self._display = display
        self._told = False

    def message(self, text: str) -> None:
        """Show a sentence."""
        self._show(lambda: self._display.message(text))

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins."""
        self._show(lambda: self._display.task_started(task, configs, attempt, pending))

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Show that tasks begin which are trained as one."""
        self._show(lambda: self._display.group_started(group, pending))

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch."""
        self._show(lambda: self._display.epoch_finished(task, fields))

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the row of a result."""
        self._show(lambda: self._display.task_finished(task, result, seconds))

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show that an attempt ended without a result."""
        self._show(lambda: self._display.task_ended(task, how, why))

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Show that tasks of a group ended alike without a result."""
        self._show(lambda: self._display.group_ended(tasks, how, text))

    def close(self) -> None:
        """Leave the terminal tidy."""
        self._show(self._display.close)

    def _show(self, show: Callable[[], None]) -> None:
        try:
            show()
        except (OSError, ValueError) as error:  # a closed pipe, a full disk; a closed file is a ValueError
            if not self._told:
                self._told = True
                _logger.warning("Progress cannot be shown (%s: %s); the work goes on.", type(error).__name__, error)
