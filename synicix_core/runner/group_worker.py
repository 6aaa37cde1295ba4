"""The part of a worker that is about groups: claim the siblings of a task, have them trained together, and end them all."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from synicix_core.errors import DatabaseUnavailable
from synicix_core.runner.endings import Endings, problem_of
from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.group_choice import GroupChoice, Siblings
from synicix_core.runner.group_display import GroupDisplay
from synicix_core.runner.group_endings import GroupEndings
from synicix_core.runner.group_messages import pack
from synicix_core.runner.group_plan import ask_for_plan
from synicix_core.runner.group_run import GroupEnd, GroupMember, GroupRun, Trained
from synicix_core.runner.group_words import several
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.news import News
from synicix_core.runner.options import WorkerOptions
from synicix_core.runner.patience import Patience
from synicix_core.runner.pulse import Pulse
from synicix_core.settings import WorkerSettings
from synicix_core.tables.queue import Claim, Problem, Queue
from synicix_core.tables.queue_groups import GroupQueue
from synicix_core.training.spec import TaskSpec

__all__ = ["Group", "GroupWorker", "NotBegun"]


class NotBegun(Exception):
    """A claimed task is not trained now after all: it is to be given back for the reason that this says."""


@dataclass(frozen=True)
class Group:
    """Tasks that are trained together, and what they have in common."""

    key: str
    members: Sequence[GroupMember]


class GroupWorker:
    """Trains groups with the means of one worker.

    Parameters
    ----------
    queue : Queue
        Where claims are.
    settings : WorkerSettings
        The worker's times, and whether it trains groups at all.
    options : WorkerOptions
        What the worker is asked to do.
    worker, process : str
        Its incarnation, and the name of its process.
    database : Patience
        Waits for the database.
    interrupted : Interruption
        Whether somebody asked the worker to stop.
    pulse : Pulse
        Keeps claims alive.
    endings : Endings
        Ends single claims.
    news : News
        Tells people and observers.
    display : GroupDisplay
        For people.
    accounted : callable
        Returns a context that makes a record of what goes wrong with a claim inside it.
    """

    def __init__(
        self,
        queue: Queue,
        settings: WorkerSettings,
        options: WorkerOptions,
        *,
        worker: str,
        process: str,
        database: Patience,
        interrupted: Interruption,
        pulse: Pulse,
        endings: Endings,
        news: News,
        display: GroupDisplay,
        accounted: Callable[[Claim], AbstractContextManager[None]],
    ) -> None:
        self._queue = GroupQueue(queue)
        self._settings = settings
        self._options = options
        self._worker = worker
        self._process = process
        self._database = database
        self._interrupted = interrupted
        self._pulse = pulse
        self._display = display
        self._overruled = (
            ""
            if settings.fuse in ("auto", "off") or settings.devices_per_task == 1
            else (
                f"--fuse {settings.fuse} has no effect: a task of {settings.devices_per_task} devices is trained by itself."
            )
        )
        size, lease_seconds = settings.group_size, settings.lease_seconds
        self._choice = GroupChoice(queue, size, lease_seconds, display, options.workers)
        self._ends = GroupEndings(queue, endings, database, interrupted, pulse, self._choice, accounted, news.tell)

    def gather(
        self,
        first: GroupMember,
        executor: ExecutorProcess,
        make_spec: Callable[[], TaskSpec],
        before_plan: Callable[[], object],
        allowed: int | None,
    ) -> Group | None:
        """Return a claimed task and the siblings that are claimed with it; None where it is trained by itself.

        Parameters
        ----------
        first : GroupMember
            The claimed task.
        executor : ExecutorProcess
            Asked how many go together, the first time that such a task is met.
        make_spec : callable
            Returns the specification of the task.
        before_plan : callable
            Called before that, which may take a while.
        allowed : int or None
            How many tasks the worker may train, this one included.

        Raises
        ------
        NotBegun
            If the executor did not survive the question, or somebody asked to stop meanwhile; it is closed then.
        ClaimLost
            If the claim was taken away meanwhile; the executor is closed then.
        """
        if self._overruled:
            self._display.message(self._overruled)
            self._overruled = ""
        siblings = self._find(first)
        if siblings is not None and self._choice.size(siblings.key) is None:
            if not self._choice.is_worth_a_trial(siblings):
                return None
            before_plan()
            self._plan(siblings.key, first, executor, make_spec())
            siblings = self._find(first)  # others may have claimed them meanwhile
        claimed = [] if siblings is None else self._claim(siblings, executor.device, allowed)
        if siblings is None or not claimed:
            return None
        if allowed is None and self._options.may_start_more is None:  # else somebody said how many there may be
            self._choice.note_size(siblings.key, first.claim.task, 1 + len(claimed))
        return Group(siblings.key, (first, *claimed))

    def train(
        self,
        group: Group,
        specs: Sequence[TaskSpec],
        executor: ExecutorProcess,
        announce: Callable[[Sequence[GroupMember], Sequence[TaskSpec], Callable[[], object]], None],
        begun: float,
    ) -> tuple[list[Trained], bool]:
        """Have a group trained, and end all claims but those of the results that came last.

        Parameters
        ----------
        group : Group
            The group.
        specs : sequence of TaskSpec
            Of its members, in their order.
        executor : ExecutorProcess
            Trains them.
        announce : callable
            Tells that they begin; its third argument is to be called again and again if that takes long.
        begun : float
            When it was claimed, by the monotonic clock.

        Returns
        -------
        trained : list of Trained
            To be committed.
        usable : bool
            Whether the executor can train something else.
        """
        stall_seconds = self._settings.stall_timeout_seconds
        run = GroupRun(executor, group.members, self._pulse, self._interrupted, stall_seconds, self._ends, begun)
        self._ends.begin(group.key, group.members, run.beat)
        try:
            with suppress(BrokenPipeError):  # that it is gone shows at the first look
                size = self._choice.size(group.key)
                executor.channel.send({"type": "group", "specs": pack(specs), "size": size})
            announce(group.members, specs, run.beat)  # observers may take their time, each for each member
            tasks = [member.claim.task for member in group.members]
            if news := self._choice.take_news(group.key):
                self._display.message(f"{several(tasks)} {news}.")
            end = run.wait()
        except BaseException as error:
            # It still trains the group.
            executor.close()
            if isinstance(error, DatabaseUnavailable) or not isinstance(error, Exception):
                raise
            end = run.abandoned(problem_of(error))
        finally:
            self._ends.over()
        self._account(end)
        self._display.flush()
        return run.trained, end.executor_usable

    def abandon(self, group: Group, error: Exception) -> None:
        """Give back a group that cannot be trained as one after all; its members are trained by themselves, which tells why."""
        self._display.watch(member.claim.task for member in group.members)
        self._ends.begin(group.key, group.members)
        self._ends.died(group.members, problem_of(error), {})
        self._display.flush()

    def commit(self, trained: Sequence[Trained], beside: Sequence[Claim] = ()) -> None:
        """Commit results, of groups and of single tasks, and keep other claims alive meanwhile."""
        self._ends.commit(trained, beside)

    def _find(self, first: GroupMember) -> Siblings | None:
        return self._database(lambda: self._choice.find(first.claim, first.row, self._options.restriction))

    def _plan(self, key: str, first: GroupMember, executor: ExecutorProcess, spec: TaskSpec) -> None:
        plan = ask_for_plan(
            executor,
            spec.to_wire(),
            self._choice.fixed_size,
            first.claim,
            self._pulse,
            self._interrupted,
            self._settings.stall_timeout_seconds,
        )
        if plan is None:
            raise NotBegun("it is pending again")
        self._choice.planned(key, first.claim.task, plan.size, plan.reason, plan.least)
        if not plan.executor_usable:
            raise NotBegun(f"{plan.reason.rstrip('.')}; it is pending again")

    def _claim(self, siblings: Siblings, device: str, allowed: int | None) -> list[GroupMember]:
        number = self._choice.number(siblings)
        if allowed is not None:
            number = min(number, allowed - 1)
        if number > 0 and self._options.may_start_more is not None:
            number = self._options.may_start_more(number)
        if number < 1:
            return []
        claims: list[Claim] = []
        try:
            claims = self._database(
                lambda: self._queue.claim(
                    list(siblings.rows),
                    number,
                    worker=self._worker,
                    host=platform.node(),
                    pid=os.getpid(),
                    device=device,
                    process=self._process,
                )
            )
        finally:
            if self._options.returned is not None:
                for _ in range(number - len(claims)):
                    self._options.returned()
        return [GroupMember(claim, siblings.rows[claim.task]) for claim in claims]

    def _account(self, end: GroupEnd) -> None:
        """End the claims of the members whose own end is not known."""
        if self._interrupted():
            # What goes wrong after a signal went to every process of a job is no error of the tasks'.
            self._ends.give_back(end.left, end.epochs)
        elif end.left:
            problem = end.problem or Problem("the executor did not say how the training ended", cause="silent")
            self._ends.died(end.left, problem, end.epochs)
