"""A fleet: several workers on one machine, started as programs, watched, started again and stopped together.

It never forks, imports no torch and has no connection to the database; what it knows, its workers tell it.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synicix_core.runner.fleet_display import FleetDisplay
from synicix_core.runner.fleet_outcome import FleetSummary, conclude
from synicix_core.runner.fleet_process import WorkerProcess
from synicix_core.runner.fleet_worker import FleetWorker
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.options import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISCONFIGURED

__all__ = ["Fleet", "FleetOptions"]

_LOOK_SECONDS = 0.2
# What a worker may need beyond its grace: to give its task back, and to close its connection.
_MARGIN_SECONDS = 10.0
_KILL_SECONDS = 3.0
_INTERRUPTED = "interrupted by a signal"
_SHOWN = (
    "message",
    "task_started",
    "group_started",
    "epoch_finished",
    "task_finished",
    "task_ended",
    "group_ended",
)


@dataclass(frozen=True)
class FleetOptions:
    """What a fleet is asked to do.

    Attributes
    ----------
    command : tuple of str
        The program that runs one worker, with the arguments that all have in common.
    workers : tuple of (name, device)
        The workers.
    max_tasks : int or None
        The most tasks that all of them together may do.
    max_seconds : float or None
        After this time none starts a task.
    grace_seconds : float
        How long a worker may take to stop.
    environment : mapping of str to str
        What the environment of the workers has in addition.
    """

    command: tuple[str, ...]
    workers: tuple[tuple[str, str], ...]
    max_tasks: int | None = None
    max_seconds: float | None = None
    grace_seconds: float = 25.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Fleet:
    """Several workers on this machine.

    Parameters
    ----------
    options : FleetOptions
        What to do.
    display : FleetDisplay
        Who shows it.
    afterwards : callable
        Called once all workers have ended, however that came about; at a second signal in another thread.
    """

    def __init__(
        self, options: FleetOptions, display: FleetDisplay, afterwards: Callable[[], None] = lambda: None
    ) -> None:
        self._options = options
        self._afterwards = afterwards
        self._display = display
        self._workers = [FleetWorker(name, device, display.of(name)) for name, device in options.workers]
        self._left = options.max_tasks
        self._finished: set[str] = set()
        # Its own limit is for a fleet that cannot even end its workers any more.
        self._interrupted = Interruption(options.grace_seconds + 2 * _MARGIN_SECONDS, exits=True)
        self._stop_until: float | None = None
        self._deadline = float("inf")
        self._selector = selectors.DefaultSelector()

    def run(self) -> FleetSummary:
        """Keep all workers at work until each has ended for good.

        SIGTERM and SIGINT are passed on to the workers; a second one ends them and this process at once.
        """
        if self._options.max_seconds is not None:
            self._deadline = time.monotonic() + self._options.max_seconds
        with self._interrupted.handled(lambda: None, self._last_words):
            try:
                while any(worker.end is None for worker in self._workers):
                    self._look()
            finally:
                self._abandon()
                self._afterwards()
                self._display.close()
        ends = tuple(worker.end for worker in self._workers if worker.end is not None)
        code, reason = conclude(ends, interrupted=self._interrupted())
        errors = {task: text for worker in self._workers for task, text in worker.errors.items()}
        return FleetSummary(
            success_count=sum(worker.success_count for worker in self._workers),
            error_list=[
                ({"training_task_md5_hash": task}, text)
                for task, text in errors.items()
                if task not in self._finished  # it crashed one worker's executor, and another one trained it
            ],
            exit_code=code,
            reason=reason,
            workers=ends,
        )

    def _look(self) -> None:
        now = time.monotonic()
        if self._interrupted():
            self._stop(now)
        for worker in self._workers:
            if worker.end is None and worker.process is None and now >= worker.start_at:
                self._start(worker, now)
        for key, _ in self._selector.select(_LOOK_SECONDS):
            key.data()
        for worker in self._workers:
            if worker.process is not None and (code := worker.process.poll()) is not None:
                self._bury(worker, worker.process, code)

    def _start(self, worker: FleetWorker, now: float) -> None:
        if self._left == 0 and not any(each.allowed for each in self._workers):
            self._end(worker, EXIT_DONE, "as many tasks as asked for are done")
            return
        together = sum(each.end is None for each in self._workers)
        command = [*self._options.command, f"--device={worker.device}", f"--of-workers={together}"]
        if self._deadline < float("inf"):
            if now >= self._deadline:
                self._end(worker, EXIT_INTERRUPTED, "the time is up")
                return
            command.append(f"--max-seconds={self._deadline - now:.3f}")
        process = WorkerProcess(command, self._options.environment)
        worker.begin(process, now)

        def hear() -> None:
            messages = process.channel.receive(0)
            if messages is None:
                self._selector.unregister(process.channel.reads)
            for message in messages or ():
                self._hear(worker, process, message)

        def show() -> None:
            lines = process.printed()
            if lines is None:
                self._selector.unregister(process.output)
            for line in lines or ():
                self._display.printed(worker.name, line)

        self._selector.register(process.channel.reads, selectors.EVENT_READ, hear)
        self._selector.register(process.output, selectors.EVENT_READ, show)

    def _hear(self, worker: FleetWorker, process: WorkerProcess, message: dict[str, Any]) -> None:
        kind = message.pop("type")
        if kind in _SHOWN:
            self._account(worker, kind, message)
            show: Callable[..., None] = getattr(worker.display, kind)
            show(**message)
        elif kind == "may_start":
            process.tell(type="start", allowed=self._allow(worker, message["tasks"]))
        elif kind == "returned":
            self._give_back(worker, 1, counted=message["failed"])
        elif kind == "ended":
            worker.last_words(message)

    def _account(self, worker: FleetWorker, kind: str, message: dict[str, Any]) -> None:
        if kind == "task_finished":
            worker.finished()
            self._finished.add(message["task"])
        elif kind == "task_ended" and message["how"] == "failed":
            worker.failed(message["task"], message["why"])

    def _allow(self, worker: FleetWorker, tasks: int) -> int:
        """Return how many more tasks, `tasks` at most, a worker may start of those that the fleet was asked for."""
        if self._interrupted() or self._left == 0:
            return 0
        if self._left is not None:
            tasks = min(tasks, self._left)
            self._left -= tasks
            worker.allowed += tasks
        return tasks

    def _give_back(self, worker: FleetWorker, tasks: int, *, counted: bool = False) -> None:
        """Let others start tasks that a worker did not do; `counted` are those whose failure says that they have ended."""
        if not counted:
            worker.allowed = max(worker.allowed - tasks, 0)
        if self._left is not None:
            self._left += tasks

    def _bury(self, worker: FleetWorker, process: WorkerProcess, code: int) -> None:
        """Take note of the end of a process, and decide whether another one follows."""
        messages, lines = process.last_words()
        for message in messages:
            self._hear(worker, process, message)
        for line in lines:
            self._display.printed(worker.name, line)
        self._forget(process)
        worker.buried(time.monotonic())
        self._give_back(worker, worker.allowed)
        if code in (EXIT_DONE, EXIT_INTERRUPTED, EXIT_MISCONFIGURED):
            self._end(worker, code)
        elif self._interrupted():
            self._end(worker, EXIT_INTERRUPTED, _INTERRUPTED)
        elif (pause := worker.pause_after_crash()) is not None:
            worker.start_at = time.monotonic() + pause
            self._display.note(worker.name, f"crashed: {_how(code)}; started again in {pause:.0f} s")
        else:
            reason = f"it crashed again and again without finishing a task; the last time {_how(code)}"
            self._end(worker, EXIT_FAILED, reason)

    def _end(self, worker: FleetWorker, code: int, reason: str = "") -> None:
        end = worker.ended(code, reason)
        self._display.note(worker.name, f"ended: {end.reason.rstrip('.')}")

    def _stop(self, now: float) -> None:
        """Tell all workers to stop, once; end those that take too long."""
        if self._stop_until is None:
            self._stop_until = now + self._options.grace_seconds + _MARGIN_SECONDS
            name = signal.Signals(self._interrupted.signal or signal.SIGTERM).name
            self._display.message(f"{name}: the workers are asked to save checkpoints and to give their tasks back.")
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.tell(type="stop")
                elif worker.end is None:
                    self._end(worker, EXIT_INTERRUPTED, _INTERRUPTED)
        elif now >= self._stop_until:
            self._stop_until = float("inf")
            for worker in self._workers:
                if worker.process is not None:
                    self._display.note(worker.name, "did not stop in time and is ended")
            self._end_at_once()

    def _end_at_once(self) -> None:
        """End all workers and their executors now."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.tell(type="stop_at_once")
        until = time.monotonic() + _KILL_SECONDS
        for process in processes:
            if not process.wait(max(until - time.monotonic(), 0.0)):
                process.kill()

    def _last_words(self) -> None:
        self._end_at_once()
        self._afterwards()

    def _abandon(self) -> None:
        """Have the workers stop that still run when something went wrong here: they see that nobody listens any more."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            self._forget(process)
        until = time.monotonic() + self._options.grace_seconds + _MARGIN_SECONDS
        for process in processes:
            if not process.wait(max(until - time.monotonic(), 0.0)):
                process.kill()

    def _forget(self, process: WorkerProcess) -> None:
        for descriptor in (process.channel.reads, process.output):
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)
        process.close()


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with status {code}"
    # Signals for real-time use have no names.
    name = next((number.name for number in signal.Signals if number == -code), f"signal {-code}")
    return f"it was killed by {name}" + (", as the kernel does when memory runs out" if name == "SIGKILL" else "")
