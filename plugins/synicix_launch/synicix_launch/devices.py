"""How the GPUs of one worker's machine are shared among the tasks that it trains at once."""

from __future__ import annotations

from synicix_launch.errors import LaunchError

__all__ = ["first_devices"]


def first_devices(gpus: int, devices_per_task: int) -> list[str]:
    """Return the first device of each task that is trained at once: ``cuda:0``, ``cuda:2`` for four GPUs and two a task.

    Raises
    ------
    LaunchError
        If some GPUs would be left over.
    """
    if gpus % devices_per_task and gpus:
        raise LaunchError(
            "The GPUs of a worker do not fit a task",
            why=f"it gets {gpus}, and worker.devices_per_task is {devices_per_task}",
            hint=f"Give --gpus {devices_per_task}, or a multiple of it.",
        )
    return [f"cuda:{number}" for number in range(0, gpus, devices_per_task)]
