"""What an executor says, and whether it has said nothing for too long."""

from __future__ import annotations

import time
from typing import Any

from synicix_core.runner.channel import Channel
from synicix_core.tables.queue import Problem

__all__ = ["Hearing"]

_LOOK_SECONDS = 0.5


class Hearing:
    """Listens to an executor that trains.

    Parameters
    ----------
    channel : Channel
        To the executor.
    stall_seconds : float
        One that says nothing for so long hangs.
    """

    def __init__(self, channel: Channel, stall_seconds: float) -> None:
        self._channel = channel
        self._stall_seconds = stall_seconds
        self._heard = self._looked = time.monotonic()

    def receive(self) -> list[dict[str, Any]] | None:
        """Return what arrives within a moment, which may be nothing; None if the executor is gone."""
        messages = self._channel.receive(_LOOK_SECONDS)
        now = time.monotonic()
        # Nobody hangs because this process was stopped for a while.
        self._heard = now if messages else self._heard + max(now - self._looked - 2 * _LOOK_SECONDS, 0.0)
        self._looked = now
        return messages

    def hung(self) -> Problem | None:
        """Return what is wrong with an executor that has said nothing for too long; None as long as it has not."""
        if time.monotonic() - self._heard <= self._stall_seconds:
            return None
        return Problem(f"no progress for {self._stall_seconds:.0f} s; the executor hung", kind="hung", cause="hung")
