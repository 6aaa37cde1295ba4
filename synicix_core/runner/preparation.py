"""How long a worker prepares a claimed task before its training begins, and with what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Preparation"]


class Preparation:
    """Adds up what one claim, or a group of claims that are made together, takes before it is sent to the executor.

    Only what the executor waits for is measured here. Heartbeats and commits go on beside the training.

    Parameters
    ----------
    clock : callable
        Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._counts = True

    @contextmanager
    def taking(self, part: str) -> Iterator[None]:
        """Count the time inside the block as that of a part, as the parts of `synicix_core.training.timing` are called."""
        self._counts = True
        began = self._clock()
        try:
            yield
        finally:
            if self._counts:
                self._seconds[part] = self._seconds.get(part, 0.0) + self._clock() - began

    def discard(self) -> None:
        """Leave out what is being measured: it turned out to be something else."""
        self._counts = False

    def share(self, tasks: int) -> dict[str, float]:
        """Return the seconds of each part, for each of so many tasks that were prepared together."""
        return {part: seconds / tasks for part, seconds in self._seconds.items()}
