"""An executor's training of a task on several devices, as rank 0."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from synicix_core.registry import get_registry
from synicix_core.runner.executor_ends import failed, interrupted
from synicix_core.runner.ranks import Loss, Ranks, devices_from
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.launch import launch_environment
from synicix_core.training.rank import run_first
from synicix_core.training.spec import NoteTaker, TaskObserver, TaskSpec, TaskState

if TYPE_CHECKING:
    from synicix_core.training.data_parallel import DataParallel

__all__ = ["ParallelTraining"]

_NOTICE_SECONDS = 10.0
"""So long after a rank was lost rank 0 has to notice it by itself; then it is known to wait in vain, for a GPU say."""
_NEWS_SECONDS = 2.0
"""So long after a connection broke it takes at most to know which rank it was."""


class ParallelTraining:
    """Trains tasks together with other ranks, which stay for the next task.

    Parameters
    ----------
    ranks : Ranks
        The others.
    device : str
        Of this rank.
    threads : int
        CPU threads of each rank, if that is the CPU.
    tell : callable
        Sends a message to the supervisor.

    Raises
    ------
    ConfigurationError
        If there are too few devices.
    SynicixError
        If a rank does not start.
    """

    def __init__(self, ranks: Ranks, device: str, threads: int, tell: Callable[[dict[str, Any]], None]) -> None:
        self._ranks = ranks
        self._tell = tell
        self._parallel: DataParallel = ranks.join(device, threads)
        self._news = _who_trains(devices_from(device, ranks.count), threads)

    def train(self, spec: TaskSpec, observer: TaskObserver) -> None:
        """Train a task, and tell the supervisor how it ended.

        After an error the executor is to be replaced, with all ranks: nobody knows where each of them stands.
        """
        if isinstance(observer, NoteTaker):  # again for each task: who shows it says it once
            observer.note(self._news)
        state = TaskState()
        end, needs_others = threading.Lock(), threading.Event()
        needs_others.set()

        def report(loss: Loss) -> None:
            if needs_others.is_set():
                self._finish(end, lambda: _message(loss, state))

        def lost(loss: Loss) -> None:
            timer = threading.Timer(_NOTICE_SECONDS, report, (loss,))
            timer.daemon = True
            timer.start()

        try:
            self._ranks.train(spec.to_wire(), lost)
            with launch_environment(self._ranks.variables):
                outcome = run_first(spec, get_registry(), observer, self._parallel, state, trained=needs_others.clear)
            self._finish(end, lambda: {"type": "done", "outcome": outcome.to_wire()})
        except TrainingInterrupted:
            self._finish(end, lambda: interrupted(state))
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever a plugin raises
            loss = self._ranks.loss(_NEWS_SECONDS) if _may_be_a_lost_rank(error) else None
            own = failed(error, state)
            is_other = loss is not None and not loss.error.endswith(own["error"])
            message = _message(loss, state) if loss is not None and is_other else {**own, "restart": True}
            self._finish(end, lambda: message)
        finally:
            self._ranks.rest()

    def _finish(self, end: threading.Lock, message: Callable[[], dict[str, Any]]) -> None:
        """Tell how a task ended, unless that was told already."""
        if end.acquire(blocking=False):
            self._tell(message())


def _who_trains(devices: Sequence[str], threads: int) -> str:
    """Return a sentence about the processes that train, which people would otherwise only find in a list of processes."""
    if devices[0] != "cpu":
        named = ", ".join(devices[:-1]) + f" and {devices[-1]}"
        return (
            f"A task is trained on {named} at the same time, by a process for each; each takes its part of every batch."
        )
    each = f", with {threads} {'thread' if threads == 1 else 'threads'} each" if threads else ""
    return (
        f"A task is trained by {len(devices)} processes on this CPU{each}; each takes its part of every batch. "
        "This is for trying it out: it is rarely faster than one process."
    )


def _may_be_a_lost_rank(error: BaseException) -> bool:
    # gloo raises plain RuntimeErrors, when it is called and in the middle of backward.
    return type(error) is RuntimeError or isinstance(error, dist.DistError | OSError)


def _message(loss: Loss, state: TaskState) -> dict[str, Any]:
    return {
        "type": "error",
        "error": loss.error,
        "stack": loss.stack,
        "kind": loss.kind,
        "cause": loss.cause,
        "restart": True,
        "can_split": state.can_split,
    }
