"""Train several tasks that are alike as one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from synicix_core.errors import SynicixError
from synicix_core.registry import Registry
from synicix_core.training.build import resolve_device
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.likeness import difference
from synicix_core.training.random_state import capture
from synicix_core.training.spec import TaskObserver, TaskOutcome, TaskSpec, TaskState
from synicix_core.training.stack import Stack
from synicix_core.training.stack_conditions import why_alone
from synicix_core.training.stack_probe import Finding, confirm, probe
from synicix_core.training.stacked_scores import stacked_scores
from synicix_core.training.task_run import TaskRun
from synicix_core.training.tiers import forget_tiers
from synicix_core.training.timing import CHECKPOINT, EVALUATION, Share, make_stopwatch
from synicix_core.training.torch_state import restored_torch_state
from synicix_core.training.training_profile import profiled
from synicix_core.training.training_run import TrainingRun

__all__ = ["GroupPlan", "Member", "NotTogether", "plan_group", "run_group"]

Ended = Callable[[int, "TaskOutcome | BaseException"], None]


class NotTogether(SynicixError):
    """A task cannot be trained with the others of its group; nothing was begun. `why` says the reason."""


@dataclass(frozen=True)
class GroupPlan:
    """How many tasks like one are to be trained together.

    Attributes
    ----------
    size : int
        1: each by itself.
    reason : str
        Why each by itself, or what is gained; where fewer are trained at a time than were wanted, why no more.
    least : int
        Fewer tasks than that are faster one by one.
    """

    size: int
    reason: str = ""
    least: int = 2


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


_findings: dict[str, Finding] = {}
"""What probes found in this process, by what the tasks have in common."""


def plan_group(spec: TaskSpec, registry: Registry, limit: int | None = None) -> GroupPlan:
    """Find out, by trying, how many tasks like `spec` are to be trained together.

    Parameters
    ----------
    spec : TaskSpec
        One of them.
    registry : Registry
        Where the providers are found.
    limit : int, optional
        So many are wanted, if it can be done at all. None: as many as are fastest, or one where nothing is gained.
    """
    finding = probe(spec, registry, limit, lambda: None)
    _findings[_in_common(spec)] = finding
    return GroupPlan(finding.size, finding.reason, finding.least)


def run_group(members: Sequence[Member], registry: Registry, *, size: int, ended: Ended) -> None:
    """Train the members, `size` at a time, as one.

    Parameters
    ----------
    members : sequence of Member
        Tasks of the same dataset, batch size, trainer, criterion, metrics and class of model and optimizer.
    registry : Registry
        Where the providers are found.
    size : int
        The most to be trained at a time.
    ended : callable
        Called as ``ended(index, how)`` as soon as a member has ended: with its outcome, `TrainingInterrupted`, `NotTogether`,
        or the error that it ended in.

    Raises
    ------
    Exception
        What goes wrong with all of them at once. Members of which nothing was told can be trained one by one, from their
        checkpoints.
    """
    for start in range(0, len(members), size):
        part = list(enumerate(members))[start : start + size]
        try:
            with restored_torch_state(), ExitStack() as ending:
                _Group(part, registry, ended, ending).train()
        except (MemoryError, torch.OutOfMemoryError):
            forget_tiers()
            raise


class _ShareOfTime:
    """A clock that counts for each member its share of the time that passes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked = time.monotonic()

    def __call__(self) -> float:
        return self.seconds

    def share(self, members: int) -> None:
        """Let the time since the last call count for so many."""
        now = time.monotonic()
        self.seconds += (now - self._looked) / max(members, 1)
        self._looked = now


class _Group:
    """The members that train at the same time."""

    def __init__(
        self, members: Sequence[tuple[int, Member]], registry: Registry, ended: Ended, ending: ExitStack
    ) -> None:
        self._ended = ended
        self._clock = _ShareOfTime()
        self._stopwatch = make_stopwatch(resolve_device(members[0][1].spec.device))
        self._observer = members[0][1].observer
        self._tasks: dict[TrainingRun, tuple[int, TaskRun]] = {}
        like = None
        for index, member in members:
            try:
                task = TaskRun(member.spec, registry, member.observer, member.state, Share(self._stopwatch), like)
                like = like or task
                ending.callback(task.close)
                task.prepare()
                if why := why_alone(task) or self._unlike(task):
                    raise NotTogether("the task is not trained with others", why=why)
            except Exception as error:
                ended(index, error)
                continue
            self._tasks[task.trainer.run] = index, task
        if not self._tasks:
            return
        spec = next(iter(self._tasks.values()))[1].spec
        common = _in_common(spec)
        if common not in _findings:
            _findings[common] = probe(spec, registry, max(len(self._tasks), 2), lambda: None)
        self._finding = _findings[common]
        reason = self._finding.reason if self._finding.size == 1 else self._unconfirmed()
        if reason:
            self._refuse(reason)

    def _unconfirmed(self) -> str:
        """Say why the first two are not as those that were tried, if their parameters are others."""
        tasks = [task for _, task in self._tasks.values()][:2]
        if all(task.spec.model.params == self._finding.params for task in tasks):
            return ""
        return confirm([task.trainer.run for task in tasks], self._finding.mode)

    def train(self) -> None:
        """Train until all have ended."""
        for run, (_, task) in list(self._tasks.items()):
            task.context.clock = self._clock
            task.context.start()
            try:
                run.begin()
            except Exception as error:
                self._leave(run, error)
                continue
            # Nothing of it draws from the generators of the process, so they stay for it what they are now.
            task.context.process_state = run.batches.process_state = capture({})
            task.context.group = task.how["fused"] = {
                "tasks": len(self._tasks),
                "exact": self._finding.exact,
                "mode": self._finding.mode,
            }
        self._share()
        if not self._tasks:
            return
        first = next(iter(self._tasks.values()))[1]
        with profiled(first.spec, self._stopwatch, first.device, self._observer):
            self._train_all()

    def _train_all(self) -> None:
        # Those that were interrupted at different batches of an epoch meet at its end.
        places = sorted({_place(run) for run in self._tasks})
        for place in places if len(places) > 1 else ():
            self._train([run for run in self._tasks if _place(run) == place], epochs=1)
        if self._tasks:
            self._train(list(self._tasks), epochs=None)

    def _train(self, runs: list[TrainingRun], epochs: int | None) -> None:
        """Train some of them as one until all have ended, or for so many epochs."""
        runs = self._end(runs)
        if not runs:
            return
        stack = Stack(runs, self._finding.mode, evaluates=self._finding.evaluates)
        try:
            while stack.runs and epochs != 0:
                stack.train_epoch(self._leave)
                if stack.is_compiled:
                    self._note_compiled(stack.runs)
                if stack.runs:
                    stack.finish_epoch(self._leave)
                self._share()
                stack.keep([run for run in stack.runs if run in self._tasks and not run.status])
                self._end(runs)
                epochs = None if epochs is None else epochs - 1
        finally:
            stack.release()

    def _note_compiled(self, runs: list[TrainingRun]) -> None:
        for run in runs:
            how = self._tasks[run][1].how
            how["compiled"] = True
            how["fused"]["exact"] = False  # compiled code for another number of tasks may round otherwise

    def _share(self) -> None:
        """Let the time since the last call count for all that are still there, the same for each."""
        self._clock.share(len(self._tasks))
        if self._tasks:
            self._stopwatch.deal([task.stopwatch for _, task in self._tasks.values()])

    def _end(self, runs: list[TrainingRun]) -> list[TrainingRun]:
        """Finish those that have come to their end; return those that have not."""
        over = [run for run in runs if run in self._tasks and run.status]
        tasks = [self._tasks[run][1] for run in over]
        for task in tasks:
            task.context.finish()
        scores = None
        self._stopwatch.switch(EVALUATION)
        if len(over) > 1 and self._finding.scores:
            try:
                scores = stacked_scores(tasks)
            except Exception:  # whose it is shows when each is scored by itself
                scores = None
        self._stopwatch.switch(CHECKPOINT)
        self._share()
        for k, run in enumerate(over):
            task = tasks[k]
            try:
                task.trainer.save()
                how: TaskOutcome | BaseException = task.finish(None if scores is None else scores[k])
            except (Exception, TrainingInterrupted) as error:
                how = error
            self._leave(run, how)
        left = [run for run in runs if run in self._tasks]
        if over and left:
            left[0].optimization.precision.apply()  # scores are computed in exact float32
        return left

    def _leave(self, run: TrainingRun, how: TaskOutcome | BaseException) -> None:
        index, task = self._tasks.pop(run)
        task.close()
        self._ended(index, how)

    def _unlike(self, task: TaskRun) -> str:
        for _, first in self._tasks.values():
            return difference(first.trainer.model, task.trainer.model)
        return ""

    def _refuse(self, reason: str) -> None:
        for run in list(self._tasks):
            self._leave(run, NotTogether("the task is not trained with others", why=reason))


def _place(run: TrainingRun) -> tuple[int, bool]:
    return run.step, run.step > 0 and run.batches.read_whole


def _in_common(spec: TaskSpec) -> str:
    """Return what tasks of one kind have in common, as text."""
    model: dict[str, Any] = {
        # What a model makes of a number may depend on its sign, and on whether it is there at all.
        name: ["a number", (value > 0) - (value < 0), value == 1.0] if isinstance(value, float) else value
        for name, value in spec.model.params.items()
    }
    trainer = {name: value for name, value in spec.trainer.params.items() if not name.startswith("early_stopping_")}
    return json.dumps(
        [
            [[part.provider, part.params] for part in (spec.dataset, spec.criterion)],
            [spec.trainer.provider, trainer],
            spec.dataset_path,
            [spec.model.provider, model],
            spec.optimizer.provider,
            spec.batch_size,
            spec.device,
        ],
        sort_keys=True,
    )
