"""Talk to an executor as a supervisor does."""

from __future__ import annotations

import time
from typing import Any

from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.training.spec import TaskSpec

ENDS = ("done", "error", "interrupted")


def send(executor: ExecutorProcess, spec: TaskSpec) -> None:
    executor.channel.send({"type": "task", "spec": spec.to_wire()})


def until(executor: ExecutorProcess, *kinds: str) -> list[dict[str, Any]]:
    """Return the messages up to the first of these kinds."""
    heard: list[dict[str, Any]] = []
    deadline = time.monotonic() + 120
    while not heard or heard[-1]["type"] not in kinds:
        assert time.monotonic() < deadline, heard
        arrived = executor.channel.receive(1.0)
        assert arrived is not None, executor.death()
        heard += [message for message in arrived if message["type"] != "progress"]
    return heard
