"""How far a group of tasks is that is trained as one, for displays on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synicix_core.runner.lines import short_name

__all__ = ["GroupProgress"]


class GroupProgress:
    """What the displays know of a group.

    Parameters
    ----------
    group : mapping of str to mapping
        By task, the columns of its configs.

    Attributes
    ----------
    title : str
        What is trained.
    """

    def __init__(self, group: Mapping[str, Mapping[str, Any]]) -> None:
        configs = next(iter(group.values()))
        model = short_name(configs["model_provider"])
        self.title = f"{len(group):,} tasks as one: {model} on {configs['dataset_file_name']}"
        self._number = len(group)
        self._left = {task: int(own["epoch_limit"]) for task, own in group.items()}
        self._epoch = 0
        self._is_told_by_last = False

    def __len__(self) -> int:
        """Return how many of them go on."""
        return len(self._left)

    def went_on(self, task: str, fields: Mapping[str, Any]) -> None:
        """Take note of an epoch of one of them; they go on together, and those with the last limit say how far they are."""
        is_last = self._left.get(task) == self._limit()
        if is_last or not self._is_told_by_last:
            self._epoch, self._is_told_by_last = int(fields["epoch"]), is_last

    def ended(self, tasks: Sequence[str]) -> None:
        """Take note that some of them came to an end."""
        limit = self._limit()
        for task in tasks:
            self._left.pop(task, None)
        self._is_told_by_last = self._is_told_by_last and self._limit() == limit

    def epoch(self) -> dict[str, int]:
        """Return the epoch that they are in, and the last one that any of them may come to."""
        limit = self._limit()
        return {"epoch": min(self._epoch, limit), "epoch_limit": limit}

    def left(self) -> str:
        """Return how many of them go on, in words."""
        return f"{len(self):,} of {self._number:,} left"

    def _limit(self) -> int:
        return max(self._left.values(), default=1)
