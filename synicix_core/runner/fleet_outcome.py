"""How a fleet ended, from how each of its workers ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from synicix_core.runner.options import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISCONFIGURED

__all__ = ["FleetSummary", "WorkerEnd", "conclude"]


@dataclass(frozen=True)
class WorkerEnd:
    """How one worker of a fleet ended for good.

    Attributes
    ----------
    worker, device : str
        Its name in the fleet, and the device it was given.
    exit_code : int
        As of a worker alone; 1 if it crashed too often.
    reason : str
        The same in words.
    success_count, error_count : int
        Results that it committed, and tasks that ended in an error, over all its lives.
    restarts : int
        How often it was started again.
    machine : bool
        Whether an `exit_code` of 78 is about this machine or this device, not about the tasks that were left.
    """

    worker: str
    device: str
    exit_code: int
    reason: str
    success_count: int = 0
    error_count: int = 0
    restarts: int = 0
    machine: bool = False


@dataclass(frozen=True)
class FleetSummary:
    """What a fleet did, and how it ended.

    Attributes
    ----------
    success_count : int
        Results that its workers committed.
    error_list : list of (key, message)
        Tasks that ended in an error.
    exit_code : int
        See `conclude`.
    reason : str
        The same in words.
    workers : tuple of WorkerEnd
        How each of them ended.
    """

    success_count: int
    error_list: list[tuple[dict[str, str], str]]
    exit_code: int
    reason: str
    workers: tuple[WorkerEnd, ...] = field(default=())


def conclude(ends: Sequence[WorkerEnd], *, interrupted: bool) -> tuple[int, str]:
    """Return the exit code of a fleet, on which schedulers act, and its reason.

    75 if a signal left work undone, because then the fleet has to run again, whatever else there is. Else 78 or 1 if a
    worker could not work or crashed again and again: that needs a person, although the others did the work. Else 75 if the
    time was up or the database away. Else 0.

    Parameters
    ----------
    ends : sequence of WorkerEnd
        All workers.
    interrupted : bool
        Whether the fleet was told to stop.
    """
    if interrupted and any(end.exit_code == EXIT_INTERRUPTED for end in ends):
        return EXIT_INTERRUPTED, "interrupted by a signal"
    worked = any(end.success_count for end in ends)
    for code in (EXIT_MISCONFIGURED, EXIT_FAILED, EXIT_INTERRUPTED):
        found = [end for end in ends if _code(end, worked=worked) == code]
        if found:
            return code, _reason(found, len(ends))
    return EXIT_DONE, _reason(ends, len(ends))


def _code(end: WorkerEnd, *, worked: bool) -> int:
    """Return a worker's exit code; that it found no task for itself is no mistake where another one did."""
    no_task = end.exit_code == EXIT_MISCONFIGURED and not end.machine
    return EXIT_DONE if no_task and worked else end.exit_code


def _reason(ends: Sequence[WorkerEnd], workers: int) -> str:
    reasons = list(dict.fromkeys(end.reason.rstrip(".") for end in ends))
    if len(ends) == workers and len(reasons) == 1:
        return reasons[0]
    by_reason = [(", ".join(end.worker for end in ends if end.reason.rstrip(".") == each), each) for each in reasons]
    return "; ".join(f"{names}: {each}" for names, each in by_reason)
