"""What becomes of the claims of a group: results and releases of many at once, and each member's own bad end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from synicix_core.errors import ClaimLost, DatabaseUnavailable
from synicix_core.runner.endings import STORE_PAUSES, Endings, problem_of, refused
from synicix_core.runner.group_choice import GroupChoice
from synicix_core.runner.group_run import GroupMember, Trained
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.patience import Patience
from synicix_core.runner.pulse import Pulse
from synicix_core.tables.queue import Claim, Problem, Queue
from synicix_core.tables.queue_ends import Committed, Given, GroupEnds

__all__ = ["GroupEndings"]


class GroupEndings:
    """Ends the claims of one group after another; see `synicix_core.runner.group_run.MemberEnds`.

    Parameters
    ----------
    queue : Queue
        Where claims are.
    endings : Endings
        Ends single claims, and tells whoever is to be told.
    patience : Patience
        Waits for the database.
    interrupted : Interruption
        Whether somebody asked the worker to stop.
    pulse : Pulse
        Keeps claims alive meanwhile.
    choice : GroupChoice
        Learns what goes together.
    accounted : callable
        Returns a context that makes a record of what goes wrong with a claim inside it.
    show : callable
        Takes a claim, a message of the executor and the epoch limit, for people and observers.
    """

    def __init__(
        self,
        queue: Queue,
        endings: Endings,
        patience: Patience,
        interrupted: Interruption,
        pulse: Pulse,
        choice: GroupChoice,
        accounted: Callable[[Claim], AbstractContextManager[None]],
        show: Callable[[Claim, dict[str, Any], int], None],
    ) -> None:
        self._queue = queue
        self._ends = GroupEnds(queue)
        self._endings = endings
        self._patience = patience
        self._interrupted = interrupted
        self._pulse = pulse
        self._choice = choice
        self._accounted = accounted
        self._show = show
        self._key = ""
        self._members: Sequence[GroupMember] = ()
        self._shrunk = False
        self._beat: Callable[[Sequence[Claim]], None] = self._beat_alone

    def begin(
        self, key: str, members: Sequence[GroupMember], beat: Callable[[Sequence[Claim]], None] | None = None
    ) -> None:
        """Take note of a group that begins, what its tasks have in common, and what keeps its claims, and others, alive."""
        self._key, self._members, self._shrunk = key, members, False
        self._beat = beat or self._beat_alone

    def over(self) -> None:
        """Take note that nobody attends to the group any more."""
        self._beat = self._beat_alone

    def tell(self, member: GroupMember, message: dict[str, Any]) -> bool:
        """Pass on an epoch, a checkpoint and the like; where that goes wrong it is the end of this member alone."""
        try:
            self._show(member.claim, message, int(member.row["epoch_limit"]))
        except DatabaseUnavailable:
            raise
        except Exception as error:
            with self._accounted(member.claim):
                self._endings.fail(member.claim, problem_of(error))
            return False
        return True

    def stopping(self) -> None:
        """Say that everything was asked to stop."""
        self._show(self._members[0].claim, {"type": "stopping"}, 0)

    def commit(self, trained: Sequence[Trained], beside: Sequence[Claim] = ()) -> None:
        """Commit results; those that do not go with the others are committed one by one.

        Parameters
        ----------
        trained : sequence of Trained
            The results.
        beside : sequence of Claim
            Other claims to keep alive meanwhile; those of a group that is trained are.
        """
        if len(trained) > 1:
            trained = self._commit_together(trained, beside)
        for index, one in enumerate(trained):
            with self._accounted(one.claim):
                self._endings.finish(one.claim, one.outcome, one.seconds)
            self._beat([*beside, *(other.claim for other in trained[index + 1 :])])

    def _commit_together(self, trained: Sequence[Trained], beside: Sequence[Claim]) -> list[Trained]:
        """Commit results in one transaction; return those whose rows cannot be written."""
        from synicix_core.training.spec import TaskOutcome

        left: dict[str, tuple[Trained, TaskOutcome, dict[str, Any]]] = {}
        for one in trained:
            with self._accounted(one.claim):
                result = TaskOutcome.from_wire(one.outcome)
                left[one.claim.task] = (one, result, self._endings.row_of(one.claim, result))
        bad: list[Trained] = []
        for pause in STORE_PAUSES:
            committed = self._commit([(one.claim, row) for one, _, row in left.values()])
            held = {task: left[task][0].claim for task in committed.failed}
            for task, (one, result, row) in left.items():
                if task in committed.failed:
                    continue
                with self._accounted(one.claim):
                    if task in committed.lost:
                        raise committed.lost[task]
                    self._endings.finished(one.claim, result, row, one.seconds)
                self._beat([*beside, *held.values()])
            bad += [left[task][0] for task, error in committed.failed.items() if not isinstance(error, OSError)]
            # A store that refuses one result refuses the others too: all of them wait for it together.
            stored_later = {task: error for task, error in committed.failed.items() if isinstance(error, OSError)}
            left = {task: left[task] for task in stored_later}
            if not left:
                break
            if pause is not None:
                self._patience.sleep(pause)
                self._beat([*beside, *held.values()])
                continue
            for task, error in stored_later.items():
                claim = held.pop(task)
                with self._accounted(claim):
                    self._endings.fail(claim, problem_of(refused(error)))
                self._beat([*beside, *held.values()])
        return bad

    def stopped(self, members: Sequence[tuple[GroupMember, dict[str, Any]]]) -> None:
        """Give back members that stopped and saved a checkpoint."""
        epochs = {member.claim.task: int(message["epoch"]) for member, message in members}
        can = {member.claim.task: bool(message["can_checkpoint"]) for member, message in members}
        self.give_back([member for member, _ in members], epochs, can_checkpoint=can)

    def failed(self, member: GroupMember, message: dict[str, Any]) -> None:
        """End a member in its own error; one that ran out of memory with the others is trained by itself."""
        problem = Problem(message["error"], message["stack"], message["kind"], message["cause"])
        with self._accounted(member.claim):
            if self._interrupted():
                # What goes wrong after a signal went to every process of a job is no error of the task's.
                self._endings.release(member.claim, trained=True)
            elif problem.kind == "out_of_memory" and len(self._members) > 1:
                self.give_back([member], {}, problem, of=len(self._members))
                self._shrink(problem)
            else:
                self._endings.fail(member.claim, problem, can_split=message["can_split"])

    def not_together(self, member: GroupMember, reason: str) -> None:
        """Give back a member that cannot be trained with the others, and keep it apart from now on."""
        first = self._members[0] if member is not self._members[0] else self._members[-1]
        self._choice.separate(member.claim.task, member.row, first.row)
        with self._accounted(member.claim):
            self._endings.release(
                member.claim, f"it is not trained with the others ({reason.rstrip('.')}); it is pending again"
            )

    def lost(self, member: GroupMember, error: ClaimLost) -> None:
        """Account for a member whose claim was taken away."""
        self._endings.lose(member.claim, error)

    def discarded(self, member: GroupMember) -> None:
        """Remove what was trained for a member that had been ended before."""
        self._endings.discard(member.claim)

    def died(self, members: Sequence[GroupMember], problem: Problem, epochs: Mapping[str, int]) -> None:
        """Account for members that were trained when the executor died, hung, or gave the whole group up.

        One of them may be to blame, the others are not: they are trained by themselves, which tells. The last one that was
        left of a group was trained by itself.
        """
        if len(members) == 1:
            with self._accounted(members[0].claim):
                self._endings.fail(members[0].claim, problem, can_split=problem.kind == "out_of_memory")
            return
        self.give_back(members, epochs, problem, of=len(members))
        self._shrink(problem)

    def give_back(
        self,
        members: Sequence[GroupMember],
        epochs: Mapping[str, int],
        problem: Problem | None = None,
        *,
        of: int = 1,
        can_checkpoint: Mapping[str, bool] | None = None,
    ) -> None:
        """Give claims back in one transaction.

        Parameters
        ----------
        members : sequence of GroupMember
            Whose.
        epochs : mapping of str to int
            By task, how far it came, where that is known.
        problem : Problem, optional
            Why, if it was not wanted.
        of : int
            How many tasks were trained together then.
        can_checkpoint : mapping of str to bool, optional
            By task, whether its trainer saves checkpoints, where that is known.
        """
        if not members:
            return
        given = [
            Given(member.claim, self._endings.checkpoint_of(member.claim), epochs.get(member.claim.task))
            for member in members
        ]
        lost = self._release(given, None if problem is None else _apart(problem, of))
        why = "it is pending again"
        if problem is not None:
            why = f"{problem.message.rstrip('.')}; {why}, to be trained by itself"
        for one in given:
            task = one.claim.task
            if task in lost:
                self._endings.lose(one.claim, lost[task])
            else:
                can = (can_checkpoint or {}).get(task)
                self._endings.released(one.claim, one.checkpoint, why, trained=True, can_checkpoint=can)

    def _beat_alone(self, claims: Sequence[Claim]) -> None:
        # Whoever ends one of them sees that it is lost.
        self._pulse.beat_all_if_due(claims, {})

    def _commit(self, results: Sequence[tuple[Claim, dict[str, Any]]]) -> Committed:
        try:
            return self._patience(lambda: self._ends.commit(results))
        except DatabaseUnavailable:
            raise
        except Exception as error:  # not that of one row; what it is shows when each is committed by itself
            return Committed(failed={claim.task: error for claim, _ in results})

    def _release(self, given: Sequence[Given], problem: Problem | None) -> dict[str, ClaimLost]:
        tries = 0

        def write_once_more() -> dict[str, ClaimLost]:
            nonlocal tries
            tries += 1
            lost = self._ends.release(given, problem)
            if tries > 1:
                # What the database wrote without an answer is not lost.
                claims = {one.claim.task: one.claim for one in given}
                lost = {
                    task: error for task, error in lost.items() if not self._queue.has_ended(claims[task], "released")
                }
            return lost

        return self._patience(write_once_more)

    def _shrink(self, problem: Problem) -> None:
        if not self._shrunk:
            self._shrunk = True
            self._choice.shrink(self._key, self._members[0].claim.task, len(self._members), problem.message)


def _apart(problem: Problem, number: int) -> Problem:
    """Describe the end of a group for one of its members, which it says nothing about."""
    message = f"{number} tasks were trained together: {problem.message}"
    return Problem(message, problem.stack, "group", problem.cause)
