"""The heartbeat of a claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from synicix_core.database import ensure_connected
from synicix_core.errors import ClaimLost, DatabaseUnavailable
from synicix_core.runner.display import WorkerDisplay
from synicix_core.tables.queue import Claim, Queue

__all__ = ["Pulse"]


class Pulse:
    """Tells the database now and then that a claim is alive; a database that is away does not stop the work.

    Parameters
    ----------
    queue : Queue
        Where claims are.
    interval_seconds : float
        Between two beats.
    display : WorkerDisplay
        Who is told of a database that is away.
    after_beat : callable
        What else is to be done about as often, while the database is there.
    """

    def __init__(
        self, queue: Queue, interval_seconds: float, display: WorkerDisplay, after_beat: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._interval = interval_seconds
        self._display = display
        self._after_beat = after_beat
        self._beaten = time.monotonic()
        self._away = False

    def start(self) -> None:
        """Count from now: a claim was just made."""
        self._beaten = time.monotonic()

    def beat_if_due(self, claim: Claim, progress: Mapping[str, Any]) -> None:
        """Beat if it is time.

        Raises
        ------
        ClaimLost
            If this worker no longer holds the claim.
        """
        if time.monotonic() - self._beaten < self._interval:
            return
        self._beaten = time.monotonic()
        try:
            ensure_connected(self._queue.connection)
            alive = self._queue.heartbeat(claim, progress)
            why = "" if alive else self._queue.why_lost(claim)
            if alive:
                self._after_beat()
        except DatabaseUnavailable as error:
            if not self._away:
                self._display.message(f"{error} Training goes on meanwhile.")
            self._away = True
            return
        if self._away:
            self._display.message("The database is back.")
            self._away = False
        if not alive:
            raise ClaimLost("this worker no longer holds its claim", where=f"task {claim.task}", why=why)
