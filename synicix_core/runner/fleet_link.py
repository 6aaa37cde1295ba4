"""A worker's end of the pipe to the fleet that started it: it reports what it does, and is told when to stop."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from synicix_core.runner.channel import Channel

__all__ = ["FleetLink"]

_SIGNALS = {signal.SIGINT, signal.SIGTERM}

_EPOCH_SECONDS = 0.2
_FLUSH_SECONDS = 5.0
# What the displays of a fleet show of a task and of its result.
_CONFIGS = ("model_provider", "dataset_file_name")
_RESULT = ("status", "epochs", "test_score", "train_seconds")


class FleetLink:
    """The display of a worker that belongs to a fleet, and its line to the fleet.

    Nothing that is shown makes the worker wait: a fleet that is suspended must not keep it from its heartbeats.

    The fleet's word and a signal stop the worker alike, and only once: a scheduler may signal every process of a job, and
    the fleet passes the signal on, too, which must not count as a second one. So this process is deaf to SIGINT and SIGTERM
    from the outside, and one thread decides when it shall notice one. A fleet that is gone has it stop as well.

    Parameters
    ----------
    reads, writes : int
        Descriptors of the conversation.
    output : int
        Reading end of what this process and its executor print.
    """

    def __init__(self, reads: int, writes: int, output: int) -> None:
        for descriptor in (reads, writes, output):
            os.set_inheritable(descriptor, False)
        self._channel = Channel(reads, writes)
        self._output = output
        self._outbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._fleet_is_gone = False
        self._is_allowed = False
        self._epoch_at = float("-inf")
        self._stopped = threading.Lock()
        # Before the threads begin, which take the mask over.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._sender = threading.Thread(target=self._send, daemon=True)
        for thread in (
            self._sender,
            *(threading.Thread(target=each, daemon=True) for each in (self._listen, self._wait)),
        ):
            thread.start()

    def may_start(self) -> bool:
        """Ask the fleet, which knows what all workers have done, whether one more task may be claimed.

        Asked again before a task was begun, the answer is about the same task.
        """
        if not self._is_allowed and not self._fleet_is_gone:
            self._say("may_start", tasks=1)
            self._is_allowed = bool(self._answers.get())
        return self._is_allowed

    def may_start_more(self, tasks: int) -> int:
        """Ask the fleet how many more tasks, `tasks` at most, may be claimed beside one that may start."""
        if self._fleet_is_gone:
            return 0
        self._say("may_start", tasks=tasks)
        return self._answers.get()

    def returned(self, *, failed: bool = False) -> None:
        """Tell the fleet that a task which was allowed was not done after all; `failed` if it hears of a failure as well."""
        self._is_allowed = False
        self._say("returned", failed=failed)

    def ended(self, **how: Any) -> None:
        """Tell the fleet how this worker ended."""
        self._say("ended", **how)

    def message(self, text: str) -> None:
        """Have a sentence shown."""
        self._say("message", text=text)

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Have it shown that a task begins."""
        self._is_allowed = False
        self._say("task_started", task=task, configs=_shown(configs), attempt=attempt, pending=pending)

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Have it shown that tasks begin which are trained as one."""
        self._is_allowed = False
        self._say("group_started", group={task: _shown(configs) for task, configs in group.items()}, pending=pending)

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Have an epoch shown, at most five a second, and only if the last ones were read."""
        now = time.monotonic()
        if now - self._epoch_at >= _EPOCH_SECONDS and self._outbox.empty():
            self._epoch_at = now
            self._say("epoch_finished", task=task, fields=dict(fields))

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Have the score shown."""
        self._is_allowed = False
        self._say("task_finished", task=task, result={name: result[name] for name in _RESULT}, seconds=seconds)

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Have it shown why there is no result."""
        self._is_allowed = False
        self._say("task_ended", task=task, how=how, why=why)

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:
        """Have it shown why there are no results."""
        self._is_allowed = False
        self._say("group_ended", tasks=list(tasks), how=how, text=text)

    def close(self) -> None:
        """Nothing is left to tidy on the terminal, which is the fleet's."""

    def flush(self) -> None:
        """Wait until everything is sent, but not for long."""
        self._outbox.put(None)
        self._sender.join(_FLUSH_SECONDS)

    def _say(self, kind: str, **fields: Any) -> None:
        self._outbox.put({"type": kind, **fields})

    def _send(self) -> None:
        with suppress(OSError):  # the fleet is gone, which the other thread hears, too
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)

    def _listen(self) -> None:
        for message in self._channel.messages():
            if message["type"] == "start":
                self._answers.put(int(message["allowed"]))
            else:
                self._stop()
                if message["type"] == "stop_at_once":
                    _notice()
        self._fleet_is_gone = True
        self._answers.put(0)
        self._stop()
        # Nobody reads what is printed any more. A full pipe would stop whoever prints.
        while os.read(self._output, 1 << 16):
            pass

    def _wait(self) -> None:
        while True:
            signal.sigwait(_SIGNALS)
            self._stop()

    def _stop(self) -> None:
        if self._stopped.acquire(blocking=False):
            _notice()


def _shown(configs: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: configs[name] for name in _CONFIGS}, "epoch_limit": int(configs["epoch_limit"])}


def _notice() -> None:
    """Let the process notice one SIGINT."""
    # Of the two, the one that a scheduler does not send, so that no other is let in with it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
