"""The heartbeat of a claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synicix_core.database import ensure_connected
from synicix_core.errors import ClaimLost, DatabaseUnavailable
from synicix_core.runner.display import WorkerDisplay
from synicix_core.tables.queue import Claim, Queue
from synicix_core.tables.queue_groups import GroupQueue

__all__ = ["Pulse"]


class Pulse:
    """Tells the database now and then that its claims are alive; a database that is away does not stop the work.

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
        self._group_queue = GroupQueue(queue)
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
        for error in self._beat_if_due(lambda: [] if self._queue.heartbeat(claim, progress) else [claim]).values():
            raise error

    def beat_all_if_due(
        self, claims: Sequence[Claim], progress: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, ClaimLost]:
        """Beat for all claims of a group if it is time.

        Parameters
        ----------
        claims : sequence of Claim
            The claims.
        progress : mapping
            By task, what `Queue.heartbeat` takes.

        Returns
        -------
        dict of str to ClaimLost
            By task, why this worker no longer holds its claim.
        """
        return self._beat_if_due(lambda: self._group_queue.heartbeat(claims, progress))

    def _beat_if_due(self, beat: Callable[[], list[Claim]]) -> dict[str, ClaimLost]:
        if time.monotonic() - self._beaten < self._interval:
            return {}
        self._beaten = time.monotonic()
        try:
            ensure_connected(self._queue.connection)
            lost = {claim.task: self._queue.why_lost(claim) for claim in beat()}
            if not lost:
                self._after_beat()
        except DatabaseUnavailable as error:
            if not self._away:
                self._display.message(f"{error} Training goes on meanwhile.")
            self._away = True
            return {}
        if self._away:
            self._display.message("The database is back.")
            self._away = False
        what = "this worker no longer holds its claim"
        return {task: ClaimLost(what, where=f"task {task}", why=why) for task, why in lost.items()}
