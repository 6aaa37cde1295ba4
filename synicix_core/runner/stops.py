"""What the supervisor asked to be stopped, as the executor's two threads know it."""

from __future__ import annotations

import threading

__all__ = ["PROGRESS_SECONDS", "Stops"]

PROGRESS_SECONDS = 1.0
"""So often the executor says that it is alive."""


class Stops:
    """Written by the thread that listens, read by the one that trains.

    Attributes
    ----------
    all : threading.Event
        Whether everything is to stop.
    dropped : set of str
        Tasks of a group that are to stop while the others go on.
    """

    def __init__(self) -> None:
        self.all = threading.Event()
        self.dropped: set[str] = set()

    def clear(self) -> None:
        """Forget what was asked: something new begins."""
        self.all.clear()
        self.dropped.clear()

    def includes(self, task: str) -> bool:
        """Tell whether this task is to stop."""
        return self.all.is_set() or task in self.dropped
