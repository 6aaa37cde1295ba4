"""Which devices the workers of a fleet take, where each trains a task on several."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["find_overlap"]


def find_overlap(devices: Sequence[str], per_task: int) -> str | None:
    """Return a sentence about a GPU that two workers would take, or None.

    Parameters
    ----------
    devices : sequence of str
        The first device of each worker, as torch names it. Of ``auto`` nobody knows here which one it is.
    per_task : int
        How many a worker takes: that one, and those that follow it.
    """
    if per_task == 1:
        return None
    taken: dict[int, str] = {}
    for device in devices:
        kind, _, index = device.partition(":")
        if kind != "cuda":
            continue
        for number in range(int(index or 0), int(index or 0) + per_task):
            if number in taken:
                return (
                    f"with {per_task} devices per task the workers on {taken[number]} and {device} would share cuda:{number}; "
                    f"name devices that are {per_task} apart, each once"
                )
            taken[number] = device
    return None
