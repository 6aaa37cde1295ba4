"""The supervisor: claims tasks, has an executor train them, and commits what comes of them. It never imports torch."""

from __future__ import annotations

import os
import platform
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from synicix_core.errors import ClaimLost, DatabaseUnavailable, DatasetMissing
from synicix_core.registry import Registry
from synicix_core.runner import process
from synicix_core.runner.attendance import Attendance, Ended
from synicix_core.runner.capability import find_exclusions
from synicix_core.runner.dataset_cache import DatasetCache
from synicix_core.runner.display import Dependable, Silent, WorkerDisplay
from synicix_core.runner.endings import Endings, problem_of
from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.group_display import GroupDisplay
from synicix_core.runner.group_run import GroupMember, Trained
from synicix_core.runner.group_worker import GroupWorker, NotBegun
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.news import News
from synicix_core.runner.observers import Observers
from synicix_core.runner.options import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_MISCONFIGURED,
    WorkerOptions,
    WorkerSummary,
)
from synicix_core.runner.patience import Patience
from synicix_core.runner.preflight import prove_writable
from synicix_core.runner.preparation import Preparation
from synicix_core.runner.pulse import Pulse
from synicix_core.settings import Settings
from synicix_core.tables.privileges import prove_permitted
from synicix_core.tables.queue import Claim, Exclusions, Queue
from synicix_core.tables.recovery import recover
from synicix_core.tables.schema import Tables
from synicix_core.training.spec import TaskSpec
from synicix_core.training.task_specs import make_spec

__all__ = ["EXIT_DONE", "EXIT_INTERRUPTED", "EXIT_MISCONFIGURED", "Supervisor", "WorkerOptions", "WorkerSummary"]

_REFRESH_SECONDS = 60.0
_RECOVER_SECONDS = 5.0
_WAIT_SECONDS, _LONG_WAIT_SECONDS = (0.5, 2.0), (5.0, 15.0)
_SOON_SECONDS = 60.0
"""A worker that waits for tasks looks often for so long, and then more rarely: a thousand of them would keep a server busy."""
_COUNTED = 10_000
"""No further than this are pending tasks counted for people who watch."""
_QUIET_SECONDS = 2.0
"""So long it is not told of a task that its dataset is being prepared."""
_MICRO_BATCHES = 4
"""Parts of a batch, once a whole one did not fit into memory."""


class Supervisor:
    """One worker.

    Parameters
    ----------
    tables : Tables
        Bound to the worker's one connection.
    registry : Registry
        The plugins of this machine.
    settings : Settings
        Directories and the worker's times.
    options : WorkerOptions
        What to do.
    display : WorkerDisplay, optional
        Who shows it.
    """

    def __init__(
        self,
        tables: Tables,
        registry: Registry,
        settings: Settings,
        options: WorkerOptions,
        display: WorkerDisplay | None = None,
    ) -> None:
        self.worker = uuid.uuid4().hex
        self._tables = tables
        self._queue = Queue(tables)
        self._registry = registry
        self._settings = settings
        self._times = settings.worker
        self._options = options
        self._display = GroupDisplay(Dependable(display or Silent()))
        self._summary = WorkerSummary()
        self._observers = Observers(registry)
        self._cache = DatasetCache(settings, self._display.message)
        self._interrupted = Interruption(self._times.grace_seconds, exits=options.owns_process)
        self._database = Patience(tables.connection, self._times.db_timeout_seconds, self._interrupted, self._display)
        self._pulse = Pulse(self._queue, self._times.heartbeat_seconds, self._display, self._recover_while_training)
        self._endings = Endings(
            self._queue, settings, self._database, self._observers, self._display, self._summary, options.returned
        )
        self._process = process.name_of()
        self._executor: ExecutorProcess | None = None
        self._exclusions = Exclusions()
        self._reasons: list[str] = []
        self._refreshed = self._recovered = float("-inf")
        self._last_busy = time.monotonic()
        # Joining the headings costs more than the query, so it is done once.
        self._tasks = tables.TrainingTask * tables.DatasetConfig * tables.ModelConfig * tables.TrainingConfig
        self._trained: list[Trained] = []
        self._preparation = Preparation()
        self._profile = options.profile
        self._news = News(tables, self._observers, self._display, self._count_pending)
        self._groups = GroupWorker(
            self._queue,
            self._times,
            options,
            worker=self.worker,
            process=self._process,
            database=self._database,
            interrupted=self._interrupted,
            pulse=self._pulse,
            endings=self._endings,
            news=self._news,
            display=self._display,
            accounted=self._accounted,
        )

    def run(self) -> WorkerSummary:
        """Train until nothing is pending, a limit is reached or a signal comes.

        Raises
        ------
        ConfigurationError
            If this machine cannot train: something is not writable, the user may not write rows, the device is missing.
        """
        started = time.monotonic()
        with self._interrupted.handled(self._ask_to_stop, self._kill_executor):
            try:
                prove_writable(self._settings, self._tables.connection)
                self._database(lambda: prove_permitted(self._tables))
                self._summary.exit_code, self._summary.reason = self._work(started)
            except DatabaseUnavailable as error:
                self._summary.exit_code, self._summary.reason = EXIT_INTERRUPTED, str(error)
                self._trained = []
            finally:
                self._close_executor()
                try:
                    self._settle()  # an error of ours must not cost a result that is there
                finally:
                    self._cache.close()
                    self._display.close()
        return self._summary

    def _work(self, started: float) -> tuple[int, str]:
        self._look_at_plugins()
        while True:
            self._recover_between_tasks()
            limit = self._limit(started)
            claim = self._claim() if limit is None and self._is_ready() else None
            if claim is not None:
                self._train(claim)
                self._last_busy = time.monotonic()
                continue
            if self._settle():
                continue  # how it ended may change both the limit and what is pending
            if limit is not None:
                return limit
            due = self._database(lambda: self._queue.next_due(self._options.restriction, self._exclusions))
            if due is None:
                if self._refresh():
                    continue
                if not self._options.wait:
                    return self._nothing_left()
                self._say_why_not()
                soon = time.monotonic() - self._last_busy < _SOON_SECONDS
                self._database.sleep(random.uniform(*(_WAIT_SECONDS if soon else _LONG_WAIT_SECONDS)))
            elif due > 0:
                self._database.sleep(min(due, _RECOVER_SECONDS))
            elif not self._may_start():
                return self._limit(started) or (EXIT_DONE, "as many tasks as asked for are done")
            elif self._is_ready():
                self._database.sleep(random.uniform(0.02, 0.1))  # another worker was faster; its claim shows soon
            else:
                self._start_executor()

    def _limit(self, started: float) -> tuple[int, str] | None:
        """Return the exit code and its reason if it is time to stop."""
        if self._interrupted():
            left = bool(self._trained) or self._is_work_left()
            return (EXIT_INTERRUPTED if left else EXIT_DONE), "interrupted by a signal"
        if self._tasks_allowed() == 0:
            return EXIT_DONE, "as many tasks as asked for are done"
        if self._options.max_seconds is not None and time.monotonic() - started >= self._options.max_seconds:
            return (EXIT_INTERRUPTED if self._is_work_left() else EXIT_DONE), "the time is up"
        return None

    def _tasks_allowed(self) -> int | None:
        """Return how many more tasks may be done; None is any number."""
        if self._options.max_tasks is None:
            return None
        done = self._summary.success_count + len(self._summary.error_list) + len(self._trained)
        return max(self._options.max_tasks - done, 0)

    def _is_work_left(self) -> bool:
        return bool(self._database(lambda: self._queue.waiting(self._options.restriction, limit=1)))

    def _refresh(self) -> bool:
        """Queue what was inserted past us, and look at the plugins again; at most once a minute.

        Returns
        -------
        bool
            Whether it was done, so that another look is worth while.
        """
        if time.monotonic() - self._refreshed < _REFRESH_SECONDS:
            return False
        self._refreshed = time.monotonic()
        self._database(self._queue.refresh)
        self._look_at_plugins()
        return True

    def _look_at_plugins(self) -> None:
        found, self._reasons = self._database(lambda: find_exclusions(self._tables, self._registry))
        self._exclusions = replace(found, dataset_configs=self._exclusions.dataset_configs)

    def _recover(self) -> None:
        """Take back the claims of workers that are gone."""
        self._recovered = time.monotonic()
        times, here = self._times, process.namespace()
        for claim in recover(
            self._queue, times.lease_seconds, times.max_attempts, namespace=here, is_gone=process.is_gone
        ):
            end = "ended in an error" if claim.final else "is pending again"
            self._display.message(f"{claim.task[:8]} {end}: its worker on {claim.host} was lost ({claim.why}).")

    def _recover_between_tasks(self) -> None:
        if time.monotonic() - self._recovered >= min(_RECOVER_SECONDS, self._times.lease_seconds / 4):
            self._database(self._recover)

    def _recover_while_training(self) -> None:
        """Do the same less often, since this worker cannot take what it frees, and leave it to others at any trouble."""
        if time.monotonic() - self._recovered >= self._times.lease_seconds / 4:
            try:
                self._recover()
            except DatabaseUnavailable:
                raise  # the heartbeat waits for it
            except Exception as error:
                self._display.message(f"Claims of lost workers are left to others for now: {error}")

    def _nothing_left(self) -> tuple[int, str]:
        blocked = self._database(lambda: self._queue.waiting(self._options.restriction))
        if not blocked:
            return EXIT_DONE, "nothing is pending" + (" that meets the condition" if self._options.restriction else "")
        self._say_why_not()
        if self._summary.success_count:
            return EXIT_DONE, f"{_tasks(blocked)} left that this worker cannot train"
        return EXIT_MISCONFIGURED, f"{_tasks(blocked)} pending, but none that this worker can train"

    def _say_why_not(self) -> None:
        if self._reasons and self._is_work_left():
            for reason in self._reasons:
                self._display.message(reason)

    def _may_start(self) -> bool:
        return self._options.may_start is None or self._options.may_start()

    def _claim(self) -> Claim | None:
        if not self._may_start():
            return None
        executor = self._executor
        assert executor is not None
        self._preparation = Preparation()
        with self._preparation.taking("database"):
            claim = self._database(
                lambda: self._queue.claim(
                    self.worker,
                    platform.node(),
                    os.getpid(),
                    executor.device,
                    process=self._process,
                    restriction=self._options.restriction,
                    exclusions=self._exclusions,
                    order=self._options.order,
                )
            )
        if claim is None and self._options.returned is not None:
            self._options.returned()
        self._pulse.start()
        return claim

    def _train(self, claim: Claim) -> None:
        """Take one claim to its end, or a group of them: a result to commit, an error, a release, or the news of a loss."""
        begun = time.monotonic()
        with self._accounted(claim):
            self._train_claimed(claim, begun)
        self._cache.release()

    def _train_claimed(self, claim: Claim, begun: float) -> None:
        with self._preparation.taking("database"):
            row = self._database((self._tasks & claim.key).fetch1)
        # The executor need not wait for the last task's commit, unless preparing this one takes long.
        at_once = self._cache.is_at_hand(row["dataset_file_name"], row["dataset_file_sha256"])
        first = GroupMember(claim, row)
        if not at_once:
            self._settle(claim)
        announced = False
        fetching = time.monotonic()

        def announce_first() -> None:
            nonlocal announced
            if not announced:
                announced = True
                self._announce(first)

        def tick() -> None:
            self._tick(claim)
            # Not before it is known with how many others it is trained, unless that takes long.
            if not at_once and time.monotonic() - fetching >= _QUIET_SECONDS:
                announce_first()

        with self._preparation.taking("data"):
            try:
                path = self._cache.fetch(row["dataset_file_name"], row["dataset_file_sha256"], tick=tick)
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    announce_first()  # what it ended in is told next
                raise
        executor = self._executor
        assert executor is not None
        allowed = self._tasks_allowed()

        def spec_to_plan() -> TaskSpec:
            self._preparation.discard()  # to try how many go together is no time of one of them
            return self._spec(first, path)

        with self._preparation.taking("database"):
            group = self._groups.gather(first, executor, spec_to_plan, lambda: self._settle(claim), allowed)
        try:
            specs = self._specs([first] if group is None else group.members, path, alone=group is None)
        except Exception as error:
            if group is None or isinstance(error, DatabaseUnavailable):
                raise
            self._groups.abandon(group, error)
            return

        def announce(members: Sequence[GroupMember], specs: Sequence[TaskSpec], tick: Callable[[], object]) -> None:
            if len(members) == 1:
                announce_first()
            else:
                self._settle(claim)
                self._news.group_started(members, executor.device, tick, told=(claim,) if announced else ())
            resumes = [any(Path(file).exists() for file in spec.resume_from) for spec in specs]
            self._news.where_they_start([member.claim for member in members], resumes)

        if group is None:
            self._train_one(first, specs[0], executor, lambda: announce([first], specs, lambda: None), begun)
        else:
            trained, usable = self._groups.train(group, specs, executor, announce, begun)
            self._trained += trained
            if not usable:
                self._close_executor()

    def _train_one(
        self,
        member: GroupMember,
        spec: TaskSpec,
        executor: ExecutorProcess,
        announce: Callable[[], None],
        begun: float,
    ) -> None:
        claim = member.claim
        attendance = Attendance(
            executor,
            claim,
            self._pulse,
            self._interrupted,
            self._times.stall_timeout_seconds,
            lambda message: self._news.tell(claim, message, spec.epoch_limit),
        )
        with suppress(BrokenPipeError):  # that it is gone shows at the first look
            executor.channel.send({"type": "task", "spec": spec.to_wire()})
        try:
            announce()
            ended = attendance.wait()
        except BaseException:
            # It still trains this task; what it says of it must not be taken for news of the next one.
            self._close_executor()
            raise
        self._note_end(claim, ended, begun)

    def _specs(self, members: Sequence[GroupMember], path: Path, *, alone: bool) -> list[TaskSpec]:
        micro_batches = self._micro_batches(members[0].claim) if alone else 1
        seconds = self._preparation.share(len(members))
        specs = [self._spec(member, path, micro_batches=micro_batches, seconds=seconds) for member in members]
        return [self._profiled(specs[0]), *specs[1:]]

    def _spec(
        self, member: GroupMember, path: Path, *, micro_batches: int = 1, seconds: dict[str, float] | None = None
    ) -> TaskSpec:
        assert self._executor is not None
        return make_spec(
            dict(member.row),
            self._settings,
            path,
            attempt=member.claim.attempt,
            device=self._executor.device,
            micro_batches=micro_batches,
            project_commit=self._options.project_commit,
            seconds_before=seconds,
        )

    def _profiled(self, spec: TaskSpec) -> TaskSpec:
        """Have the first task of this worker profiled, if that is wanted."""
        wanted, self._profile = self._profile, None
        if wanted is None:
            return spec
        file = wanted if wanted.suffix == ".json" else wanted / f"{spec.task}.{spec.attempt}.trace.json"
        return replace(spec, profile=str(file))

    def _note_end(self, claim: Claim, ended: Ended, begun: float) -> None:
        if not ended.executor_usable:
            self._close_executor()
        if ended.outcome is not None:
            self._trained.append(Trained(claim, ended.outcome, time.monotonic() - begun))
        elif ended.problem is None or self._interrupted():
            # What goes wrong after a signal went to every process of a job is no error of the task's.
            self._endings.release(claim, trained=True, can_checkpoint=ended.can_checkpoint, epochs=ended.epochs)
        else:
            self._endings.fail(claim, ended.problem, can_split=ended.can_split)

    def _settle(self, beside: Claim | None = None) -> bool:
        """Commit what was trained last, if that is still to do, and keep a claim alive meanwhile; tell whether it was.

        Put off until the executor has its next task, so that it trains while this process and the database are busy.
        """
        trained, self._trained = self._trained, []
        self._groups.commit(trained, () if beside is None else (beside,))
        return bool(trained)

    @contextmanager
    def _accounted(self, claim: Claim) -> Iterator[None]:
        """Make a record of what goes wrong with a claim; only a database that stays away ends the worker."""
        try:
            yield
        except DatabaseUnavailable:
            raise
        except ClaimLost as error:
            self._endings.lose(claim, error)
        except Exception as error:
            try:
                if isinstance(error, NotBegun):
                    self._endings.release(claim, str(error))
                elif isinstance(error, DatasetMissing):  # another machine may have the file
                    self._leave_dataset(claim, str(error))
                else:  # a store that is full, a row that was deleted: this task's end, not the worker's
                    self._endings.fail(claim, problem_of(error))
            except ClaimLost as lost:
                self._endings.lose(claim, lost)

    def _announce(self, member: GroupMember) -> None:
        """Tell that a task begins, after everything that there is to tell of the one before."""
        self._settle(member.claim)
        device = self._executor.device if self._executor else self._options.device
        self._news.started(member.claim, member.row, device)

    def _count_pending(self) -> int:
        return self._database(lambda: self._queue.waiting(self._options.restriction, self._exclusions, limit=_COUNTED))

    def _tick(self, claim: Claim) -> None:
        """Keep a claim alive while its dataset is prepared."""
        if self._interrupted():
            raise NotBegun("it is pending again")
        self._pulse.beat_if_due(claim, {})

    def _micro_batches(self, claim: Claim) -> int:
        if claim.attempt == 1:
            return 1
        return _MICRO_BATCHES if self._database(lambda: self._queue.tries(claim.task)).out_of_memory else 1

    def _leave_dataset(self, claim: Claim, why: str) -> None:
        """Give a task back whose dataset file is not here, and claim no other of the same dataset config."""
        config = (self._tables.TrainingTask & claim.key).fetch1("dataset_config_md5_hash")
        self._exclusions = replace(self._exclusions, dataset_configs=(*self._exclusions.dataset_configs, config))
        self._endings.release(claim, why)

    def _is_ready(self) -> bool:
        return self._executor is not None and self._executor.alive

    def _start_executor(self) -> None:
        """Start an executor and wait until it is ready; a signal ends the waiting and its life."""
        self._close_executor()
        self._executor = ExecutorProcess(self._options.device, self._times.threads, self._times.devices_per_task)
        if not self._executor.wait_ready(self._interrupted):
            self._close_executor()
            return
        note = "no GPU was found; training runs on the CPU" if self._executor.device == "cpu" else ""
        description = f"{self._executor.device} ({self._executor.description})"
        if self._options.device == "auto" and note:
            self._display.message(note)
        else:
            self._display.message(f"training runs on {description}")

    def _ask_to_stop(self) -> None:
        """Ask the executor at once; called in another thread, while this one may wait for the database."""
        if (executor := self._executor) is not None:
            Attendance.ask_to_stop(executor)

    def _kill_executor(self) -> None:
        """End the executor; called in another thread, so what belongs to it is left to this one."""
        if (executor := self._executor) is not None:
            executor.kill()

    def _close_executor(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()


def _tasks(count: int) -> str:
    return "1 task is" if count == 1 else f"{count} tasks are"
