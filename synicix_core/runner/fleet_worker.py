"""A place in a fleet: what its worker did so far, over all the processes that followed one another in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from synicix_core.runner.display import WorkerDisplay
from synicix_core.runner.fleet_outcome import WorkerEnd
from synicix_core.runner.fleet_process import WorkerProcess
from synicix_core.runner.options import EXIT_MISCONFIGURED

__all__ = ["FleetWorker"]

_FIRST_PAUSE = 1.0
_MOST_CRASHES = 5
_LONG_LIFE_SECONDS = 600.0


@dataclass
class FleetWorker:
    """A worker of a fleet.

    Attributes
    ----------
    name, device : str
        What it is called, and what it trains on.
    display : WorkerDisplay
        Where its progress is shown.
    process : WorkerProcess or None
        The process that does its work now.
    begun, start_at : float
        When that process began, and when the next one begins, by the monotonic clock.
    allowed : int
        Tasks that it was allowed to start and that have not ended.
    success_count, errors
        Results of all its lives, and messages of the tasks that ended in an error.
    end : WorkerEnd or None
        How it ended for good.
    """

    name: str
    device: str
    display: WorkerDisplay
    process: WorkerProcess | None = None
    begun: float = 0.0
    start_at: float = 0.0
    allowed: int = 0
    success_count: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    end: WorkerEnd | None = None
    _starts: int = 0
    _crashes: int = 0
    _has_finished: bool = False
    _failed: dict[str, str] = field(default_factory=dict)
    _last: dict[str, Any] = field(default_factory=dict)

    def begin(self, process: WorkerProcess, now: float) -> None:
        """Take note of a process that begins."""
        self.process, self.begun = process, now
        self._starts += 1
        self._has_finished = False
        self._failed, self._last = {}, {}

    def finished(self) -> None:
        """Count a result."""
        self._has_finished = True
        self.success_count += 1
        self.allowed = max(self.allowed - 1, 0)

    def failed(self, task: str, why: str) -> None:
        """Take note of an attempt that failed; whether it is made again shows at the end of the process."""
        self._failed[task] = why
        self.allowed = max(self.allowed - 1, 0)

    def last_words(self, message: dict[str, Any]) -> None:
        """Keep what the process says about its end."""
        self._last = message

    def buried(self, now: float) -> None:
        """Take note of the end of the process."""
        self.process = None
        # Only its own list tells an error from an attempt that is made again; one that crashed left none.
        own = self._last.get("error_list")
        self.errors |= self._failed if own is None else {key["training_task_md5_hash"]: text for key, text in own}
        if self._has_finished or now - self.begun >= _LONG_LIFE_SECONDS:
            self._crashes = 0

    def pause_after_crash(self) -> float | None:
        """Return how long to wait until it is started again, longer each time; None if it never gets anywhere."""
        self._crashes += 1
        if self._crashes >= _MOST_CRASHES:
            return None
        return float(_FIRST_PAUSE * 2 ** (self._crashes - 1))

    def ended(self, code: int, reason: str = "") -> WorkerEnd:
        """Take note of its end for good; without a `reason` it is what the process said."""
        self.end = WorkerEnd(
            worker=self.name,
            device=self.device,
            exit_code=code,
            reason=reason or str(self._last.get("reason") or f"it ended with status {code}"),
            success_count=self.success_count,
            error_count=len(self.errors),
            restarts=max(self._starts - 1, 0),
            # A process that ended before it could say anything did so because of its flags.
            machine=code == EXIT_MISCONFIGURED and bool(self._last.get("machine", True)),
        )
        return self.end
