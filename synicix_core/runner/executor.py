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
from typing import TYPE_CHECKING, Any

from synicix_core.errors import SynicixError
from synicix_core.runner.channel import Channel
from synicix_core.runner.ranks import QUIET, Ranks
from synicix_core.runner.stops import PROGRESS_SECONDS, Stops

if TYPE_CHECKING:
    from synicix_core.runner.parallel_training import ParallelTraining
    from synicix_core.training.spec import TaskSpec

__all__ = ["main"]


def main() -> None:
    """Serve the supervisor at the other end of the descriptors named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A worker of a fleet blocks both, and what a trainer starts would inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    faulthandler.enable()
    channel = Channel(int(sys.argv[1]), int(sys.argv[2]))
    threads, devices = int(sys.argv[4]), int(sys.argv[5])
    ranks = None
    if devices > 1:
        os.environ.update({**QUIET, **os.environ})
        ranks = Ranks(devices)  # before anything else, since they have as much to import
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stops = Stops()
    threading.Thread(target=_listen, args=(channel, tasks, stops), daemon=True).start()
    try:
        # Imported before the supervisor claims anything: what fails here is this machine's fault, not a task's.
        from synicix_core.runner.device import use_device
        from synicix_core.training.run import run_task

        device, description = use_device(sys.argv[3], threads)
        tell = functools.partial(_tell, channel)
        several = _Several(device, threads, tell)
        if ranks is not None:
            several.start(ranks)
    except Exception as error:
        what = str(error) if isinstance(error, SynicixError) else f"{type(error).__name__}: {error}"
        _tell(channel, {"type": "unusable", "error": what, "stack": traceback.format_exc()})
        return
    _tell(channel, {"type": "ready", "device": device, "description": description})
    while True:
        work = tasks.get()
        if work["type"] == "task":
            _train(channel, work, stops, run_task, several)
        else:
            from synicix_core.runner.group_training import plan, train

            if work["type"] == "plan":
                plan(work, tell)
            else:
                train(work, tell, stops)


class _Several:
    """What trains with several devices, from the first task on that wants it."""

    def __init__(self, device: str, threads: int, tell: Callable[[dict[str, Any]], None]) -> None:
        self._device = device
        self._threads = threads
        self._tell = tell
        self._training: ParallelTraining | None = None

    def start(self, ranks: Ranks) -> ParallelTraining:
        from synicix_core.runner.parallel_training import ParallelTraining

        try:
            self._training = ParallelTraining(ranks, self._device, self._threads, self._tell)
        except BaseException:
            ranks.close()
            raise
        return self._training

    def train(self, spec: TaskSpec, observer: _Observer) -> bool:
        """Train a task, or say why one device has to do, and return False."""
        from synicix_core.registry import get_registry
        from synicix_core.training.rank import why_alone

        if why := why_alone(spec, get_registry()):
            observer.note(f"{spec.task[:8]} is trained on one device of {spec.devices}: {why}.")
            return False
        (self._training or self.start(Ranks(spec.devices))).train(spec, observer)
        return True


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


def _train(
    channel: Channel, message: dict[str, Any], stops: Stops, run_task: Callable[..., Any], several: _Several
) -> None:
    from synicix_core.registry import get_registry
    from synicix_core.runner.executor_ends import failed, interrupted
    from synicix_core.training.contract import TrainingInterrupted
    from synicix_core.training.spec import TaskSpec, TaskState

    state = TaskState()
    try:
        spec = TaskSpec.from_wire(message["spec"])
        observer = _Observer(channel, stops)
        if spec.devices > 1 and several.train(spec, observer):
            return
        outcome = run_task(spec, get_registry(), observer, state=state)
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
