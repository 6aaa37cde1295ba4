"""How a group of tasks is spoken of: in one line what would otherwise be said of each."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ended_alike", "several", "tasks_named"]

_NAMED = 3
_SAVED = "it is pending again, with a checkpoint"
_PLURALS = (
    ("it is pending again", "they are pending again"),
    ("it is not trained with the others", "they are not trained with the others"),
    (", to be trained by itself", ", each to be trained by itself"),
    ("; it has no checkpoint, so it starts", "; they have no checkpoint, so they start"),
    ("; its trainer saves no checkpoints, so it starts", "; their trainer saves no checkpoints, so they start"),
    (", with a checkpoint", ", with checkpoints"),
    ("the task was", "the tasks were"),
)
"""What is said of one task that ends without a result, and of several."""


def several(tasks: Sequence[str]) -> str:
    """Return the first of some tasks, and how many there are besides: ``02fc340f and 23 others``."""
    others = len(tasks) - 1
    return tasks[0][:8] + ("" if not others else " and 1 other" if others == 1 else f" and {others:,} others")


def tasks_named(tasks: Sequence[str], verb: str = "") -> str:
    """Return how many tasks there are, and the names of a few: ``24 tasks are saved (02fc340f, d4682ed0, a01cbd7e, …)``."""
    names = [task[:8] for task in tasks[:_NAMED]] + (["…"] if len(tasks) > _NAMED else [])
    return f"{len(tasks):,} tasks {verb}({', '.join(names)})"


def ended_alike(tasks: Sequence[str], how: str, why: str, epochs: Sequence[int]) -> str:
    """Return a sentence about tasks that ended alike.

    Parameters
    ----------
    tasks : sequence of str
        Two or more.
    how, why : str
        As a display is told of one of them.
    epochs : sequence of int
        After how many epochs their last checkpoints were saved, as far as that is known.
    """
    if why == _SAVED and len(epochs) == len(tasks):
        least, most = min(epochs), max(epochs)
        at = "in their first epoch" if not most else f"after epoch {most}"
        at = at if least == most else f"after epochs {least} to {most}"
        return f"{tasks_named(tasks)} are saved {at} and will go on from there: they are pending again."
    for one, many in _PLURALS:
        why = why.replace(one, many)
    return f"{tasks_named(tasks)}: {how}: {why}"
