"""Stay with a group of tasks that the executor trains, until each has ended in one way or another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from synicix_core.errors import ClaimLost
from synicix_core.runner.attendance import RELEASE_SECONDS, Attendance, problem_of_death
from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.hearing import Hearing
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.memory_kills import count_memory_kills
from synicix_core.runner.pulse import Pulse
from synicix_core.tables.queue import Claim, Problem

__all__ = ["GroupEnd", "GroupMember", "GroupRun", "MemberEnds", "Trained"]

_GATHER_SECONDS = 1.0
"""A result waits so long for others to be committed with it, while the executor trains the rest."""


@dataclass(frozen=True)
class GroupMember:
    """A task of a group: the claim on it, and the columns of its configs."""

    claim: Claim
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """A task that the executor is through with, not committed yet; its outcome is on the wire."""

    claim: Claim
    outcome: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class GroupEnd:
    """How a group ended.

    Attributes
    ----------
    left : tuple of GroupMember
        Members whose own end is not known.
    problem : Problem, optional
        What ended them; None if somebody asked to stop.
    epochs : dict of str to int
        By task, how far they came.
    executor_usable : bool
        Whether the executor can train something else.
    """

    left: tuple[GroupMember, ...]
    problem: Problem | None
    epochs: Mapping[str, int]
    executor_usable: bool


class MemberEnds(Protocol):
    """What is done about the members of a group; nothing but a database that stays away is raised."""

    def tell(self, member: GroupMember, message: dict[str, Any]) -> bool:
        """Pass on an epoch, a checkpoint and the like; tell whether the member goes on, or its claim was ended for that."""

    def stopping(self) -> None:
        """Say that everything was asked to stop."""

    def commit(self, trained: Sequence[Trained]) -> None:
        """Commit results."""

    def stopped(self, members: Sequence[tuple[GroupMember, dict[str, Any]]]) -> None:
        """Give back members that stopped, each with the message that says so."""

    def failed(self, member: GroupMember, message: dict[str, Any]) -> None:
        """End a member in its own error."""

    def not_together(self, member: GroupMember, reason: str) -> None:
        """Give back a member that cannot be trained with the others."""

    def lost(self, member: GroupMember, error: ClaimLost) -> None:
        """Account for a member whose claim was taken away, now that nothing of it is written any more."""

    def discarded(self, member: GroupMember) -> None:
        """Remove what was trained for a member that had been ended before."""


class GroupRun:
    """Attends to a group.

    Parameters
    ----------
    executor : ExecutorProcess
        It has the group already.
    members : sequence of GroupMember
        The group.
    pulse : Pulse
        Beats meanwhile.
    interrupted : Interruption
        Whether to stop.
    stall_seconds : float
        An executor that says nothing for so long hangs.
    ends : MemberEnds
        What is done about the members.
    begun : float
        When the group was claimed, by the monotonic clock.

    Attributes
    ----------
    held : dict of str to GroupMember
        By task, the members whose claims are not ended yet, those in `trained` included.
    trained : list of Trained
        Results that are to be committed.
    """

    def __init__(
        self,
        executor: ExecutorProcess,
        members: Sequence[GroupMember],
        pulse: Pulse,
        interrupted: Interruption,
        stall_seconds: float,
        ends: MemberEnds,
        begun: float,
    ) -> None:
        self._executor = executor
        self._members = {member.claim.task: member for member in members}
        self._pulse = pulse
        self._interrupted = interrupted
        self._stall_seconds = stall_seconds
        self._ends = ends
        self._begun = begun
        self._progress: dict[str, dict[str, Any]] = {}
        self._lost: dict[str, ClaimLost] = {}
        self._usable = True
        self._memory_kills = count_memory_kills()
        self.held = dict(self._members)
        self.trained: list[Trained] = []
        self._oldest = 0.0

    def wait(self) -> GroupEnd:
        """Return how the group ended; results that came last are left in `trained`."""
        hearing = Hearing(self._executor.channel, self._stall_seconds)
        asked = False
        while True:
            messages = hearing.receive()
            if messages is None:
                return self._died()
            over = self._hear(messages)
            if over is not None:
                return self._end(None if over["error"] is None else _problem(over["error"]), over["error"])
            if self.trained and time.monotonic() - self._oldest >= _GATHER_SECONDS:
                self._commit()
            self.beat()
            if self._interrupted():
                if not asked:
                    asked = True  # once more, in case that the group came after the signal
                    Attendance.ask_to_stop(self._executor)
                    self._ends.stopping()
                if self._interrupted.seconds_left < RELEASE_SECONDS:
                    self._usable = False
                    self._executor.close()
                    return self._end(None)
            if (problem := hearing.hung()) is not None:
                self._usable = False
                self._executor.close()
                return self._end(problem)

    def abandoned(self, problem: Problem) -> GroupEnd:
        """Return the end of a group that nobody attends to any more; its executor is closed, and `trained` is kept."""
        self._usable = False
        return self._end(problem)

    def _hear(self, messages: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Take what the executor says; return the message that says that the group is over."""
        stopped = []
        over = None
        for message in messages:
            if message["type"] == "group_ended":
                over = message
                continue
            task = message["task"]
            if task not in self.held:
                if message["type"] == "done":
                    self._ends.discarded(self._members[task])
                continue
            member = self.held[task]
            if message["type"] in _LAST_WORDS and task in self._lost:
                del self.held[task]
                self._ends.lost(member, self._lost.pop(task))
            elif message["type"] == "done":
                self._oldest = self._oldest if self.trained else time.monotonic()
                share = (time.monotonic() - self._begun) / len(self._members)
                self.trained.append(Trained(member.claim, message["outcome"], share))
            elif message["type"] == "interrupted":
                stopped.append((member, message))
            elif message["type"] == "not_together":
                del self.held[task]
                self._ends.not_together(member, message["reason"])
            elif message["type"] == "error":
                del self.held[task]
                self._usable = self._usable and not message["restart"]
                self._ends.failed(member, message)
            elif message["type"] != "progress" and task not in self._lost:
                self._progress[task] = message if message["type"] == "epoch" else self._progress.get(task, {})
                if not self._ends.tell(member, message):
                    del self.held[task]
                    self._drop(task)
        if stopped:
            for member, _ in stopped:
                del self.held[member.claim.task]
            self._ends.stopped(stopped)
        return over

    def _commit(self) -> None:
        trained, self.trained = self.trained, []
        for one in trained:
            self.held.pop(one.claim.task, None)
        self._ends.commit(trained)

    def beat(self, others: Sequence[Claim] = ()) -> None:
        """Keep the claims of the group, and others, alive if it is time; whoever ends the others sees that one is lost."""
        claims = [member.claim for task, member in self.held.items() if task not in self._lost]
        claims += [claim for claim in others if claim.task not in self.held]
        for task, error in self._pulse.beat_all_if_due(claims, self._progress).items():
            if task not in self.held or any(one.claim.task == task for one in self.trained):
                continue  # the commit will say so
            self._lost[task] = error
            self._drop(task)

    def _drop(self, task: str) -> None:
        """Have the executor stop one member; that it is gone shows elsewhere."""
        try:
            self._executor.channel.send({"type": "drop", "task": task})
        except OSError:
            return

    def _died(self) -> GroupEnd:
        death = self._executor.death()
        self._executor.close()
        self._usable = False
        return self._end(problem_of_death(death, self._memory_kills))

    def _end(self, problem: Problem | None, error: Mapping[str, Any] | None = None) -> GroupEnd:
        """Account for the lost ones, which nobody trains any more, and return the end of all others."""
        if error is not None and error["restart"]:
            self._usable = False
        for task, lost in self._lost.items():
            self._ends.lost(self.held.pop(task), lost)
        self._lost = {}
        waiting = {one.claim.task for one in self.trained}
        left = tuple(member for task, member in self.held.items() if task not in waiting)
        epochs = {task: int(message["epoch"]) for task, message in self._progress.items() if "epoch" in message}
        return GroupEnd(left, problem, epochs, self._usable)


_LAST_WORDS = ("done", "interrupted", "not_together", "error")


def _problem(error: Mapping[str, Any]) -> Problem:
    return Problem(error["error"], error["stack"], error["kind"], error["cause"])
