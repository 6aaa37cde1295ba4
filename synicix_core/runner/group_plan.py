"""Have the executor find out how many tasks like one are to be trained together, while the claim on it is kept alive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.pulse import Pulse
from synicix_core.tables.queue import Claim

__all__ = ["Plan", "ask_for_plan"]

_LOOK_SECONDS = 0.5
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class Plan:
    """What the executor found out.

    Attributes
    ----------
    size : int
        How many tasks to train together; 1: each by itself.
    reason : str
        Why by itself.
    executor_usable : bool
        Whether the executor can train a task now.
    least : int
        Fewer tasks than that are faster one by one.
    """

    size: int
    reason: str = ""
    executor_usable: bool = True
    least: int = 2


def ask_for_plan(
    executor: ExecutorProcess,
    spec: Mapping[str, Any],
    limit: int | None,
    claim: Claim,
    pulse: Pulse,
    interrupted: Interruption,
    stall_seconds: float,
) -> Plan | None:
    """Return what the executor found out; an executor that dies or hangs over it means that none go together.

    Parameters
    ----------
    executor : ExecutorProcess
        Closed afterwards unless it is usable.
    spec : mapping
        The task, on the wire.
    limit : int or None
        The most tasks.
    claim : Claim
        The claim on the task.
    pulse : Pulse
        Beats meanwhile.
    interrupted : Interruption
        Whether to stop.
    stall_seconds : float
        An executor that says nothing for so long hangs.

    Returns
    -------
    Plan or None
        None if somebody asked to stop; the executor is closed then.

    Raises
    ------
    ClaimLost
        If the claim was taken away; the executor is closed then.
    """
    answered = False
    try:
        with suppress(BrokenPipeError):  # that it is gone shows at the first look
            executor.channel.send({"type": "plan", "spec": spec, "limit": limit})
        deadline = time.monotonic() + min(stall_seconds, _LONGEST_SECONDS)
        while not interrupted():
            messages = executor.channel.receive(_LOOK_SECONDS)
            if messages is None:
                return Plan(1, f"the executor died when it was tried out: {executor.death()}", executor_usable=False)
            for message in messages:
                if message["type"] == "plan":
                    answered = not message["restart"]
                    size, least = int(message["size"]), int(message["least"])
                    return Plan(size, message["reason"], executor_usable=answered, least=least)
            if time.monotonic() > deadline:
                return Plan(1, "the executor hung when it was tried out", executor_usable=False)
            pulse.beat_if_due(claim, {})
        return None
    finally:
        if not answered:
            executor.close()
