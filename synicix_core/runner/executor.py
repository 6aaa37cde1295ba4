"""The executor: trains the tasks that a supervisor sends, one by one or in groups, and never sees the database.

Started as its own program by `synicix_core.runner.executor_process`. It is deaf to SIGINT and SIGTERM, because the
supervisor decides what they mean, and it ends, with whatever it started, when the supervisor is gone.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from synicix_core.errors import SynicixError
from synicix_core.runner.channel import Channel
from synicix_core.runner.stops import PROGRESS_SECONDS, Stops

__all__ = ["main"]


def main() -> None:
    """Serve the supervisor at the other end of the descriptors named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A worker of a fleet blocks both, and what a trainer starts would inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    faulthandler.enable()
    channel = Channel(int(sys.argv[1]), int(sys.argv[2]))
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stops = Stops()
    threading.Thread(target=_listen, args=(channel, tasks, stops), daemon=True).start()
    try:
        # Imported before the supervisor claims anything: what fails here is this machine's fault, not a task's.
        from synicix_core.runner.device import use_device
        from synicix_core.training.run import run_task

        device, description = use_device(sys.argv[3], int(sys.argv[4]))
    except Exception as error:
        what = str(error) if isinstance(error, SynicixError) else f"{type(error).__name__}: {error}"
        _tell(channel, {"type": "unusable", "error": what, "stack": traceback.format_exc()})
        return
    _tell(channel, {"type": "ready", "device": device, "description": description})
    while True:
        work = tasks.get()
        if work["type"] == "task":
            _train(channel, work, stops, run_task)
        else:
            from synicix_core.runner.group_training import plan, train

            tell = functools.partial(_tell, channel)
            if work["type"] == "plan":
                plan(work, tell)
            else:
                train(work, tell, stops)


class _Observer:
    """Tells the supervisor how a task goes, and asks it whether to stop."""

    def __init__(self, channel: Channel, stops: Stops) -> None:
        self._channel = channel
        self._stops = stops
        self._told = 0.0

    def stop_requested(self) -> bool:
        self.progress()
        return self._stops.all.is_set()

    def progress(self) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            _tell(self._channel, {"type": "progress"})

    def epoch_finished(self, **fields: Any) -> None:
        self._told = time.monotonic()
        _tell(self._channel, {"type": "epoch", **fields})

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        _tell(self._channel, {"type": "checkpoint", "path": path, "epoch": epoch})

    def checkpoint_failed(self, message: str) -> None:
        _tell(self._channel, {"type": "checkpoint_failed", "error": message})

    def note(self, message: str) -> None:
        _tell(self._channel, {"type": "note", "text": message})


def _listen(channel: Channel, tasks: queue.SimpleQueue[dict[str, Any]], stops: Stops) -> None:
    for message in channel.messages():
        if message["type"] in ("task", "plan", "group"):
            stops.clear()
            tasks.put(message)
        elif message["type"] == "drop":
            stops.dropped.add(message["task"])
        elif message["type"] == "stop":
            stops.all.set()
    _end()


def _train(channel: Channel, message: dict[str, Any], stops: Stops, run_task: Callable[..., Any]) -> None:
    from synicix_core.registry import get_registry
    from synicix_core.runner.executor_ends import failed, interrupted
    from synicix_core.training.contract import TrainingInterrupted
    from synicix_core.training.spec import TaskSpec, TaskState

    state = TaskState()
    try:
        spec = TaskSpec.from_wire(message["spec"])
        outcome = run_task(spec, get_registry(), _Observer(channel, stops), state=state)
        _tell(channel, {"type": "done", "outcome": outcome.to_wire()})
    except TrainingInterrupted:
        _tell(channel, interrupted(state))
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever a plugin raises is the outcome of its task
        _tell(channel, failed(error, state))


def _tell(channel: Channel, message: dict[str, Any]) -> None:
    """Send a message; if the supervisor is gone nobody is interested any more, least of all the training."""
    try:
        channel.send(message)
    except OSError:
        _end()


def _end() -> None:
    """End at once, with the data-loading processes, which share this process group."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
