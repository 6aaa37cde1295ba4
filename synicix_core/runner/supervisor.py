"""The supervisor: claims tasks, has an executor train them, and commits what comes of them. It never imports torch."""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from traceback import format_exc
from typing import Any, TypeVar

from synicix_core.database import ensure_connected
from synicix_core.errors import ClaimLost, DatabaseUnavailable, DatasetMissing, SynicixError
from synicix_core.events import CheckpointSaved, EpochFinished, TaskFailed, TaskFinished, TaskStarted
from synicix_core.registry import Registry
from synicix_core.runner.capability import find_exclusions
from synicix_core.runner.dataset_cache import DatasetCache
from synicix_core.runner.display import Silent, WorkerDisplay
from synicix_core.runner.executor_process import ExecutorProcess
from synicix_core.runner.interruption import Interruption
from synicix_core.runner.observers import Observers
from synicix_core.runner.preflight import prove_writable
from synicix_core.settings import Settings
from synicix_core.tables.code_digest import code_digest
from synicix_core.tables.queue import Claim, Exclusions, Queue
from synicix_core.tables.schema import Tables
from synicix_core.training.task_specs import checkpoint_path, make_spec, model_path

__all__ = ["EXIT_DONE", "EXIT_INTERRUPTED", "EXIT_MISCONFIGURED", "Supervisor", "WorkerOptions", "WorkerSummary"]

EXIT_DONE = 0
EXIT_INTERRUPTED = 75
EXIT_MISCONFIGURED = 78

_LOOK_SECONDS = 0.5
_REFRESH_SECONDS = 60.0
_COUNT_SECONDS = 2.0
_STORE_PAUSES = (0.1, 0.5, 2.0, 5.0, None)

T = TypeVar("T")


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is asked to do.

    Attributes
    ----------
    restriction : str
        SQL of a query that yields the md5s of the tasks to choose from; empty for all.
    order : {"original", "random"}
        In which order tasks are claimed.
    device : str
        As torch names it, or ``auto``.
    max_tasks, max_seconds : int, float or None
        When to stop although work is left.
    project_commit : str
        git commit of the project, for the provenance.
    """

    restriction: str = ""
    order: str = "original"
    device: str = "auto"
    max_tasks: int | None = None
    max_seconds: float | None = None
    project_commit: str = ""


@dataclass
class WorkerSummary:
    """What a worker did, and how it ended.

    Attributes
    ----------
    success_count : int
        Results that it committed.
    error_list : list of (key, message)
        Tasks that ended in an error.
    exit_code : int
        0: nothing pending now or later, or `max_tasks` reached. 75: interrupted with work left. 78: the configuration is
        broken.
    reason : str
        The same in words.
    """

    success_count: int = 0
    error_list: list[tuple[dict[str, str], str]] = field(default_factory=list)
    exit_code: int = EXIT_DONE
    reason: str = ""


@dataclass(frozen=True)
class _Trained:
    """A task that the executor is through with, not committed yet."""

    claim: Claim
    outcome: dict[str, Any]
    seconds: float


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
        self._display: WorkerDisplay = display or Silent()
        self._observers = Observers(registry)
        self._cache = DatasetCache(settings)
        self._interrupted = Interruption()
        self._executor: ExecutorProcess | None = None
        self._exclusions = Exclusions()
        self._reasons: list[str] = []
        self._refreshed = float("-inf")
        # Joining the headings costs more than the query, so it is done once.
        self._tasks = tables.TrainingTask * tables.DatasetConfig * tables.ModelConfig * tables.TrainingConfig
        self._trained: _Trained | None = None
        self._pending = 0
        self._counted = float("-inf")
        self._summary = WorkerSummary()

    def run(self) -> WorkerSummary:
        """Train until nothing is pending, a limit is reached or a signal comes.

        Raises
        ------
        ConfigurationError
            If this machine cannot train: something is not writable, the device is missing.
        """
        started = time.monotonic()
        with self._interrupted.handled(self._kill_executor):
            try:
                prove_writable(self._settings, self._tables.connection)
                self._summary.exit_code, self._summary.reason = self._work(started)
            except DatabaseUnavailable as error:
                self._summary.exit_code, self._summary.reason = EXIT_INTERRUPTED, str(error)
                self._trained = None
            finally:
                self._kill_executor()
                try:
                    self._settle()  # an error of ours must not cost a result that is there
                finally:
                    self._display.close()
        return self._summary

    def _work(self, started: float) -> tuple[int, str]:
        self._refresh()
        while True:
            limit = self._limit(started)
            claim = self._database(self._claim) if limit is None and self._is_ready() else None
            if claim is not None:
                self._train(claim)
                continue
            if self._settle():
                continue  # how it ended may change both the limit and what is pending
            if limit is not None:
                return limit
            pending, due = self._database(lambda: self._queue.waiting(self._options.restriction, self._exclusions))
            if not pending:
                if self._refresh():
                    continue
                return self._nothing_left()
            if due is not None and due > 0:
                self._sleep(min(due, _REFRESH_SECONDS))
            elif self._is_ready():
                self._sleep(0.05)  # another worker was faster; its claim shows at the next look
            else:
                self._start_executor()

    def _limit(self, started: float) -> tuple[int, str] | None:
        """Return the exit code and its reason if it is time to stop."""
        if self._interrupted():
            return EXIT_INTERRUPTED, "interrupted by a signal"
        done = self._summary.success_count + len(self._summary.error_list) + (self._trained is not None)
        if self._options.max_tasks is not None and done >= self._options.max_tasks:
            return EXIT_DONE, "as many tasks as asked for are done"
        if self._options.max_seconds is not None and time.monotonic() - started >= self._options.max_seconds:
            pending, _ = self._database(lambda: self._queue.waiting(self._options.restriction))
            return (EXIT_INTERRUPTED if pending else EXIT_DONE), "the time is up"
        return None

    def _refresh(self) -> bool:
        """Queue new tasks, take back lost claims and look at the plugins again; at most once a minute.

        Returns
        -------
        bool
            Whether it was done, so that another look is worth while.
        """
        if time.monotonic() - self._refreshed < _REFRESH_SECONDS:
            return False
        self._refreshed = time.monotonic()
        self._database(lambda: self._queue.recover(self._times.lease_seconds, self._times.max_attempts))
        self._database(self._queue.enqueue)
        found, self._reasons = self._database(lambda: find_exclusions(self._tables, self._registry))
        self._exclusions = replace(found, dataset_configs=self._exclusions.dataset_configs)
        return True

    def _nothing_left(self) -> tuple[int, str]:
        blocked, _ = self._database(lambda: self._queue.waiting(self._options.restriction))
        if not blocked:
            return EXIT_DONE, "nothing is pending" + (" that meets the condition" if self._options.restriction else "")
        for reason in self._reasons:
            self._display.message(reason)
        if self._summary.success_count:
            return EXIT_DONE, f"{_tasks(blocked)} left that this worker cannot train"
        return EXIT_MISCONFIGURED, f"{_tasks(blocked)} pending, but none that this worker can train"

    def _claim(self) -> Claim | None:
        assert self._executor is not None
        return self._queue.claim(
            self.worker,
            platform.node(),
            os.getpid(),
            self._executor.device,
            restriction=self._options.restriction,
            exclusions=self._exclusions,
            order=self._options.order,
        )

    def _train(self, claim: Claim) -> None:
        """Take one claim to its end: a result to commit, an error, a release, or the news that it was lost."""
        begun = time.monotonic()
        with self._accounted(claim):
            row = self._database((self._tasks & claim.key).fetch1)
            # The executor need not wait for the last task's commit, unless preparing this one takes long.
            at_once = self._cache.is_at_hand(row["dataset_file_name"], row["dataset_file_sha256"])
            if not at_once:
                self._announce(claim, row)
            path = self._cache.fetch(row["dataset_file_name"], row["dataset_file_sha256"])
            assert self._executor is not None
            spec = make_spec(
                row,
                self._settings,
                path,
                attempt=claim.attempt,
                device=self._executor.device,
                project_commit=self._options.project_commit,
            )
            sent = self._send(self._executor, spec.to_wire())
            if at_once:
                self._announce(claim, row)
            end = self._attend(claim, int(row["epoch_limit"])) if sent else self._buried(self._executor)
            if end["type"] == "done":
                self._trained = _Trained(claim, end["outcome"], time.monotonic() - begun)
            elif end["type"] == "interrupted":
                self._release(claim)
            elif end["type"] == "died":
                self._fail_after_death(claim, end["error"])
            else:
                self._fail(claim, end["error"], end["stack"])

    def _settle(self) -> bool:
        """Commit the task that was trained last, if that is still to do; tell whether it was.

        Put off until the executor has its next task, so that it trains while this process and the database are busy.
        """
        trained, self._trained = self._trained, None
        if trained is None:
            return False
        with self._accounted(trained.claim):
            self._finish(trained.claim, trained.outcome, trained.seconds)
        return True

    @contextmanager
    def _accounted(self, claim: Claim) -> Iterator[None]:
        """Make a record of what goes wrong with a claim; only a database that stays away ends the worker."""
        try:
            yield
        except DatabaseUnavailable:
            raise
        except ClaimLost as error:
            self._display.task_ended(claim.task, "lost", str(error))
        except DatasetMissing as error:  # another machine may have the file
            self._leave_dataset(claim, str(error))
        except Exception as error:  # a store that is full, a row that was deleted: this task's end, not the worker's
            known = isinstance(error, SynicixError)
            try:
                self._fail(
                    claim, str(error) if known else f"{type(error).__name__}: {error}", "" if known else format_exc()
                )
            except ClaimLost as lost:
                self._display.task_ended(claim.task, "lost", str(lost))

    def _announce(self, claim: Claim, row: dict[str, Any]) -> None:
        """Tell that a task begins, after everything that there is to tell of the one before."""
        self._settle()
        self._observers.start_task()
        self._display.task_started(claim.task, row, claim.attempt, self._count_pending() + 1)
        event = TaskStarted(
            **self._whose(claim),
            device=self._executor.device if self._executor else self._options.device,
            dataset={name: row[name] for name in self._tables.DatasetConfig.heading.names},
            model={name: row[name] for name in self._tables.ModelConfig.heading.names},
            training={name: row[name] for name in self._tables.TrainingConfig.heading.names},
        )
        self._observers.notify("synicix_task_started", event)

    def _count_pending(self) -> int:
        """Return how many tasks are pending: counted now and then, since that reads the whole queue, else counted down."""
        self._pending = max(self._pending - 1, 0)
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._pending, _ = self._database(lambda: self._queue.waiting(self._options.restriction, self._exclusions))
            self._counted = time.monotonic()
        return self._pending

    def _send(self, executor: ExecutorProcess, spec: dict[str, Any]) -> bool:
        """Send a task to the executor; False if it is gone."""
        try:
            executor.channel.send({"type": "task", "spec": spec})
        except BrokenPipeError:
            return False
        return True

    def _attend(self, claim: Claim, epoch_limit: int) -> dict[str, Any]:
        """Stay with a task that the executor has until it ends, with heartbeats; return the executor's last message."""
        executor = self._executor
        assert executor is not None
        progress: dict[str, Any] = {}
        heard = beaten = time.monotonic()
        deadline: float | None = None
        while True:
            messages = executor.channel.receive(_LOOK_SECONDS)
            if messages is None:
                return self._buried(executor)
            now = time.monotonic()
            heard = now if messages else heard
            for message in messages:
                if message["type"] == "epoch":
                    progress = message
                    self._tell_epoch(claim, message, epoch_limit)
                elif message["type"] == "checkpoint":
                    saved = CheckpointSaved(**self._whose(claim), path=message["path"], epoch=message["epoch"])
                    self._observers.notify("synicix_checkpoint_saved", saved)
                elif message["type"] != "progress":
                    return message
            if now - beaten >= self._times.heartbeat_seconds:
                beaten = now
                self._heartbeat(claim, progress)
            if self._interrupted() and deadline is None:
                deadline = now + self._times.grace_seconds
                with suppress(BrokenPipeError):  # that it is gone shows at the next look
                    executor.channel.send({"type": "stop"})
            if deadline is not None and now >= deadline:
                self._kill_executor()
                return {"type": "interrupted"}
            if now - heard > self._times.stall_timeout_seconds:
                self._kill_executor()
                return {
                    "type": "died",
                    "error": f"no progress for {self._times.stall_timeout_seconds:.0f} s; the executor hung",
                }

    def _heartbeat(self, claim: Claim, progress: dict[str, Any]) -> None:
        """Beat once; a database that is away for a while does not stop the training."""
        try:
            ensure_connected(self._tables.connection)
            alive = self._queue.heartbeat(claim, progress)
        except DatabaseUnavailable as error:
            self._display.message(f"{error} Training goes on.")
            return
        if not alive:
            self._kill_executor()
            raise ClaimLost(
                "this worker no longer holds its claim", where=f"task {claim.task}", why="it was taken for lost"
            )

    def _tell_epoch(self, claim: Claim, message: dict[str, Any], epoch_limit: int) -> None:
        fields = {"epoch_limit": epoch_limit, **{key: value for key, value in message.items() if key != "type"}}
        self._display.epoch_finished(claim.task, fields)
        self._observers.notify("synicix_epoch_finished", EpochFinished(**self._whose(claim), **fields))

    def _finish(self, claim: Claim, outcome: dict[str, Any], seconds: float) -> None:
        from synicix_core.training.spec import TaskOutcome

        result = TaskOutcome.from_wire(outcome)
        row = {
            "test_score": result.test_score,
            "status": result.status,
            "scores": result.metrics,
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "training_epoch_loss_history": result.training_epoch_loss_history,
            "validation_epoch_loss_history": result.validation_epoch_loss_history,
            "regularization_loss_history": result.regularization_loss_history,
            "model_class_params_history": result.model_class_params_history,
            "model_save_path": model_path(claim.task, claim.attempt),
            "model_sha256": result.model_sha256,
            "train_seconds": result.train_seconds,
            "code_sha256": code_digest(result.provenance["providers"]),
            "provenance": {**result.provenance, "notes": list(result.notes)},
        }
        self._database(lambda: self._commit(claim, row))
        self._summary.success_count += 1
        (self._settings.model_save_dir / checkpoint_path(claim.task, claim.attempt)).unlink(missing_ok=True)
        for note in result.notes:
            self._display.message(note)
        self._display.task_finished(claim.task, row, seconds)
        event = TaskFinished(
            **self._whose(claim),
            status=result.status,
            test_score=result.test_score,
            metrics=result.metrics,
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            model_path=str(self._settings.model_save_dir / row["model_save_path"]),
            train_seconds=result.train_seconds,
        )
        self._observers.notify("synicix_task_finished", event)

    def _commit(self, claim: Claim, row: dict[str, Any]) -> None:
        for pause in _STORE_PAUSES:
            try:
                self._queue.commit(claim, row)
                return
            except ClaimLost:
                # A connection lost during COMMIT leaves open whether it took effect; the row tells.
                if not len(self._tables.TrainingResult & {**claim.key, "by_attempt": claim.attempt}):
                    raise
                return
            except OSError as error:
                # Writers of equal histories get into each other's way in a file store, and network disks have hiccups.
                if pause is None:
                    raise SynicixError(
                        "the result cannot be stored", why=error.strerror or str(error), hint="Run: synicix-run doctor"
                    ) from error
                self._sleep(pause)

    def _leave_dataset(self, claim: Claim, why: str) -> None:
        """Give a task back whose dataset file is not here, and claim no other of the same dataset config."""
        config = (self._tables.TrainingTask & claim.key).fetch1("dataset_config_md5_hash")
        self._exclusions = replace(self._exclusions, dataset_configs=(*self._exclusions.dataset_configs, config))
        self._database(lambda: self._queue.release(claim))
        self._display.task_ended(claim.task, "released", why)

    def _release(self, claim: Claim) -> None:
        checkpoint = checkpoint_path(claim.task, claim.attempt)
        saved = (self._settings.model_save_dir / checkpoint).exists()
        self._database(lambda: self._queue.release(claim, checkpoint if saved else None))
        self._display.task_ended(
            claim.task, "released", "it is pending again" + (", with a checkpoint" if saved else "")
        )

    def _fail(self, claim: Claim, error: str, stack: str) -> None:
        self._database(lambda: self._queue.fail(claim, error, stack))
        self._note_failure(claim, error, stack)
        self._summary.error_list.append((claim.key, error))

    def _fail_after_death(self, claim: Claim, error: str) -> None:
        """Try a task again whose executor died, later each time, until it has had its attempts."""
        failed = self._database(lambda: self._queue.attempts_ended(claim.task, "failed", "lost")) + 1
        if failed >= self._times.max_attempts:
            self._fail(claim, error, "")
            return
        delay = self._times.retry_seconds * 2 ** (failed - 1)
        self._database(lambda: self._queue.retry_later(claim, error, "", delay))
        self._note_failure(claim, f"{error}; it is tried again in {delay:.0f} s", "")

    def _note_failure(self, claim: Claim, error: str, stack: str) -> None:
        self._display.task_ended(claim.task, "failed", error)
        self._observers.notify("synicix_task_failed", TaskFailed(**self._whose(claim), error=error, error_stack=stack))

    def _whose(self, claim: Claim) -> dict[str, Any]:
        return {"task": claim.task, "attempt": claim.attempt, "worker": self.worker}

    def _is_ready(self) -> bool:
        return self._executor is not None and self._executor.alive

    def _start_executor(self) -> None:
        """Start an executor and wait until it is ready; a signal ends the waiting and its life."""
        self._kill_executor()
        self._executor = ExecutorProcess(self._options.device, self._times.threads)
        if not self._executor.wait_ready(self._interrupted):
            self._kill_executor()
            return
        note = "no GPU was found; training runs on the CPU" if self._executor.device == "cpu" else ""
        description = f"{self._executor.device} ({self._executor.description})"
        if self._options.device == "auto" and note:
            self._display.message(note)
        else:
            self._display.message(f"training runs on {description}")

    def _buried(self, executor: ExecutorProcess) -> dict[str, Any]:
        death = executor.death()
        self._kill_executor()
        return {"type": "died", "error": f"the executor died: {death}"}

    def _kill_executor(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._interrupted() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def _database(self, action: Callable[[], T]) -> T:
        """Do something in the database, again and again while it is away, for as long as the settings allow."""
        deadline = time.monotonic() + self._times.db_timeout_seconds
        pause = 0.5
        told = False
        while True:
            try:
                return action()
            except DatabaseUnavailable as error:
                if time.monotonic() + pause > deadline or self._interrupted():
                    raise
                if not told:
                    self._display.message(f"{error} It is tried again for {self._times.db_timeout_seconds:.0f} s.")
                    told = True
                self._sleep(pause)
                pause = min(pause * 2, 15.0)
                self._reconnect()

    def _reconnect(self) -> None:
        try:
            ensure_connected(self._tables.connection)
        except DatabaseUnavailable:
            return


def _tasks(count: int) -> str:
    return "1 task is" if count == 1 else f"{count} tasks are"
