"""What a worker shows while it works. The command line has displays of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Silent", "WorkerDisplay"]


class WorkerDisplay(Protocol):
    """Something that shows a person how a worker is doing."""

    def message(self, text: str) -> None:
        """Show a sentence that people should read."""

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show that a task begins; `pending` tasks were waiting then, this one included."""

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show an epoch: ``epoch``, ``epoch_limit``, ``train_loss``, ``validation_loss``, ``seconds`` and what else there is."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show the row of a result."""

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show that an attempt ended without a result: ``failed``, ``released``, ``stopped`` (by a person) or ``lost``."""

    def close(self) -> None:
        """Leave the terminal tidy."""


class Silent:
    """Shows nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Show nothing."""

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Show nothing."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Show nothing."""

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""
