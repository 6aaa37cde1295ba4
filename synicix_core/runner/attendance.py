"""Stay with a task that the executor trains, until it ends in one way or another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from synicix_core.errors import ClaimLost
from synicix_core.runner.executor_process import Death, ExecutorProcess
from synicix_core.runner.hearing import Hearing
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.memory_kills import count_memory_kills
from synicix_core.runner.pulse import Pulse
from synicix_core.tables.queue import Claim, Problem

__all__ = ["RELEASE_SECONDS", "Attendance", "Ended", "problem_of_death"]

RELEASE_SECONDS = 2.0
"""What is kept of the time to stop in, for giving the task back."""


@dataclass(frozen=True)
class Ended:
    """How training ended.

    Attributes
    ----------
    outcome : dict, optional
        Of a training that came to its end, on the wire.
    problem : Problem, optional
        Of one that did not. Neither: it was interrupted.
    can_split : bool
        Whether the trainer can train in smaller parts of a batch.
    can_checkpoint : bool or None
        Whether the trainer saves checkpoints; None where it did not come to say so.
    epochs : int, optional
        Finished when it was interrupted.
    executor_usable : bool
        Whether the executor can train another task.
    """

    outcome: dict[str, Any] | None = None
    problem: Problem | None = None
    can_split: bool = False
    can_checkpoint: bool | None = None
    epochs: int | None = None
    executor_usable: bool = True


class Attendance:
    """Attends to one task.

    Parameters
    ----------
    executor : ExecutorProcess
        It has the task already.
    claim : Claim
        The claim on it.
    pulse : Pulse
        Beats meanwhile.
    interrupted : Interruption
        Whether to stop.
    stall_seconds : float
        An executor that says nothing for so long hangs.
    tell : callable
        Takes the messages that are for people: epochs, checkpoints, and that it is stopping.
    """

    def __init__(
        self,
        executor: ExecutorProcess,
        claim: Claim,
        pulse: Pulse,
        interrupted: Interruption,
        stall_seconds: float,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._executor = executor
        self._claim = claim
        self._pulse = pulse
        self._interrupted = interrupted
        self._stall_seconds = stall_seconds
        self._tell = tell
        self._memory_kills = count_memory_kills()

    def wait(self) -> Ended:
        """Return how the training ended.

        Raises
        ------
        ClaimLost
            If the claim was taken away; the executor is ended then.
        """
        progress: dict[str, Any] = {}
        hearing = Hearing(self._executor.channel, self._stall_seconds)
        asked = False
        while True:
            messages = hearing.receive()
            if messages is None:
                return self._died()
            for message in messages:
                if (ended := self._ended(message)) is not None:
                    return ended
                progress = message if message["type"] == "epoch" else progress
                self._tell(message)
            try:
                self._pulse.beat_if_due(self._claim, progress)
            except ClaimLost:
                self._executor.close()
                raise
            if self._interrupted():
                if not asked:
                    asked = True  # once more, in case that the task came after the signal
                    self.ask_to_stop(self._executor)
                    self._tell({"type": "stopping"})
                if self._interrupted.seconds_left < RELEASE_SECONDS:
                    self._executor.close()
                    return Ended(epochs=progress.get("epoch"), executor_usable=False)
            if (problem := hearing.hung()) is not None:
                self._executor.close()
                return Ended(problem=problem, executor_usable=False)

    @staticmethod
    def ask_to_stop(executor: ExecutorProcess) -> None:
        """Ask an executor to save a checkpoint and stop; that it is gone shows elsewhere."""
        with suppress(OSError):
            executor.channel.send({"type": "stop"})

    def _ended(self, message: dict[str, Any]) -> Ended | None:
        if message["type"] == "done":
            return Ended(outcome=message["outcome"])
        if message["type"] == "interrupted":
            return Ended(can_checkpoint=message["can_checkpoint"], epochs=message["epoch"])
        if message["type"] == "error":
            problem = Problem(message["error"], message["stack"], message["kind"], message["cause"])
            return Ended(problem=problem, can_split=message["can_split"], executor_usable=not message["restart"])
        return None

    def _died(self) -> Ended:
        death = self._executor.death()
        self._executor.close()
        problem = problem_of_death(death, self._memory_kills)
        # Whether the trainer can split batches, nobody can ask it any more; trying does no harm.
        return Ended(problem=problem, can_split=problem.kind == "out_of_memory", executor_usable=False)


def problem_of_death(death: Death, memory_kills: int) -> Problem:
    """Describe the death of an executor.

    Parameters
    ----------
    death : Death
        How it ended.
    memory_kills : int
        What `count_memory_kills` returned when it began to train.
    """
    if death.by_kill and count_memory_kills() > memory_kills:
        return Problem(
            "the executor was killed by the kernel because memory ran out", kind="out_of_memory", cause="killed"
        )
    return Problem(f"the executor died: {death}", kind="died", cause=death.cause)
