"""Train several tasks that are alike as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from synicix_core.errors import SynicixError
from synicix_core.registry import Registry
from synicix_core.training.run import run_task
from synicix_core.training.spec import TaskObserver, TaskOutcome, TaskSpec, TaskState

__all__ = ["GroupPlan", "Member", "NotTogether", "plan_group", "run_group"]


class NotTogether(SynicixError):
    """A task cannot be trained with the others of its group; nothing was begun."""


@dataclass(frozen=True)
class GroupPlan:
    """How many tasks like one are to be trained together.

    Attributes
    ----------
    size : int
        1: each by itself.
    reason : str
        Why by itself; empty otherwise.
    """

    size: int
    reason: str = ""


@dataclass(frozen=True)
class Member:
    """One task of a group.

    Attributes
    ----------
    spec : TaskSpec
        What to train.
    observer : TaskObserver
        Who is told how it goes, and who may ask it to stop.
    state : TaskState
        How far it came.
    """

    spec: TaskSpec
    observer: TaskObserver
    state: TaskState = field(default_factory=TaskState)


def plan_group(spec: TaskSpec, registry: Registry, limit: int | None = None) -> GroupPlan:
    """Find out, by trying, how many tasks like `spec` are to be trained together, `limit` at most."""
    return GroupPlan(limit or 16)


def run_group(
    members: Sequence[Member],
    registry: Registry,
    *,
    size: int,
    ended: Callable[[int, TaskOutcome | BaseException], None],
) -> None:
    """Train the members, and call ``ended(index, outcome or exception)`` as soon as one has ended."""
    for index, member in enumerate(members):
        try:
            ended(index, run_task(member.spec, registry, member.observer, state=member.state))
        except BaseException as error:
            ended(index, error)
