"""Go on trying while the database is away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from synicix_core.database import ensure_connected
from synicix_core.errors import DatabaseUnavailable
from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.interruption import Interruption

__all__ = ["Patience"]

T = TypeVar("T")

_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 15.0
_LEFT_SECONDS = 1.0
"""With less time than this left to stop in, nothing is tried again."""


class Patience:
    """Does something in the database, again and again while it is away, for as long as the settings allow.

    Parameters
    ----------
    connection : datajoint.Connection
        The worker's one connection.
    timeout_seconds : float
        How long to wait for a database that went away.
    interrupted : Interruption
        Whether somebody asked the worker to stop; it then waits no longer than it may take to.
    display : WorkerDisplay
        Who is told.
    """

    def __init__(
        self, connection: Any, timeout_seconds: float, interrupted: Interruption, display: WorkerDisplay
    ) -> None:
        self._connection = connection
        self._timeout = timeout_seconds
        self._interrupted = interrupted
        self._display = display

    def __call__(self, action: Callable[[], T]) -> T:
        """Return what `action` returns.

        Raises
        ------
        DatabaseUnavailable
            If the database stays away.
        """
        deadline = time.monotonic() + self._timeout
        pause = 0.5
        told = False
        while True:
            try:
                result = action()
            except DatabaseUnavailable as error:
                if time.monotonic() + pause > deadline or self._interrupted.seconds_left < _LEFT_SECONDS:
                    raise
                if not told:
                    self._display.message(f"{error} It is tried again for {self._timeout:.0f} s.")
                    told = True
                # Not all workers of a cluster at the same instant.
                seconds = pause * random.uniform(0.5, 1.5)
                time.sleep(min(seconds, _LOOK_SECONDS)) if self._interrupted() else self.sleep(seconds)
                pause = min(pause * 2, _LONGEST_PAUSE)
                self._reconnect()
            else:
                if told:
                    self._display.message("The database is back.")
                return result

    def sleep(self, seconds: float) -> None:
        """Wait, unless somebody asks the worker to stop."""
        until = time.monotonic() + seconds
        while not self._interrupted() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def _reconnect(self) -> None:
        try:
            ensure_connected(self._connection)
        except DatabaseUnavailable:
            return
